//! Applications on one listener: those of API keys, and those of the Pusher protocol.

use std::time::Duration;

use carillon_auth::sign;
use carillon_tasks::clock;
use md5::{Digest as _, Md5};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::harness::{APP_SECRET, Answer, Ask, PATIENCE, Served, small};

/// Returns the target of a request of the Pusher protocol that was signed now.
fn signed(method: &str, path: &str, body: &[u8]) -> String {
    let time = clock::since_1970().as_secs();
    let digest: String = Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let query = format!("auth_key=app-key&auth_timestamp={time}&auth_version=1.0&body_md5={digest}");
    let signature = sign(APP_SECRET, format!("{method}\n{path}\n{query}").as_bytes());
    format!("{path}?{query}&auth_signature={signature}")
}

async fn get(served: &Served, path: &str, key: &str) -> Answer {
    let ask = Ask { method: "GET", ..Ask::post(path, b"") };
    served.send(&ask.header("Authorization", format!("Bearer {key}"))).await
}

#[tokio::test]
async fn a_key_publishes_to_the_channels_of_its_application() {
    let served = Served::start(small()).await;
    let second = format!("Bearer {}", served.second_key);
    for (path, body) in [
        ("/v1/publish", r#"{"channels":["a","orders.7"],"data":1}"#),
        ("/v1/publish/a", "2"),
        ("/v1/batch", r#"[{"channel":"a","data":3},{"user":"7","data":4}]"#),
    ] {
        let ask = Ask::post(path, body.as_bytes()).header("Authorization", second.as_str());
        assert_eq!(served.send(&ask).await.status, 200, "{path}");
    }
    assert_eq!(served.post("/v1/publish/a", "5").await.status, 200);
    let expected = [
        "second#a - 1",
        "second#orders.7 - 1",
        "second#a - 2",
        "second#a - 3",
        "second#$user:7 - 4",
        "#a - 5",
    ];
    assert_eq!(served.heard().len(), expected.len());
    for heard in served.heard() {
        let heard = if heard.starts_with("second") {
            heard.replacen("second", "second#", 1)
        } else {
            format!("#{heard}")
        };
        assert!(expected.contains(&heard.as_str()), "{heard}");
    }
}

#[tokio::test]
async fn channels_are_listed_that_the_key_may_read() {
    let served = Served::start(small()).await;
    let nodes = json!({ "answered": 1, "of": 2 });
    let told = get(&served, "/v1/channels", &served.reader_key).await;
    assert_eq!(
        told.json(),
        json!({ "channels": [{ "channel": "orders.7", "subscriptions": 3 }], "nodes": nodes })
    );
    let told = get(&served, "/v1/channels?prefix=b", &served.reader_key).await;
    assert_eq!(told.json(), json!({ "channels": [], "nodes": nodes }));
    let told = get(&served, "/v1/channels", &served.second_reader_key).await;
    assert_eq!(told.json()["channels"], json!([]), "those of another application");
    assert_eq!(get(&served, "/v1/channels", &served.key).await.problem(), (403, "forbidden".to_owned()));
    assert_eq!(get(&served, "/v1/channels", "crl_x").await.problem(), (401, "unauthorized".to_owned()));
    for path in ["/v1/channels?prefix=a%20b", "/v1/channels?limit=1", "/v1/channels?prefix=%24user"] {
        assert_eq!(
            get(&served, path, &served.reader_key).await.problem(),
            (400, "bad_request".to_owned()),
            "{path}"
        );
    }
    assert_eq!(served.post("/v1/channels", "1").await.problem(), (405, "method_not_allowed".to_owned()));
}

#[tokio::test]
async fn a_channel_is_counted_and_its_members_are_listed() {
    let served = Served::start(small()).await;
    let read = async |path: &str| get(&served, path, &served.reader_key).await;
    let nodes = json!({ "answered": 1, "of": 2 });
    let told = read("/v1/channels/orders.7").await;
    assert_eq!(told.json(), json!({ "channel": "orders.7", "subscriptions": 3, "nodes": nodes }));
    let told = read("/v1/channels/b%2Fc").await;
    assert_eq!(told.json(), json!({ "channel": "b/c", "subscriptions": 0, "nodes": nodes }));
    let told = read("/v1/channels/orders.7/presence").await;
    let members = json!([{ "user": "7", "info": { "name": "Ana" } }, { "user": "8" }]);
    assert_eq!(told.json(), json!({ "channel": "orders.7", "count": 2, "members": members }));
    let told = read("/v1/channels/orders.7/presence?count=1").await;
    assert_eq!(told.json(), json!({ "channel": "orders.7", "count": 2 }));
    let told = read("/v1/channels/b/presence").await;
    assert_eq!(told.json(), json!({ "channel": "b", "count": 0, "members": [] }));
    for (path, status) in [
        ("/v1/channels/a", 403),
        ("/v1/channels/a/presence", 403),
        ("/v1/channels/%24user:7", 400),
        ("/v1/channels/%ff", 400),
        ("/v1/channels/a%20b", 400),
        ("/v1/channels/orders.7?count=1", 400),
        ("/v1/channels/orders.7/presence?count=yes", 400),
        ("/v1/channels/orders.7/history", 404),
        ("/v1/channels/", 404),
    ] {
        assert_eq!(read(path).await.problem().0, status, "{path}");
    }
}

#[tokio::test]
async fn pusher_clients_publish_on_the_same_port() {
    let served = Served::start(small()).await;
    let body = br#"{"name":"e","channels":["a","live.x"],"data":"{\"id\":7}"}"#;
    let path = signed("POST", "/apps/main/events", body);
    let told = served.send(&Ask::post(&path, body).header("Authorization", "")).await;
    assert_eq!((told.status, told.body.as_str()), (200, "{}"), "{told:?}");
    assert_eq!(served.heard(), [r#"a e "{\"id\":7}""#, r#"live.x e "{\"id\":7}""#]);
    let path = signed("GET", "/apps/main/channels", b"");
    let told = get(&served, &path, "").await;
    assert_eq!(told.json(), json!({ "channels": { "a": {}, "orders.7": {} } }));
    assert_eq!(told.header("carillon-nodes"), "1/2");
    let told = served.post("/apps/main/events", "{}").await;
    assert_eq!((told.status, told.body.as_str()), (401, "Missing parameter: auth_key\n"));
    let path = signed("POST", "/apps/main/events", b"{}");
    let told = served.post(&path.replace("/main/", "/second/"), "{}").await;
    assert_eq!((told.status, told.body.as_str()), (401, "Unknown auth_key\n"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_in_plain_text() {
    let served = Served::start(small()).await;
    let body = vec![b' '; 8 << 20];
    let path = signed("POST", "/apps/main/events", &body);
    let told = served.post(&path, &body).await;
    assert_eq!((told.status, told.header("content-type")), (413, "text/plain; charset=utf-8"), "{told:?}");
    assert!(told.body.starts_with("The content of this event or batch is too large"), "{told:?}");
    // One that does not say how large it is, and never ends.
    let mut socket = served.connect().await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    let feed = async { while socket.write_all(&chunk).await.is_ok() {} };
    assert!(timeout(PATIENCE, feed).await.is_ok(), "the connection is closed");
    assert!(served.heard().is_empty());
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let config = carillon_api::Config { body_timeout: Duration::from_millis(200), ..small() };
    let served = Served::start(config).await;
    let path = signed("POST", "/apps/main/events", b"{}");
    let mut socket = served.connect().await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{");
    socket.write_all(head.as_bytes()).await.unwrap();
    let told = Answer::read(&mut socket).await;
    assert_eq!(told.status, 400);
    assert!(told.body.starts_with("the body did not arrive within"), "{told:?}");
    let mut rest = Vec::new();
    let _reset = timeout(PATIENCE, socket.read_to_end(&mut rest)).await.unwrap().is_err();
    assert!(rest.is_empty());
}
