use bytes::Bytes;
use carillon_model::{CloseReason, EventName, NewMessage, UnixMillis};
use std::time::Duration;

use super::*;

const PUSHER: Pusher = Pusher { old: false, subscription_errors: true };

fn name(text: &str) -> ChannelName {
    ChannelName::any(text).unwrap()
}

fn message(channel: &str, event: Option<&str>, data: &str, kind: DataKind) -> Publication {
    let message = NewMessage {
        channel: name(channel),
        event: event.map(|event| EventName::new(event).unwrap()),
        data: Bytes::from(data.to_owned()),
        kind,
        time: UnixMillis::new(1),
        user: None,
        exclude: Box::default(),
        id: None,
    };
    Publication::new(message, None)
}

fn member(user: &str, kind: IdKind, info: Option<&'static str>) -> Member {
    Member { user: UserId::new(user).unwrap(), kind, info: info.map(Bytes::from) }
}

#[test]
fn data_is_always_a_string() {
    for (data, kind, expected) in [
        (r#"{"a":"ü"}"#, DataKind::Json, r#""{\"a\":\"ü\"}""#),
        (r#""hello""#, DataKind::Json, r#""hello""#),
        ("5", DataKind::Json, r#""5""#),
        (r#""{\"a\": 1}""#, DataKind::Text, r#""{\"a\": 1}""#),
        (r#""\"quoted\"\n\u00fc""#, DataKind::Text, r#""\"quoted\"\n\u00fc""#),
        (r#""""#, DataKind::Text, r#""""#),
    ] {
        let text = publication(&message("news", Some("App\\Events\\Shipped"), data, kind));
        assert_eq!(text, format!(r#"{{"event":"App\\Events\\Shipped","channel":"news","data":{expected}}}"#));
        assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
    }
    let unnamed = publication(&message("$user:7", None, "1", DataKind::Json));
    assert_eq!(unnamed, r##"{"event":"message","channel":"#server-to-user-7","data":"1"}"##);
}

#[test]
fn a_client_event_on_a_presence_channel_says_who_sent_it() {
    let mut sent = message("presence-a", Some("client-a"), "{}", DataKind::Json);
    sent.message.user = Some(UserId::new("7").unwrap());
    let text = publication(&sent);
    assert_eq!(text, r#"{"event":"client-a","channel":"presence-a","data":"{}","user_id":"7"}"#);
}

#[test]
fn each_push_has_the_shape_that_clients_read() {
    let channel = || name("presence-a");
    let (one, two) = (member("1", IdKind::Number, Some(r#"{"n":1}"#)), member("b", IdKind::Text, None));
    let cases = [
        (
            Push::Welcome {
                connection: ConnectionId::from_halves(131_160, 155_806_628),
                ping: Duration::from_secs(25),
                frame_bytes: 1,
                channels: 1,
                expires: None,
            },
            r#"{"event":"pusher:connection_established","data":"{\"socket_id\":\"131160.155806628\",\"activity_timeout\":120}"}"#,
        ),
        (
            Push::Subscribed {
                channel: name("news"),
                position: None,
                recovered: None,
                members: None,
                reference: None,
            },
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"news","data":"{}"}"#,
        ),
        (
            Push::Subscribed {
                channel: channel(),
                position: None,
                recovered: None,
                members: Some(vec![one.clone(), two.clone()]),
                reference: None,
            },
            r#"{"event":"pusher_internal:subscription_succeeded","channel":"presence-a","data":"{\"presence\":{\"ids\":[\"1\",\"b\"],\"hash\":{\"1\":{\"n\":1},\"b\":null},\"count\":2}}"}"#,
        ),
        (
            Push::Came { channel: channel(), member: one },
            r#"{"event":"pusher_internal:member_added","channel":"presence-a","data":"{\"user_id\":1,\"user_info\":{\"n\":1}}"}"#,
        ),
        (
            Push::Went { channel: channel(), member: two.clone() },
            r#"{"event":"pusher_internal:member_removed","channel":"presence-a","data":"{\"user_id\":\"b\"}"}"#,
        ),
        (
            Push::Came { channel: name("$online:b"), member: two },
            r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"b\"]}]}"}"#,
        ),
    ];
    for (said, expected) in cases {
        assert_eq!(push(&said, &PUSHER), expected);
    }
}

#[test]
fn the_rest_has_the_shape_that_clients_read() {
    let cases = [
        (
            Push::Watched {
                online: vec![UserId::new("2").unwrap()],
                offline: vec![UserId::new("3").unwrap(), UserId::new("4").unwrap()],
            },
            r#"{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"online\",\"user_ids\":[\"2\"]},{\"name\":\"offline\",\"user_ids\":[\"3\",\"4\"]}]}"}"#,
        ),
        (
            Push::Counted { channel: name("news"), count: 3 },
            r#"{"event":"pusher_internal:subscription_count","channel":"news","data":"{\"subscription_count\":3}"}"#,
        ),
        (Push::Missed { channel: name("cache-a") }, r#"{"event":"pusher:cache_miss","channel":"cache-a"}"#),
        (
            Push::SignedIn { user_data: r#"{"id":"7"}"#.to_owned() },
            r#"{"event":"pusher:signin_success","data":"{\"user_data\":\"{\\\"id\\\":\\\"7\\\"}\"}"}"#,
        ),
        (Push::Pong { reference: None }, r#"{"event":"pusher:pong","data":"{}"}"#),
        (
            Push::Gap { channel: name("news"), position: None },
            r#"{"event":"carillon:gap","channel":"news","data":"{}"}"#,
        ),
        (Push::NotSubscribed { channel: name("news"), reference: None }, ""),
        (Push::Goodbye { reason: CloseReason::Draining, retry_after: None }, ""),
    ];
    for (said, expected) in cases {
        assert_eq!(push(&said, &PUSHER), expected);
    }
}

#[test]
fn a_refusal_is_an_error_and_for_a_channel_an_event_of_it() {
    let refusal = Refusal::new(ErrorCode::Unauthorized, "Invalid signature: \"x\"");
    let about = |channel: Option<&str>, pusher| {
        push(
            &Push::Error { refusal: refusal.clone(), channel: channel.map(str::to_owned), reference: None },
            pusher,
        )
    };
    let error = r#"{"event":"pusher:error","data":{"code":null,"message":"Invalid signature: \"x\""}}"#;
    let told = about(Some("private-a"), &PUSHER);
    let (first, second) = told.split_once('\n').unwrap();
    assert_eq!(first, error);
    assert_eq!(
        second,
        r#"{"event":"pusher:subscription_error","channel":"private-a","data":"{\"type\":\"AuthError\",\"error\":\"Invalid signature: \\\"x\\\"\",\"status\":401}"}"#
    );
    assert_eq!(about(Some("private-a"), &Pusher { old: false, subscription_errors: false }), error);
    assert!(about(None, &PUSHER).contains(r#""code":4009"#));
    for (code, number) in [
        (ErrorCode::RateLimited, "4301"),
        (ErrorCode::TooLarge, "4301"),
        (ErrorCode::LimitExceeded, "4302"),
        (ErrorCode::NotEnabled, "null"),
        (ErrorCode::BadRequest, "null"),
    ] {
        let text =
            push(&Push::Error { refusal: Refusal::new(code, "x"), channel: None, reference: None }, &PUSHER);
        assert_eq!(text, format!(r#"{{"event":"pusher:error","data":{{"code":{number},"message":"x"}}}}"#));
    }
}

#[test]
fn clients_of_old_are_told_of_the_end_before_it() {
    let old = Pusher { old: true, subscription_errors: true };
    let goodbye = Push::Goodbye { reason: CloseReason::OverCapacity, retry_after: None };
    assert_eq!(
        push(&goodbye, &old),
        r#"{"event":"pusher:error","data":{"code":4100,"message":"Over capacity"}}"#
    );
}

#[test]
fn a_line_holds_a_frame_as_a_string() {
    assert_eq!(line(r#"{"a":"b"}"#), "a[\"{\\\"a\\\":\\\"b\\\"}\"]\n");
}
