//! Bad handshakes and too many of them: answered clearly, ended in time, and a healthy client is served afterwards.

use std::time::Duration;

use carillon_tasks::clock;
use carillon_tests::{
    client::Client,
    gateway::{Gateway, PATIENCE},
    healthy::Healthy,
    http,
    raw::{Raw, TEXT, eventually, frame, handshake},
};
use futures_util::future::join_all;
use serde_json::json;

fn rejected(reason: &str) -> String {
    format!(r#"carillon_connections_rejected_total{{transport="websocket",reason="{reason}"}}"#)
}

/// RFC 6455 §4.2.1, §4.2.2 and RFC 9110 §15.5.22: what is no WebSocket handshake is told so, with what would be.
#[tokio::test]
async fn bad_handshakes_are_answered() {
    let gateway = Gateway::dev(&[]);
    let mut healthy = Healthy::new(&gateway).await;
    let good = handshake("/v1/ws", "Connection: close\r\n");
    let without = |line: &str| {
        let kept: Vec<_> = good.split_inclusive("\r\n").filter(|kept| !kept.starts_with(line)).collect();
        kept.concat()
    };
    let version = good.replace("Version: 13", "Version: 8");
    for (what, request, status) in [
        ("no upgrade", without("Upgrade:"), 426),
        ("another upgrade", good.replace("Upgrade: websocket", "Upgrade: h2c"), 400),
        ("an old version", version.clone(), 426),
        ("no version", without("Sec-WebSocket-Version"), 426),
        ("no key", without("Sec-WebSocket-Key"), 400),
        ("a short key", good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400),
        ("another path", good.replace("/v1/ws", "/v2/ws"), 404),
        ("a path upwards", good.replace("/v1/ws", "/v1/../v1/ws"), 404),
        ("POST", good.replace("GET ", "POST ").replace("Upgrade:", "X:"), 405),
        ("a method that is none", good.replace("GET ", "BREW "), 405),
        ("no HTTP", "hello\r\n\r\n".to_owned(), 400),
        ("bare line feeds and no version", "GET /\n\n".to_owned(), 400),
        ("a header without a name", good.replace("Host:", ":"), 400),
        ("a NUL in a header", good.replace("Host: test", "Host: a\0b"), 400),
        ("20 KiB of headers", handshake("/v1/ws", &format!("X: {}\r\n", "x".repeat(20_480))), 431),
        ("200 headers", handshake("/v1/ws", &"X: y\r\n".repeat(200)), 431),
        ("20 KiB of path", good.replace("/v1/ws", &format!("/v1/ws?channel={}", "x".repeat(20_480))), 414),
        (
            "two lengths",
            good.replace("GET ", "POST ").replace("Host:", "Content-Length: 1\r\nContent-Length: 2\r\nHost:"),
            400,
        ),
    ] {
        let answer = http::raw(gateway.public, request.as_bytes()).await;
        let close_enough = answer.status == status || (status == 414 && answer.status == 431);
        assert!(close_enough, "{what}: {} and not {status}: {}", answer.status, answer.body);
        healthy.check(&gateway).await;
    }
    let answer = http::raw(gateway.public, version.as_bytes()).await;
    assert_eq!(answer.header("sec-websocket-version"), Some("13"), "{answer:?}");
    let answer = http::raw(gateway.public, without("Upgrade:").as_bytes()).await;
    assert_eq!(answer.header("upgrade"), Some("websocket"), "{answer:?}");
    assert_eq!(
        (answer.json()["status"].as_u64(), answer.json()["error"].as_str()),
        (Some(426), Some("bad_request"))
    );
}

/// RFC 9112 §9.3: requests after one another are answered in their order, and garbage behind them ends it.
#[tokio::test]
async fn pipelined_garbage_ends_the_connection() {
    let gateway = Gateway::dev(&[]);
    let mut raw = Raw::connect(gateway.public).await;
    let request = "GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n";
    raw.send(format!("{request}{request}\u{1}\u{2} garbage\r\n\r\n")).await;
    let mut heads = Vec::new();
    for _ in 0..3 {
        let head = raw.head().await;
        let status = head.split("HTTP/1.1 ").nth(1).map(|rest| rest.chars().take(3).collect::<String>());
        heads.push(status.unwrap_or_default());
    }
    assert_eq!(heads, ["404", "404", "400"]);
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// RFC 6455 §4.1 lets a client speak when it has the answer; one that speaks at once is understood all the same.
#[tokio::test]
async fn frames_that_come_with_the_handshake_are_honoured() {
    let gateway = Gateway::dev(&[]);
    let subscribe = frame(TEXT, r#"{"type":"subscribe","channel":"health","ref":1}"#);
    let padded = frame(TEXT, format!("{{\"type\":\"ping\",\"ref\":2{}}}", " ".repeat(50_000)));
    let early = [subscribe, padded, frame(TEXT, r#"{"type":"ping","ref":3}"#)].concat();
    for split in [0, 1, 2, 5, 20, early.len() - 1] {
        let mut raw = Raw::connect(gateway.public).await;
        let (with_handshake, later) = early.split_at(early.len() - split);
        raw.send([handshake("/v1/ws", "").as_bytes(), with_handshake].concat()).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 101 "));
        raw.send(later).await;
        assert_eq!(raw.json().await["type"], "welcome");
        assert_eq!(raw.json().await["type"], "subscribed");
        assert_eq!(raw.json().await["ref"], 2);
        assert_eq!(raw.json().await["ref"], 3);
    }
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// Limits: `public.handshake_timeout` ends a handshake that is silent, that trickles, or that stops between requests,
/// and whoever asks for more than he reads.
#[tokio::test]
async fn slow_handshakes_are_ended() {
    let gateway = Gateway::dev(&[("CARILLON__PUBLIC__HANDSHAKE_TIMEOUT", "1s")]);
    let began = clock::now();
    let silent = async {
        let mut raw = Raw::connect(gateway.public).await;
        assert_eq!(raw.rest().await, []);
    };
    let trickle = async {
        let mut raw = Raw::connect(gateway.public).await;
        for byte in handshake("/v1/ws", "").bytes() {
            if !raw.try_send([byte]).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("a handshake may take {:?}", clock::now() - began);
    };
    let idle = async {
        let mut raw = Raw::connect(gateway.public).await;
        raw.send("GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert!(raw.head().await.starts_with("HTTP/1.1 404 "));
        // The body is no frame; what counts is that the end comes.
        raw.rest().await;
    };
    let deaf = async {
        let mut raw = Raw::connect_narrow(gateway.public, 4096).await;
        let requests = "GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n".repeat(1000);
        while raw.try_send(&requests).await {}
    };
    let busy = async {
        let mut raw = Raw::connect(gateway.public).await;
        while raw.try_send("GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n").await {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::join!(silent, trickle, idle, deaf, busy);
    let took = clock::now() - began;
    // By default it would be 10 s for the first of them and 20 s for the last.
    assert!((Duration::from_millis(900)..Duration::from_secs(15)).contains(&took), "{took:?}");
    let timeouts = rejected("timeout");
    eventually("all are counted", || async { (gateway.metric(&timeouts).await > 4.5).then_some(()) }).await;
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// RFC 9112 §9.6: a body that nobody wants is not waited for, however long it says it is.
#[tokio::test]
async fn a_body_is_not_waited_for() {
    let gateway = Gateway::dev(&[]);
    let began = clock::now();
    for length in ["Content-Length: 1000000000", "Transfer-Encoding: chunked"] {
        for sent in ["", "5\r\nhello\r\n", "zz"] {
            let request = format!("POST /v1/ws HTTP/1.1\r\nHost: test\r\n{length}\r\n\r\n{sent}");
            assert_eq!(http::raw(gateway.public, request.as_bytes()).await.status, 405);
        }
    }
    let took = clock::now() - began;
    assert!(took < PATIENCE, "{took:?}");
    // An upgrade has no body; what is called one is read as frames, and is none.
    let mut raw = Raw::connect(gateway.public).await;
    raw.send(handshake("/v1/ws", "Content-Length: 5\r\n") + "hello").await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 4") || head.starts_with("HTTP/1.1 101 "), "{head}");
    Healthy::new(&gateway).await.check(&gateway).await;
}

/// Native protocol §7: past `public.max_connections` a client is welcomed, told 4100 and when to come back; a place
/// that is given back is free again.
#[tokio::test]
async fn a_full_node_says_so() {
    let gateway = Gateway::dev(&[("CARILLON__PUBLIC__MAX_CONNECTIONS", "3")]);
    let mut inside = Vec::new();
    for _ in 0..3 {
        inside.push(Client::subscribed(&gateway.ws(""), &["news"]).await);
    }
    for _ in 0..5 {
        let mut refused = Client::connect(&gateway.ws("channel=news")).await;
        let goodbye = loop {
            let frame = refused.frame().await;
            if frame["type"] == "goodbye" {
                break frame;
            }
        };
        assert_eq!((&goodbye["code"], &goodbye["error"]), (&json!(4100), &json!("over_capacity")));
        assert!(goodbye["retry_after_ms"].is_u64(), "{goodbye}");
        assert_eq!(refused.closed().await, (4100, "over_capacity".to_owned()));
    }
    gateway.publish(&json!({"channel": "news", "data": 1})).await;
    for client in &mut inside {
        assert_eq!(client.data().await, 1);
    }
    inside.truncate(1);
    eventually("a place is free", || async {
        let mut client = Client::connect(&gateway.ws("channel=news")).await;
        assert_eq!(client.frame().await["type"], "welcome");
        (client.frame().await["type"] == "subscribed").then_some(())
    })
    .await;
}

/// Limits: `public.accept_rate` spreads a storm; nobody is refused.
#[tokio::test]
async fn a_storm_is_accepted_at_the_rate() {
    let gateway = Gateway::dev(&[("CARILLON__PUBLIC__ACCEPT_RATE", "10")]);
    let began = clock::now();
    let url = gateway.ws("");
    let clients = join_all((0..30).map(|_| Client::subscribed(&url, &["news"]))).await;
    let took = clock::now() - began;
    assert!((Duration::from_millis(1800)..PATIENCE).contains(&took), "{took:?}");
    gateway.publish(&json!({"channel": "news", "data": 1})).await;
    for mut client in clients {
        assert_eq!(client.data().await, 1);
    }
}

/// Promise: secrets never reach the log, wherever they were sent and however much is logged.
#[tokio::test]
async fn tokens_never_appear_in_the_log() {
    let canary = "canary-5f3a9c";
    let secret = "canary-5f3a9c-of-at-least-32-bytes-of-secret";
    for level in ["info", "trace"] {
        let gateway =
            Gateway::dev(&[("CARILLON__LOG__LEVEL", level), ("CARILLON__AUTH__TOKEN_SECRET", secret)]);
        let bearer = format!("Bearer {canary}");
        let protocol = format!("bearer.{canary}");
        for (query, headers) in [
            (format!("token={canary}"), vec![]),
            (String::new(), vec![("authorization", bearer.as_str())]),
            (String::new(), vec![("sec-websocket-protocol", protocol.as_str())]),
        ] {
            let mut client = Client::connect_with(&gateway.ws(&query), &headers).await;
            assert_eq!(client.closed().await.0, 4001);
        }
        let mut raw = Raw::open(gateway.public, "/v1/ws").await;
        for text in [
            format!(r#"{{"type":"authenticate","token":"{canary}"}}"#),
            format!(r#"{{"type":"authenticate","token":["{canary}"]}}"#),
            format!(r#"{{"type":"authenticate","token":"{canary}"#),
        ] {
            raw.send(frame(TEXT, text)).await;
        }
        for expected in ["welcome", "error", "error", "error"] {
            assert_eq!(raw.json().await["type"], expected);
        }
        let path = format!("/{canary}?token={canary}");
        assert_eq!(http::get(gateway.public, &path).await.status, 404);
        assert_eq!(http::get(gateway.api, &path).await.status, 404);
        assert_eq!(gateway.publish_as(canary, &json!({"channel": "a", "data": canary})).await.status, 401);
        gateway.publish(&json!({"channel": "a", "data": canary})).await;
        let broken =
            format!("GET /v1/ws?token={canary} HTTP/1.1\r\nAuthorization: Bearer {canary}\r\nb\0d\r\n\r\n");
        assert_eq!(http::raw(gateway.public, broken.as_bytes()).await.status, 400);
        Healthy::new(&gateway).await.check(&gateway).await;
        let (log, metrics) = (gateway.log(), http::get(gateway.admin, "/metrics").await.body);
        assert!(log.contains("listening") && !log.contains(canary), "{log}");
        assert!(!metrics.contains(canary));
    }
}
