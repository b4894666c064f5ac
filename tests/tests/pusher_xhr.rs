//! The HTTP fallback of pusher-js, request by request, on one node: streams, polls, what is sent, and hostile visitors.
//! (PUSHER §4)

use carillon_tasks::clock;
use carillon_tests::{
    gateway::{Gateway, PATIENCE},
    http::{self, Answer},
    listener::Listener,
    pusher::{App, FIRST, Frame, Line, NARROW, OFF, Socket, Xhr, alone, configuration, lines, socket_id},
    raw::eventually,
};
use serde_json::{Value, json};

const SUBSCRIBED: &str = "pusher_internal:subscription_succeeded";

fn frames(lines: Vec<Line>) -> Vec<Value> {
    let frames = lines.into_iter().map(|line| match line {
        Line::Frames(frames) => frames,
        Line::Open | Line::Alive => Vec::new(),
        Line::Closed(..) => panic!("{line:?}"),
    });
    frames.flatten().collect()
}

/// Polls until so many frames have come.
async fn poll_for(session: &Xhr, gateway: &Gateway, count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    while all.len() < count {
        let came = session.poll(gateway.public).await;
        assert_ne!(came, [Line::Alive], "nothing more comes after {all:?}");
        all.extend(frames(came));
    }
    all
}

/// Opens a stream, and takes its greeting.
async fn stream(session: &Xhr, gateway: &Gateway) -> (Listener, String) {
    let mut stream = session.stream(gateway.public).await;
    assert_eq!(stream.line_of_fallback().await, Some(Line::Open));
    let greeting = stream.line_of_fallback().await.expect("a greeting");
    (stream, socket_id(&greeting))
}

/// Waits until a session is known to nobody. What is sent meanwhile does not keep it.
async fn is_over(session: &Xhr, gateway: &Gateway) {
    let over = || async {
        let answer = session.send_body(gateway.public, "[]").await;
        match answer.status {
            404 => Some(()),
            204 => None,
            _ => panic!("{answer:?}"),
        }
    };
    eventually("the session is over", over).await;
}

fn closed(line: Option<Line>) -> u64 {
    let Some(Line::Closed(code, _)) = line else { panic!("{line:?}") };
    code
}

