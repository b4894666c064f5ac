//! Server-sent events as NATIVE_PROTOCOL §5 has them: what a client is sent, how it goes on where it left off, and how it
//! is told of trouble.

use std::collections::BTreeMap;

use carillon_tests::{
    client::{Client, Got},
    gateway::{self, Gateway},
    healthy::Healthy,
    http,
    listener::{Listener, get},
    raw::eventually,
};
use serde_json::{Value, json};

/// Starts a node with a channel of every kind, and returns it with a key of its publishers.
fn configured(more: &str) -> (Gateway, String) {
    let (code, printed, complaints) = gateway::run(&["key", "new"], &[]);
    assert_eq!(code, Some(0), "{complaints}");
    let key = printed.lines().next().expect("the key is the first line").to_owned();
    let keys = &printed[printed.find("[[keys]]").expect("its configuration follows")..];
    let rules = [("live", "public", ""), ("kept", "public", "history = \"short\""), ("private", "token", "")];
    let rules = rules.map(|(name, auth, more)| {
        format!("[[channels]]\nname = \"{name}\"\nmatch = \"{name}.*\"\nauth = \"{auth}\"\n{more}\n")
    });
    let auth = "[auth]\ntoken_secret = \"a secret of at least 32 bytes, for nobody\"";
    (Gateway::serve(&format!("{more}\n{auth}\n{keys}\n[broker]\nkind = \"memory\"\n{}", rules.concat())), key)
}

/// Publishes one number and returns the message's id.
async fn publish(gateway: &Gateway, channel: &str, data: u64) -> String {
    let answer = gateway.publish(&json!({"channel": channel, "data": data})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["results"][0]["id"].as_str().unwrap_or_default().to_owned()
}

/// Returns the data of a message, and its id as the browser keeps it.
async fn data(listener: &mut Listener) -> (Value, Option<String>) {
    let event = listener.message().await;
    (event.json()["data"].clone(), event.id)
}

#[tokio::test]
async fn a_stream_begins_at_once_and_says_what_proxies_and_browsers_need() {
    let gateway = Gateway::dev(&[]);
    let mut listener = Listener::connect(gateway.public).await;
    listener.send(get("/v1/sse?channel=a", &[])).await;
    let head = listener.head().await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store, no-transform"),
        ("x-accel-buffering", "no"),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
        ("vary", "Origin"),
        ("access-control-allow-origin", "*"),
    ] {
        assert_eq!(head.header(name), Some(value), "{head:?}");
    }
    assert_eq!((head.header("content-length"), head.header("transfer-encoding")), (None, None));
    let first = listener.event().await;
    assert_eq!((first.retry, first.comments), (Some(2000), vec!["welcome".to_owned()]));
    let (welcome, id) = listener.control().await;
    assert_eq!((&welcome["type"], id), (&json!("welcome"), None));
    let (subscribed, id) = listener.control().await;
    assert_eq!(subscribed["type"], "subscribed");
    assert_eq!(id.as_deref(), subscribed["position"].as_str(), "a reconnect before any message is exact");
    let mut websocket = Client::subscribed(&gateway.ws(""), &["a"]).await;
    let published = publish(&gateway, "a", 1).await;
    let event = listener.event().await;
    assert_eq!((event.event, event.id), (None, Some(published)));
    let Got::Text(same) = websocket.next().await else { panic!("a message comes") };
    assert_eq!(event.data, Some(same), "the same text as on every transport");
}

#[tokio::test]
async fn a_client_that_comes_back_with_its_last_id_is_brought_what_it_missed() {
    let gateway = Gateway::dev(&[]);
    let mut first = Listener::open(gateway.public, "/v1/sse?channel=a", &[]).await;
    // Until it has joined.
    assert_eq!(first.control().await.0["type"], "welcome");
    let (_, before_any) = first.control().await;
    publish(&gateway, "a", 1).await;
    let (_, after_one) = data(&mut first).await;
    drop(first);
    for number in 2..5 {
        publish(&gateway, "a", number).await;
    }
    for (id, missed) in [(before_any, 1..5), (after_one, 2..5)] {
        let id = id.expect("it has an id");
        // The header, as browsers send it, goes before the URL, which stays as it was.
        let headers = [("Last-Event-ID", id.as_str())];
        let mut again = Listener::open(gateway.public, "/v1/sse?channel=a&since=$", &headers).await;
        assert_eq!(again.control().await.0["type"], "welcome");
        let (subscribed, _) = again.control().await;
        assert_eq!(
            (&subscribed["recovered"], &subscribed["replayed"]),
            (&json!(true), &json!(missed.clone().count()))
        );
        for number in missed {
            assert_eq!(data(&mut again).await.0, json!(number));
        }
    }
}

