//! Who may ask, and for what.

use super::*;

#[tokio::test]
async fn an_unsigned_request_is_refused_in_the_protocols_words() {
    let served = Served::new();
    let none = HeaderMap::new();
    served.raw("GET", "/apps/1/channels", &none, b"").await.refuses(401, "Missing parameter: auth_key");
    let good = uri(KEY, "POST", "/apps/1/events", "", b"{}");
    served
        .raw("POST", &good.replace("auth_version=1.0&", ""), &none, b"{}")
        .await
        .refuses(401, "Version required");
    served.raw("POST", &good, &none, b"{ }").await.refuses(401, "Invalid body_md5");
    served
        .raw("POST", &format!("{good}0"), &none, b"{}")
        .await
        .refuses(401, "Invalid signature: you should have sent");
    served.raw("POST", &good, &none, b"{}").await.refuses(400, "Missing required parameter: name");
    served
        .raw("POST", &good.replace("/apps/1/", "/apps/other/"), &none, b"{}")
        .await
        .refuses(401, "Unknown auth_key");
    served
        .raw("POST", &good.replace("/apps/1/", "/apps/2/"), &none, b"{}")
        .await
        .refuses(401, "Unknown auth_key");
    assert!(served.published().is_empty());
}

#[tokio::test]
async fn a_disabled_application_is_forbidden() {
    let served = Served::new();
    for (method, path) in [("GET", "/apps/off/channels"), ("POST", "/apps/off/events")] {
        served.send("off-key", method, path, "", b"").await.refuses(403, "The application off is disabled");
    }
    // Only who holds its secret is told that there is one.
    served.send(KEY, "GET", "/apps/off/channels", "", b"").await.refuses(401, "Unknown auth_key");
}

#[tokio::test]
async fn an_unknown_path_is_not_found_and_another_method_not_allowed() {
    let served = Served::new();
    served.get("/apps/1/history", "").await.refuses(404, "Not found");
    served.post("/apps/1/channels/a/events", "x").await.refuses(404, "Not found");
    for (method, path, allow) in [("GET", "/apps/1/events", "POST"), ("POST", "/apps/1/channels", "GET")] {
        let told = served.send(KEY, method, path, "", b"").await;
        told.refuses(405, "this path answers to");
        assert_eq!(told.header("allow"), allow);
    }
}

#[tokio::test]
async fn a_proxys_prefix_is_not_signed() {
    let served = Served::new();
    let body = br#"{"name":"e","channel":"a","data":"x"}"#;
    let uri = format!("/some/prefix{}", uri(KEY, "POST", "/apps/1/events", "", body));
    assert!(PusherRest::takes("/some/prefix/apps/1/events"));
    served.raw("POST", &uri, &HeaderMap::new(), body).await.is("{}");
}

#[tokio::test]
async fn applications_publish_to_channels_of_their_own() {
    let served = Served::new();
    let body = br##"{"name":"e","channels":["a","#server-to-user-7"],"data":"x"}"##;
    served.send("other-key", "POST", "/apps/other/events", "", body).await.is("{}");
    served.trigger(body).await.is("{}");
    assert_eq!(
        served.published(),
        ["other#a e \"x\"", "other#$user:7 e \"x\"", "#a e \"x\"", "#$user:7 e \"x\""]
    );
    let app = served.send("other-key", "GET", "/apps/other/channels", "", b"").await;
    app.is(r#"{"channels":{}}"#);
    let asked = served.lists.asked.lock().unwrap().pop();
    let space = AppSpace::new("other").unwrap();
    assert_eq!(asked, Some(Question::Counts { app: space, prefix: String::new() }));
}

#[tokio::test]
async fn all_keys_and_no_content_type_are_good() {
    let served = Served::new();
    let body = br#"{"name":"e","channel":"a","data":"x"}"#;
    for media in ["", "application/json", "application/x-www-form-urlencoded", "text/plain; charset=latin1"] {
        let mut headers = HeaderMap::new();
        if !media.is_empty() {
            headers.insert("content-type", media.parse().unwrap());
        }
        let uri = uri(KEY, "POST", "/apps/1/events", "", body);
        served.raw("POST", &uri, &headers, body).await.is("{}");
    }
    assert_eq!(served.published().len(), 4);
}

#[test]
fn a_body_may_be_as_large_as_the_largest_batch() {
    let limits = AppLimits::default();
    let at_least = limits.events_per_batch * limits.event_data_bytes * ESCAPED;
    let most = |limits| Served::with(Lists::default(), limits).rest.body_max_bytes();
    assert!((at_least..2 * at_least).contains(&most(limits)));
    // A single event to many channels.
    let wide = AppLimits { channels_per_event: 1000, events_per_batch: 1, ..limits };
    assert!(most(wide) > 1000 * 164 + limits.event_data_bytes * ESCAPED);
    let huge = AppLimits { event_data_bytes: 1 << 20, events_per_batch: 1000, ..limits };
    assert_eq!(most(huge), BODY_MAX_BYTES);
}
