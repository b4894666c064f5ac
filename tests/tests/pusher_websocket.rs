//! The Pusher protocol's connection: where clients connect, how they are greeted, kept and sent away.
//! (PUSHER §1.1 to §1.5)

use std::collections::BTreeSet;

use carillon_tasks::clock;
use carillon_tests::{
    gateway::Gateway,
    http,
    pusher::{
        App, COUNTED, Cluster, DEV, FIRST, NARROW, OFF, PLAIN, SECOND_KEY, SHORT_OF_TIME, Socket, alone,
        configuration, path,
    },
    raw::{CLOSE, PING, PONG, Raw, TEXT, eventually, frame, handshake},
};
use serde_json::{Value, json};

const UNKNOWN: App = App { id: "1", key: "0000aaaa1111bbbb2222", secret: "none" };

/// Connects at a path and returns how it is sent away.
async fn sent_away(gateway: &Gateway, path: &str) -> (u16, String) {
    let mut socket = Socket::connect(gateway.public, &FIRST, path).await;
    socket.closed().await
}

fn with_protocol(protocol: &str) -> String {
    format!("/app/{}?{protocol}&client=js&version=8.6.0", FIRST.key)
}

#[tokio::test]
async fn clients_of_protocols_4_to_7_are_greeted() {
    let gateway = alone().await;
    for protocol in ["4", "5", "6", "7"] {
        let path = with_protocol(&format!("protocol={protocol}"));
        let mut socket = Socket::greeted(gateway.public, &FIRST, &path).await;
        socket.subscribe("greeted").await;
    }
}

#[tokio::test]
async fn protocols_that_are_too_old_are_closed_with_4007() {
    let gateway = alone().await;
    for protocol in ["1", "2", "3"] {
        let (code, _) = sent_away(&gateway, &with_protocol(&format!("protocol={protocol}"))).await;
        assert_eq!(code, 4007, "{protocol}");
    }
}

#[tokio::test]
async fn a_client_that_names_no_protocol_is_closed_with_4008() {
    let gateway = alone().await;
    assert_eq!(sent_away(&gateway, &format!("/app/{}", FIRST.key)).await.0, 4008);
    assert_eq!(sent_away(&gateway, &format!("/app/{}?client=js", FIRST.key)).await.0, 4008);
}

#[tokio::test]
async fn a_protocol_that_is_no_number_is_closed_with_4006_or_4007() {
    let gateway = alone().await;
    for protocol in ["seven", "7.5", "-7", "99999999999999999999", "7%00", ""] {
        let (code, _) = sent_away(&gateway, &with_protocol(&format!("protocol={protocol}"))).await;
        assert!([4006, 4007, 4008].contains(&code), "{protocol:?}: {code}");
    }
}

#[tokio::test]
async fn an_unknown_key_is_closed_with_4001_after_the_handshake() {
    let gateway = alone().await;
    let (code, reason) = sent_away(&gateway, &path(UNKNOWN.key)).await;
    assert_eq!(code, 4001);
    let expected =
        format!("App key {} not in this cluster. Did you forget to specify the cluster?", UNKNOWN.key);
    assert_eq!(reason, expected);
}

#[tokio::test]
async fn a_key_of_any_length_and_script_is_closed_with_4001() {
    let gateway = alone().await;
    // A close frame has room for 123 bytes of reason (RFC 6455 §5.5), and ends with a whole character.
    for key in ["x".repeat(500), "%C3%BC".repeat(100), "%F0%9F%94%94".repeat(40), "%00%0A%22".to_owned()] {
        let (code, reason) = sent_away(&gateway, &path(&key)).await;
        assert_eq!(code, 4001, "{key}");
        assert!(reason.starts_with("App key "), "{reason}");
        assert!(!reason.contains(char::REPLACEMENT_CHARACTER), "{reason:?}");
    }
}

#[tokio::test]
async fn a_prefix_of_the_path_is_passed_over() {
    let gateway = alone().await;
    for prefix in ["/ws", "/a/b"] {
        let path = format!("{prefix}{}", path(FIRST.key));
        Socket::greeted(gateway.public, &FIRST, &path).await.quiet().await;
    }
}

/// PUSHER §1.5: a failed handshake would bring the client back every second.
#[tokio::test]
async fn a_path_below_the_key_is_closed_with_4005() {
    let gateway = alone().await;
    for tail in ["/", "/more", "/more/and/more"] {
        let path = format!("/app/{}{tail}?protocol=7&client=js", FIRST.key);
        assert_eq!(sent_away(&gateway, &path).await.0, 4005, "{tail}");
    }
}

