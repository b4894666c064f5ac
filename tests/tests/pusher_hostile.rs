//! What clients and backends of the Pusher protocol should not send: each harms only itself, and the others are served
//! afterwards.

use std::time::Duration;

use carillon_tests::{
    client::Client,
    pusher::{DEV, Place, path, refusal},
    raw::{BINARY, CLOSE, PING, PONG, Raw, TEXT, eventually, frame, header},
};
use serde_json::{Value, json};

/// First byte of a text message's first fragment, and of its last.
const TEXT_BEGINS: u8 = 0x01;
const ENDS: u8 = 0x80;

/// Bytes that a client may send in one frame.
const FRAME_MAX_BYTES: usize = 64 * 1024;

/// Nobody is pinged away who has nothing to do but wait for a slow machine.
const PATIENT: (&str, &str) = ("CARILLON__CLIENT__HEARTBEAT", "5m");

/// For how long a flood is written before others are asked how they are.
const FLOOD_TIME: Duration = Duration::from_secs(1);

/// More than this in memory is a leak in the tests below.
const MEMORY_MAX_BYTES: u64 = 32 << 20;

/// Sends a text on a connection of its own; it may be answered with errors or a close, and not with anything else.
async fn only_errors(place: &Place, text: impl AsRef<[u8]>) {
    let text = text.as_ref();
    let shown = String::from_utf8_lossy(text.get(..200.min(text.len())).unwrap_or_default()).into_owned();
    let mut socket = place.socket().await;
    socket.say_text(text).await;
    socket.say("pusher:ping", &json!({})).await;
    loop {
        let next = socket.raw.frame().await.unwrap_or_else(|| panic!("the end without a close: {shown}"));
        match next.first {
            CLOSE => {
                let (code, reason) = next.close();
                assert!((1002..4300).contains(&code) && code != 1005, "{code} {reason}: {shown}");
                return;
            }
            TEXT => {
                let value = next.json();
                match value["event"].as_str() {
                    Some("pusher:pong") => return,
                    Some("pusher:error") => {
                        let data = &value["data"];
                        assert!(data["code"].is_null() || data["code"].is_i64(), "{value}: {shown}");
                        assert!(data["message"].is_string(), "{value}: {shown}");
                    }
                    Some("pusher:subscription_error") => {}
                    _ => panic!("{value}: {shown}"),
                }
            }
            PING | PONG => {}
            other => panic!("{other}: {shown}"),
        }
    }
}

#[tokio::test]
async fn texts_that_are_no_frames_are_errors() {
    let mut place = Place::new(&[]).await;
    for text in [
        "",
        " ",
        "not JSON",
        "{",
        "}",
        "{}",
        "[]",
        "[1,2]",
        "null",
        "7",
        "\"pusher:ping\"",
        "{\"event\":",
        "{\"event\":\"pusher:ping\"",
        "{\"event\":\"pusher:ping\"} x",
        "{\"event\":\"pusher:ping\",}",
        "{'event':'pusher:ping'}",
        "{\"event\":NaN}",
        "{\"data\":{}}",
        "{\"\":\"\"}",
        "\u{feff}{}",
        "{\"event\":\"\\ud800\"}",
        "{\"event\":\"\\x\"}",
        "\u{0}",
    ] {
        only_errors(&place, text).await;
    }
    place.check().await;
}

#[tokio::test]
async fn members_of_the_wrong_type_are_errors() {
    let mut place = Place::new(&[]).await;
    let wrong = [
        json!(null),
        json!(7),
        json!(1.5),
        json!(true),
        json!([]),
        json!({}),
        json!([["x"]]),
        json!({"x": {}}),
    ];
    for value in wrong {
        for frame in [
            json!({"event": value, "data": {}}),
            json!({"event": "pusher:subscribe", "data": {"channel": value}}),
            json!({"event": "pusher:subscribe", "data": {"channel": "private-types", "auth": value}}),
            json!({"event": "pusher:unsubscribe", "data": {"channel": value}}),
            json!({"event": "pusher:signin", "data": {"auth": value, "user_data": "{}"}}),
            json!({"event": "pusher:signin", "data": {"auth": "dev-key:x", "user_data": value}}),
            json!({"event": "client-x", "channel": value, "data": "1"}),
        ] {
            only_errors(&place, frame.to_string()).await;
        }
        for event in ["pusher:subscribe", "pusher:unsubscribe", "pusher:signin"] {
            only_errors(&place, json!({"event": event, "data": value}).to_string()).await;
            only_errors(&place, json!({"event": event, "data": value.to_string()}).to_string()).await;
        }
    }
    place.check().await;
}

