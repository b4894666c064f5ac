//! Bad frames, bad texts, bad readers: each harms only itself, and a healthy client is served afterwards.

use std::time::Duration;

use carillon_tasks::clock;
use carillon_tests::{
    client::{Client, Got},
    gateway::{Gateway, PATIENCE},
    healthy::Healthy,
    raw::{BINARY, CLOSE, PING, PONG, Raw, TEXT, eventually, frame, header},
};
use serde_json::{Value, json};

/// First byte of a text message's first fragment.
const TEXT_BEGINS: u8 = 0x01;
/// First byte of a fragment in the middle.
const GOES_ON: u8 = 0x00;
/// First byte of the last fragment.
const ENDS: u8 = 0x80;

/// More than this in memory is a leak in the tests below.
const MEMORY_MAX_BYTES: u64 = 24 << 20;

const CONNECTIONS: &str = r#"carillon_connections{transport="websocket",protocol="native"}"#;

/// Connects, and takes the welcome.
async fn welcomed(gateway: &Gateway) -> Raw {
    let mut raw = Raw::open(gateway.public, "/v1/ws").await;
    assert_eq!(raw.json().await["type"], "welcome");
    raw
}

/// Waits until a series has a value.
async fn shows(gateway: &Gateway, series: &str, expected: impl Fn(f64) -> bool) {
    eventually(series, || async { expected(gateway.metric(series).await).then_some(()) }).await;
}

fn closed(reason: &str) -> String {
    format!(r#"carillon_connections_closed_total{{transport="websocket",reason="{reason}"}}"#)
}

/// Returns the header of a frame of `length` bytes, and nothing of the frame.
fn declared(first: u8, length: u64) -> Vec<u8> {
    [header(first, length, 0x80), vec![1, 2, 3, 4]].concat()
}

/// Sends each of `cases` on a connection of its own and checks the code of the close, the last frame that comes.
async fn refused(cases: Vec<(&str, Vec<u8>, u16)>) {
    let gateway = Gateway::dev(&[]);
    let mut healthy = Healthy::new(&gateway).await;
    let count = cases.len();
    for (what, bytes, code) in cases {
        let mut raw = welcomed(&gateway).await;
        raw.send(bytes).await;
        // The peer may already have hung up on the rest, which is no fault.
        raw.finish().await;
        let rest = raw.rest().await;
        let last = rest.last().unwrap_or_else(|| panic!("{what}: no close"));
        assert_eq!((last.first, last.close().0, rest.len()), (CLOSE, code, 1), "{what}: {last:?}");
        healthy.check(&gateway).await;
    }
    shows(&gateway, CONNECTIONS, |open| open <= 1.0).await;
    assert!(gateway.metric(&closed("protocol_error")).await <= count as f64);
}

/// RFC 6455 §5.1, §5.2, §5.4, §5.5: what no client may send is answered with 1002, and nothing after it.
#[tokio::test]
async fn broken_framing_is_a_protocol_error() {
    let mut cases = vec![
        ("not masked", [header(TEXT, 2, 0), b"{}".to_vec()].concat(), 1002),
        ("first reserved bit", frame(0xc1, "{}"), 1002),
        ("second reserved bit", frame(0xa1, "{}"), 1002),
        ("third reserved bit", frame(0x91, "{}"), 1002),
        ("a ping in fragments", frame(0x09, ""), 1002),
        ("a close in fragments", frame(0x08, ""), 1002),
        ("a ping of 126 bytes", frame(PING, [0; 126]), 1002),
        ("a pong of 126 bytes", frame(PONG, [0; 126]), 1002),
        ("a close of 126 bytes", frame(CLOSE, [3; 126]), 1002),
        ("a fragment of nothing", frame(ENDS, "x"), 1002),
        ("a text within a text", [frame(TEXT_BEGINS, "a"), frame(TEXT, "b")].concat(), 1002),
        ("half a close code", frame(CLOSE, [3]), 1002),
    ];
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        cases.push(("a reserved opcode", frame(0x80 | opcode, "x"), 1002));
    }
    refused(cases).await;
}