#[tokio::test]
async fn an_id_is_no_key() {
    let gateway = alone().await;
    assert_eq!(sent_away(&gateway, &path(FIRST.id)).await.0, 4001);
}

#[tokio::test]
async fn an_application_that_is_off_is_closed_with_4003() {
    let gateway = alone().await;
    assert_eq!(sent_away(&gateway, &path(OFF.key)).await.0, 4003);
}

#[tokio::test]
async fn connections_over_the_quota_are_closed_with_4004_until_one_leaves() {
    let gateway = alone().await;
    let first = Socket::open(gateway.public, &NARROW).await;
    let mut second = Socket::open(gateway.public, &NARROW).await;
    assert_eq!(sent_away(&gateway, &path(NARROW.key)).await.0, 4004);
    second.quiet().await;
    first.leave().await;
    eventually("room for one more", || async {
        let mut socket = Socket::connect(gateway.public, &NARROW, &path(NARROW.key)).await;
        let next = socket.raw.frame().await.expect("a greeting or a close");
        (next.first == TEXT).then_some(())
    })
    .await;
}

/// PUSHER §1.5: an old client reads the code from an event only.
#[tokio::test]
async fn clients_of_protocol_5_are_told_the_error_before_the_close() {
    let gateway = alone().await;
    for (key, code) in [(UNKNOWN.key, 4001), (OFF.key, 4003)] {
        let path = format!("/app/{key}?protocol=5&client=java&version=1.0");
        let mut socket = Socket::connect(gateway.public, &FIRST, &path).await;
        let (told, message) = socket.error().await;
        assert_eq!(told, Some(code));
        let (closed, reason) = socket.closed().await;
        assert_eq!((i64::from(closed), reason), (code, message));
    }
}

#[tokio::test]
async fn parameters_that_nobody_knows_are_ignored() {
    let gateway = alone().await;
    for query in [
        "protocol=7",
        "protocol=7&flash=true",
        "client=%C3%BC%F0&version=&protocol=7&x&=&&protocols=1&a=%zz",
        "protocol=7&cluster=mt1&encrypted=true&t=1&n=2",
    ] {
        let path = format!("/app/{}?{query}", FIRST.key);
        Socket::greeted(gateway.public, &FIRST, &path).await.quiet().await;
    }
}

#[tokio::test]
async fn every_key_of_an_application_connects_and_signs() {
    let gateway = alone().await;
    let mut one = Socket::open(gateway.public, &FIRST).await;
    let mut other = Socket::open(gateway.public, &SECOND_KEY).await;
    one.subscribe("private-two-keys").await;
    other.subscribe("private-two-keys").await;
    gateway.rest(&SECOND_KEY).trigger("private-two-keys", "hello", "x").await;
    one.hears("private-two-keys", "hello", "x").await;
    other.hears("private-two-keys", "hello", "x").await;
}

#[tokio::test]
async fn development_mode_serves_its_application() {
    let gateway = Gateway::dev(&[]);
    gateway.ready().await;
    let mut socket = Socket::open(gateway.public, &DEV).await;
    socket.subscribe("private-dev").await;
    gateway.rest(&DEV).trigger("private-dev", "hello", "x").await;
    socket.hears("private-dev", "hello", "x").await;
    // Client events are on there, the count of subscribers is not.
    let mut other = Socket::open(gateway.public, &DEV).await;
    other.subscribe("private-dev").await;
    other.whisper("private-dev", "client-hi", &json!("y")).await;
    socket.hears("private-dev", "client-hi", "y").await;
}

#[tokio::test]
async fn no_subprotocol_and_no_extension_is_agreed_on_unless_asked() {
    let gateway = alone().await;
    let mut raw = Raw::connect(gateway.public).await;
    raw.send(handshake(&path(FIRST.key), "")).await;
    let head = raw.head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(!head.contains("sec-websocket-protocol") && !head.contains("sec-websocket-extensions"), "{head}");
}

/// Browsers and faye offer compression. Whoever does not compress does not accept the offer.
#[tokio::test]
async fn an_offer_to_compress_does_no_harm() {
    let gateway = alone().await;
    let mut raw = Raw::connect(gateway.public).await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nOrigin: http://x.example\r\n";
    raw.send(handshake(&path(FIRST.key), offer)).await;
    let head = raw.head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    assert_eq!(raw.json().await["event"], "pusher:connection_established");
}

#[tokio::test]
async fn a_plain_get_is_no_connection() {
    let gateway = alone().await;
    let answer = http::get(gateway.public, &path(FIRST.key)).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
}

