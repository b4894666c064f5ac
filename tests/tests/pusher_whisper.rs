//! The Pusher protocol's events of clients: who may say what to whom. (PUSHER §1.12)

use carillon_tasks::clock;
use carillon_tests::{
    gateway::{Gateway, PATIENCE},
    pusher::{FIRST, PLAIN, SMALL, Socket, alone},
    raw::{TEXT, frame},
};
use serde_json::{Value, json};

/// Bytes of an event's data.
const DATA_MAX_BYTES: usize = 10 * 1024;

const NOT_HERE: &str = "Client event rejected - only supported on private and presence channels";

/// Connects two clients to a private channel.
async fn two(gateway: &Gateway, channel: &str) -> (Socket, Socket) {
    let mut one = Socket::open(gateway.public, &FIRST).await;
    let mut other = Socket::open(gateway.public, &FIRST).await;
    one.subscribe(channel).await;
    other.subscribe(channel).await;
    (one, other)
}

#[tokio::test]
async fn an_event_of_a_client_reaches_the_others_and_not_itself() {
    let gateway = alone().await;
    let channel = "private-whisper";
    let (mut sender, mut one) = two(&gateway, channel).await;
    let mut other = Socket::open(gateway.public, &FIRST).await;
    other.subscribe(channel).await;
    sender.whisper(channel, "client-typing", &json!("ana")).await;
    for socket in [&mut one, &mut other] {
        let got: Value = serde_json::from_str(&socket.text().await).unwrap();
        assert_eq!(got, json!({"event": "client-typing", "channel": channel, "data": "ana"}));
    }
    gateway.rest(&FIRST).trigger(channel, "after", "").await;
    sender.hears(channel, "after", "").await;
}