/// RFC 6455 §8.1 (1007), §7.4.1 (1003, 1009): what is said in good frames and cannot be taken.
#[tokio::test]
async fn bad_payloads_have_their_close_codes() {
    let too_large = [frame(TEXT_BEGINS, [b'a'; 40_000]), frame(ENDS, [b'a'; 40_000])].concat();
    let split = [frame(TEXT_BEGINS, [0xe2, 0x82]), frame(ENDS, [0x28])].concat();
    let torn = [frame(TEXT_BEGINS, [0xe2, 0x82]), frame(ENDS, [])].concat();
    refused(vec![
        ("no UTF-8", frame(TEXT, [b'"', 0xff, b'"']), 1007),
        ("overlong", frame(TEXT, [0xc0, 0xaf]), 1007),
        ("half a surrogate pair", frame(TEXT, [0xed, 0xa0, 0x80]), 1007),
        ("past the last character", frame(TEXT, [0xf4, 0x90, 0x80, 0x80]), 1007),
        ("a character that ends too early", frame(TEXT, [0xe2, 0x82]), 1007),
        ("bad across fragments", split, 1007),
        ("torn at the last fragment", torn, 1007),
        ("a reason that is no UTF-8", frame(CLOSE, [0x03, 0xe8, 0xff]), 1007),
        ("binary", frame(BINARY, "{}"), 1003),
        ("binary in fragments", [frame(0x02, "a"), frame(ENDS, "b")].concat(), 1003),
        ("2^62 bytes", declared(TEXT, 1 << 62), 1009),
        ("2^64 - 1 bytes", declared(TEXT, u64::MAX), 1009),
        ("one byte too many", declared(TEXT, 65_537), 1009),
        ("a ping of 2^62 bytes", declared(PING, 1 << 62), 1009),
        ("too large in fragments", too_large, 1009),
    ])
    .await;
}

/// RFC 6455 §5.5.1, §7.4: a close is answered with its own code, a code that nobody may send with 1002; what was
/// asked before it is answered before it, and nothing comes after.
#[tokio::test]
async fn a_close_is_answered_and_is_the_last_frame() {
    let gateway = Gateway::dev(&[]);
    let mut healthy = Healthy::new(&gateway).await;
    let ping = frame(TEXT, r#"{"type":"ping","ref":1}"#);
    for code in [1000_u16, 1001, 1003, 1007, 1011, 3000, 4000, 4999] {
        let mut raw = welcomed(&gateway).await;
        let close = frame(CLOSE, [&code.to_be_bytes()[..], b"bye"].concat());
        raw.send([ping.clone(), frame(PING, "p"), close, ping.clone(), frame(PING, "late")].concat()).await;
        let rest = raw.rest().await;
        let firsts: Vec<_> = rest.iter().map(|frame| frame.first).collect();
        assert_eq!(firsts, [TEXT, PONG, CLOSE], "{code}: {rest:?}");
        assert_eq!(
            (rest[0].json(), rest[2].close()),
            (json!({"type": "pong", "ref": 1}), (code, "bye".to_owned()))
        );
    }
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
        let mut raw = welcomed(&gateway).await;
        raw.send(frame(CLOSE, code.to_be_bytes())).await;
        let rest = raw.rest().await;
        assert_eq!((rest.len(), rest[0].close().0), (1, 1002), "{code} may not be sent");
    }
    let mut raw = welcomed(&gateway).await;
    raw.send(frame(CLOSE, "")).await;
    assert_eq!(raw.rest().await[0].bytes, [CLOSE, 0], "no code is answered with none");
    healthy.check(&gateway).await;
    shows(&gateway, &closed("client"), |count| count >= 19.0).await;
}

