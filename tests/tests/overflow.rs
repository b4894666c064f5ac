//! Readers that do not read, under each overflow rule: a real gateway process, real sockets.

use carillon_tests::{
    client::Client,
    gateway::Gateway,
    raw::{Raw, eventually},
};
use serde_json::{Value, json};

const KEY: &str = "crl_test_main_CarillonCarillonCarillonCarillonCarillonCar";

const CONFIG: &str = r#"
[client]
outbox_max = "64KiB"

[[keys]]
id = "test_main"
secret_sha256 = "da46ae6850c1693ffe77bb9ba1e6e522444c805fa960c26997dcab03938cdc8e"
scopes = ["publish"]
channels = ["*"]

[[channels]]
name = "oldest"
match = "oldest*"
history = "short"
overflow = "drop_oldest"
auth = "public"

[[channels]]
name = "latest"
match = "latest*"
overflow = "latest"
auth = "public"

[[channels]]
name = "kept"
match = "kept*"
history = "long"
auth = "public"
"#;

const DROPPED: &str = r#"carillon_messages_dropped_total{reason="overflow"}"#;

/// Publishes numbered messages of 10 kB until the gateway drops some for the slow reader, then a few more. A reader
/// beside it gets every one. Returns how many there were.
async fn flood(gateway: &Gateway, channel: &str, healthy: &mut Client) -> u64 {
    let filling = "x".repeat(10_000);
    let (mut published, mut enough) = (0, None);
    while enough != Some(published) {
        assert!(published < 5000, "50 MB wait for somebody who does not read");
        for _ in 0..10 {
            let message = json!({"channel": channel, "data": [published, filling]});
            assert_eq!(gateway.publish_as(KEY, &message).await.status, 200);
            assert_eq!(healthy.data().await[0], published);
            published += 1;
        }
        if enough.is_none() && gateway.metric(DROPPED).await > 0.5 {
            enough = Some(published + 40);
        }
    }
    published
}

/// What a slow reader found when it read at last.
#[derive(Debug, Default)]
struct Found {
    numbers: Vec<u64>,
    ids: Vec<u64>,
    gaps: usize,
    /// The number that came first after the last gap.
    after_gap: Option<u64>,
}

fn offset(id: &Value) -> u64 {
    let (_, offset) = id.as_str().expect("an id").split_once('-').expect("epoch and offset");
    offset.parse().expect("a number")
}

/// Reads until the message with the number `last`, and checks what every reader may rely on.
async fn read_all(slow: &mut Raw, channel: &str, last: u64) -> Found {
    let mut found = Found::default();
    let mut gap_at = None;
    loop {
        let frame = slow.json().await;
        assert_eq!(frame["channel"], channel, "{frame:.200}");
        if frame["type"] == "gap" {
            found.gaps += 1;
            found.after_gap = None;
            gap_at = frame.get("position").map(offset);
            continue;
        }
        assert_eq!(frame["type"], "message", "{frame:.200}");
        let number = frame["data"][0].as_u64().expect("a number");
        if let Some(before) = found.numbers.last() {
            // What is missing is missing behind a gap.
            let follows =
                number == before + 1 || (number > *before && found.after_gap.is_none() && found.gaps > 0);
            assert!(follows, "{number} after {before}");
        }
        if let Some(id) = frame.get("id") {
            assert!(
                gap_at.take().is_none_or(|gap| gap < offset(id)),
                "a gap reaches to before what follows it"
            );
            found.ids.push(offset(id));
        }
        found.after_gap.get_or_insert(number);
        found.numbers.push(number);
        if number == last {
            return found;
        }
    }
}

/// Waits until the metric says that so many were dropped.
async fn counted(gateway: &Gateway, missing: u64) {
    let is = || async { ((gateway.metric(DROPPED).await - missing as f64).abs() < 0.5).then_some(()) };
    eventually(&format!("{missing} dropped"), is).await;
}

async fn slow_reader(gateway: &Gateway, channel: &str) -> Raw {
    let mut slow = Raw::connect_narrow(gateway.public, 4096).await;
    slow.upgrade(&format!("/v1/ws?channel={channel}")).await;
    assert_eq!(slow.json().await["type"], "welcome");
    assert_eq!(slow.json().await["type"], "subscribed");
    slow
}

