//! Long polls as NATIVE_PROTOCOL §6 has them: nothing is kept between two of them, and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};

use carillon_tasks::clock;
use carillon_tests::{
    gateway::{self, Gateway, PATIENCE},
    healthy::Healthy,
    http::{self, Answer},
    listener::{Listener, get},
    nats::{NatsServer, NatsVersion},
    raw::eventually,
};
use serde_json::{Value, json};

/// Waits for something that comes at once, but not for as long as a poll waits.
const SHORT: std::time::Duration = std::time::Duration::from_secs(20);

async fn publish(gateway: &Gateway, channel: &str, data: u64) {
    let answer = gateway.publish(&json!({"channel": channel, "data": data})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn data(answer: &Answer) -> Vec<u64> {
    let body = answer.json();
    let messages = body["messages"].as_array().expect("a list").iter();
    messages.map(|message| message["data"].as_u64().expect("a number")).collect()
}

fn cursor(answer: &Answer) -> String {
    let cursor = answer.json()["cursor"].as_str().expect("a text").to_owned();
    assert_eq!(answer.header("etag"), Some(format!("\"{cursor}\"").as_str()), "{answer:?}");
    cursor
}

#[tokio::test]
async fn a_first_poll_is_told_at_once_where_it_is() {
    let gateway = Gateway::dev(&[]);
    publish(&gateway, "a", 1).await;
    let began = clock::now();
    for query in ["channel=a", "channel=a&since=$", "channel=a&channel=b"] {
        let answer = http::get(gateway.public, &format!("/v1/poll?timeout=55&{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        for (name, value) in [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("access-control-allow-origin", "*"),
            ("access-control-expose-headers", "ETag, Retry-After"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{answer:?}");
        }
        let body = answer.json();
        assert_eq!((&body["messages"], &body["more"]), (&json!([]), &json!(false)));
        assert_eq!(body["control"][0]["type"], "subscribed");
        // What it was told is where it goes on.
        publish(&gateway, "a", 2).await;
        let next = format!("/v1/poll?timeout=55&{query}&since={}", cursor(&answer));
        let next = next.replace("&since=$", "");
        assert_eq!(data(&http::get(gateway.public, &next).await), [2], "{next}");
    }
    assert!(clock::now() - began < PATIENCE, "none of them waits");
}

#[tokio::test]
async fn a_poll_waits_for_the_next_message_and_for_those_that_come_with_it() {
    let gateway = Gateway::dev(&[]);
    let first = http::get(gateway.public, "/v1/poll?channel=a").await;
    let path = format!("/v1/poll?channel=a&timeout=55&since={}", cursor(&first));
    let mut waiting = Listener::connect(gateway.public).await;
    waiting.send(get(&path, &[])).await;
    let open = r#"carillon_connections{transport="poll",protocol="native"}"#;
    eventually("it waits", || async { (gateway.metric(open).await > 0.5).then_some(()) }).await;
    publish(&gateway, "a", 1).await;
    let answer = waiting.answer().await;
    assert_eq!((data(&answer), answer.json()["more"].clone()), (vec![1], json!(false)));
    // An answer that was lost costs nothing: the same question has the same answer.
    for _ in 0..2 {
        assert_eq!(data(&waiting.ask(&path, &[]).await), [1]);
    }
    publish(&gateway, "a", 2).await;
    let path = format!("/v1/poll?channel=a&timeout=55&since={}", cursor(&answer));
    assert_eq!(data(&waiting.ask(&path, &[]).await), [2]);
    drop(waiting);
    eventually("nobody polls", || async { (gateway.metric(open).await < 0.5).then_some(()) }).await;
}

#[tokio::test]
async fn a_poll_without_news_ends_in_time() {
    let gateway = Gateway::dev(&[]);
    let first = http::get(gateway.public, "/v1/poll?channel=a&channel=live").await;
    let place = cursor(&first);
    let mut listener = Listener::connect(gateway.public).await;
    for seconds in [0, 1] {
        let began = clock::now();
        let path = format!("/v1/poll?channel=a&channel=live&timeout={seconds}&since={place}");
        let answer = listener.ask(&path, &[]).await;
        let took = clock::now() - began;
        assert!(took.as_millis() >= seconds * 1000 && took < SHORT, "{took:?}");
        assert_eq!((answer.status, data(&answer)), (200, vec![]));
        let etag = format!("\"{place}\"");
        for etag in [etag.clone(), format!("W/{etag}")] {
            let path = format!("/v1/poll?channel=a&channel=live&timeout={seconds}");
            let answer = listener.ask(&path, &[("If-None-Match", &etag)]).await;
            assert_eq!((answer.status, answer.body.as_str()), (304, ""), "{answer:?}");
            assert!(answer.header("etag").is_some(), "{answer:?}");
        }
    }
    publish(&gateway, "a", 1).await;
    let etag = format!("\"{place}\"");
    let answer = listener.ask("/v1/poll?channel=a&channel=live", &[("If-None-Match", &etag)]).await;
    assert_eq!((answer.status, data(&answer)), (200, vec![1]));
}

/// The place of a quiet channel moves on too: it would else fall out of the history for what others publish.
#[tokio::test]
async fn a_cursor_walks_through_many_channels_and_loses_nothing() {
    let gateway = Gateway::dev(&[]);
    let channels: Vec<String> = (0..12).map(|number| format!("c{number}")).collect();
    let mut expected = BTreeSet::new();
    for number in 0..60_u64 {
        let channel = &channels[usize::try_from(number * number % 11).expect("small")];
        publish(&gateway, channel, number).await;
        expected.insert((channel.clone(), number));
    }
    let query: Vec<_> = channels.iter().map(|channel| format!("channel={channel}")).collect();
    let query = query.join("&");
    for limit in [1, 7, 1000] {
        let (mut since, mut seen, mut last) = ("0".to_owned(), BTreeSet::new(), BTreeMap::new());
        loop {
            let path = format!("/v1/poll?{query}&limit={limit}&timeout=0&since={since}");
            let answer = http::get(gateway.public, &path).await;
            let body = answer.json();
            let messages = body["messages"].as_array().expect("a list");
            assert!(messages.len() <= limit, "{limit}");
            for message in messages {
                let channel = message["channel"].as_str().expect("a name").to_owned();
                let number = message["data"].as_u64().expect("a number");
                assert!(
                    last.insert(channel.clone(), number).is_none_or(|before| before < number),
                    "in order"
                );
                assert!(seen.insert((channel, number)), "once");
            }
            since = cursor(&answer);
            if body["more"] == false {
                break;
            }
            assert_eq!(messages.len(), limit);
        }
        assert_eq!(seen, expected, "limit {limit}");
    }
}

#[tokio::test]
async fn a_large_past_comes_in_parts() {
    let gateway = Gateway::dev(&[]);
    let text = "x".repeat(60_000);
    let channels = ["a", "b"];
    for number in 0..60 {
        for channel in channels {
            let message = json!({"channel": channel, "data": {"number": number, "text": text}});
            assert_eq!(gateway.publish(&message).await.status, 200);
        }
    }
    let (mut since, mut seen, mut parts) = ("0".to_owned(), BTreeMap::<String, u64>::new(), 0);
    let mut listener = Listener::connect(gateway.public).await;
    loop {
        let path = format!("/v1/poll?channel=a&channel=b&limit=1000&timeout=0&since={since}");
        let answer = listener.ask(&path, &[]).await;
        assert!(answer.body.len() < 512 * 1024 + 10_000, "{} bytes", answer.body.len());
        let body = answer.json();
        for message in body["messages"].as_array().expect("a list") {
            let next = seen.entry(message["channel"].as_str().expect("a name").to_owned()).or_default();
            assert_eq!(message["data"]["number"], *next);
            *next += 1;
        }
        (since, parts) = (cursor(&answer), parts + 1);
        if body["more"] == false {
            break;
        }
    }
    assert_eq!(seen, channels.map(|channel| (channel.to_owned(), 60)).into());
    assert!(parts > 1, "it is more than one answer has");
}

#[tokio::test]
async fn a_place_that_cannot_be_had_is_told_at_once_and_then_it_waits() {
    let gateway = Gateway::dev(&[]);
    publish(&gateway, "a", 1).await;
    let answer = http::get(gateway.public, "/v1/poll?channel=a&timeout=55&since=zzzzzz-7").await;
    let control = answer.json()["control"][0].clone();
    assert_eq!((&control["recovered"], &control["reason"]), (&json!(false), &json!("epoch")), "{control}");
    let path = format!("/v1/poll?channel=a&timeout=0&since={}", cursor(&answer));
    let next = http::get(gateway.public, &path).await;
    assert_eq!(next.json()["control"][0]["recovered"], true);
    for (query, status) in [
        ("", 400),
        ("channel=a&timeout=56", 400),
        ("channel=a&limit=0", 400),
        ("channel=a&since=nonsense", 400),
        ("channel=a&since=c1.AAAA", 400),
        ("channel=a&token=x", 401),
    ] {
        let answer = http::get(gateway.public, &format!("/v1/poll?{query}")).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
    }
}

/// Neither makes a client ask again and again without a pause.
#[tokio::test]
async fn a_channel_without_history_or_that_is_refused_does_not_end_the_wait() {
    let secret = "auth.token_secret of at least 32 bytes";
    let gateway = Gateway::serve(&format!(
        "[auth]\ntoken_secret = \"{secret}\"\n[broker]\nkind = \"memory\"\n\
         [[channels]]\nname = \"live\"\nmatch = \"live\"\nauth = \"public\"\n\
         [[channels]]\nname = \"kept\"\nmatch = \"kept\"\nhistory = \"short\"\nauth = \"public\"\n\
         [[channels]]\nname = \"private\"\nmatch = \"private\"\nauth = \"token\"\n"
    ));
    for query in ["channel=live", "channel=kept&channel=live", "channel=kept&channel=private"] {
        let first = http::get(gateway.public, &format!("/v1/poll?{query}")).await;
        let began = clock::now();
        let path = format!("/v1/poll?{query}&timeout=1&since={}", cursor(&first));
        let answer = http::get(gateway.public, &path).await;
        assert!(data(&answer).is_empty());
        assert!((clock::now() - began).as_millis() >= 1000, "{query}: {answer:?}");
        if query.contains("private") {
            assert!(answer.body.contains(r#""error":"unauthorized""#), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_poll_after_poll() {
    let gateway = Gateway::dev(&[("CARILLON__PUBLIC__HANDSHAKE_TIMEOUT", "1s")]);
    let mut listener = Listener::connect(gateway.public).await;
    let mut place = cursor(&listener.ask("/v1/poll?channel=a", &[]).await);
    // Longer than any handshake may take, in one poll and in all.
    for seconds in [3, 1, 1, 1] {
        let answer = listener.ask(&format!("/v1/poll?channel=a&timeout={seconds}&since={place}"), &[]).await;
        assert_eq!(answer.status, 200);
        place = cursor(&answer);
    }
    let timeouts = r#"carillon_connections_rejected_total{transport="websocket",reason="timeout"}"#;
    // Silence after an answer ends it, which is nobody's fault.
    assert_eq!(listener.rest().await, "");
    assert!(gateway.metric(timeouts).await < 0.5);
}

#[tokio::test]
async fn a_node_that_stops_answers_those_who_wait() {
    let mut gateway = Gateway::dev(&[("CARILLON__NODE__DRAIN", "1s")]);
    let first = http::get(gateway.public, "/v1/poll?channel=a").await;
    let path = format!("/v1/poll?channel=a&timeout=55&since={}", cursor(&first));
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut listener = Listener::connect(gateway.public).await;
        listener.send(get(&path, &[])).await;
        waiting.push(listener);
    }
    let open = r#"carillon_connections{transport="poll",protocol="native"}"#;
    eventually("all wait", || async { (gateway.metric(open).await > 19.5).then_some(()) }).await;
    gateway.signal("TERM");
    for listener in &mut waiting {
        let answer = listener.answer().await;
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{answer:?}");
        let control = answer.json()["control"].clone();
        let last = control.as_array().and_then(|all| all.last()).expect("a goodbye").clone();
        assert_eq!((&last["type"], &last["error"]), (&json!("goodbye"), &json!("draining")));
        assert_eq!(cursor(&answer), cursor(&first), "and where it goes on elsewhere");
    }
    assert!(gateway.ended().success());
}

#[tokio::test]
async fn whoever_leaves_is_forgotten() {
    let gateway = Gateway::dev(&[]);
    let mut healthy = Healthy::new(&gateway).await;
    let first = http::get(gateway.public, "/v1/poll?channel=a").await;
    let path = format!("/v1/poll?channel=a&timeout=55&since={}", cursor(&first));
    let open = r#"carillon_connections{transport="poll",protocol="native"}"#;
    let mut leaving = Vec::new();
    for _ in 0..20 {
        let mut listener = Listener::connect(gateway.public).await;
        listener.send(get(&path, &[])).await;
        leaving.push(listener);
    }
    eventually("all wait", || async { (gateway.metric(open).await > 19.5).then_some(()) }).await;
    drop(leaving);
    eventually("all are forgotten", || async { (gateway.metric(open).await < 0.5).then_some(()) }).await;
    healthy.check(&gateway).await;
}

/// No node knows anything of a poll before it comes.
#[tokio::test]
async fn any_node_answers_any_poll() {
    let nats = NatsServer::start(NatsVersion::Newest);
    let (code, printed, complaints) = gateway::run(&["key", "new"], &[]);
    assert_eq!(code, Some(0), "{complaints}");
    let key = printed.lines().next().expect("the key is the first line");
    let keys = &printed[printed.find("[[keys]]").expect("its configuration follows")..];
    let config = format!(
        "{keys}\n[broker]\nkind = \"nats\"\n[broker.nats]\nservers = [\"{}\"]\nreplicas = 1\n\
         [[channels]]\nname = \"kept\"\nmatch = \"*\"\nhistory = \"short\"\nauth = \"public\"\n",
        nats.url()
    );
    let nodes = [Gateway::serve(&config), Gateway::serve(&config)];
    for node in &nodes {
        node.ready().await;
    }
    let mut seen: Vec<Value> = Vec::new();
    let mut since = "0".to_owned();
    for round in 0..20_u64 {
        let (here, there) = (&nodes[usize::from(round % 2 == 0)], &nodes[usize::from(round % 2 == 1)]);
        let message = json!({"channel": format!("c{}", round % 3), "data": round});
        assert_eq!(here.publish_as(key, &message).await.status, 200);
        while seen.len() <= usize::try_from(round).expect("few") {
            let path = format!("/v1/poll?channel=c0&channel=c1&channel=c2&timeout=20&since={since}");
            let answer = http::get(there.public, &path).await;
            seen.extend(data(&answer).into_iter().map(Value::from));
            since = cursor(&answer);
        }
    }
    assert_eq!(seen, (0..20).map(Value::from).collect::<Vec<_>>());
}