/// RFC 6455 §5.5.1: after a close frame nothing more is sent, also when the peer neither answers nor leaves, and
/// whatever the session's clock says meanwhile. §7.1.7: the connection then ends.
#[tokio::test]
async fn nothing_follows_our_close() {
    let heartbeat = [("CARILLON__CLIENT__HEARTBEAT", "1s"), ("CARILLON__CLIENT__PONG_TIMEOUT", "1s")];
    let gateway = Gateway::dev(&heartbeat);
    let mut raw = welcomed(&gateway).await;
    // A question in the same packet is answered first.
    let question = frame(TEXT, r#"{"type":"ping"}"#);
    raw.send([question, header(TEXT, 0, 0)].concat()).await;
    let rest = raw.rest().await;
    let firsts: Vec<_> = rest.iter().map(|frame| frame.first).collect();
    assert_eq!(firsts, [TEXT, CLOSE], "{rest:?}");
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// RFC 6455 §5.4, §5.5: what is unusual and allowed works: fragments with control frames between them, characters
/// cut in two, one byte at a time, a frame of exactly the limit, a ping of 125 bytes.
#[tokio::test]
async fn unusual_frames_are_understood() {
    let gateway = Gateway::dev(&[]);
    let mut raw = welcomed(&gateway).await;
    let text = r#"{"type":"ping","x":"grüße","ref":1}"#.as_bytes();
    let cut = text.iter().position(|byte| *byte == 0xc3).unwrap() + 1;
    let (start, end) = text.split_at(cut);
    let fragments = [
        frame(TEXT_BEGINS, start),
        frame(PING, [7; 125]),
        frame(GOES_ON, ""),
        frame(PONG, "nobody asked"),
        frame(ENDS, end),
    ]
    .concat();
    for chunk in [1, 3, fragments.len()] {
        for part in fragments.chunks(chunk) {
            raw.send(part).await;
        }
        // Which of the two leaves first is not said.
        let mut answers = [raw.frame().await.unwrap(), raw.frame().await.unwrap()];
        answers.sort_by_key(|answer| answer.first);
        assert_eq!((answers[0].first, answers[0].json()), (TEXT, json!({"type": "pong", "ref": 1})));
        assert_eq!((answers[1].first, &answers[1].payload), (PONG, &vec![7; 125]));
    }
    let mut largest = br#"{"type":"ping","ref":2}"#.to_vec();
    largest.resize(65_536, b' ');
    raw.send(frame(TEXT, largest)).await;
    assert_eq!(raw.json().await["ref"], 2);
    // Two length forms for one frame: this one is longer than it needs to be, and harmless.
    raw.send(frame(TEXT, "")).await;
    assert_eq!(raw.json().await["error"], "bad_request");
}

/// RFC 6455 §10.4: a declared length reserves nothing, and unfinished messages hold what was sent of them.
#[tokio::test]
async fn declared_lengths_and_fragments_cost_no_memory() {
    let gateway = Gateway::dev(&[]);
    let mut healthy = Healthy::new(&gateway).await;
    healthy.check(&gateway).await;
    let before = gateway.resident_bytes();
    let mut open = Vec::new();
    for number in 0..200 {
        let mut raw = welcomed(&gateway).await;
        let declared = if number % 2 == 0 { header(TEXT, 1 << 62, 0x80) } else { header(TEXT, 65_536, 0x80) };
        raw.send([declared, vec![0; 40]].concat()).await;
        open.push(raw);
    }
    for raw in open.iter_mut().step_by(2) {
        assert_eq!(raw.closed().await.0, 1009);
    }
    // A flood of fragments that say nothing, then one message of as many as fit.
    let mut flood = welcomed(&gateway).await;
    flood.send(frame(TEXT_BEGINS, "{\"type\":\"ping\"")).await;
    let empty = frame(GOES_ON, "").repeat(10_000);
    let space = frame(GOES_ON, " ").repeat(1000);
    for _ in 0..20 {
        flood.send(&empty).await;
        flood.send(&space).await;
        healthy.check(&gateway).await;
    }
    flood.send(frame(ENDS, "}")).await;
    assert_eq!(flood.json().await["type"], "pong");
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_MAX_BYTES, "{grown} bytes");
}

/// RFC 6455 §5.5.2, promise 5: every ping or text of somebody who reads is answered or outrun by a later one; somebody who
/// does not read fills an outbox, not the memory.
#[tokio::test]
async fn floods_harm_only_themselves() {
    let gateway = Gateway::dev(&[("CARILLON__CLIENT__OUTBOX_MAX", "64KiB")]);
    let mut healthy = Healthy::new(&gateway).await;
    healthy.check(&gateway).await;
    let before = gateway.resident_bytes();
    let mut reader = welcomed(&gateway).await;
    for _ in 0..20 {
        reader.send([frame(PING, "x").repeat(200), frame(PING, "last")].concat()).await;
        let mut pongs = 1;
        while reader.frame().await.unwrap().payload != b"last" {
            pongs += 1;
        }
        assert!(pongs <= 201, "{pongs}");
    }
    // Each is answered with as much as it is or more: pongs for pings, refusals for commands.
    let command = frame(TEXT, r#"{"type":"unsubscribe","channel":"x"}"#);
    let floods = [frame(PING, [b'x'; 125]).repeat(500), command.repeat(1000)];
    let deadline = clock::now() + Duration::from_secs(15);
    let mut most: f64 = 0.0;
    let mut deaf = Vec::new();
    for flood in floods {
        let mut raw = Raw::connect_narrow(gateway.public, 4096).await;
        raw.upgrade("/v1/ws").await;
        deaf.push((raw, flood, true));
    }
    while deaf.iter().any(|(_, _, open)| *open) {
        assert!(clock::now() < deadline, "a flood that nobody reads the answers of goes on");
        for (raw, flood, open) in deaf.iter_mut().filter(|(_, _, open)| *open) {
            *open = raw.try_send(flood).await;
        }
        most = most.max(gateway.metric("carillon_send_queue_bytes").await);
        healthy.check(&gateway).await;
    }
    assert!(most < 256.0 * 1024.0, "{most} bytes wait");
    shows(&gateway, &closed("slow_consumer"), |count| count > 1.5).await;
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_MAX_BYTES, "{grown} bytes");
    reader.send(frame(PING, "still here")).await;
    assert_eq!(reader.frame().await.unwrap().payload, b"still here");
}

/// Native protocol §4, §7: a text that is no command is answered with an error, short, and the connection lives.
#[tokio::test]
async fn nonsense_is_answered_and_forgiven() {
    let gateway = Gateway::dev(&[]);
    let mut raw = welcomed(&gateway).await;
    let deep = |depth: usize| "[".repeat(depth);
    let long = "x".repeat(60_000);
    for text in [
        String::new(),
        "\0".to_owned(),
        "null".to_owned(),
        "subscribe".to_owned(),
        "[\"subscribe\",1,\"news\"]".to_owned(),
        "{\"type\":\"ping\"".to_owned(),
        "{\"type\":\"ping\"} {}".to_owned(),
        "{\"type\":\"ping\",\"type\":\"ping\"}".to_owned(),
        "{\"type\":7}".to_owned(),
        "{\"channel\":\"news\"}".to_owned(),
        "{\"type\":\"ping\",\"ref\":1.5}".to_owned(),
        "{\"type\":\"ping\",\"ref\":99999999999999999999}".to_owned(),
        "{\"type\":\"ping\",\"ref\":\"a\u{0}b\"}".to_owned(),
        "{\"type\":\"subscribe\",\"channel\":\"\\ud800\"}".to_owned(),
        "{\"type\":\"subscribe\",\"channels\":[]}".to_owned(),
        "{\"type\":\"subscribe\",\"channel\":\"a\",\"channels\":[\"b\"]}".to_owned(),
        "{\"type\":\"subscribe\",\"channels\":{\"a\":1}}".to_owned(),
        deep(60_000),
        format!("{{\"type\":\"ping\",\"x\":{}", deep(60_000)),
        format!("{{\"type\":\"subscribe\",\"channels\":{}", deep(60_000)),
        format!("{{\"type\":\"{long}\"}}"),
        format!("{{\"type\":\"ping\",\"ref\":\"{long}\"}}"),
        format!("{{\"type\":\"subscribe\",\"channel\":\"{long}\"}}"),
        format!("{{\"type\":\"subscribe\",\"channel\":\"a\",\"since\":\"{long}\"}}"),
    ] {
        raw.send(frame(TEXT, &text)).await;
        let answer = raw.frame().await.unwrap();
        let error = answer.json();
        assert_eq!(error["type"], "error", "{text:.60}");
        assert!(["bad_request", "unknown_type"].contains(&error["error"].as_str().unwrap()), "{error}");
        assert!(answer.payload.len() < 1024, "{} bytes answer {text:.60}", answer.payload.len());
    }
    raw.say(&json!({"type": "ping", "ref": 1})).await;
    assert_eq!(raw.json().await, json!({"type": "pong", "ref": 1}));
    // Nothing but nonsense is not forgiven for ever.
    raw.send(frame(TEXT, "").repeat(200)).await;
    assert_eq!(raw.closed().await, (4009, "protocol_error".to_owned()));
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// Native protocol §3: names that mean something to a broker, a log or a browser are refused at both doors.
#[tokio::test]
async fn bad_channel_names_are_refused() {
    let gateway = Gateway::dev(&[]);
    let mut raw = welcomed(&gateway).await;
    let (longest, longer) = ("é".repeat(100), format!("{}x", "é".repeat(100)));
    for name in [
        "",
        "*",
        ">",
        "a.*",
        "a.>",
        "orders.>.x",
        "a b",
        " a",
        "a\t",
        "a\r\nSUB x 1",
        "a\n",
        "a\0b",
        "\u{7f}",
        "a\u{85}b",
        "a\u{a0}b",
        "a\u{2028}b",
        "\u{3000}",
        "$user:1",
        "$SYS.ACCOUNT",
        "$",
        &longer,
        &"x".repeat(201),
    ] {
        raw.say(&json!({"type": "subscribe", "channel": name, "ref": 5})).await;
        let error = raw.json().await;
        assert_eq!((&error["error"], &error["ref"]), (&json!("bad_request"), &json!(5)), "{name:?}: {error}");
        let answer = gateway.publish(&json!({"channel": name, "data": 1})).await;
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("bad_request")), "{name:?}");
    }
    for name in [
        longest.as_str(),
        "a..b",
        ".",
        "-",
        "a/b",
        "a\"b\\c",
        "<script>".trim_end_matches('>'),
        "名前",
        "a=2A",
    ] {
        raw.say(&json!({"type": "subscribe", "channel": name})).await;
        let answer = raw.json().await;
        assert_eq!((&answer["type"], &answer["channel"]), (&json!("subscribed"), &json!(name)));
        assert_eq!(gateway.publish(&json!({"channel": name, "data": name})).await.status, 200);
        assert_eq!(raw.json().await["data"], name);
    }
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// Native protocol §8: one channel more than a connection may have is refused, and the connection lives.
#[tokio::test]
async fn the_501st_channel_is_refused() {
    let gateway = Gateway::dev(&[]);
    let mut client = Client::subscribed(&gateway.ws(""), &[]).await;
    let names: Vec<_> = (0..510).map(|number| format!("c{number}")).collect();
    client.send(&json!({"type": "subscribe", "channels": names, "ref": 1})).await;
    for number in 0..510 {
        let frame = client.frame().await;
        let expected = if number < 500 { "subscribed" } else { "error" };
        assert_eq!((&frame["type"], &frame["channel"]), (&json!(expected), &json!(format!("c{number}"))));
        assert!(number < 500 || (frame["error"] == "limit_exceeded" && frame["code"] == 4306), "{frame}");
    }
    client.send(&json!({"type": "unsubscribe", "channel": "c0"})).await;
    assert_eq!(client.frame().await["type"], "unsubscribed");
    assert_eq!(client.subscribe("c509").await["type"], "subscribed");
    gateway.publish(&json!({"channels": ["c0", "c499", "c500", "c509"], "data": 1})).await;
    let heard = [client.frame().await["channel"].take(), client.frame().await["channel"].take()];
    assert_eq!(heard, ["c499", "c509"]);
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// Promise 5, native protocol §8: who never reads is closed with 4101 and counted; a healthy subscriber of the same
/// channel gets everything in order.
#[tokio::test]
async fn a_reader_that_never_reads_is_closed_and_delays_nobody() {
    let gateway = Gateway::dev(&[("CARILLON__CLIENT__OUTBOX_MAX", "64KiB")]);
    let mut slow = Raw::connect_narrow(gateway.public, 4096).await;
    slow.upgrade("/v1/ws?channel=busy").await;
    assert_eq!(
        (slow.json().await["type"].clone(), slow.json().await["type"].clone()),
        (json!("welcome"), json!("subscribed"))
    );
    let mut healthy = Client::subscribed(&gateway.ws(""), &["busy"]).await;
    let dropped = r#"carillon_messages_dropped_total{reason="slow_consumer"}"#;
    let filling = "x".repeat(30_000);
    let mut published = 0;
    while gateway.metric(dropped).await < 0.5 {
        assert!(published < 2000, "60 MB wait for somebody who does not read");
        for _ in 0..10 {
            gateway.publish(&json!({"channel": "busy", "data": [published, filling]})).await;
            assert_eq!(healthy.data().await[0], published);
            published += 1;
        }
    }
    // Whoever reads on in time finds whole frames, in order, then why it is closed.
    let mut expected = 0;
    let goodbye = loop {
        let frame = slow.json().await;
        if frame["type"] != "message" {
            break frame;
        }
        assert_eq!(frame["data"][0], expected);
        expected += 1;
    };
    assert!(expected < published);
    assert_eq!((&goodbye["type"], &goodbye["error"]), (&json!("goodbye"), &json!("slow_consumer")));
    assert!(goodbye["retry_after_ms"].is_u64());
    assert_eq!(slow.closed().await, (4101, "slow_consumer".to_owned()));
    drop(slow);
    shows(&gateway, &closed("slow_consumer"), |count| count > 0.5).await;
    for series in ["carillon_send_queue_bytes", "carillon_send_queue_messages"] {
        shows(&gateway, series, |waiting| waiting < 0.5).await;
    }
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// Native protocol §4: a ping after the heartbeat, dead after the pong timeout, counted as idle; who answers lives.
#[tokio::test]
async fn a_silent_peer_is_closed_and_one_that_answers_lives() {
    let heartbeat = [("CARILLON__CLIENT__HEARTBEAT", "1s"), ("CARILLON__CLIENT__PONG_TIMEOUT", "1s")];
    let gateway = Gateway::dev(&heartbeat);
    let began = clock::now();
    let mut silent = welcomed(&gateway).await;
    let mut gone = welcomed(&gateway).await;
    let mut alive = welcomed(&gateway).await;
    let ping = silent.frame().await.unwrap();
    assert_eq!((ping.first, ping.payload.len()), (PING, 0));
    let closing = async {
        let goodbye: Value = silent.json().await;
        assert_eq!((&goodbye["type"], &goodbye["error"]), (&json!("goodbye"), &json!("idle_timeout")));
        assert_eq!(silent.closed().await, (4202, "idle_timeout".to_owned()));
        let took = clock::now() - began;
        assert!((Duration::from_millis(1900)..PATIENCE).contains(&took), "{took:?}");
        silent.send(frame(CLOSE, 4202_u16.to_be_bytes())).await;
        assert_eq!(silent.rest().await, []);
    };
    let answering = async {
        for _ in 0..3 {
            let ping = alive.frame().await.unwrap();
            assert_eq!(ping.first, PING);
            alive.send(frame(PONG, ping.payload)).await;
        }
        alive.say(&json!({"type": "ping"})).await;
        assert_eq!(alive.json().await["type"], "pong");
    };
    tokio::join!(closing, answering);
    // A peer that is not there any more cannot answer the close either: it is given up.
    shows(&gateway, &closed("idle"), |count| count > 1.5).await;
    assert_eq!(gone.closed().await.0, 4202);
    assert_eq!(gone.rest().await, []);
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// Promise 5: joining and leaving again and again leaves nothing behind.
#[tokio::test]
async fn churn_leaves_nothing_behind() {
    let gateway = Gateway::dev(&[]);
    let mut client = Client::subscribed(&gateway.ws(""), &["stays"]).await;
    for round in 0..100 {
        let names: Vec<_> = (0..50).map(|number| format!("churn.{round}.{number}")).collect();
        client.send(&json!({"type": "subscribe", "channels": names})).await;
        client.send(&json!({"type": "unsubscribe", "channels": names})).await;
        for expected in ["subscribed", "unsubscribed"] {
            for name in &names {
                let frame = client.frame().await;
                assert_eq!((&frame["type"], &frame["channel"]), (&json!(expected), &json!(name)));
            }
        }
    }
    shows(&gateway, "carillon_channels", |count| (count - 1.0).abs() < 0.1).await;
    shows(&gateway, "carillon_subscriptions", |count| (count - 1.0).abs() < 0.1).await;
    gateway.publish(&json!({"channels": ["churn.0.0", "stays"], "data": 1})).await;
    let frame = client.frame().await;
    assert_eq!(frame["channel"], "stays", "{frame}");
    client.send_message(tokio_tungstenite::tungstenite::Message::Close(None)).await;
    assert_eq!(client.next().await, Got::Closed(None));
    for series in [CONNECTIONS, "carillon_channels", "carillon_subscriptions"] {
        shows(&gateway, series, |count| count < 0.5).await;
    }
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// Promise 5: two thousand clients that crash, at every stage, leave nothing behind.
#[tokio::test]
async fn two_thousand_resets_leave_nothing_behind() {
    let gateway = Gateway::dev(&[("CARILLON__PUBLIC__ACCEPT_RATE", "100000")]);
    let mut healthy = Healthy::new(&gateway).await;
    healthy.check(&gateway).await;
    let before = gateway.resident_bytes();
    for number in 0..2000 {
        let mut raw = Raw::connect(gateway.public).await;
        match number % 4 {
            0 => {}
            1 => raw.send("GET /v1/ws HTTP/1.1\r\nHost: ").await,
            2 => raw.upgrade("/v1/ws?channel=health&channel=another").await,
            _ => {
                raw.upgrade("/v1/ws?channel=health").await;
                raw.send([frame(TEXT_BEGINS, "{"), header(GOES_ON, 60_000, 0x80)].concat()).await;
            }
        }
        raw.reset();
    }
    for (series, left) in [(CONNECTIONS, 1.5), ("carillon_channels", 1.5), ("carillon_subscriptions", 1.5)] {
        shows(&gateway, series, |count| count < left).await;
    }
    healthy.check(&gateway).await;
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < MEMORY_MAX_BYTES, "{grown} bytes");
}