/// PUSHER §1.3: the greeting is the first frame, an exact one.
#[tokio::test]
async fn the_first_frame_is_the_greeting() {
    let gateway = alone().await;
    let mut socket = Socket::connect(gateway.public, &FIRST, &path(FIRST.key)).await;
    let next = socket.next().await;
    assert_eq!((next.event.as_str(), &next.channel), ("pusher:connection_established", &None));
    let Value::Object(data) = next.json() else { panic!("{next:?}") };
    assert!(data["activity_timeout"].as_u64().is_some_and(|seconds| seconds > 0), "{data:?}");
    let names: Vec<_> = data.keys().map(String::as_str).collect();
    assert_eq!(names, ["activity_timeout", "socket_id"]);
    socket.quiet().await;
}

#[tokio::test]
async fn socket_ids_are_two_numbers_unique_and_scattered() {
    let gateway = alone().await;
    let (mut ids, mut firsts, mut seconds) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for _ in 0..200 {
        let socket = Socket::open(gateway.public, &FIRST).await;
        let (first, second) = socket.id().split_once('.').unwrap_or_else(|| panic!("{}", socket.id()));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        assert!(digits(first) && digits(second), "{}", socket.id());
        firsts.insert(first.to_owned());
        seconds.insert(second.parse::<u64>().unwrap() >> 24);
        ids.insert(socket.id().to_owned());
    }
    assert_eq!(ids.len(), 200);
    // Whoever counts up, or uses little of the room, is found out: chance makes these fail once in 10 to the 20.
    assert!(firsts.len() > 190 && seconds.len() > 60, "{ids:?}");
}

#[tokio::test]
async fn a_ping_is_answered_with_a_pong_whose_data_is_an_empty_object() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for ping in [
        r#"{"event":"pusher:ping","data":{}}"#,
        r#"{"event":"pusher:ping"}"#,
        r#"{"event":"pusher:ping","data":"{}"}"#,
        r#"{"event":"pusher:ping","data":null}"#,
        r#"{"event":"pusher:ping","data":""}"#,
        r#" { "data" : {} , "event" : "pusher:ping" } "#,
        r#"{"event":"pusher\u003aping"}"#,
    ] {
        socket.say_text(ping).await;
        let answer: Value = serde_json::from_str(&socket.text().await).unwrap();
        assert_eq!(answer, json!({"event": "pusher:pong", "data": "{}"}), "{ping}");
    }
}

#[tokio::test]
async fn a_ping_frame_is_answered_with_a_pong_frame() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.raw.send(frame(PING, "are you there")).await;
    let pong = socket.raw.frame().await.unwrap();
    assert_eq!((pong.first, pong.payload.as_slice()), (PONG, b"are you there".as_slice()));
}

#[tokio::test]
async fn a_pong_that_nobody_asked_for_is_not_answered() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.say_text(r#"{"event":"pusher:pong","data":{}}"#).await;
    socket.raw.send(frame(PONG, "x")).await;
    socket.quiet().await;
}

/// PUSHER §1.4: the busy client never pings by itself, so the server does.
#[tokio::test]
async fn who_is_silent_is_pinged_and_closed_with_4201_when_it_does_not_answer() {
    let environment = [("CARILLON__CLIENT__HEARTBEAT", "1s"), ("CARILLON__CLIENT__PONG_TIMEOUT", "1s")];
    let gateway = Gateway::dev(&environment);
    let mut socket = Socket::open(gateway.public, &DEV).await;
    let ping = socket.raw.frame().await.expect("a ping");
    assert_eq!(ping.first, PING);
    assert_eq!(socket.closed().await.0, 4201);
}

#[tokio::test]
async fn who_answers_pings_stays_and_who_speaks_is_not_pinged_away() {
    let environment = [("CARILLON__CLIENT__HEARTBEAT", "1s"), ("CARILLON__CLIENT__PONG_TIMEOUT", "5m")];
    let gateway = Gateway::dev(&environment);
    let mut socket = Socket::open(gateway.public, &DEV).await;
    for _ in 0..3 {
        let ping = socket.raw.frame().await.expect("a ping");
        assert_eq!(ping.first, PING);
        socket.raw.send(frame(PONG, ping.payload)).await;
    }
    socket.quiet().await;
    // A text is as good an answer as a pong: the next ping comes all the same.
    let ping = socket.raw.frame().await.expect("a ping");
    assert_eq!(ping.first, PING);
    socket.say("pusher:pong", &json!({})).await;
    assert_eq!(socket.raw.frame().await.expect("another ping").first, PING);
}