/// Native protocol §8, `overflow = "drop_oldest"`: the oldest give way, one `gap` stands in their place, and every
/// one of them is counted.
#[tokio::test]
async fn the_oldest_give_way_behind_a_gap_and_are_counted() {
    let gateway = Gateway::serve(CONFIG);
    let mut slow = slow_reader(&gateway, "oldest").await;
    let mut healthy = Client::subscribed(&gateway.ws(""), &["oldest"]).await;
    let published = flood(&gateway, "oldest", &mut healthy).await;
    let found = read_all(&mut slow, "oldest", published - 1).await;
    assert_eq!(found.gaps, 1, "however often it overflowed: {found:?}");
    assert!(found.ids.is_sorted() && found.after_gap.is_some_and(|first| first < published - 1), "{found:?}");
    let missing = published - u64::try_from(found.numbers.len()).expect("few");
    counted(&gateway, missing).await;
    // It lives, and hears what comes.
    gateway.publish_as(KEY, &json!({"channel": "oldest", "data": [published]})).await;
    assert_eq!(slow.json().await["data"][0], published);
}

/// `overflow = "latest"`: of what waited only the newest is sent; a channel that closes its readers is not closed for
/// what another channel may drop.
#[tokio::test]
async fn the_newest_replaces_the_rest_and_makes_room_for_others() {
    let gateway = Gateway::serve(CONFIG);
    let mut slow = Raw::connect_narrow(gateway.public, 4096).await;
    slow.upgrade("/v1/ws?channel=latest&channel=kept").await;
    for kind in ["welcome", "subscribed", "subscribed"] {
        assert_eq!(slow.json().await["type"], kind);
    }
    let mut healthy = Client::subscribed(&gateway.ws(""), &["latest", "kept"]).await;
    let published = flood(&gateway, "latest", &mut healthy).await;
    // The queue is full of what may be dropped: this has room all the same.
    let half = "y".repeat(30_000);
    gateway.publish_as(KEY, &json!({"channel": "kept", "data": half})).await;
    assert_eq!(healthy.data().await, half);
    let (mut numbers, mut gaps) = (Vec::new(), 0);
    loop {
        let frame = slow.json().await;
        match (frame["type"].as_str(), frame["channel"].as_str()) {
            (Some("gap"), Some("latest")) => gaps += 1,
            (Some("message"), Some("latest")) => numbers.push(frame["data"][0].as_u64().expect("a number")),
            (Some("message"), Some("kept")) => {
                assert_eq!(frame["data"], half);
                break;
            }
            _ => panic!("{frame:.200}"),
        }
    }
    assert!(gaps > 0 && numbers.is_sorted(), "{gaps} gaps in {numbers:?}");
    assert_eq!(numbers.last(), Some(&(published - 1)), "the newest is the last");
    let missing = published - u64::try_from(numbers.len()).expect("few");
    counted(&gateway, missing).await;
}

/// `overflow = "close"`: the reader is closed, comes back with the last id that it saw, and misses nothing.
#[tokio::test]
async fn who_is_closed_for_slowness_comes_back_and_has_everything() {
    let gateway = Gateway::serve(CONFIG);
    let mut slow = slow_reader(&gateway, "kept").await;
    let mut healthy = Client::subscribed(&gateway.ws(""), &["kept"]).await;
    let filling = "x".repeat(10_000);
    let slow_consumer = r#"carillon_messages_dropped_total{reason="slow_consumer"}"#;
    let mut published = 0_u64;
    while gateway.metric(slow_consumer).await < 0.5 {
        assert!(published < 5000, "50 MB wait for somebody who does not read");
        let message = json!({"channel": "kept", "data": [published, filling]});
        assert_eq!(gateway.publish_as(KEY, &message).await.status, 200);
        assert_eq!(healthy.data().await[0], published);
        published += 1;
    }
    let (mut last, mut next) = (None, 0);
    loop {
        let frame = slow.json().await;
        if frame["type"] == "goodbye" {
            assert_eq!(frame["error"], "slow_consumer");
            break;
        }
        assert_eq!(frame["data"][0], next, "{frame:.200}");
        next += 1;
        last = Some(frame["id"].as_str().expect("an id").to_owned());
    }
    let last = last.expect("something was read");
    let mut back = Client::connect(&gateway.ws(&format!("channel=kept&since={last}"))).await;
    assert_eq!(back.frame().await["type"], "welcome");
    let subscribed = back.frame().await;
    assert_eq!(
        (&subscribed["recovered"], &subscribed["replayed"], &subscribed["position"]),
        (&json!(true), &json!(published - next), &json!(last))
    );
    for number in next..published {
        assert_eq!(back.data().await[0], number);
    }
}