#[tokio::test]
async fn a_stream_begins_with_o_and_the_greeting() {
    let gateway = alone().await;
    let session = Xhr::new(&FIRST);
    let mut stream = Listener::connect(gateway.public).await;
    stream.send(session.request("xhr_streaming")).await;
    let head = stream.head().await;
    assert_eq!(head.status, 200);
    for (name, value) in [
        ("content-type", Some("application/javascript; charset=UTF-8")),
        ("cache-control", Some("no-store, no-transform")),
        ("x-accel-buffering", Some("no")),
        ("access-control-allow-origin", Some("*")),
        ("content-length", None),
        ("transfer-encoding", None),
    ] {
        assert_eq!(head.header(name), value, "{head:?}");
    }
    assert_eq!(stream.until("\n").await.as_deref(), Some("o"));
    let greeting = stream.until("\n").await.expect("a greeting");
    // One frame, as a string in an array.
    assert!(greeting.starts_with(r#"a["{\"event\":\"pusher:connection_established\","#), "{greeting}");
    assert!(socket_id(&Line::read(&greeting)).contains('.'), "{greeting}");
}

#[tokio::test]
async fn a_stream_brings_what_is_published_and_what_others_say() {
    let gateway = alone().await;
    let session = Xhr::new(&FIRST);
    let (mut stream, socket) = stream(&session, &gateway).await;
    let channel = "presence-xhr-stream";
    let mut other = Socket::open(gateway.public, &FIRST).await;
    other.join(channel, "ben").await;
    session.join(gateway.public, &socket, channel, "ana").await;
    let ack = stream.frame_of_fallback().await;
    assert_eq!((&ack["event"], &ack["channel"]), (&json!(SUBSCRIBED), &json!(channel)));
    assert_eq!(other.next().await.event, "pusher_internal:member_added");
    let text = "{\"text\":\"Gr\u{fc}\u{df}e \\\"\u{1f514}\\\"\\n\"}";
    gateway.rest(&FIRST).trigger(channel, "App\\Events\\Said", text).await;
    let said = json!({"event": "App\\Events\\Said", "channel": channel, "data": text});
    assert_eq!(stream.frame_of_fallback().await, said);
    other.hears(channel, "App\\Events\\Said", text).await;
    other.whisper(channel, "client-typing", &json!({"n": 1})).await;
    let typing = json!({"event": "client-typing", "channel": channel, "data": "{\"n\":1}", "user_id": "ben"});
    assert_eq!(stream.frame_of_fallback().await, typing);
    session
        .say(gateway.public, &[json!({"event": "client-typing", "channel": channel, "data": {"n": 2}})])
        .await;
    let Frame { event, data, user_id, .. } = other.next().await;
    assert_eq!((event.as_str(), data.as_deref()), ("client-typing", Some("{\"n\":2}")));
    assert_eq!(user_id.as_deref(), Some("ana"));
    // To pusher-js a stream that ends is a broken connection: the session goes with it.
    drop(stream);
    assert_eq!(other.next().await.event, "pusher_internal:member_removed");
    is_over(&session, &gateway).await;
}

#[tokio::test]
async fn polls_bring_all_that_waits_and_wait_for_more() {
    let gateway = alone().await;
    let session = Xhr::new(&FIRST);
    let mut polls = Listener::connect(gateway.public).await;
    polls.send(session.request("xhr")).await;
    let answer = polls.answer().await;
    for (name, value) in [
        ("content-type", "application/javascript; charset=UTF-8"),
        ("cache-control", "no-store"),
        ("access-control-allow-origin", "*"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{answer:?}");
    }
    let mut first = lines(&answer);
    assert_eq!(first.remove(0), Line::Open);
    // On the same connection, and on others.
    session.subscribe(gateway.public, "xhr-poll").await;
    let mut came = frames(first);
    while came.len() < 2 {
        polls.send(session.request("xhr")).await;
        let lines = lines(&polls.answer().await);
        assert_ne!(lines, [Line::Alive], "nothing more comes after {came:?}");
        came.extend(frames(lines));
    }
    assert_eq!(came[1], json!({"event": SUBSCRIBED, "channel": "xhr-poll", "data": "{}"}));
    let rest = gateway.rest(&FIRST);
    for n in 0..3 {
        rest.trigger("xhr-poll", "n", &n.to_string()).await;
    }
    let event = |n: u32| json!({"event": "n", "channel": "xhr-poll", "data": n.to_string()});
    assert_eq!(poll_for(&session, &gateway, 3).await, [event(0), event(1), event(2)]);
    polls.send(session.request("xhr")).await;
    rest.trigger("xhr-poll", "n", "3").await;
    assert_eq!(frames(lines(&polls.answer().await)), [event(3)]);
}

#[tokio::test]
async fn a_poll_that_is_broken_off_ends_the_session() {
    let gateway = alone().await;
    let session = Xhr::new(&FIRST);
    let socket = session.begin(gateway.public).await;
    let mut other = Socket::open(gateway.public, &FIRST).await;
    other.join("presence-xhr-broken", "ben").await;
    session.join(gateway.public, &socket, "presence-xhr-broken", "ana").await;
    assert_eq!(other.next().await.event, "pusher_internal:member_added");
    assert_eq!(poll_for(&session, &gateway, 1).await[0]["event"], SUBSCRIBED);
    let mut poll = Listener::connect(gateway.public).await;
    poll.send(session.request("xhr")).await;
    drop(poll);
    assert_eq!(other.next().await.event, "pusher_internal:member_removed");
    is_over(&session, &gateway).await;
}

#[tokio::test]
async fn a_session_that_only_sends_ends() {
    let gateway = alone().await;
    let session = Xhr::new(&FIRST);
    session.begin(gateway.public).await;
    is_over(&session, &gateway).await;
    // To pusher-js that is a server which has lost the session.
    assert_eq!(session.poll(gateway.public).await[0], Line::Open);
}

#[tokio::test]
async fn whoever_is_not_let_in_is_told_by_a_line() {
    let gateway = alone().await;
    let unknown = App { key: "nobody-has-this-key", ..FIRST };
    for (app, version, code) in [
        (unknown, "protocol=7", 4001),
        (OFF, "protocol=7", 4003),
        (FIRST, "protocol=3", 4007),
        (FIRST, "protocol=x", 4006),
        (FIRST, "client=js", 4008),
    ] {
        for purpose in ["xhr", "xhr_streaming"] {
            let path = Xhr::new(&app).path(purpose).replace("protocol=7", version);
            let answer = http::post(gateway.public, &path, &[("Origin", "http://shop.example")], "").await;
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{answer:?}");
            let lines = lines(&answer);
            assert_eq!((lines.len(), &lines[0]), (2, &Line::Open), "{lines:?}");
            assert_eq!(closed(lines.into_iter().nth(1)), code, "{path}");
        }
    }
}

#[tokio::test]
async fn sessions_count_as_connections_of_their_application() {
    let gateway = Gateway::serve(&configuration());
    let sessions = [Xhr::new(&NARROW), Xhr::new(&NARROW), Xhr::new(&NARROW)];
    let streams = (stream(&sessions[0], &gateway).await, stream(&sessions[1], &gateway).await);
    assert_eq!(closed(sessions[2].poll(gateway.public).await.pop()), 4004);
    let shown = r#"carillon_connections{transport="xhr",protocol="pusher"}"#;
    assert!((gateway.metric(shown).await - 2.0).abs() < 0.1);
    drop(streams.0);
    let room = || async {
        let last = sessions[2].poll(gateway.public).await.pop();
        matches!(last, Some(Line::Frames(_))).then_some(())
    };
    is_over(&sessions[0], &gateway).await;
    eventually("there is room again", room).await;
}

/// One socket can begin many sessions, and nothing holds it back: all of them together have a quarter of the room.
#[tokio::test]
async fn sessions_leave_room_for_others() {
    let gateway = Gateway::serve(&(configuration() + "[public]\nmax_connections = 16\n"));
    let mut polls = Listener::connect(gateway.public).await;
    let mut begun = Vec::new();
    for _ in 0..32 {
        let session = Xhr::new(&FIRST);
        polls.send(session.request("xhr")).await;
        match lines(&polls.answer().await).pop() {
            Some(Line::Closed(code, _)) => assert_eq!(code, 4100),
            _ => begun.push(session),
        }
    }
    assert_eq!(begun.len(), 4);
    // Who is in already is served, and others come in.
    assert_eq!(begun[0].send_body(gateway.public, "[]").await.status, 204);
    Socket::open(gateway.public, &FIRST).await.quiet().await;
}

#[tokio::test]
async fn what_cannot_be_read_is_not_taken() {
    let gateway = alone().await;
    let session = Xhr::new(&FIRST);
    let (mut stream, _) = stream(&session, &gateway).await;
    let at = gateway.public;
    for body in ["", "{}", "null", "\"[]\"", "[1]", "[[\"a\"]]", "[\"a\"", "[\"\\ud800\"]", "[\"a\"]x"] {
        assert_eq!(session.send_body(at, body).await.status, 400, "{body}");
    }
    assert_eq!(session.send_body(at, b"[\"\xff\"]").await.status, 400);
    let many = json!(vec![""; 101]).to_string();
    assert_eq!(session.send_body(at, many).await.status, 413);
    // A frame may have 64 KiB.
    let frame = |bytes: usize| json!([" ".repeat(bytes)]).to_string();
    assert_eq!(session.send_body(at, frame(64 * 1024 + 1)).await.status, 413);
    assert_eq!(session.send_body(at, frame(1024 * 1024)).await.status, 413);
    let cors = session.send_body(at, "{}").await;
    assert_eq!(cors.header("access-control-allow-origin"), Some("*"), "{cors:?}");
    assert_eq!(Xhr::new(&FIRST).send_body(at, "[]").await.status, 404, "nobody has this session");
    // What is no frame of the protocol is the conversation's.
    session.say(at, &[json!("nonsense")]).await;
    assert_eq!(stream.frame_of_fallback().await["event"], "pusher:error");
    assert_eq!(session.send_body(at, frame(64 * 1024)).await.status, 204);
    assert_eq!(stream.frame_of_fallback().await["event"], "pusher:error");
    session.subscribe(at, "xhr-after-all-that").await;
    assert_eq!(stream.frame_of_fallback().await["event"], SUBSCRIBED);
}

#[tokio::test]
async fn only_posts_are_answered_and_browsers_may_ask_first() {
    let gateway = alone().await;
    for purpose in ["xhr", "xhr_streaming", "xhr_send"] {
        let path = Xhr::new(&FIRST).path(purpose);
        let ask = |method: &str| {
            let asks = "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type";
            let origin = "Origin: http://shop.example";
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{origin}\r\n{asks}\r\n\r\n")
        };
        let preflight = http::raw(gateway.public, ask("OPTIONS").as_bytes()).await;
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.header("access-control-allow-methods"), Some("POST, OPTIONS"));
        let headers = preflight.header("access-control-allow-headers").expect("it names headers");
        assert!(headers.split(", ").any(|name| name == "Content-Type"), "{headers}");
        for method in ["GET", "PUT", "DELETE"] {
            let answer = http::raw(gateway.public, ask(method).as_bytes()).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST, OPTIONS")), "{method}");
        }
    }
    for path in ["/pusher/app/key/1/xhr", "/pusher/app/key/1/2/3/xhr", "/pusher/app/key/1/%2e%2e/xhr"] {
        assert_eq!(http::post(gateway.public, path, &[], "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn only_pages_of_allowed_websites_are_answered() {
    let config = configuration() + "[client]\nallowed_origins = [\"https://shop.example\"]\n";
    let gateway = Gateway::serve(&config);
    let path = Xhr::new(&FIRST).path("xhr");
    let ask = async |origin: &str| http::post(gateway.public, &path, &[("Origin", origin)], "").await;
    assert_eq!(ask("https://evil.example").await.status, 403);
    let answer = ask("https://shop.example").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(lines(&answer)[0], Line::Open);
}

/// A client that opens another stream has closed the first; a proxy may not have.
#[tokio::test]
async fn a_second_stream_ends_the_first() {
    let gateway = alone().await;
    let session = Xhr::new(&FIRST);
    let (mut first, _) = stream(&session, &gateway).await;
    session.subscribe(gateway.public, "xhr-second").await;
    assert_eq!(first.frame_of_fallback().await["event"], SUBSCRIBED);
    let mut second = session.stream(gateway.public).await;
    assert_eq!(closed(first.line_of_fallback().await), 4200);
    assert_eq!(first.line_of_fallback().await, None);
    gateway.rest(&FIRST).trigger("xhr-second", "said", "1").await;
    assert_eq!(second.frame_of_fallback().await["event"], "said");
}

/// pusher-js reads no more of a stream once it has more than 256 Ki characters and whole lines, and opens another.
#[tokio::test]
async fn what_the_client_would_not_read_is_kept_for_the_next_stream() {
    let gateway = alone().await;
    let (session, channel) = (Xhr::new(&FIRST), "xhr-long");
    // Characters of one, two, three and four bytes: browsers count none of these numbers. All of it together is less
    // than may wait for a client.
    let filler = "a\u{e4}\u{20ac}\u{1f514}".repeat(900);
    let rest = gateway.rest(&FIRST);
    let mut heard = Vec::new();
    let mut streams = 0;
    while heard.last().is_none_or(|last| last != "99") {
        let mut stream = session.stream(gateway.public).await;
        streams += 1;
        let mut length = 0;
        while length <= 256 * 1024 && heard.last().is_none_or(|last| last != "99") {
            let line = stream.until("\n").await.expect("a stream is not ended before its time");
            length += line.encode_utf16().count() + 1;
            let Line::Frames(frames) = Line::read(&line) else { continue };
            match frames[0]["event"].as_str().expect("a text") {
                "pusher:connection_established" => session.subscribe(gateway.public, channel).await,
                SUBSCRIBED => {
                    for n in 0..100 {
                        rest.trigger(channel, &n.to_string(), &filler).await;
                    }
                }
                n => {
                    assert_eq!(frames[0]["data"], filler.as_str());
                    heard.push(n.to_owned());
                }
            }
        }
    }
    assert!(streams > 1, "one stream was enough");
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn only_a_client_that_answers_signs_of_life_stays() {
    let config = configuration() + "[client]\nheartbeat = \"1s\"\npong_timeout = \"10s\"\n";
    let gateway = Gateway::serve(&config);
    let (silent, answers, polls) = (Xhr::new(&FIRST), Xhr::new(&FIRST), Xhr::new(&FIRST));
    let (mut stream_of_silent, _) = stream(&silent, &gateway).await;
    let (mut stream_of_answers, _) = stream(&answers, &gateway).await;
    polls.begin(gateway.public).await;
    let end = async {
        assert_eq!(stream_of_silent.line_of_fallback().await, Some(Line::Alive));
        assert_eq!(closed(stream_of_silent.line_of_fallback().await), 4201);
        assert_eq!(stream_of_silent.line_of_fallback().await, None);
    };
    let answering = async {
        loop {
            assert_eq!(stream_of_answers.line_of_fallback().await, Some(Line::Alive));
            assert_eq!(answers.send_body(gateway.public, "[]").await.status, 204);
            // A poll is an answer itself.
            assert_eq!(polls.poll(gateway.public).await, [Line::Alive]);
        }
    };
    tokio::select! {
        () = end => {}
        () = answering => {}
    }
    // The last answer may have been broken off with its loop.
    assert_eq!(answers.send_body(gateway.public, "[]").await.status, 204);
    assert_eq!(stream_of_answers.line_of_fallback().await, Some(Line::Alive));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let config = configuration() + "[client]\noutbox_max = \"64KiB\"\n";
    let gateway = Gateway::serve(&config);
    let (session, channel) = (Xhr::new(&FIRST), "xhr-slow");
    let mut stream = Listener::connect_narrowly(gateway.public, 4096).await;
    stream.send(session.request("xhr_streaming")).await;
    while stream.until("\n").await.expect("a stream begins") != "o" {}
    session.subscribe(gateway.public, channel).await;
    let rest = gateway.rest(&FIRST);
    let event = json!({"channel": channel, "name": "n", "data": "x".repeat(10_000)});
    let batch = json!({"batch": vec![event; 10]});
    let closed = r#"carillon_connections_closed_total{transport="xhr",reason="slow_consumer"}"#;
    let slow = || async {
        rest.done("/batch_events", &batch).await;
        let metrics = http::get(gateway.admin, "/metrics").await.body;
        metrics.lines().any(|line| line.starts_with(closed)).then_some(())
    };
    eventually("it is closed", slow).await;
}

#[tokio::test]
async fn a_client_that_polls_too_rarely_is_told_so() {
    let config = configuration() + "[client]\noutbox_max = \"64KiB\"\n";
    let gateway = Gateway::serve(&config);
    let (session, channel) = (Xhr::new(&FIRST), "xhr-rarely");
    session.begin(gateway.public).await;
    session.subscribe(gateway.public, channel).await;
    assert_eq!(poll_for(&session, &gateway, 1).await[0]["event"], SUBSCRIBED);
    let (rest, filler) = (gateway.rest(&FIRST), "x".repeat(10_000));
    let event = |n: u32| json!({"channel": channel, "name": "n", "data": format!("{n}{filler}")});
    // What is published in one moment may be one frame, and any frame has room where nothing waits.
    for batch in 0..6 {
        let batch: Vec<Value> = (batch * 10..batch * 10 + 10).map(event).collect();
        rest.done("/batch_events", &json!({"batch": batch})).await;
    }
    let mut all = Vec::new();
    // Who comes too late even for the close is told that the session is lost: it begins anew.
    while !all.iter().any(|line| matches!(line, Line::Closed(..) | Line::Open)) {
        let came = session.poll(gateway.public).await;
        assert_ne!(came, [Line::Alive], "nothing has ended it");
        all.extend(came);
    }
    let at = all.iter().position(|line| matches!(line, Line::Closed(..) | Line::Open));
    let end = all.split_off(at.expect("it is there")).remove(0);
    assert!(end == Line::Open || closed(Some(end)) == 4100);
    let heard = frames(all);
    assert!(heard.len() < 60, "{} frames", heard.len());
    for (n, frame) in heard.iter().enumerate() {
        assert_eq!(frame["data"], format!("{n}{filler}"), "in order, from the first on");
    }
}

#[tokio::test]
async fn clients_are_asked_to_move_when_the_node_stops() {
    let mut gateway = Gateway::serve(&configuration());
    let (streams, polls) = (Xhr::new(&FIRST), Xhr::new(&FIRST));
    let (mut stream, _) = stream(&streams, &gateway).await;
    polls.begin(gateway.public).await;
    let mut poll = Listener::connect(gateway.public).await;
    poll.send(polls.request("xhr")).await;
    // The poll is there.
    polls.subscribe(gateway.public, "xhr-moves").await;
    assert_eq!(frames(lines(&poll.answer().await))[0]["event"], SUBSCRIBED);
    poll.send(polls.request("xhr")).await;
    gateway.signal("TERM");
    assert_eq!(closed(stream.line_of_fallback().await), 4100, "there is no other node");
    assert_eq!(stream.line_of_fallback().await, None);
    let answer: Answer = poll.answer().await;
    assert_eq!(closed(lines(&answer).pop()), 4100, "{answer:?}");
    assert!(gateway.ended().success());
}

#[tokio::test]
async fn a_user_whose_connections_are_terminated_is_told_so() {
    let gateway = alone().await;
    let session = Xhr::new(&FIRST);
    let (mut stream, socket) = stream(&session, &gateway).await;
    let user_data = json!({"id": "xhr-ana"}).to_string();
    let auth = FIRST.user_auth(&socket, &user_data);
    let sign_in = json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}});
    session.say(gateway.public, &[sign_in]).await;
    assert_eq!(stream.frame_of_fallback().await["event"], "pusher:signin_success");
    gateway.rest(&FIRST).done("/users/xhr-ana/terminate_connections", &json!({})).await;
    assert_eq!(closed(stream.line_of_fallback().await), 4009);
    assert_eq!(stream.line_of_fallback().await, None);
}

/// A body that never comes holds a socket only for as long as a handshake.
#[tokio::test]
async fn a_body_that_never_comes_is_given_up() {
    let gateway = Gateway::serve(&(configuration() + "[public]\nhandshake_timeout = \"1s\"\n"));
    let path = Xhr::new(&FIRST).path("xhr_send");
    let mut slow = Listener::connect(gateway.public).await;
    let began = clock::now();
    slow.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n[\"")).await;
    slow.rest().await;
    assert!(clock::now() - began < PATIENCE);
}
