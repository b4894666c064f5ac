//! What breaks the rules of HTTP or wears the server down.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::harness::{Answer, Ask, PATIENCE, Served, small};

fn head(served: &Served, extra: &str) -> String {
    format!(
        "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\n{extra}\r\n",
        served.key
    )
}

#[tokio::test]
async fn json_bombs_are_refused() {
    let served = Served::start(small()).await;
    let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
    for data in [
        deep(20_000),
        "[".repeat(60_000),
        "1e999".into(),
        r#""\ud800""#.into(),
        "\"\0\"".into(),
        r#"{"a":1"#.into(),
    ] {
        let body = format!(r#"{{"channel":"a","data":{data}}}"#);
        let answer = served.post("/v1/publish", &body).await;
        assert_eq!(answer.problem(), (400, "bad_request".into()), "{data:.20}");
        let answer = served.post("/v1/publish/a", &data).await;
        assert_eq!(answer.problem(), (400, "bad_request".into()), "{data:.20}");
    }
    assert!(served.heard().is_empty());
}

#[tokio::test]
async fn names_that_mean_something_to_nats_are_refused() {
    let served = Served::start(small()).await;
    for name in ["a.*", "a.>", "*", ">", "a b", "a\\r\\nPUB x", "a\\u00a0b", "a\\u2028b", "$JS.API"] {
        let answer = served.post("/v1/publish", format!(r#"{{"channel":"{name}","data":1}}"#)).await;
        assert_eq!(answer.problem(), (400, "bad_request".into()), "{name}");
    }
    let long = format!(r#"{{"channel":"a{}","data":1}}"#, "x".repeat(200));
    assert_eq!(served.post("/v1/publish", long).await.problem(), (400, "bad_request".into()));
}

#[tokio::test]
async fn malformed_http_is_refused_without_harm() {
    let served = Served::start(small()).await;
    let huge = format!("X-Huge: {}\r\n", "x".repeat(20_000));
    let many = (0..120).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let cases = [
        (head(&served, &huge), "431"),
        (head(&served, &many), "431"),
        (head(&served, "Content-Length: 1\r\nContent-Length: 2\r\n"), "400"),
        (head(&served, "Content-Length: -1\r\n"), "400"),
        (head(&served, "Content-Length: 1, 1\r\n"), "400"),
        (head(&served, "Transfer-Encoding: chunked, identity\r\n"), "400"),
        (head(&served, "Transfer-Encoding: xchunked\r\n"), "400"),
        (head(&served, "X y: 1\r\n"), "400"),
        (head(&served, "X-Folded: 1\r\n 2\r\n"), "400"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "400"),
        ("\x16\x03\x01 TLS hello \r\n\r\n".to_owned(), "400"),
    ];
    for (bytes, status) in cases {
        let answer = served.raw(bytes.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{bytes:.60} -> {answer:.80}");
    }
    assert_eq!(served.post("/v1/publish", r#"{"channel":"a","data":1}"#).await.status, 200);
    assert_eq!(served.heard().len(), 1);
}

#[tokio::test]
async fn a_length_and_chunks_together_cannot_smuggle_a_request() {
    let served = Served::start(small()).await;
    let smuggled = head(&served, "Content-Length: 27\r\n") + r#"{"channel":"a","data":666}"#;
    let body = r#"{"channel":"a","data":1}"#;
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for framing in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    ] {
        let before = served.heard().len();
        let answer = served.raw((head(&served, framing) + &chunked + &smuggled).as_bytes()).await;
        // Read by its chunks alone, and the connection ends: what follows is never taken for a request.
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        assert_eq!(served.heard().get(before..), Some(&["a - 1".to_owned()][..]));
    }
}

#[tokio::test]
async fn chunked_bodies_have_the_same_limit() {
    let served = Served::start(small()).await;
    let chunk = format!("{:x}\r\n{}\r\n", 16 << 10, " ".repeat(16 << 10));
    let bytes = head(&served, "Transfer-Encoding: chunked\r\n") + &chunk.repeat(6) + "0\r\n\r\n";
    let answer = served.raw(bytes.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer:.200}");
    let broken = head(&served, "Transfer-Encoding: chunked\r\n") + "zz\r\n";
    let answer = served.raw(broken.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer:.200}");
}

#[tokio::test]
async fn a_large_refused_body_still_reads_its_answer() {
    let served = Served::start(small()).await;
    let body = vec![b'x'; 3 << 20];
    for ask in [
        Ask::post("/v1/publish", &body),
        Ask::post("/v1/publish", &body).header("Authorization", ""),
        Ask::post("/v1/nothing", &body),
    ] {
        let answer = served.send(&ask).await;
        assert!([413, 401, 404].contains(&answer.status), "{answer:?}");
    }
}

#[tokio::test]
async fn slow_peers_are_let_go() {
    let short = Duration::from_millis(300);
    let config = carillon_api::Config { body_timeout: short, first_request_timeout: short, ..small() };
    let served = Served::start(config).await;
    // Nothing at all, half of HTTP/2's first bytes, half of a header.
    for start in ["", "PRI * HT", "POST /v1/publish HTTP/1.1\r\nHost: x\r\nX-Sl"] {
        let answer = served.raw(start.as_bytes()).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    // A body that stops.
    let mut socket = served.connect().await;
    socket.write_all((head(&served, "Content-Length: 100\r\n") + "{").as_bytes()).await.unwrap();
    let answer = Answer::read(&mut socket).await;
    assert_eq!(answer.problem(), (400, "bad_request".into()));
    assert!(answer.detail().contains("did not arrive"), "{answer:?}");
    let closed = timeout(PATIENCE, socket.read(&mut [0; 16])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn all_bodies_together_have_a_limit() {
    let config = carillon_api::Config { bodies_held_max_bytes: 40 << 10, ..small() };
    let served = Served::start(config).await;
    let mut holder = served.connect().await;
    let part = head(&served, "Content-Length: 40000\r\n") + &" ".repeat(39_000);
    holder.write_all(part.as_bytes()).await.unwrap();
    let body = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(4000));
    // The holder's bytes may arrive after the first request.
    let mut refused = false;
    for _ in 0..200 {
        let answer = served.post("/v1/publish", &body).await;
        if answer.status == 503 {
            assert_eq!(answer.problem(), (503, "unavailable".into()));
            refused = true;
            break;
        }
    }
    assert!(refused);
    // What the holder had is given back when it leaves.
    drop(holder);
    let mut accepted = false;
    for _ in 0..200 {
        if served.post("/v1/publish", &body).await.status == 200 {
            accepted = true;
            break;
        }
    }
    assert!(accepted);
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[tokio::test]
async fn floods_of_http_2_frames_end_the_connection() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    const CONTINUATION: u8 = 9;
    const END_HEADERS: u8 = 4;
    const ENHANCE_YOUR_CALM: u8 = 11;
    let served = Served::start(small()).await;
    // `:method POST`, `:scheme http`, `:path /`, `:authority x`, by HPACK's static table.
    let head = [0x83, 0x86, 0x84, 0x41, 0x01, b'x'];
    let resets: Vec<u8> = (0..20_000_u32)
        .flat_map(|n| {
            let stream = n * 2 + 1;
            let mut bytes = frame(HEADERS, END_HEADERS, stream, &head);
            bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
            bytes
        })
        .collect();
    let mut continued = frame(HEADERS, 0, 1, &head);
    for _ in 0..20_000 {
        // A literal header of 100 bytes that is never indexed.
        let header = [&[0x10, 0x01, b'y', 100][..], &[b'z'; 100]].concat();
        continued.extend(frame(CONTINUATION, 0, 1, &header));
    }
    for flood in [resets, continued] {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        bytes.extend(flood);
        let socket = served.connect().await;
        let (mut reader, mut writer) = socket.into_split();
        let writing = async move {
            // Cut off in the middle.
            let _all_sent = writer.write_all(&bytes).await.is_ok();
        };
        let reading = async move {
            let mut answer = Vec::new();
            let _reset = reader.read_to_end(&mut answer).await.is_err();
            answer
        };
        let ((), answer) = timeout(PATIENCE, async { tokio::join!(writing, reading) }).await.unwrap();
        // The code of GOAWAY follows the last stream's number.
        let (mut rest, mut codes) = (answer.as_slice(), Vec::new());
        while let [a, b, c, kind, _flags, _s, _t, _r, _m, payload @ ..] = rest {
            let length = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap();
            if *kind == GOAWAY {
                codes.push(payload.get(7).copied());
            }
            rest = payload.get(length..).unwrap_or_default();
        }
        assert_eq!(codes, [Some(ENHANCE_YOUR_CALM)]);
    }
    assert_eq!(served.post("/v1/publish", r#"{"channel":"a","data":1}"#).await.status, 200);
}