/// Each id is enough to go on from, wherever the stream is cut.
#[tokio::test]
async fn one_id_stands_for_many_channels() {
    let gateway = Gateway::dev(&[]);
    let channels = ["a", "b", "c"];
    for (number, channel) in (0..30).zip(channels.iter().cycle()) {
        publish(&gateway, channel, number).await;
    }
    let path = "/v1/sse?channel=a&channel=b&channel=c&since=0";
    let mut ids: Vec<Option<String>> = vec![None];
    let mut whole = Listener::open(gateway.public, path, &[]).await;
    let mut messages = 0;
    while messages < 30 {
        let event = whole.event().await;
        if event.id.is_some() {
            ids.push(event.id.clone());
        }
        messages += usize::from(event.event.is_none() && event.data.is_some());
    }
    assert_eq!(ids.len(), 1 + 3 + 30, "every message and every place has one");
    for (cut, id) in ids.iter().enumerate() {
        // What was seen until the cut, and what comes after it.
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut count = 0;
        if cut > 0 {
            let mut before = Listener::open(gateway.public, path, &[]).await;
            loop {
                let event = before.event().await;
                if event.event.is_none() && event.data.is_some() {
                    let message = event.json();
                    let channel = message["channel"].as_str().expect("a name").to_owned();
                    seen.entry(channel).or_default().push(message["data"].as_u64().expect("a number"));
                    count += 1;
                }
                if event.id.is_some() && event.id == *id {
                    break;
                }
            }
        }
        let headers: Vec<_> = id.iter().map(|id| ("Last-Event-ID", id.as_str())).collect();
        let mut after = Listener::open(gateway.public, path, &headers).await;
        while count < 30 {
            let event = after.event().await;
            if event.event.is_none() && event.data.is_some() {
                let message = event.json();
                let channel = message["channel"].as_str().expect("a name").to_owned();
                seen.entry(channel).or_default().push(message["data"].as_u64().expect("a number"));
                count += 1;
            }
        }
        for (offset, channel) in (0..).zip(channels) {
            let expected: Vec<u64> = (offset..30).step_by(3).collect();
            assert_eq!(seen[channel], expected, "cut {cut}, {channel}");
        }
    }
}

#[tokio::test]
async fn an_id_of_another_server_is_told_of_and_does_not_end_it() {
    let gateway = Gateway::dev(&[]);
    publish(&gateway, "a", 1).await;
    let long = "x".repeat(8_000);
    for id in ["urn:uuid:7a1", "c1.AAAA", "zzzzzz-7", "000000-18446744073709551615", &long, "\u{1}"] {
        let headers = [("Last-Event-ID", id)];
        let mut listener = Listener::connect(gateway.public).await;
        listener.send(get("/v1/sse?channel=a", &headers)).await;
        let head = listener.head().await;
        if id == "\u{1}" {
            assert_eq!(head.status, 400, "no header has such a character");
            continue;
        }
        assert_eq!(listener.control().await.0["type"], "welcome");
        let (subscribed, place) = listener.control().await;
        assert_eq!(
            (&subscribed["recovered"], &subscribed["reason"]),
            (&json!(false), &json!("epoch")),
            "{id}"
        );
        assert_eq!(place.as_deref(), subscribed["position"].as_str());
    }
    let huge = "x".repeat(100_000);
    let mut listener = Listener::connect(gateway.public).await;
    let _cut = listener.try_send(get("/v1/sse?channel=a", &[("Last-Event-ID", &huge)])).await;
    assert_eq!(listener.head().await.status, 431);
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// EventSource gives up for good at any of these; so they are for what will not pass.
#[tokio::test]
async fn what_will_not_pass_is_told_by_a_status() {
    let (gateway, _key) = configured("");
    let many: String = (0..201).map(|number| format!("&channel=live.{number}")).collect();
    for (query, status, error) in [
        (String::new(), 400, "bad_request"),
        ("channel=".to_owned(), 400, "bad_request"),
        ("channel=live.1&since=yesterday".to_owned(), 400, "bad_request"),
        ("channel=live.1&format=xml".to_owned(), 400, "bad_request"),
        ("channel=nobody".to_owned(), 404, "not_found"),
        ("channel=private.1".to_owned(), 401, "unauthorized"),
        ("channel=live.1&token=x.y.z".to_owned(), 401, "unauthorized"),
        (many, 400, "limit_exceeded"),
    ] {
        let answer = http::get(gateway.public, &format!("/v1/sse?{query}")).await;
        assert_eq!(
            (answer.status, answer.json()["error"].as_str()),
            (status, Some(error)),
            "{query}: {answer:?}"
        );
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "a page may read why");
        if error == "limit_exceeded" {
            assert!(answer.body.contains("WebSocket"), "{answer:?}");
        }
    }
    // One that can be had is enough; the others are told in the stream.
    let path = "/v1/sse?channel=live.1&channel=private.1&channel=nobody";
    let mut listener = Listener::open(gateway.public, path, &[]).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let (control, _) = listener.control().await;
        told.push(format!(
            "{} {}",
            control["type"].as_str().unwrap_or(""),
            control["error"].as_str().unwrap_or("")
        ));
    }
    assert_eq!(told, ["welcome ", "subscribed ", "error unauthorized", "error not_found"]);
    for request in ["HEAD /v1/sse?channel=live.1", "PUT /v1/sse", "DELETE /v1/sse", "POST /v1/poll"] {
        let request = format!("{request} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        let answer = http::raw(gateway.public, request.as_bytes()).await;
        assert_eq!(answer.status, 405, "{request}");
        assert!(answer.header("allow").is_some_and(|allow| allow.starts_with("GET")), "{answer:?}");
    }
}

