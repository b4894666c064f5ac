//! Websites: which are let in, and what their browsers are told (`client.allowed_origins`).

use carillon_tests::{gateway::Gateway, http, listener::Listener, raw::handshake};

const PATHS: [&str; 3] = ["/v1/sse?channel=a", "/v1/stream?channel=a", "/v1/poll?channel=a"];

fn only(origins: &str) -> Gateway {
    Gateway::serve(&format!(
        "[client]\nallowed_origins = [{origins}]\n[broker]\nkind = \"memory\"\n\
         [[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n"
    ))
}

async fn status(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> (u16, Option<String>) {
    let mut listener = Listener::connect(gateway.public).await;
    listener.send(carillon_tests::listener::get(path, headers)).await;
    let head = listener.head().await;
    (head.status, head.header("access-control-allow-origin").map(str::to_owned))
}

#[tokio::test]
async fn only_the_websites_of_the_list_are_let_in() {
    let gateway = only(r#""https://shop.example", "https://*.shop.example""#);
    let (good, below, bad) = ("https://shop.example", "https://a.shop.example", "https://evil.example");
    for path in PATHS {
        for origin in [good, below] {
            assert_eq!(
                status(&gateway, path, &[("Origin", origin)]).await,
                (200, Some(origin.to_owned())),
                "{path}"
            );
        }
        for origin in
            [bad, "null", "https://evilshop.example", "http://shop.example", "https://shop.example:444"]
        {
            assert_eq!(status(&gateway, path, &[("Origin", origin)]).await, (403, None), "{path} {origin}");
        }
        // No browser sent it, or its own website did.
        assert_eq!(status(&gateway, path, &[]).await, (200, None), "{path}");
    }
    for (origin, expected) in [(good, 101), (below, 101), (bad, 403), ("null", 403)] {
        let mut listener = Listener::connect(gateway.public).await;
        listener.send(handshake("/v1/ws", &format!("Origin: {origin}\r\n"))).await;
        assert_eq!(listener.head().await.status, expected, "{origin}");
    }
    for transport in ["websocket", "sse", "stream", "poll"] {
        let denied =
            format!(r#"carillon_connections_rejected_total{{transport="{transport}",reason="denied"}}"#);
        assert!(gateway.metric(&denied).await > 1.5, "{transport}");
    }
}

/// Fetch standard §3.2: what a browser asks before it asks.
#[tokio::test]
async fn a_browser_is_told_what_it_may_send() {
    let (any, some) = (only(r#""*""#), only(r#""https://shop.example""#));
    for path in PATHS {
        for (gateway, origin, expected) in [
            (&any, "https://a.example", Some("*")),
            (&some, "https://shop.example", Some("https://shop.example")),
            (&some, "https://evil.example", None),
        ] {
            let request = format!(
                "OPTIONS {path} HTTP/1.1\r\nHost: test\r\nOrigin: {origin}\r\nConnection: close\r\n\
                 Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: authorization\r\n\r\n"
            );
            let answer = http::raw(gateway.public, request.as_bytes()).await;
            assert_eq!(answer.header("access-control-allow-origin"), expected, "{answer:?}");
            if expected.is_none() {
                assert_eq!(answer.status, 403);
                continue;
            }
            assert_eq!((answer.status, answer.header("vary")), (204, Some("Origin")), "{answer:?}");
            let headers = answer.header("access-control-allow-headers").expect("some");
            for header in ["Authorization", "Last-Event-ID", "If-None-Match", "Content-Type"] {
                assert!(headers.contains(header), "{headers}");
            }
            assert_eq!(answer.header("access-control-max-age"), Some("7200"));
        }
    }
}

/// A website whose name leads to this machine reads nothing: its own pages' requests name no origin.
#[tokio::test]
async fn in_development_mode_only_pages_of_this_machine_are_answered() {
    let gateway = Gateway::dev(&[]);
    for path in PATHS {
        for (header, good) in [
            (("Origin", "http://localhost:3000"), true),
            (("Origin", "http://127.0.0.1:8080"), true),
            (("Origin", "https://shop.test"), true),
            (("Origin", "https://evil.example"), false),
            (("X-Nothing", ""), true),
        ] {
            assert_eq!(
                status(&gateway, path, &[header]).await.0,
                if good { 200 } else { 403 },
                "{path} {header:?}"
            );
        }
        let rebound = format!("GET {path} HTTP/1.1\r\nHost: website.example\r\nConnection: close\r\n\r\n");
        assert_eq!(http::raw(gateway.public, rebound.as_bytes()).await.status, 403, "{path}");
    }
}

/// Everybody knows the secret of development mode.
#[tokio::test]
async fn no_website_signs_requests_to_a_developer_s_gateway() {
    let gateway = Gateway::dev(&[]);
    let asked = |headers: &str| {
        let request = format!(
            "POST /apps/1/events HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n\r\n"
        );
        let public = gateway.public;
        async move { http::raw(public, request.as_bytes()).await.status }
    };
    for refused in [
        "Host: 127.0.0.1\r\nOrigin: https://evil.example",
        // Its name leads to this machine.
        "Host: evil.example\r\nSec-Fetch-Site: same-origin",
    ] {
        assert_eq!(asked(refused).await, 403, "{refused}");
    }
    for answered in
        ["Host: 127.0.0.1", "Host: api-eu.pusher.example", "Host: shop.test\r\nOrigin: http://shop.test"]
    {
        assert_eq!(asked(answered).await, 401, "{answered}: it is not signed");
    }
}
