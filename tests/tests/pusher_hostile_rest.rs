//! What backends of the Pusher protocol should not send, and what those send who are none: nothing comes of it.

use carillon_tests::{
    pusher::{App, DEV, Place, Request, Rest},
    raw::Raw,
};
use serde_json::json;

#[tokio::test]
async fn hostile_requests_are_refused_and_cost_nothing() {
    let mut place = Place::new(&[]).await;
    let rest = place.rest();
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    for body in [
        deep(100_000).into_bytes(),
        br#"{"name":"x","channel":"y","data":"\ud800"}"#.to_vec(),
        b"{\"name\":\"x\",\"channel\":\"y\",\"data\":\"\xff\"}".to_vec(),
        br#"{"name":"x\u0000","channel":"y\u0000","data":"1"}"#.to_vec(),
        vec![b'['; 500_000],
        vec![0; 10_000],
    ] {
        let answer = rest.send(rest.request("POST", "/events").body(body)).await;
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
    // What is deep and harmless may be taken.
    for (data, more) in
        [(deep(3000), "1".to_owned()), ("1".to_owned(), deep(3000)), (deep(100_000), "1".to_owned())]
    {
        let body = format!(r#"{{"name":"x","channel":"y","data":{data},"more":{more}}}"#);
        let answer = rest.send(rest.request("POST", "/events").body(body)).await;
        assert!([200, 400, 413].contains(&answer.status), "{answer:?}");
    }
    let long = "p".repeat(5000);
    for request in [
        rest.request("GET", "/channels").with("filter_by_prefix", &long),
        rest.request("GET", &format!("/channels/{long}")),
        rest.request("GET", &format!("/channels/presence-{long}/users")),
        rest.request("GET", "/channels/%FF%FE"),
        rest.request("GET", "/channels/%00"),
        rest.request("GET", "/channels/%2e%2e%2f"),
        rest.request("POST", "/users/%FF/terminate_connections").body("{}"),
        rest.request("POST", &format!("/users/{long}/terminate_connections")).body("{}"),
    ] {
        let answer = rest.send(request).await;
        assert!(answer.status < 500, "{answer:?}");
    }
    for query in [
        "%",
        "%zz",
        "%ff%fe=%00",
        "auth_key=%FF",
        "&&&&",
        "=",
        "auth_key",
        "auth_key=dev-key&auth_key=dev-key",
    ] {
        let mut request = Request::new("GET", "/apps/1/channels");
        request.query = Some(query.to_owned());
        let answer = request.send(place.gateway.api).await;
        assert_eq!(answer.status, 401, "{query}: {answer:?}");
    }
    place.check().await;
}

/// A body that is larger than any event is not read to its end.
#[tokio::test]
async fn a_body_that_is_too_large_is_413() {
    let mut place = Place::new(&[]).await;
    for at in [place.gateway.api, place.gateway.public] {
        let head = "POST /apps/1/events?auth_key=dev-key HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                    Content-Length: 10000000000\r\n\r\n";
        let mut raw = Raw::connect(at).await;
        raw.send(head).await;
        let answer = raw.head().await;
        assert!(answer.starts_with("HTTP/1.1 413 ") || answer.starts_with("HTTP/1.1 401 "), "{answer}");
        let rest = Rest::new(at, &DEV);
        let big = json!({"name": "x", "channel": "y", "data": "d".repeat(3 << 20)});
        let answer = rest.post("/events", &big).await;
        assert_eq!(answer.status, 413);
    }
    place.check().await;
}

/// An attacker without the secret gets nowhere, however often.
#[tokio::test]
async fn forged_requests_publish_nothing() {
    let mut place = Place::new(&[]).await;
    let forger = App { secret: "dev-secrets", ..DEV };
    for _ in 0..50 {
        let body = json!({"name": "forged", "channel": "private-healthy", "data": "1"});
        assert_eq!(place.gateway.rest(&forger).post("/events", &body).await.status, 401);
        assert_eq!(Rest::new(place.gateway.public, &forger).post("/events", &body).await.status, 401);
    }
    place.check().await;
}