#[tokio::test]
async fn a_long_list_of_channels_comes_in_a_body() {
    let gateway = Gateway::dev(&[]);
    publish(&gateway, "b", 1).await;
    publish(&gateway, "b", 2).await;
    let json = ("Content-Type", "application/json");
    let post = |headers: &[(&str, &str)], body: &str| {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        format!("POST /v1/sse HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n{lines}\r\n{body}")
    };
    let mut listener = Listener::connect(gateway.public).await;
    listener.send(post(&[json], r#"{"channels":["a",{"channel":"b","since":"-1"}]}"#)).await;
    assert_eq!(listener.head().await.status, 200);
    assert_eq!(data(&mut listener).await.0, json!(2));
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let many = format!(r#"{{"channels":[{}""]}}"#, r#""a","#.repeat(20_000));
    for (headers, body, status) in [
        ([json], "", 400),
        ([json], "{}", 400),
        ([json], r#"["a"]"#, 400),
        ([json], r#"{"channels":"a"}"#, 400),
        ([json], r#"{"channels":["a"],"since":"c1.nonsense"}"#, 400),
        ([json], many.as_str(), 413),
        ([form], "channels=a", 415),
    ] {
        let mut listener = Listener::connect(gateway.public).await;
        let _cut = listener.try_send(post(&headers, body)).await;
        assert_eq!(listener.head().await.status, status, "{headers:?} {}", body.get(..80).unwrap_or(body));
    }
}

/// Limits: a body that does not come is waited for as long as a handshake.
#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let gateway = Gateway::dev(&[("CARILLON__PUBLIC__HANDSHAKE_TIMEOUT", "1s")]);
    for sent in ["", "{", r#"{"channels":["a"]"#] {
        let mut slow = Listener::connect(gateway.public).await;
        slow.send(format!("POST /v1/sse HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 40\r\n\r\n{sent}"))
            .await;
        assert_eq!(slow.rest().await, "");
    }
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// What will pass is told with a status that lets EventSource come back.
#[tokio::test]
async fn a_full_node_sends_browsers_away_for_a_while() {
    let gateway = Gateway::dev(&[("CARILLON__PUBLIC__MAX_CONNECTIONS", "2")]);
    let inside = [
        Listener::open(gateway.public, "/v1/sse?channel=a", &[]).await,
        Listener::open(gateway.public, "/v1/stream?channel=a", &[]).await,
    ];
    let mut refused = Listener::open(gateway.public, "/v1/sse?channel=a", &[]).await;
    let event = refused.event().await;
    assert!(event.retry.is_some_and(|retry| (250..=2000).contains(&retry)), "{event:?}");
    assert_eq!((event.event.as_deref(), &event.json()["error"]), (Some("control"), &json!("unavailable")));
    assert_eq!(refused.event_or_end().await, None);
    for path in ["/v1/stream?channel=a", "/v1/poll?channel=a"] {
        let answer = http::get(gateway.public, path).await;
        assert_eq!((answer.status, answer.header("retry-after").is_some()), (503, true), "{answer:?}");
    }
    drop(inside);
    eventually("there is room again", || async {
        let mut listener = Listener::open(gateway.public, "/v1/sse?channel=a", &[]).await;
        (listener.event().await.comments == ["welcome"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_stops_says_goodbye_and_ends_the_response() {
    let mut gateway = Gateway::dev(&[("CARILLON__NODE__DRAIN", "1s")]);
    let mut events = Listener::open(gateway.public, "/v1/sse?channel=a", &[]).await;
    let mut lines = Listener::open(gateway.public, "/v1/stream?channel=a", &[]).await;
    assert_eq!(events.control().await.0["type"], "welcome");
    assert_eq!(events.control().await.0["type"], "subscribed");
    assert_eq!(lines.line().await["type"], "welcome");
    assert_eq!(lines.line().await["type"], "subscribed");
    gateway.signal("TERM");
    let last = events.event().await;
    assert!(last.retry.is_some_and(|retry| (250..=2000).contains(&retry)), "{last:?}");
    let goodbye = last.json();
    assert_eq!((&goodbye["type"], &goodbye["error"]), (&json!("goodbye"), &json!("draining")));
    assert_eq!(last.id, None, "where the client stands is not changed");
    assert_eq!(events.event_or_end().await, None);
    assert_eq!(lines.line().await["type"], "goodbye");
    assert_eq!(lines.rest().await, "");
    assert!(gateway.ended().success());
}

#[tokio::test]
async fn silence_is_broken_by_a_comment() {
    let gateway =
        Gateway::dev(&[("CARILLON__CLIENT__HEARTBEAT", "1s"), ("CARILLON__CLIENT__PONG_TIMEOUT", "1s")]);
    let mut events = Listener::open(gateway.public, "/v1/sse?channel=a", &[]).await;
    let mut lines = Listener::open(gateway.public, "/v1/stream?channel=a", &[]).await;
    for _ in 0..3 {
        let _head = events.event().await;
    }
    for _ in 0..2 {
        let _head = lines.line().await;
    }
    // Longer than any WebSocket may be silent: nobody waits for an answer here.
    for _ in 0..4 {
        let beat = events.event().await;
        assert_eq!((beat.comments, beat.data), (vec![String::new()], None));
        assert_eq!(lines.line().await, json!({"type": "ping"}));
    }
    publish(&gateway, "a", 1).await;
    assert_eq!(data(&mut events).await.0, json!(1));
}

#[tokio::test]
async fn a_raw_stream_has_the_data_itself() {
    let gateway = Gateway::dev(&[]);
    let html = "<li>one\r\n<li>data: two\r<li>three\n";
    let object = json!({"a": "line\nbreak"});
    publish(&gateway, "a", 7).await;
    for message in
        [json!({"channel": "a", "event": "cart", "data": html}), json!({"channel": "a", "data": object})]
    {
        assert_eq!(gateway.publish(&message).await.status, 200);
    }
    for query in ["channel=a", "channel=a&channel=b"] {
        let path = format!("/v1/sse?{query}&format=raw&since=0");
        let mut listener = Listener::open(gateway.public, &path, &[]).await;
        let first = listener.message().await;
        assert_eq!((first.event.as_deref(), first.data.as_deref()), (None, Some("7")));
        let fragment = listener.message().await;
        assert_eq!(fragment.event.as_deref(), Some("cart"));
        assert_eq!(fragment.data.as_deref(), Some("<li>one\n<li>data: two\n<li>three\n"));
        assert_eq!(listener.message().await.json(), object);
        // A browser goes on from any of them.
        let id = fragment.id.expect("it has one");
        let mut again = Listener::open(gateway.public, &path, &[("Last-Event-ID", &id)]).await;
        assert_eq!(again.message().await.json(), object);
    }
}

#[tokio::test]
async fn a_stream_follows_other_requests_on_its_connection() {
    let gateway = Gateway::dev(&[]);
    let mut listener = Listener::connect(gateway.public).await;
    assert_eq!(listener.ask("/", &[]).await.status, 200);
    assert_eq!(listener.ask("/nothing", &[]).await.status, 404);
    assert_eq!(listener.ask("/v1/poll?channel=a", &[]).await.status, 200);
    listener.send(get("/v1/sse?channel=a", &[])).await;
    assert_eq!(listener.head().await.status, 200);
    assert_eq!(listener.control().await.0["type"], "welcome");
    assert_eq!(listener.control().await.0["type"], "subscribed");
    publish(&gateway, "a", 1).await;
    assert_eq!(data(&mut listener).await.0, json!(1));
    // And all at once, as a proxy might send it.
    let mut listener = Listener::connect(gateway.public).await;
    let two = [get("/nothing", &[]), get("/v1/sse?channel=a&since=-1", &[])].concat();
    listener.send(two).await;
    assert_eq!(listener.answer().await.status, 404);
    assert_eq!(listener.head().await.status, 200);
    assert_eq!(data(&mut listener).await.0, json!(1));
}

#[tokio::test]
async fn a_listener_that_talks_is_ended_and_others_are_not() {
    let gateway = Gateway::dev(&[]);
    let mut healthy = Healthy::new(&gateway).await;
    let mut quiet = Listener::open(gateway.public, "/v1/sse?channel=a", &[]).await;
    // A little is let pass: a proxy's, or a request that nobody will answer.
    quiet.send("GET / HTTP/1.1\r\n\r\n").await;
    for path in ["/v1/sse?channel=a", "/v1/stream?channel=a"] {
        let mut loud = Listener::open(gateway.public, path, &[]).await;
        while loud.try_send(vec![b'x'; 4096]).await {}
        healthy.check(&gateway).await;
    }
    publish(&gateway, "a", 1).await;
    assert_eq!(data(&mut quiet).await.0, json!(1));
}

#[tokio::test]
async fn a_listener_that_does_not_read_is_sent_away_and_comes_back_to_all_of_it() {
    let (gateway, key) = configured("[client]\noutbox_max = \"64KiB\"\n");
    let publish = async |channel: &str, data: &Value| {
        let answer = gateway.publish_as(&key, &json!({"channel": channel, "data": data})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let path = "/v1/sse?channel=kept.a&channel=live.b";
    let mut slow = Listener::open(gateway.public, path, &[]).await;
    let full = r#"carillon_messages_dropped_total{reason="slow_consumer"}"#;
    let filling = json!("x".repeat(60_000));
    let mut sent = 0_u64;
    // How much the system takes for a reader that does not read differs from machine to machine.
    while gateway.metric(full).await < 0.5 {
        assert!(sent < 95, "the channel keeps 100");
        sent += 1;
        publish("kept.a", &json!(sent)).await;
        for _ in 0..5 {
            publish("live.b", &filling).await;
        }
    }
    for _ in 0..3 {
        sent += 1;
        publish("kept.a", &json!(sent)).await;
    }
    let (mut last, mut seen) = (None, 0);
    while let Some(event) = slow.event_or_end().await {
        if event.event.is_some() {
            // On a busy machine the patience with it may have ended before.
            assert!(event.retry.is_none() || event.json()["error"] == "slow_consumer", "{event:?}");
        } else if event.data.is_some() && event.json()["channel"] == "kept.a" {
            seen += 1;
            assert_eq!(event.json()["data"], seen);
        }
        last = event.id.or(last);
    }
    assert!(seen < sent, "it was slow");
    let last = last.expect("it was told where it stands");
    let mut again = Listener::open(gateway.public, path, &[("Last-Event-ID", &last)]).await;
    while seen < sent {
        seen += 1;
        assert_eq!(data(&mut again).await.0, json!(seen));
    }
}

#[tokio::test]
async fn connections_are_counted_by_transport() {
    let gateway = Gateway::dev(&[]);
    let events = Listener::open(gateway.public, "/v1/sse?channel=a", &[]).await;
    let lines = Listener::open(gateway.public, "/v1/stream?channel=a", &[]).await;
    let open =
        |transport: &str| format!(r#"carillon_connections{{transport="{transport}",protocol="native"}}"#);
    for transport in ["sse", "stream"] {
        let series = open(transport);
        eventually(&series, || async { (gateway.metric(&series).await > 0.5).then_some(()) }).await;
        let took = format!(r#"carillon_handshake_duration_seconds_count{{transport="{transport}"}}"#);
        assert!(gateway.metric(&took).await > 0.5);
    }
    drop((events, lines));
    for transport in ["sse", "stream"] {
        let series = open(transport);
        eventually(&series, || async { (gateway.metric(&series).await < 0.5).then_some(()) }).await;
    }
    assert_eq!(http::get(gateway.public, "/v1/sse").await.status, 400);
    let rejected = r#"carillon_connections_rejected_total{transport="sse",reason="bad_request"}"#;
    assert!(gateway.metric(rejected).await > 0.5);
}