#[tokio::test]
async fn a_close_of_the_client_is_answered_with_its_code() {
    let gateway = alone().await;
    for code in [1000_u16, 1001, 3000, 4999] {
        let mut socket = Socket::open(gateway.public, &FIRST).await;
        socket.raw.send(frame(CLOSE, code.to_be_bytes())).await;
        assert_eq!(socket.close_frame().await.0, code);
        assert_eq!(socket.raw.rest().await, []);
    }
}

/// PUSHER §1.5: at the end of a node clients come back at once, elsewhere, or later where there is no other, and nobody
/// sees 1006.
async fn a_node_stops_and_says(mut gateway: Gateway, code: u16) {
    let mut sockets = Vec::new();
    for number in 0..20 {
        let mut socket = Socket::open(gateway.public, &FIRST).await;
        socket.subscribe(&format!("drain-{}", number % 3)).await;
        sockets.push(socket);
    }
    let path = format!("/app/{}?protocol=5&client=java&version=1.0", FIRST.key);
    let mut old = Socket::greeted(gateway.public, &FIRST, &path).await;
    gateway.signal("TERM");
    for socket in &mut sockets {
        assert_eq!(socket.closed().await.0, code);
    }
    let (told, message) = old.error().await;
    assert_eq!((told, old.closed().await), (Some(i64::from(code)), (code, message)));
    assert!(gateway.ended().success());
}

#[tokio::test]
async fn a_node_that_stops_closes_its_clients_with_4200() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    cluster.acquainted().await;
    let stopping = cluster.nodes.pop().expect("two nodes");
    a_node_stops_and_says(stopping, 4200).await;
}

#[tokio::test]
async fn the_only_node_closes_its_clients_with_4100_when_it_stops() {
    a_node_stops_and_says(Gateway::serve(&configuration()), 4100).await;
    // A NATS that has one node does not make it two.
    let mut cluster = Cluster::start(1);
    cluster.ready().await;
    a_node_stops_and_says(cluster.nodes.pop().expect("a node"), 4100).await;
}

/// PUSHER §1.5: a quota is for good, an overloaded node is not.
#[tokio::test]
async fn a_node_without_room_closes_with_4100() {
    let gateway = Gateway::dev(&[("CARILLON__PUBLIC__MAX_CONNECTIONS", "2")]);
    gateway.ready().await;
    let mut one = Socket::open(gateway.public, &DEV).await;
    let mut other = Socket::open(gateway.public, &DEV).await;
    let mut third = Socket::connect(gateway.public, &DEV, &path(DEV.key)).await;
    assert_eq!(third.closed().await.0, 4100);
    one.quiet().await;
    other.quiet().await;
}

#[tokio::test]
async fn who_does_not_show_in_time_who_it_is_is_closed_with_4009() {
    let gateway = alone().await;
    let mut stranger = Socket::open(gateway.public, &SHORT_OF_TIME).await;
    stranger.subscribe("public-is-not-enough").await;
    assert_eq!(stranger.closed().await.0, 4009);
}

#[tokio::test]
async fn who_joins_a_guarded_channel_or_signs_in_stays() {
    let gateway = alone().await;
    // On a slow machine the second may be over before the client has said anything: then it is tried again.
    let (mut member, mut user) = eventually("both in time", || async {
        let mut member = Socket::open(gateway.public, &SHORT_OF_TIME).await;
        member.ask("private-known").await;
        let joined = member.raw.frame().await.is_some_and(|next| next.first == TEXT);
        let mut user = Socket::open(gateway.public, &SHORT_OF_TIME).await;
        user.ask_sign_in(r#"{"id":"in-time"}"#).await;
        let signed_in = user.raw.frame().await.is_some_and(|next| next.first == TEXT);
        (joined && signed_in).then_some((member, user))
    })
    .await;
    // Somebody who comes later and is sent away shows that the time was over.
    let mut stranger = Socket::open(gateway.public, &SHORT_OF_TIME).await;
    assert_eq!(stranger.closed().await.0, 4009);
    member.quiet().await;
    user.quiet().await;
}

/// PUSHER §1.2: what a publisher sends as text arrives as that text, byte for byte.
#[tokio::test]
async fn data_survives_byte_for_byte() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("bytes").await;
    let rest = gateway.rest(&FIRST);
    for data in [
        "",
        " ",
        "5",
        "plain",
        "null",
        "\"quoted\"",
        r#"{"b":1,"a":2,"a":3}"#,
        "{ \"spaced\" :\t[ 1 ,\r\n 2 ] }",
        r#"{"escaped":"\u00fc\/\ud83d\ude00\n"}"#,
        "ü€😀\u{2028}\u{2029}\u{7f}\u{0}\u{1}\u{1f}\\",
        "</script>\"'`",
        "1.0e400",
        "12345678901234567890123456789",
    ] {
        rest.trigger("bytes", "as it is", data).await;
        socket.hears("bytes", "as it is", data).await;
    }
}

