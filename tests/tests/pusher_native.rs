//! Clients of two dialects on one channel: each is told in its own. (ARCHITECTURE §1, PUSHER §1.2)

use std::sync::Arc;

use carillon_model::ConnectionId;
use carillon_tests::{
    client::Client,
    gateway::Gateway,
    pusher::{DEV, Shared, Socket},
};
use serde_json::{Value, json};

async fn dev() -> Arc<Gateway> {
    static DEV: Shared<Gateway> = Shared::new();
    let gateway = DEV.get(|| Gateway::dev(&[]));
    gateway.ready().await;
    gateway
}

/// Connects one client of each dialect to a channel.
async fn both(gateway: &Gateway, channel: &str) -> (Client, Socket) {
    let native = Client::subscribed(&gateway.ws(""), &[channel]).await;
    let mut pusher = Socket::open(gateway.public, &DEV).await;
    pusher.subscribe(channel).await;
    (native, pusher)
}

/// Publishes over the native API, with data as the JSON stands.
async fn publish(gateway: &Gateway, channel: &str, data: &str) {
    let headers = [("Authorization", "Bearer dev"), ("Content-Type", "application/json")];
    let body = format!(r#"{{"channel":"{channel}","event":"tick","data":{data}}}"#);
    let answer = carillon_tests::http::post(gateway.api, "/v1/publish", &headers, body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A text is that text; any other value is its JSON, as the publisher wrote it.
#[tokio::test]
async fn native_data_reaches_pusher_clients_as_text() {
    let gateway = dev().await;
    let (mut native, mut pusher) = both(&gateway, "native-data").await;
    for (data, arrives) in [
        (r#"{"b":1,"a":2.50}"#, r#"{"b":1,"a":2.50}"#),
        (r#"{ "spaced" : [1, 2] }"#, r#"{ "spaced" : [1, 2] }"#),
        (r#""plain""#, "plain"),
        (r#""{\"a\":1}""#, r#"{"a":1}"#),
        (r#""ü\u00fc\n\"\\""#, "üü\n\"\\"),
        (r#"{"ü":"\u00fc\n\"\\"}"#, r#"{"ü":"\u00fc\n\"\\"}"#),
        (r#""""#, ""),
        ("5", "5"),
        ("null", "null"),
        ("[]", "[]"),
    ] {
        publish(&gateway, "native-data", data).await;
        let message = native.message().await;
        assert_eq!(message["data"], serde_json::from_str::<Value>(data).unwrap());
        pusher.hears("native-data", "tick", arrives).await;
    }
}

/// Messages that reach a worker together are written together, those of the last channel at once: each client has each
/// channel's in their order, all of them and once.
#[tokio::test]
async fn batches_to_two_channels_reach_clients_of_both_dialects_in_order() {
    const CHANNELS: [&str; 2] = ["batch-one", "batch-two"];
    const EACH: usize = 250;
    let gateway = dev().await;
    let (mut natives, mut pushers) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        natives.push(Client::subscribed(&gateway.ws(""), &CHANNELS).await);
        let mut pusher = Socket::open(gateway.public, &DEV).await;
        for channel in CHANNELS {
            pusher.subscribe(channel).await;
        }
        pushers.push(pusher);
    }
    let messages: Vec<_> = (0..EACH)
        .flat_map(|n| CHANNELS.map(|channel| json!({"channel": channel, "event": "tick", "data": n})))
        .collect();
    for batch in messages.chunks(100) {
        let headers = [("Authorization", "Bearer dev"), ("Content-Type", "application/json")];
        let answer =
            carillon_tests::http::post(gateway.api, "/v1/batch", &headers, json!(batch).to_string()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let expected =
        CHANNELS.map(|channel| (0..EACH).map(|n| format!("{channel} tick {n}")).collect::<Vec<_>>());
    for native in &mut natives {
        let mut came: [Vec<String>; 2] = Default::default();
        for _ in 0..2 * EACH {
            let message = native.message().await;
            let channel = message["channel"].as_str().unwrap_or_default();
            came[usize::from(channel == CHANNELS[1])].push(format!("{channel} tick {}", message["data"]));
        }
        assert_eq!(came, expected);
    }
    for pusher in &mut pushers {
        let mut came: [Vec<String>; 2] = Default::default();
        for _ in 0..2 * EACH {
            let next = pusher.next().await;
            let channel = next.channel.unwrap_or_default();
            let text = format!("{channel} {} {}", next.event, next.data.unwrap_or_default());
            came[usize::from(channel == CHANNELS[1])].push(text);
        }
        assert_eq!(came, expected);
    }
}

/// A text that is JSON is shown as that, any other as a text.
#[tokio::test]
async fn pusher_data_reaches_native_clients_as_json_where_it_is_json() {
    let gateway = dev().await;
    let (mut native, mut pusher) = both(&gateway, "pusher-data").await;
    let rest = gateway.rest(&DEV);
    for (data, shown) in [
        (r#"{"a":1,"b":[true]}"#, json!({"a": 1, "b": [true]})),
        ("[1,2]", json!([1, 2])),
        ("plain text", json!("plain text")),
        ("{not JSON}", json!("{not JSON}")),
        ("{\"cut\":", json!("{\"cut\":")),
        ("", json!("")),
        ("{\n  \"lines\": 2\n}", json!({"lines": 2})),
        ("ü😀\u{0}", json!("ü😀\u{0}")),
    ] {
        rest.trigger("pusher-data", "App\\Events\\X", data).await;
        let message = native.message().await;
        assert_eq!((&message["event"], &message["data"]), (&json!("App\\Events\\X"), &shown), "{data:?}");
        pusher.hears("pusher-data", "App\\Events\\X", data).await;
    }
}

#[tokio::test]
async fn both_kinds_of_clients_see_one_order() {
    let gateway = dev().await;
    let (mut native, mut pusher) = both(&gateway, "one-order").await;
    let rest = gateway.rest(&DEV);
    let by_pusher = async {
        for number in 0..50 {
            rest.trigger("one-order", "p", &number.to_string()).await;
        }
    };
    let by_native = async {
        for number in 0..50 {
            let message = json!({"channel": "one-order", "event": "n", "data": number});
            assert_eq!(gateway.publish(&message).await.status, 200);
        }
    };
    tokio::join!(by_pusher, by_native);
    for _ in 0..100 {
        let one = native.message().await;
        let (event, data) = pusher.next().await.on("one-order");
        assert_eq!(one["event"], event);
        assert_eq!(one["data"].to_string(), data);
    }
}

/// pusher-js needs a name for each event.
#[tokio::test]
async fn a_message_without_an_event_has_a_name_for_pusher_clients() {
    let gateway = dev().await;
    let (mut native, mut pusher) = both(&gateway, "unnamed").await;
    let answer = gateway.publish(&json!({"channel": "unnamed", "data": {"a": 1}})).await;
    assert_eq!(answer.status, 200);
    assert!(native.message().await.get("event").is_none());
    let (event, data) = pusher.next().await.on("unnamed");
    assert!(!event.is_empty() && !event.starts_with("pusher"), "{event}");
    assert_eq!(data, r#"{"a":1}"#);
}

/// A socket id and a connection's id are two spellings of one number: either API can leave out either client.
#[tokio::test]
async fn either_api_leaves_out_clients_of_either_kind() {
    let gateway = dev().await;
    let mut native = Client::connect(&gateway.ws("channel=left-out")).await;
    let connection: ConnectionId =
        native.frame().await["connection"].as_str().expect("the welcome names it").parse().unwrap();
    assert_eq!(native.frame().await["type"], "subscribed");
    let mut pusher = Socket::open(gateway.public, &DEV).await;
    pusher.subscribe("left-out").await;
    let (high, low) = pusher.id().split_once('.').unwrap();
    let (high, low): (u32, u32) = (high.parse().unwrap(), low.parse().unwrap());
    let of_pusher = ConnectionId::from_bits(u64::from(high) << 32 | u64::from(low)).to_string();
    let socket_id = format!("{}.{}", connection.bits() >> 32, connection.bits() & u64::from(u32::MAX));
    let body = json!({"name": "not-native", "channel": "left-out", "data": "1", "socket_id": socket_id});
    assert_eq!(gateway.rest(&DEV).done("/events", &body).await, json!({}));
    let message = json!({"channel": "left-out", "event": "not-pusher", "data": 2, "exclude": [of_pusher]});
    assert_eq!(gateway.publish(&message).await.status, 200);
    gateway.rest(&DEV).trigger("left-out", "all", "3").await;
    pusher.hears("left-out", "not-native", "1").await;
    pusher.hears("left-out", "all", "3").await;
    assert_eq!(native.message().await["event"], "not-pusher");
    assert_eq!(native.message().await["event"], "all");
}

/// What a Pusher backend publishes on a channel with history is kept like everything else.
#[tokio::test]
async fn native_clients_recover_what_pusher_backends_published() {
    let gateway = dev().await;
    let rest = gateway.rest(&DEV);
    rest.trigger("recovered", "first", "1").await;
    rest.trigger("recovered", "second", "{\"a\":1}").await;
    let mut client = Client::connect(&gateway.ws("channel=recovered&since=0")).await;
    assert_eq!(client.frame().await["type"], "welcome");
    let subscribed = client.frame().await;
    assert_eq!(
        (&subscribed["type"], &subscribed["replayed"]),
        (&json!("subscribed"), &json!(2)),
        "{subscribed}"
    );
    let first = client.message().await;
    assert_eq!((&first["event"], &first["data"]), (&json!("first"), &json!(1)));
    assert_eq!(client.message().await["data"], json!({"a": 1}));
}

/// What a native application publishes to a cache channel is what the next Pusher client gets.
#[tokio::test]
async fn a_native_message_is_kept_on_a_cache_channel() {
    let gateway = dev().await;
    publish(&gateway, "cache-native", r#"{"kept":true}"#).await;
    let mut pusher = Socket::open(gateway.public, &DEV).await;
    pusher.subscribe("cache-native").await;
    pusher.hears("cache-native", "tick", r#"{"kept":true}"#).await;
}

/// A user is reached by either API in either kind of client.
#[tokio::test]
async fn a_native_message_to_a_user_reaches_pusher_clients_of_that_user() {
    let gateway = dev().await;
    let mut pusher = Socket::open(gateway.public, &DEV).await;
    pusher.sign_in("native-user").await;
    pusher.subscribe("#server-to-user-native-user").await;
    let answer = gateway.publish(&json!({"user": "native-user", "event": "hello", "data": {"a": 1}})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    pusher.hears("#server-to-user-native-user", "hello", r#"{"a":1}"#).await;
}

/// Subscribers of both kinds are counted as one.
#[tokio::test]
async fn both_kinds_of_clients_occupy_a_channel() {
    let gateway = dev().await;
    let (_native, _pusher) = both(&gateway, "both-count").await;
    carillon_tests::raw::eventually("two", || async {
        let answer = gateway.rest(&DEV).read("/channels/both-count", &[("info", "subscription_count")]).await;
        (answer == json!({"occupied": true, "subscription_count": 2})).then_some(())
    })
    .await;
}