#[tokio::test]
async fn missing_members_are_errors() {
    let mut place = Place::new(&[]).await;
    for event in ["pusher:subscribe", "pusher:unsubscribe", "pusher:signin", "client-x"] {
        for frame in [
            json!({"event": event}),
            json!({"event": event, "data": ""}),
            json!({"event": event, "data": "{}"}),
            json!({"event": event, "data": "{"}),
            json!({"event": event, "channel": "private-missing"}),
        ] {
            only_errors(&place, frame.to_string()).await;
        }
    }
    // Channel data that is signed and no text is none.
    let mut socket = place.socket().await;
    for data in [json!(7), json!({"user_id": "1"}), json!(["x"]), json!(true)] {
        let auth = DEV.auth(socket.id(), "presence-types", Some(&data.to_string()));
        let subscribe = json!({"channel": "presence-types", "auth": auth, "channel_data": data});
        socket.say("pusher:subscribe", &subscribe).await;
        let _refusal = socket.turned_down().await;
    }
    place.check().await;
}

#[tokio::test]
async fn events_that_nobody_knows_are_errors_or_nothing() {
    let mut place = Place::new(&[]).await;
    for event in [
        "x",
        "pusher:",
        "pusher:unknown",
        "pusher:connection_established",
        "pusher_internal:subscription_succeeded",
        "pusher_internal:",
        "PUSHER:PING",
        "pusher:ping ",
        "subscribe",
        "client-",
        "\u{0}",
        &"e".repeat(10_000),
    ] {
        let text = json!({"event": event, "channel": "private-healthy", "data": {"channel": "unknown"}});
        only_errors(&place, text.to_string()).await;
    }
    place.pusher.quiet().await;
    place.check().await;
}