/// PUSHER §1.2: a text arrives as it is, any other value as its JSON.
#[tokio::test]
async fn data_of_a_client_arrives_as_text() {
    let gateway = alone().await;
    let channel = "private-whisper-data";
    let (mut sender, mut other) = two(&gateway, channel).await;
    for (sent, arrives) in [
        (r#""plain""#, "plain"),
        (r#""{\"a\": 1}""#, "{\"a\": 1}"),
        (r#""""#, ""),
        ("5", "5"),
        ("null", "null"),
        ("true", "true"),
        ("[]", "[]"),
        (r#"{"b":1,"a":2.50,"ü":"\u00fc"}"#, r#"{"b":1,"a":2.50,"ü":"\u00fc"}"#),
    ] {
        sender.say_text(format!(r#"{{"event":"client-x","channel":"{channel}","data":{sent}}}"#)).await;
        other.hears(channel, "client-x", arrives).await;
    }
}

/// PUSHER §1.12: who sent it is what we know, not what the client says.
#[tokio::test]
async fn on_a_presence_channel_the_sender_is_named_and_cannot_lie() {
    let gateway = alone().await;
    let channel = "presence-whisper";
    let mut one = Socket::open(gateway.public, &FIRST).await;
    let _members = one.join(channel, "1").await;
    let mut other = Socket::open(gateway.public, &FIRST).await;
    other.ask_as(channel, r#"{"user_id":22}"#).await;
    let _members = other.joined(channel).await;
    let _came = one.next().await;
    let forged = json!({
        "event": "client-x", "channel": channel, "data": "1", "user_id": "2", "userId": "2", "socket_id": "1.1",
        "more": {"user_id": 2},
    });
    one.say_text(forged.to_string()).await;
    let got: Value = serde_json::from_str(&other.text().await).unwrap();
    assert_eq!(got, json!({"event": "client-x", "channel": channel, "data": "1", "user_id": "1"}));
    // A number is named as a text.
    other.whisper(channel, "client-y", &json!("2")).await;
    let got: Value = serde_json::from_str(&one.text().await).unwrap();
    assert_eq!(got, json!({"event": "client-y", "channel": channel, "data": "2", "user_id": "22"}));
}

#[tokio::test]
async fn on_a_private_channel_nobody_is_named() {
    let gateway = alone().await;
    let channel = "private-whisper-name";
    let (mut sender, mut other) = two(&gateway, channel).await;
    sender.sign_in("somebody").await;
    let forged = json!({"event": "client-x", "channel": channel, "data": "1", "user_id": "2"});
    sender.say_text(forged.to_string()).await;
    other.hears(channel, "client-x", "1").await;
}

#[tokio::test]
async fn an_application_without_the_switch_refuses_events_of_clients() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &PLAIN).await;
    socket.subscribe("private-no-switch").await;
    socket.whisper("private-no-switch", "client-x", &json!("1")).await;
    let expected =
        "To send client events, you must enable this feature in the Settings page of your dashboard.";
    assert_eq!(socket.error().await, (None, expected.to_owned()));
    socket.quiet().await;
}

#[tokio::test]
async fn events_of_clients_are_for_private_and_presence_channels() {
    let gateway = alone().await;
    let mut sender = Socket::open(gateway.public, &FIRST).await;
    let mut other = Socket::open(gateway.public, &FIRST).await;
    for channel in ["whisper-public", "privateer-whisper"] {
        sender.subscribe(channel).await;
        other.subscribe(channel).await;
        sender.whisper(channel, "client-x", &json!("1")).await;
        assert_eq!(sender.error().await, (None, NOT_HERE.to_owned()));
        gateway.rest(&FIRST).trigger(channel, "after", "").await;
        other.hears(channel, "after", "").await;
        sender.hears(channel, "after", "").await;
    }
}

#[tokio::test]
async fn who_has_not_joined_a_channel_cannot_send_to_it() {
    let gateway = alone().await;
    let channel = "private-whisper-stranger";
    let (mut gone, mut other) = two(&gateway, channel).await;
    let mut stranger = Socket::open(gateway.public, &FIRST).await;
    stranger.whisper(channel, "client-x", &json!("1")).await;
    assert_eq!(stranger.error().await.0, None);
    gone.unsubscribe(channel).await;
    gone.whisper(channel, "client-x", &json!("1")).await;
    assert_eq!(gone.error().await.0, None);
    // A member of another application is a stranger, too.
    let mut foreign = Socket::open(gateway.public, &SMALL).await;
    foreign.subscribe(channel).await;
    foreign.whisper(channel, "client-x", &json!("1")).await;
    foreign.quiet().await;
    gateway.rest(&FIRST).trigger(channel, "after", "").await;
    other.hears(channel, "after", "").await;
}

/// PUSHER §1.12: ten in a second are delivered; of a flood, no more than the seconds allow.
#[tokio::test]
async fn ten_events_in_a_second_are_delivered_and_a_flood_is_not() {
    let gateway = alone().await;
    let channel = "private-whisper-rate";
    let (mut sender, mut other) = two(&gateway, channel).await;
    const FLOOD: usize = 200;
    let event = |number: usize| {
        let text = json!({"event": "client-n", "channel": channel, "data": number.to_string()}).to_string();
        frame(TEXT, text)
    };
    let began = clock::now();
    sender.raw.send((0..FLOOD).flat_map(event).collect::<Vec<u8>>()).await;
    sender.say("pusher:ping", &json!({})).await;
    let mut refused = 0;
    loop {
        let next = sender.next().await;
        let Some((code, message)) = next.error else {
            assert_eq!(next.event, "pusher:pong", "{next:?}");
            break;
        };
        assert_eq!(code, Some(4301), "{message}");
        refused += 1;
    }
    let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    let delivered = FLOOD - refused;
    assert!(delivered >= 10 && delivered <= 10 * (seconds + 1), "{delivered} in {seconds} s");
    gateway.rest(&FIRST).trigger(channel, "end", "").await;
    let mut came = Vec::new();
    loop {
        let (event, data) = other.next().await.on(channel);
        if event == "end" {
            break;
        }
        came.push(data.parse::<usize>().unwrap());
    }
    assert_eq!(came.len(), delivered);
    assert!(came.starts_with(&(0..10).collect::<Vec<_>>()) && came.is_sorted(), "{came:?}");
    sender.hears(channel, "end", "").await;
    // Later it may speak again.
    let deadline = clock::now() + PATIENCE;
    loop {
        sender.whisper(channel, "client-later", &json!("x")).await;
        sender.say("pusher:ping", &json!({})).await;
        if sender.next().await.event == "pusher:pong" {
            break;
        }
        let _pong = sender.next().await;
        assert!(clock::now() < deadline, "never again");
    }
    other.hears(channel, "client-later", "x").await;
}

#[tokio::test]
async fn data_of_10_kib_is_delivered_and_one_byte_more_is_refused() {
    let gateway = alone().await;
    let channel = "private-whisper-size";
    let (mut sender, mut other) = two(&gateway, channel).await;
    // Bytes, not characters.
    for unit in ["d", "ü"] {
        let largest = unit.repeat(DATA_MAX_BYTES / unit.len());
        sender.whisper(channel, "client-x", &json!(largest)).await;
        other.hears(channel, "client-x", &largest).await;
        sender.whisper(channel, "client-x", &json!(format!("{largest}d"))).await;
        let (code, message) = sender.error().await;
        assert!(code.is_none_or(|code| code == 4301), "{code:?} {message}");
    }
    gateway.rest(&FIRST).trigger(channel, "after", "").await;
    other.hears(channel, "after", "").await;
}

#[tokio::test]
async fn a_name_of_200_characters_is_delivered_and_one_more_is_refused() {
    let gateway = alone().await;
    let channel = "private-whisper-event";
    let (mut sender, mut other) = two(&gateway, channel).await;
    let longest = format!("client-{}", "e".repeat(200 - 7));
    sender.whisper(channel, &longest, &json!("1")).await;
    other.hears(channel, &longest, "1").await;
    sender.whisper(channel, &format!("{longest}e"), &json!("1")).await;
    let _refusal = sender.error().await;
    gateway.rest(&FIRST).trigger(channel, "after", "").await;
    other.hears(channel, "after", "").await;
}

/// Only names that begin with `client-` are events of clients; nobody can speak as the server.
#[tokio::test]
async fn events_of_other_names_are_not_passed_on() {
    let gateway = alone().await;
    let channel = "private-whisper-names";
    let (mut sender, mut other) = two(&gateway, channel).await;
    for event in [
        "message",
        "client",
        "Client-x",
        "pusher:error",
        "pusher:connection_established",
        "pusher_internal:member_added",
        "pusher_internal:subscription_succeeded",
        "pusher:cache_miss",
        "",
    ] {
        sender.whisper(channel, event, &json!({"user_id": "1"})).await;
    }
    sender.say("pusher:ping", &json!({})).await;
    while sender.next().await.event != "pusher:pong" {}
    gateway.rest(&FIRST).trigger(channel, "after", "").await;
    other.hears(channel, "after", "").await;
    sender.hears(channel, "after", "").await;
}

#[tokio::test]
async fn an_application_may_have_other_limits_for_events_of_clients() {
    let gateway = alone().await;
    let channel = "private-small-whisper";
    let mut sender = Socket::open(gateway.public, &SMALL).await;
    let mut other = Socket::open(gateway.public, &SMALL).await;
    sender.subscribe(channel).await;
    other.subscribe(channel).await;
    sender.whisper(channel, "client-x", &json!("d".repeat(2048))).await;
    other.hears(channel, "client-x", &"d".repeat(2048)).await;
    sender.whisper(channel, "client-x", &json!("d".repeat(2049))).await;
    let _refusal = sender.error().await;
}
