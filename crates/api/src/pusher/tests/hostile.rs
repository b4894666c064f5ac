//! What nobody sends who means well. The signatures are good: whoever holds a key may be wrong, too.

use super::*;

#[tokio::test]
async fn bodies_that_are_no_events_are_refused_and_nothing_is_published() {
    let served = Served::new();
    let deep = |open: &str, depth: usize| open.repeat(depth);
    let many = format!(r#"{{"name":"e","data":"x","channels":[{}"a"]}}"#, r#""a","#.repeat(100_000));
    let bodies: Vec<Vec<u8>> = vec![
        b"\xff\xfe".to_vec(),
        b"\0".to_vec(),
        b"{\"name\":\"\xff\",\"channel\":\"a\",\"data\":\"x\"}".to_vec(),
        b"{\"name\":\"e\",\"channel\":\"a\",\"data\":\"\xff\"}".to_vec(),
        b"{\"name\":\"e\",\"channel\":\"a\",\"data\":\"a\nb\"}".to_vec(),
        b"{\"name\":\"e\\u0000\",\"channel\":\"a\",\"data\":\"x\"}".to_vec(),
        b"{\"name\":\"\\ud800\",\"channel\":\"a\",\"data\":\"x\"}".to_vec(),
        br#"{"name":"e","channel":"a","data":1e999}"#.to_vec(),
        br#"{"name":"e","channel":"a","data":"x"} {}"#.to_vec(),
        br#"null"#.to_vec(),
        deep("[", 100_000).into_bytes(),
        deep("{\"name\":", 70_000).into_bytes(),
        format!(r#"{{"name":"e","channel":"a","data":{}{}}}"#, deep("[", 5000), deep("]", 5000)).into_bytes(),
        format!(r#"{{"name":"e","channel":"a","data":"x","x":{}"#, deep("[", 100_000)).into_bytes(),
        format!(r#"{{"batch":{}{}}}"#, deep("[", 1000), deep("]", 1000)).into_bytes(),
        format!(r#"{{"batch":[{}{{}}]}}"#, "{},".repeat(100_000)).into_bytes(),
        many.into_bytes(),
        vec![b' '; 1 << 19],
        vec![b'"'; 1 << 19],
    ];
    for body in bodies {
        let start = String::from_utf8_lossy(&body).chars().take(60).collect::<String>();
        for told in [served.trigger(&body).await, served.batch(&body).await] {
            assert_eq!(told.status, 400, "{start}: {told:?}");
            assert!(told.body.len() < 1000, "{start}: {}", told.body.len());
        }
        assert!(served.published().is_empty(), "{start}");
    }
}

#[tokio::test]
async fn data_that_is_json_in_a_text_may_be_anything() {
    let served = Served::new();
    for text in ["[".repeat(10_000), "\0\u{1}\u{7f}\u{2028}".to_owned(), "{\"a\":".repeat(2000)] {
        let body = serde_json::json!({ "name": "e", "channel": "a", "data": text }).to_string();
        served.trigger(&body).await.is("{}");
        let published = served.published().concat();
        let data: String = serde_json::from_str(published.strip_prefix("#a e ").unwrap()).unwrap();
        assert_eq!(data, text);
    }
}

#[tokio::test]
async fn paths_and_queries_may_be_anything() {
    let served = Served::new();
    for path in [
        "/apps/%/channels",
        "/apps/1%00/channels",
        "/apps//channels",
        "/apps/../apps/1/channels",
        "/apps/1/channels/%E0%80%80",
        "/apps/1/channels/%",
        "/apps/1/channels/..%2f..",
        "/apps/1/users/%ff/terminate_connections",
    ] {
        for method in ["GET", "POST"] {
            let told = served.raw(method, path, &HeaderMap::new(), b"").await;
            assert!([401, 404, 405].contains(&told.status), "{method} {path}: {told:?}");
            let told = served.send(KEY, method, path, "", b"").await;
            assert!([400, 401, 404, 405].contains(&told.status), "{method} {path}: {told:?}");
        }
    }
    for query in [
        "auth_key",
        "&&&&&=",
        "=&=&=",
        "auth_key=%",
        "auth_key=%ff%fe",
        "auth_key=%00",
        "auth_signature&auth_signature&auth_key[]=1",
        &format!("auth_key={}", "k".repeat(8000)),
        &format!("{}auth_key=1", "a&".repeat(4000)),
        &format!("{}auth_key=1", "a%5B%5D=1&".repeat(800)),
    ] {
        let told = served.raw("GET", &format!("/apps/1/channels?{query}"), &HeaderMap::new(), b"").await;
        assert_eq!(told.status, 401, "{query:.60}: {told:?}");
    }
    // Signed, and not UTF-8.
    let told = served.get("/apps/1/channels", "filter_by_prefix=%zz").await;
    assert_eq!(told.status, 200, "{told:?}");
}

/// A body that nobody may look at.
struct Unread;

impl Body for Unread {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        panic!("the body was read");
    }

    /// So that what is left of a refused body is not thrown away here.
    fn is_end_stream(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn the_body_of_a_stranger_is_not_read() {
    let served = Served::new();
    let good = uri(KEY, "POST", "/apps/1/events", "", b"{}");
    for (uri, status) in [
        (good.replace("/apps/1/", "/apps/other/"), 401),
        (good.replace("/events", "/batch_events"), 401),
        (format!("{good}0"), 401),
        ("/apps/1/events".to_owned(), 401),
        ("/apps/1/nothing".to_owned(), 404),
        (uri("off-key", "POST", "/apps/off/events", "", b"{}"), 403),
    ] {
        let request = Request::builder().method("POST").uri(uri.as_str()).body(Unread).unwrap();
        assert_eq!(served.rest.serve(request).await.status(), status, "{uri}");
    }
}