/// The escapes of the request's own JSON are not part of the text.
#[tokio::test]
async fn escapes_of_the_request_are_undone_and_those_of_the_data_are_not() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("escapes").await;
    let rest = gateway.rest(&FIRST);
    let body =
        r#"{"channels":["escapes"],"name":"\u0061\/b","data":"\u007b\"k\":\"\\u00fc\"\u007d\ud83d\ude00"}"#;
    assert_eq!(rest.send(rest.request("POST", "/events").body(body)).await.status, 200);
    socket.hears("escapes", "a/b", r#"{"k":"\u00fc"}😀"#).await;
}

/// PUSHER §1.2: pusher-js sends objects; others send the same as a text.
#[tokio::test]
async fn what_clients_say_may_be_an_object_or_a_text() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.say("pusher:subscribe", &json!(json!({"channel": "as-text"}).to_string())).await;
    socket.subscribed("as-text").await;
    let auth = FIRST.auth(socket.id(), "private-as-text", None);
    let data = json!({"channel": "private-as-text", "auth": auth});
    socket.say("pusher:subscribe", &json!(data.to_string())).await;
    socket.subscribed("private-as-text").await;
    socket.say("pusher:unsubscribe", &json!(json!({"channel": "as-text"}).to_string())).await;
    socket.quiet().await;
    gateway.rest(&FIRST).trigger("as-text", "lost", "").await;
    socket.quiet().await;
    let user_data = r#"{"id":"as-text"}"#;
    let auth = FIRST.user_auth(socket.id(), user_data);
    let data = json!({"auth": auth, "user_data": user_data});
    socket.say("pusher:signin", &json!(data.to_string())).await;
    assert_eq!(socket.next().await.event, "pusher:signin_success");
}

#[tokio::test]
async fn an_event_of_a_backend_has_event_channel_and_data_and_nothing_else() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("members").await;
    gateway.rest(&FIRST).trigger("members", "App\\Events\\Shipped", "{\"id\":7}").await;
    let got: Value = serde_json::from_str(&socket.text().await).unwrap();
    assert_eq!(got, json!({"event": "App\\Events\\Shipped", "channel": "members", "data": "{\"id\":7}"}));
}

/// One text of two applications is two channels.
#[tokio::test]
async fn applications_do_not_hear_each_other() {
    let gateway = alone().await;
    let mut first = Socket::open(gateway.public, &FIRST).await;
    let mut plain = Socket::open(gateway.public, &PLAIN).await;
    let mut counted = Socket::open(gateway.public, &COUNTED).await;
    for channel in ["both", "private-both"] {
        first.subscribe(channel).await;
        plain.subscribe(channel).await;
        counted.subscribe(channel).await;
        // The others are not counted.
        assert_eq!(counted.next().await.json(), json!({"subscription_count": 1}));
        gateway.rest(&FIRST).trigger(channel, "of-first", "1").await;
        first.hears(channel, "of-first", "1").await;
        first.whisper(channel, "client-first", &json!("2")).await;
        if channel == "both" {
            let (code, _) = first.error().await;
            assert_eq!(code, None, "client events need a private channel");
        }
        first.quiet().await;
        gateway.rest(&PLAIN).trigger(channel, "of-plain", "3").await;
        plain.hears(channel, "of-plain", "3").await;
        gateway.rest(&FIRST).trigger(channel, "of-first", "4").await;
        first.hears(channel, "of-first", "4").await;
        gateway.rest(&COUNTED).trigger(channel, "of-counted", "5").await;
        counted.hears(channel, "of-counted", "5").await;
        plain.quiet().await;
    }
}

/// An unconfigured gateway has no keys; every key is unknown, and clients are told so.
#[tokio::test]
async fn a_gateway_without_applications_knows_no_key() {
    let gateway = Gateway::serve("[[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n");
    gateway.ready().await;
    assert_eq!(sent_away(&gateway, &path(DEV.key)).await.0, 4001);
    assert!(configuration().contains(FIRST.key), "the others do");
}

/// PUSHER §1.3: clients give up on a handshake after little more than a second.
#[tokio::test]
async fn many_clients_at_once_are_all_greeted() {
    let gateway = alone().await;
    let began = clock::now();
    let greet = |_: usize| async { Socket::open(gateway.public, &FIRST).await.id().to_owned() };
    let ids = futures_util::future::join_all((0..300).map(greet)).await;
    let different: BTreeSet<_> = ids.iter().collect();
    assert_eq!(different.len(), 300, "after {:?}", began.elapsed());
}