#[tokio::test]
async fn deep_json_is_an_error_and_nothing_worse() {
    let mut place = Place::new(&[]).await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [100, 1000, 8000] {
            let (open, close) = (open.repeat(depth), close.repeat(depth));
            only_errors(&place, format!("{open}1{close}")).await;
            only_errors(&place, &open).await;
            only_errors(&place, format!(r#"{{"event":"pusher:subscribe","data":{open}1{close}}}"#)).await;
            only_errors(&place, format!(r#"{{"event":"x","more":{open}1{close}}}"#)).await;
            let text = format!("{open}1{close}");
            only_errors(&place, json!({"event": "pusher:subscribe", "data": text}).to_string()).await;
            only_errors(&place, json!({"event": "pusher:signin", "data": text}).to_string()).await;
        }
    }
    // Signed, it is an error as well: nobody's description is that deep.
    let mut socket = place.socket().await;
    let member = format!(r#"{{"user_id":"1","user_info":{}{}}}"#, "[".repeat(400), "]".repeat(400));
    socket.ask_as("presence-deep", &member).await;
    let _refusal_or_roster = socket.next().await;
    let user = format!(r#"{{"id":"1","user_info":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    let mut socket = place.socket().await;
    socket.ask_sign_in(&user).await;
    let _answer = socket.next().await;
    place.check().await;
}

/// A client event may say anything: it is passed on as text, however deep.
#[tokio::test]
async fn deep_data_of_a_client_is_passed_on_or_refused_whole() {
    let mut place = Place::new(&[]).await;
    let (mut sender, mut other) = (place.socket().await, place.socket().await);
    sender.subscribe("private-deep").await;
    other.subscribe("private-deep").await;
    let data = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    sender.say_text(format!(r#"{{"event":"client-deep","channel":"private-deep","data":{data}}}"#)).await;
    sender.say("pusher:ping", &json!({})).await;
    let next = sender.next().await;
    if next.error.is_none() {
        assert_eq!(next.event, "pusher:pong");
        other.hears("private-deep", "client-deep", &data).await;
    }
    place.rest().trigger("private-deep", "after", "").await;
    other.hears("private-deep", "after", "").await;
    place.check().await;
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_closed_with_1009() {
    let mut place = Place::new(&[]).await;
    let mut largest = json!({"event": "pusher:ping", "data": {}}).to_string();
    largest.push_str(&" ".repeat(FRAME_MAX_BYTES - largest.len()));
    let mut socket = place.socket().await;
    socket.say_text(&largest).await;
    assert_eq!(socket.next().await.event, "pusher:pong");
    largest.push(' ');
    socket.say_text(&largest).await;
    assert_eq!(socket.closed().await.0, 1009);
    // What is only declared, and what comes in pieces.
    for bytes in [
        [header(TEXT, 1 << 40, 0x80), vec![1, 2, 3, 4]].concat(),
        [frame(TEXT_BEGINS, "x".repeat(FRAME_MAX_BYTES)), frame(ENDS, "x")].concat(),
    ] {
        let mut socket = place.socket().await;
        socket.raw.send(bytes).await;
        assert_eq!(socket.close_frame().await.0, 1009);
    }
    place.check().await;
}

/// PUSHER §1.15: between the largest data of an event and the largest frame the answer is an error.
#[tokio::test]
async fn data_that_is_too_large_in_a_frame_that_is_not_is_an_error() {
    let mut place = Place::new(&[]).await;
    let mut socket = place.socket().await;
    socket.subscribe("private-large").await;
    for bytes in [10 * 1024 + 1, 60_000] {
        socket.whisper("private-large", "client-x", &json!("d".repeat(bytes))).await;
        let _refusal = socket.error().await;
        socket.quiet().await;
    }
    place.check().await;
}

#[tokio::test]
async fn binary_frames_are_ignored_refused_or_closed() {
    let mut place = Place::new(&[]).await;
    for payload in
        [Vec::new(), vec![0, 255, 1], br#"{"event":"pusher:subscribe","data":{"channel":"b"}}"#.to_vec()]
    {
        let mut socket = place.socket().await;
        socket.raw.send(frame(BINARY, payload)).await;
        socket.say("pusher:ping", &json!({})).await;
        let mut next = socket.raw.frame().await.expect("an answer");
        if next.first == TEXT && next.json()["event"] == "pusher:error" {
            next = socket.raw.frame().await.expect("an answer");
        }
        match next.first {
            TEXT => assert_eq!(next.json()["event"], "pusher:pong"),
            first => assert_eq!((first, next.close().0), (CLOSE, 1003), "{next:?}"),
        }
    }
    place.check().await;
}

#[tokio::test]
async fn text_that_is_no_utf_8_is_closed_with_1007() {
    let mut place = Place::new(&[]).await;
    for bytes in [
        b"\xff".to_vec(),
        b"{\"event\":\"pusher:ping\xc3\"}".to_vec(),
        b"{\"event\":\"\xed\xa0\x80\"}".to_vec(),
        b"\xf5\x80\x80\x80".to_vec(),
        b"\xc0\xaf".to_vec(),
    ] {
        let mut socket = place.socket().await;
        socket.say_text(bytes).await;
        assert_eq!(socket.closed().await.0, 1007);
    }
    place.check().await;
}

#[tokio::test]
async fn broken_framing_is_closed_with_1002() {
    let mut place = Place::new(&[]).await;
    for bytes in [
        // Not masked, reserved bits, an unknown opcode, a ping in pieces, an end without a beginning.
        [header(TEXT, 2, 0), b"{}".to_vec()].concat(),
        frame(0xc1, "{}"),
        frame(0x83, "{}"),
        frame(0x09, "x"),
        frame(ENDS, "{}"),
    ] {
        let mut socket = place.socket().await;
        socket.raw.send(bytes).await;
        assert_eq!(socket.close_frame().await.0, 1002);
    }
    place.check().await;
}

/// Returns the frames that subscribe to a channel and leave it.
fn in_and_out(channel: &str) -> Vec<u8> {
    let data = json!({"channel": channel});
    let text = |event: &str| frame(TEXT, json!({"event": event, "data": data}).to_string());
    [text("pusher:subscribe"), text("pusher:unsubscribe")].concat()
}

/// Subscriptions and their ends, a hundred thousand of both.
#[tokio::test]
async fn a_hundred_thousand_subscriptions_and_ends_leave_nothing_behind() {
    let mut place = Place::new(&[PATIENT]).await;
    place.check().await;
    let before = place.gateway.resident_bytes();
    // As many as one connection may send at once.
    const EACH: usize = 1000;
    for connection in 0..50 {
        let channels: Vec<_> =
            (0..EACH).map(|number| format!("churn-{}", connection * EACH + number)).collect();
        let mut socket = place.socket().await;
        for some in channels.chunks(100) {
            let frames = some.iter().flat_map(|channel| in_and_out(channel));
            socket.raw.send(frames.collect::<Vec<_>>()).await;
            for channel in some {
                socket.subscribed(channel).await;
            }
        }
        socket.quiet().await;
        if connection % 10 == 0 {
            place.check().await;
        }
    }
    let list = place.rest().read("/channels", &[("filter_by_prefix", "churn-")]).await;
    assert_eq!(list, json!({"channels": {}}));
    let grown = place.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_MAX_BYTES, "{grown} bytes");
    place.check().await;
}

/// Who goes on and on is slowed down; the others are not.
#[tokio::test]
async fn who_joins_and_leaves_without_end_delays_nobody() {
    let mut place = Place::new(&[]).await;
    let frames = in_and_out("churn-on").repeat(3000);
    let mut floods = Vec::new();
    for _ in 0..5 {
        let mut socket = place.socket().await;
        // Some of it waits here: nobody reads it as quickly as it is written.
        let flood = tokio::time::timeout(FLOOD_TIME, socket.raw.try_send(&frames)).await;
        assert_ne!(flood, Ok(false), "the flood is read, not cut off");
        floods.push(socket);
        place.check().await;
    }
    for _ in 0..5 {
        place.check().await;
    }
    for socket in &mut floods {
        socket.subscribed("churn-on").await;
    }
    drop(floods);
    place.check().await;
}

#[tokio::test]
async fn members_who_come_and_go_by_the_hundred_leave_nothing_behind() {
    let mut place = Place::new(&[PATIENT]).await;
    let mut watcher = place.socket().await;
    let _members = watcher.join("presence-churn", "watcher").await;
    for round in 0..10 {
        let mut socket = place.socket().await;
        for number in 0..100 {
            socket
                .ask_as("presence-churn", &json!({"user_id": format!("u{round}-{number}")}).to_string())
                .await;
            socket.unsubscribe("presence-churn").await;
        }
        for _ in 0..100 {
            assert_eq!(socket.joined("presence-churn").await["count"], 2);
            for event in ["pusher_internal:member_added", "pusher_internal:member_removed"] {
                let next = watcher.next().await;
                assert!(next.is(event, "presence-churn"), "{next:?}");
            }
        }
    }
    let list = place.rest().read("/channels/presence-churn/users", &[]).await;
    assert_eq!(list, json!({"users": [{"id": "watcher"}]}));
    place.check().await;
}

/// More channels than a connection may have are refused, each with an answer.
#[tokio::test]
async fn channels_over_the_limit_of_a_connection_are_refused() {
    let mut place = Place::new(&[("CARILLON__CLIENT__CHANNELS_MAX", "50")]).await;
    let mut socket = place.socket().await;
    for number in 0..50 {
        socket.subscribe(&format!("limit-{number}")).await;
    }
    socket.ask("limit-50").await;
    let _refusal = socket.refused("limit-50").await;
    socket.unsubscribe("limit-0").await;
    socket.subscribe("limit-50").await;
    place.check().await;
}

/// Who does not read fills an outbox and is closed with 4100, not the memory.
#[tokio::test]
async fn who_does_not_read_is_closed_with_4100() {
    let mut place = Place::new(&[("CARILLON__CLIENT__OUTBOX_MAX", "64KiB")]).await;
    let mut raw = Raw::connect_narrow(place.gateway.public, 4096).await;
    raw.upgrade(&path(DEV.key)).await;
    raw.say(&json!({"event": "pusher:subscribe", "data": {"channel": "slow"}})).await;
    assert_eq!(raw.json().await["event"], "pusher:connection_established");
    assert_eq!(raw.json().await["event"], "pusher_internal:subscription_succeeded");
    let data = "d".repeat(10 * 1024);
    let rest = place.rest();
    let dropped = r#"carillon_messages_dropped_total{reason="slow_consumer"}"#;
    eventually("something is dropped", || async {
        rest.trigger("slow", "x", &data).await;
        (place.gateway.metric(dropped).await > 0.0).then_some(())
    })
    .await;
    // Whoever reads on in time finds out why.
    assert_eq!(raw.closed().await.0, 4100);
    place.check().await;
}

/// Floods of a connection are answered or refused, and the others wait for nothing.
#[tokio::test]
async fn floods_harm_only_themselves() {
    let mut place = Place::new(&[]).await;
    let before = place.gateway.resident_bytes();
    let ping = frame(TEXT, r#"{"event":"pusher:ping","data":{}}"#);
    let garbage = frame(TEXT, "garbage");
    let whisper = frame(TEXT, r#"{"event":"client-x","channel":"private-not-joined","data":"1"}"#);
    for flood in [ping, garbage, whisper] {
        let mut socket = place.socket().await;
        for _ in 0..20 {
            if !socket.raw.try_send(flood.repeat(500)).await {
                break;
            }
            let mut answers = 0;
            while answers < 500 {
                match socket.raw.frame().await {
                    Some(next) if next.first == TEXT => answers += 1,
                    _ => break,
                }
            }
            place.check().await;
        }
    }
    let grown = place.gateway.resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_MAX_BYTES, "{grown} bytes");
}

#[tokio::test]
async fn a_signature_is_good_for_its_socket_only() {
    let mut place = Place::new(&[]).await;
    let (mut victim, mut thief) = (place.socket().await, place.socket().await);
    let channel = DEV.auth(victim.id(), "private-replay", None);
    let member = r#"{"user_id":"victim"}"#;
    let presence = DEV.auth(victim.id(), "presence-replay", Some(member));
    let user_data = r#"{"id":"victim"}"#;
    let user = DEV.user_auth(victim.id(), user_data);
    for data in [
        json!({"channel": "private-replay", "auth": channel}),
        json!({"channel": "presence-replay", "auth": presence, "channel_data": member}),
    ] {
        thief.say("pusher:subscribe", &data).await;
        let _refusal = thief.refused(data["channel"].as_str().unwrap()).await;
        victim.say("pusher:subscribe", &data).await;
        assert_eq!(victim.next().await.event, "pusher_internal:subscription_succeeded");
    }
    let data = json!({"auth": user, "user_data": user_data});
    thief.say("pusher:signin", &data).await;
    let _refusal = thief.error().await;
    victim.say("pusher:signin", &data).await;
    assert_eq!(victim.next().await.event, "pusher:signin_success");
    thief.quiet().await;
    place.check().await;
}

/// What is signed as a channel is no sign-in, however the text is cut (`{id}::user::{data}`).
#[tokio::test]
async fn a_signature_of_one_kind_is_none_of_another() {
    let mut place = Place::new(&[]).await;
    let mut socket = place.socket().await;
    let user_data = r#"{"id":"victim"}"#;
    // An application that signs whatever name it is given would sign this.
    let crafted = format!(":user::{user_data}");
    let auth = DEV.auth(socket.id(), &crafted, None);
    assert_eq!(auth, DEV.user_auth(socket.id(), user_data), "the two texts are one");
    let data = json!({"channel": crafted, "auth": auth});
    socket.say("pusher:subscribe", &data).await;
    let _no_such_name = socket.turned_down().await;
    // Nor does a channel's name with a colon stand for a channel and a description.
    let auth = DEV.auth(socket.id(), "presence-x:{\"user_id\":\"1\"}", None);
    let data = json!({"channel": "presence-x:{\"user_id\":\"1\"}", "auth": auth});
    socket.say("pusher:subscribe", &data).await;
    let _no_such_name = socket.turned_down().await;
    place.check().await;
}

/// Names that mean something to us are only names to clients.
#[tokio::test]
async fn channels_of_our_own_cannot_be_joined_or_published_to() {
    let mut place = Place::new(&[]).await;
    let mut socket = place.socket().await;
    socket.sign_in("7").await;
    for name in
        ["$user:7", "$online:7", "$user:8", "#server-to-user-8", "#server-to-user-", "#private-x", "#"]
    {
        socket.ask(name).await;
        let _refusal = socket.turned_down().await;
        let body = json!({"name": "x", "channel": name, "data": "1"});
        if name != "#server-to-user-8" {
            let answer = place.rest().post("/events", &body).await;
            assert_eq!(refusal(&answer).0, 400, "{name}");
        }
        socket.whisper(name, "client-x", &json!("1")).await;
        let _refusal = socket.turned_down().await;
    }
    place.check().await;
}

/// Native clients are told no more than Pusher's: names with a guarded prefix need a grant.
#[tokio::test]
async fn native_clients_cannot_pass_by_the_signature() {
    let mut place = Place::new(&[]).await;
    let mut client = Client::connect(&place.gateway.ws("")).await;
    assert_eq!(client.frame().await["type"], "welcome");
    for channel in ["private-x", "presence-x", "private-encrypted-x", "private-cache-x", "presence-cache-x"] {
        let answer = client.subscribe(channel).await;
        assert_eq!(answer["type"], "error", "{channel}: {answer}");
    }
    let mut listed = Client::connect(&place.gateway.ws("channel=private-x")).await;
    assert_eq!(listed.frame().await["type"], "welcome");
    let answer: Value = listed.frame().await;
    assert_eq!(answer["type"], "error", "{answer}");
    place.check().await;
}
