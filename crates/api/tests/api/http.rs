//! What each route does.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Answer, Ask, Served, small};

#[tokio::test]
async fn a_publish_is_answered_with_its_position_and_delivered() {
    let served = Served::start(small()).await;
    let answer =
        served.post("/v1/publish", r#"{"channel":"orders.7","event":"shipped","data":{"id": 7}}"#).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{answer:?}");
    let result = &answer.json()["results"][0];
    assert_eq!(result["channel"], "orders.7");
    assert_eq!((&result["stored"], &result["duplicate"]), (&json!(true), &json!(false)));
    assert!(result["id"].as_str().unwrap().parse::<carillon_model::Position>().is_ok(), "{result}");
    assert_eq!(served.heard(), [r#"orders.7 shipped {"id": 7}"#]);
}

#[tokio::test]
async fn a_channel_without_history_answers_without_a_position() {
    let served = Served::start(small()).await;
    let answer = served.post("/v1/publish", r#"{"channel":"live.cursor","data":1}"#).await;
    assert_eq!(
        answer.json(),
        json!({"results":[{"channel":"live.cursor","stored":false,"duplicate":false}]})
    );
}

#[tokio::test]
async fn a_repeated_id_answers_the_first_position() {
    let served = Served::start(small()).await;
    let first = served.post("/v1/publish", r#"{"channel":"a","data":1,"id":"k1"}"#).await.json();
    let again = served.post("/v1/publish", r#"{"channel":"a","data":2,"id":"k1"}"#).await.json();
    let ask = Ask::post("/v1/publish", br#"{"channel":"a","data":3}"#).header("Idempotency-Key", "k1");
    let by_header = served.send(&ask).await.json();
    for repeated in [again, by_header] {
        assert_eq!(repeated["results"][0]["duplicate"], true);
        assert_eq!(repeated["results"][0]["id"], first["results"][0]["id"]);
    }
    assert_eq!(served.heard(), ["a - 1"]);
    let ask =
        Ask::post("/v1/publish", br#"{"channel":"a","data":3,"id":"k2"}"#).header("Idempotency-Key", "k1");
    assert_eq!(served.send(&ask).await.problem(), (400, "bad_request".into()));
}

#[tokio::test]
async fn several_channels_have_a_result_each_and_never_claim_more() {
    let served = Served::start(small()).await;
    let body = r#"{"channels":["a1","down.x","small.x","live.x"],"data":"more than 16 bytes"}"#;
    let answer = served.post("/v1/publish", body).await;
    assert_eq!(answer.status, 200);
    let results = answer.json()["results"].as_array().unwrap().clone();
    let seen: Vec<_> = results
        .iter()
        .map(|r| (r["channel"].as_str().unwrap(), r["error"]["error"].as_str().unwrap_or("ok")))
        .collect();
    assert_eq!(seen, [("a1", "ok"), ("down.x", "unavailable"), ("small.x", "too_large"), ("live.x", "ok")]);
    // None took it: the answer is the first one's error.
    let body = r#"{"channels":["down.1","small.x"],"data":"more than 16 bytes"}"#;
    assert_eq!(served.post("/v1/publish", body).await.problem(), (503, "unavailable".into()));
    // One that the key does not cover: nothing is published.
    let before = served.heard().len();
    let answer = served.post("/v1/publish", r#"{"channels":["a1","secret"],"data":1}"#).await;
    assert_eq!(answer.problem(), (403, "forbidden".into()));
    assert!(answer.detail().contains("`main_web` does not cover the channel `secret`"), "{answer:?}");
    assert_eq!(served.heard().len(), before);
}

#[tokio::test]
async fn a_user_is_reached_by_the_user_s_name() {
    let served = Served::start(small()).await;
    let answer = served.post("/v1/publish", r#"{"user":42,"data":"hi"}"#).await;
    assert_eq!(answer.json()["results"][0]["user"], "42", "{answer:?}");
    assert_eq!(served.heard(), [r#"$user:42 - "hi""#]);
}

#[tokio::test]
async fn a_form_says_the_same_as_json() {
    let served = Served::start(small()).await;
    let form = |body: &'static str| {
        Ask::post("/v1/publish", body.as_bytes()).header("Content-Type", "application/x-www-form-urlencoded")
    };
    for body in [
        "channels%5B0%5D=a1&channels%5B1%5D=a2&data=%7B%22x%22%3A1%7D&event=e",
        "channels[]=a1&channels[]=a2&data={\"x\":1}&event=e",
        "channel=a1&data=not+json",
        // What `curl -d '{…}'` sends.
        r#"{"channel":"a1","data":[1]}"#,
    ] {
        let answer = served.send(&form(body)).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
    let both = [r#"a1 e {"x":1}"#, r#"a2 e {"x":1}"#];
    let expected = [both[0], both[1], both[0], both[1], r#"a1 - "not json""#, "a1 - [1]"];
    assert_eq!(served.heard(), expected);
}

#[tokio::test]
async fn a_raw_body_is_the_data() {
    let served = Served::start(small()).await;
    let cases: [(&str, &str, &[u8], &str); 9] = [
        ("/v1/publish/a?event=e&id=k", "application/json", b" {\"a\":\n1}", "a e {\"a\": 1}"),
        ("/v1/publish/a%2Fb", "text/plain; charset=utf-8", "é\n\"".as_bytes(), "a/b - \"é\\n\\\"\""),
        ("/v1/publish/%C3%A9t%C3%A9", "image/png", b"\x89PNG", "été - {\"base64\":\"iVBORw==\"}"),
        ("/v1/publish/a", "application/x-www-form-urlencoded", b"hello", "a - \"hello\""),
        ("/v1/publish/a", "application/x-www-form-urlencoded", b"{\"a\":1}", "a - {\"a\":1}"),
        ("/v1/publish/a", "application/x-www-form-urlencoded", b"\xff", "a - {\"base64\":\"/w==\"}"),
        ("/v1/publish/a", "", b"[1,2]", "a - [1,2]"),
        ("/v1/publish/a", "", b"plain", "a - \"plain\""),
        ("/v1/publish/a", "application/octet-stream", b"{}", "a - {\"base64\":\"e30=\"}"),
    ];
    for (index, (path, media, body, expected)) in cases.into_iter().enumerate() {
        let answer = served.send(&Ask::post(path, body).header("Content-Type", media)).await;
        assert_eq!(answer.status, 200, "{path} {answer:?}");
        assert_eq!(served.heard().get(index).map(String::as_str), Some(expected));
    }
    let ask =
        Ask::post("/v1/publish/a", b"1").header("Carillon-Event", "shipped").header("Idempotency-Key", "k");
    assert_eq!(served.send(&ask).await.json()["results"][0]["duplicate"], true);
    for (path, media, body) in [
        ("/v1/publish/a", "application/json", "{"),
        ("/v1/publish/a", "text/plain", "\u{0}"),
        ("/v1/publish/a?evnt=x", "application/json", "1"),
        ("/v1/publish/a?event=x&event=y", "application/json", "1"),
        ("/v1/publish/a%20b", "application/json", "1"),
        ("/v1/publish/a%2A", "application/json", "1"),
        ("/v1/publish/%FF", "application/json", "1"),
        ("/v1/publish/$user:1", "application/json", "1"),
    ] {
        let answer = served.send(&Ask::post(path, body.as_bytes()).header("Content-Type", media)).await;
        if media == "text/plain" {
            assert_eq!(answer.status, 200, "NUL in text is escaped: {answer:?}");
        } else {
            assert_eq!(answer.problem(), (400, "bad_request".into()), "{path}");
        }
    }
}

#[tokio::test]
async fn a_bad_item_of_a_batch_fails_alone() {
    let served = Served::start(small()).await;
    let body = r#"[{"channel":"a1","data":1},{"channel":"a b","data":1},{"channel":"secret","data":1},
        {"channels":["a1"],"data":1},{"user":"7","data":2,"event":"e"},{"channel":"a1","data":1,"tags":["x"]},
        {"channel":"down.1","data":1},7,{"channel":"a1","data":3}]"#;
    let answer = served.post("/v1/batch", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    let codes: Vec<_> = results.iter().map(|r| r["error"]["error"].as_str().unwrap_or("ok")).collect();
    let expected = [
        "ok",
        "bad_request",
        "forbidden",
        "bad_request",
        "ok",
        "not_enabled",
        "unavailable",
        "bad_request",
        "ok",
    ];
    assert_eq!(codes, expected);
    assert_eq!(served.heard(), ["a1 - 1", "$user:7 e 2", "a1 - 3"]);
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_its_limits() {
    let served = Served::start(small()).await;
    let batch = |count: usize| {
        let items: Vec<_> = (0..count).map(|n| format!(r#"{{"channel":"a","data":{n}}}"#)).collect();
        format!("[{}]", items.join(","))
    };
    assert_eq!(served.post("/v1/batch", batch(100)).await.status, 200);
    let expected: Vec<_> = (0..100).map(|n| format!("a - {n}")).collect();
    assert_eq!(served.heard(), expected);
    assert_eq!(served.post("/v1/batch", batch(101)).await.problem(), (400, "limit_exceeded".into()));
    assert_eq!(served.post("/v1/batch", "[]").await.json(), json!({"results":[]}));
    assert_eq!(served.post("/v1/batch", "{}").await.problem(), (400, "bad_request".into()));
    // Nothing was accepted, and all of it may be later: the status says so.
    let down = r#"[{"channel":"down.1","data":1},{"channel":"down.2","data":1}]"#;
    assert_eq!(served.post("/v1/batch", down).await.problem(), (503, "unavailable".into()));
}

#[tokio::test]
async fn every_error_is_a_problem_that_says_what_to_do() {
    let served = Served::start(small()).await;
    let good = r#"{"channel":"a","data":1}"#.as_bytes();
    let big = vec![b' '; 70 << 10];
    let cases = [
        (Ask::post("/v1/publish", b""), 400, "body is empty"),
        (Ask::post("/v1/publish", b"{"), 400, "EOF"),
        (Ask::post("/v1/publish", b"\xe9"), 400, "mb_convert_encoding"),
        (Ask::post("/v1/publish", br#"{"channel":"a","data":1,"tags":[]}"#), 501, "`tags` is not supported"),
        (Ask::post("/v1/publish", good).header("Authorization", ""), 401, "Authorization: Bearer crl_"),
        (Ask::post("/v1/publish", good).header("Authorization", "Basic YTpi"), 401, "crl_<app>"),
        (
            Ask::post("/v1/publish", good)
                .header("Authorization", format!("Bearer crl_main_web_{}", "x".repeat(43))),
            401,
            "not known here",
        ),
        (
            Ask::post("/v1/publish", good)
                .header("Authorization", format!("Bearer crl_main_nobody_{}", "x".repeat(43))),
            401,
            "not known here",
        ),
        (
            Ask::post("/v1/publish", good).header("Authorization", format!("Bearer {}", served.reader_key)),
            403,
            "scope `publish`",
        ),
        (Ask::post("/v1/publish", &big), 413, "larger than 65536 bytes"),
        (Ask::post("/v1/publish", good).header("Content-Encoding", "gzip"), 415, "Content-Encoding"),
        (
            Ask::post("/v1/publish", good).header("Content-Type", "multipart/form-data; boundary=x"),
            415,
            "http_build_query",
        ),
        (Ask::post("/v1/publish", good).header("Content-Type", "text/plain"), 415, "application/json"),
        (
            Ask::post("/v1/publish", good).header("Content-Type", "application/json; charset=latin1"),
            415,
            "UTF-8",
        ),
        (Ask::post("/v1/batch", b"[]").header("Content-Type", "image/png"), 415, "application/json"),
        (Ask::post("/v1/publish", br#"{"channel":"stall.1","data":1}"#), 503, "same `id`"),
        (Ask::post("/v1/publish", br#"{"channel":"down.1","data":1}"#), 503, "cannot be reached"),
        (Ask::post("/v1/nothing", b""), 404, "openapi.yaml"),
        (Ask::post("/", b""), 404, "openapi.yaml"),
        (Ask { method: "GET", ..Ask::post("/v1/ws", b"") }, 404, "public listener (port 8000"),
        (Ask::post("/v1/publish/", b"1"), 404, "%2F"),
        (Ask::post("/v1/publish/a/b", b"1"), 404, "%2F"),
        (Ask { method: "GET", ..Ask::post("/v1/publish", b"") }, 405, "POST only"),
        (Ask { method: "PUT", ..Ask::post("/v1/publish/a", good) }, 405, "POST only"),
        (Ask::post("/openapi.yaml", b""), 405, "GET only"),
    ];
    for (ask, status, part) in cases {
        let answer = served.send(&ask).await;
        assert_eq!(answer.problem().0, status, "{} {answer:?}", ask.path);
        assert!(answer.detail().contains(part), "{part}: {answer:?}");
        assert_eq!(answer.headers.contains_key("retry-after"), status == 503, "{answer:?}");
        assert_eq!(answer.headers.contains_key("www-authenticate"), status == 401, "{answer:?}");
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{answer:?}");
    }
    assert_eq!(served.heard(), Vec::<String>::new());
}

#[tokio::test]
async fn a_key_that_is_too_fast_waits() {
    let served = Served::start(small()).await;
    let ask = Ask::post("/v1/publish", br#"{"channel":"a","data":1}"#)
        .header("Authorization", format!("Bearer {}", served.slow_key));
    let mut socket = served.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        socket.write_all(&ask.bytes(&served)).await.unwrap();
        let answer = Answer::read(&mut socket).await;
        if answer.status == 429 {
            assert_eq!(answer.problem(), (429, "rate_limited".into()));
            assert_eq!(answer.header("retry-after"), "1");
            assert!(answer.json()["retry_after_ms"].as_u64().unwrap() <= 500, "{answer:?}");
        }
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
}

#[tokio::test]
async fn keep_alive_and_continue_work_as_php_expects() {
    let served = Served::start(small()).await;
    let mut socket = served.connect().await;
    let body = br#"{"channel":"a","data":1}"#;
    for _ in 0..3 {
        socket.write_all(&Ask::post("/v1/publish", body).bytes(&served)).await.unwrap();
        assert_eq!(Answer::read(&mut socket).await.status, 200);
    }
    let ask = Ask::post("/v1/publish", body).header("Expect", "100-continue").bytes(&served);
    let (head, body) = ask.split_at(ask.len() - body.len());
    socket.write_all(head).await.unwrap();
    assert_eq!(Answer::read(&mut socket).await.status, 100);
    socket.write_all(body).await.unwrap();
    assert_eq!(Answer::read(&mut socket).await.status, 200);
    // A body that is refused need not be sent.
    let ask =
        Ask::post("/v1/publish", body).header("Expect", "100-continue").header("Content-Length", "9999999");
    let bytes = ask.bytes(&served);
    socket.write_all(bytes.get(..bytes.len() - body.len()).unwrap()).await.unwrap();
    assert_eq!(Answer::read(&mut socket).await.problem(), (413, "too_large".into()));
}

#[tokio::test]
async fn http_2_without_tls_is_the_same_api() {
    let served = Served::start(small()).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let ask = |body: &'static str| {
        Request::post(format!("http://{}/v1/publish", served.address))
            .header("authorization", format!("Bearer {}", served.key))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from_static(body.as_bytes())))
            .unwrap()
    };
    for (body, status) in
        [(r#"{"channel":"a","data":1}"#, 200), ("", 400), (r#"{"channel":"down.1","data":1}"#, 503)]
    {
        let answer = client.request(ask(body)).await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(!answer.headers().contains_key("connection"));
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(serde_json::from_slice::<serde_json::Value>(&text).unwrap().is_object());
    }
    assert_eq!(served.heard(), ["a - 1"]);
}
