use std::borrow::Cow;

use bytes::Bytes;
use carillon_model::{
    ChannelName, CloseReason, ConnectionId, ErrorCode, EventName, NewMessage, Position, UnixMillis, UserId,
};

use super::*;

fn position() -> Position {
    "k3f9ab-1042".parse().unwrap()
}

#[test]
fn a_publication_has_its_members_in_the_order_of_the_protocol() {
    let mut full = Publication::new(
        NewMessage {
            channel: ChannelName::new("orders.\"7\"").unwrap(),
            event: Some(EventName::new("shipped").unwrap()),
            data: Bytes::from_static(br#"{"id":7,"name":"\u00fc"}"#),
            kind: carillon_model::DataKind::Json,
            time: UnixMillis::new(1_795_205_265_123),
            user: Some(UserId::new("ana").unwrap()),
            exclude: Box::default(),
            id: None,
        },
        Some(position()),
    );
    assert_eq!(
        publication(&full),
        r#"{"type":"message","channel":"orders.\"7\"","id":"k3f9ab-1042","event":"shipped","data":{"id":7,"name":"\u00fc"},"time":1795205265123,"user":"ana"}"#
    );
    full.position = None;
    full.message.event = None;
    full.message.user = None;
    assert_eq!(
        publication(&full),
        r#"{"type":"message","channel":"orders.\"7\"","data":{"id":7,"name":"\u00fc"},"time":1795205265123}"#
    );
}

#[test]
fn pushes_are_spelled_as_the_protocol_page_says() {
    let news = || ChannelName::new("news").unwrap();
    let refusal =
        Refusal { code: ErrorCode::Forbidden, message: Cow::Borrowed("no \"grant\""), retry_after: None };
    let cases = [
        (
            Push::Welcome {
                connection: ConnectionId::from_bits(1),
                ping: Duration::from_secs(25),
                frame_bytes: 65_536,
                channels: 500,
                expires: Some(UnixMillis::from_seconds(1_795_205_999)),
            },
            r#"{"type":"welcome","connection":"0000000000001","protocol":1,"ping":25,"limits":{"frame_bytes":65536,"channels":500},"expires":1795205999}"#,
        ),
        (
            Push::Subscribed {
                channel: news(),
                position: Some(position()),
                recovered: Some(Recovered::All { replayed: 2 }),
                members: None,
                reference: Some(1),
            },
            r#"{"type":"subscribed","channel":"news","position":"k3f9ab-1042","recovered":true,"replayed":2,"ref":1}"#,
        ),
        (
            Push::Subscribed {
                channel: news(),
                position: None,
                recovered: Some(Recovered::No(Unrecovered::Expired)),
                members: None,
                reference: None,
            },
            r#"{"type":"subscribed","channel":"news","recovered":false,"reason":"expired"}"#,
        ),
        (
            Push::Unsubscribed { channel: news(), refusal: Some(refusal.clone()), reference: None },
            r#"{"type":"unsubscribed","channel":"news","code":4303,"error":"forbidden","message":"no \"grant\""}"#,
        ),
        (
            Push::Gap { channel: news(), position: Some(position()) },
            r#"{"type":"gap","channel":"news","position":"k3f9ab-1042"}"#,
        ),
        (
            Push::Error {
                refusal: refusal.retry_after(Duration::from_secs(2)),
                channel: Some("news".to_owned()),
                reference: Some(3),
            },
            r#"{"type":"error","ref":3,"channel":"news","code":4303,"error":"forbidden","message":"no \"grant\"","retry_after_ms":2000}"#,
        ),
        (Push::Pong { reference: None }, r#"{"type":"pong"}"#),
        (Push::Ping, r#"{"type":"ping"}"#),
        (
            Push::Goodbye { reason: CloseReason::Draining, retry_after: Some(Duration::from_millis(1500)) },
            r#"{"type":"goodbye","code":4201,"error":"draining","retry_after_ms":1500}"#,
        ),
    ];
    for (said, text) in cases {
        assert_eq!(push(&said), text);
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
    }
}
