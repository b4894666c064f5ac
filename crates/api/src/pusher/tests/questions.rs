//! Questions about channels and users.

use super::*;

fn lists() -> Lists {
    let count = |name: &str, count| (name.to_owned(), count);
    let cached = |name: &str, data: &'static str| {
        let cached = Cached { data: Bytes::from(data), expires_in: Duration::from_millis(59_900) };
        (name.to_owned(), cached)
    };
    Lists {
        subscriptions: [
            count("$online:7", 1),
            count("$user:7", 1),
            count("news", 3),
            count("presence-a", 3),
            count("presence-b", 1),
            count("private-a", 1),
        ]
        .into(),
        members: [("presence-a".to_owned(), vec!["7", "8"]), ("presence-b".to_owned(), vec!["7"])].into(),
        cached: [
            cached("cache-text", r#""{\"a\":1}""#),
            cached("private-cache-json", r#"{"a": 1}"#),
            cached("cache-empty", r#""""#),
            cached("news", r#""kept by its rule""#),
        ]
        .into(),
        ..Lists::default()
    }
}

#[tokio::test]
async fn occupied_channels_are_listed_without_ours() {
    let served = Served::over(lists());
    let told = served.get("/apps/1/channels", "").await;
    told.is(r#"{"channels":{"news":{},"presence-a":{},"presence-b":{},"private-a":{}}}"#);
    assert_eq!(told.header(NODES), "");
    let told = served.get("/apps/1/channels", "filter_by_prefix=presence-").await;
    told.is(r#"{"channels":{"presence-a":{},"presence-b":{}}}"#);
    served
        .get("/apps/1/channels", "filter_by_prefix=presence-&info=user_count")
        .await
        .is(r#"{"channels":{"presence-a":{"user_count":2},"presence-b":{"user_count":1}}}"#);
    served
        .get("/apps/1/channels", "filter_by_prefix=presence-&info=user_count,subscription_count")
        .await
        .is(r#"{"channels":{"presence-a":{"user_count":2,"subscription_count":3},
            "presence-b":{"user_count":1,"subscription_count":1}}}"#);
    served
        .get("/apps/1/channels", "filter_by_prefix=n&info=subscription_count")
        .await
        .is(r#"{"channels":{"news":{"subscription_count":3}}}"#);
    served.get("/apps/1/channels", "filter_by_prefix=nothing").await.is(r#"{"channels":{}}"#);
    for query in ["info=user_count", "filter_by_prefix=presence&info=user_count"] {
        served
            .get("/apps/1/channels", query)
            .await
            .refuses(400, "user_count may only be requested for presence");
    }
    let long = format!("filter_by_prefix={}", "a".repeat(165));
    served.get("/apps/1/channels", &long).await.refuses(400, "longer than the name of a channel");
}

#[tokio::test]
async fn a_list_of_attributes_may_be_an_array() {
    let served = Served::over(lists());
    let path = "/apps/1/channels/presence-a";
    let signed = uri(KEY, "GET", path, "info=user_count,subscription_count", b"");
    let sent = signed.replace(
        "info=user_count,subscription_count",
        "info%5B0%5D=user_count&info%5B1%5D=subscription_count",
    );
    let told = served.raw("GET", &sent, &HeaderMap::new(), b"").await;
    told.is(r#"{"occupied":true,"user_count":2,"subscription_count":3}"#);
}

#[tokio::test]
async fn one_channel_is_told_of_as_was_asked() {
    let served = Served::over(lists());
    for (path, query, json) in [
        ("news", "", r#"{"occupied":true}"#),
        ("nobody", "", r#"{"occupied":false}"#),
        ("news", "info=subscription_count", r#"{"occupied":true,"subscription_count":3}"#),
        ("nobody", "info=subscription_count", r#"{"occupied":false,"subscription_count":0}"#),
        ("presence-a", "info=user_count", r#"{"occupied":true,"user_count":2}"#),
        (
            "presence-x",
            "info=subscription_count,user_count",
            r#"{"occupied":false,"user_count":0,"subscription_count":0}"#,
        ),
        ("cache-text", "info=cache", r#"{"occupied":false,"cache":{"data":"{\"a\":1}","ttl":59}}"#),
        ("private-cache-json", "info=cache", r#"{"occupied":false,"cache":{"data":"{\"a\": 1}","ttl":59}}"#),
        ("cache-empty", "info=cache", r#"{"occupied":false,"cache":{"data":"","ttl":59}}"#),
        ("cache-missed", "info=cache", r#"{"occupied":false,"cache":null}"#),
        ("news", "info=cache", r#"{"occupied":true,"cache":null}"#),
        ("news", "info=unknown", r#"{"occupied":true}"#),
    ] {
        served.get(&format!("/apps/1/channels/{path}"), query).await.is(json);
    }
    served.get("/apps/1/channels/news", "info=user_count").await.refuses(400, "presence channels");
    for name in ["a%20b", "%24user:7", "%23server-to-user-7", "a%2Fb", "%ff", "%", &"a".repeat(165), ""] {
        let path = format!("/apps/1/channels/{name}");
        served.get(&path, "").await.refuses(400, "Invalid ");
    }
    // Signed as it stands or decoded.
    let encoded = uri(KEY, "GET", "/apps/1/channels/a=@,.;", "", b"").replace("a=@,.;", "a%3D%40%2C.%3B");
    served.raw("GET", &encoded, &HeaderMap::new(), b"").await.is(r#"{"occupied":false}"#);
}

#[tokio::test]
async fn users_are_listed_of_presence_channels_only() {
    let served = Served::over(lists());
    served.get("/apps/1/channels/presence-a/users", "").await.is(r#"{"users":[{"id":"7"},{"id":"8"}]}"#);
    served.get("/apps/1/channels/presence-x/users", "").await.is(r#"{"users":[]}"#);
    for name in ["news", "private-a", "presence"] {
        served.get(&format!("/apps/1/channels/{name}/users"), "").await.refuses(400, "presence channels");
    }
}

#[tokio::test]
async fn a_user_is_terminated_in_the_application_that_asks() {
    let served = Served::over(lists());
    let asked = || served.lists.asked.lock().unwrap().pop();
    let terminate =
        |space: AppSpace, user: &str| Some(Question::Terminate(space, UserId::new(user).unwrap()));
    served.post("/apps/1/users/7/terminate_connections", "{}").await.is("{}");
    assert_eq!(asked(), terminate(AppSpace::default(), "7"));
    served.post("/apps/1/users/7/terminate_connections", "").await.is("{}");
    assert_eq!(asked(), terminate(AppSpace::default(), "7"));
    served.post("/apps/1/users/a%40b%2Fc/terminate_connections", "{}").await.is("{}");
    assert_eq!(asked(), terminate(AppSpace::default(), "a@b/c"));
    // A client of PyPI forgets the application: the key names it.
    let path = "/users/7/terminate_connections";
    served.send("other-key", "POST", path, "", b"{}").await.is("{}");
    assert_eq!(asked(), terminate(AppSpace::new("other").unwrap(), "7"));
    for user in ["", "a%20b", "%ff", "%2A"] {
        served
            .post(&format!("/apps/1/users/{user}/terminate_connections"), "{}")
            .await
            .refuses(400, "Invalid ");
    }
    assert_eq!(asked(), None);
}

#[tokio::test]
async fn connections_are_counted() {
    let served = Served::over(lists());
    served.get("/apps/1/connections", "").await.is(r#"{"connections":7}"#);
    let asked = served.lists.asked.lock().unwrap().pop();
    assert_eq!(asked, Some(Question::Connections(AppSpace::default())));
}

#[tokio::test]
async fn a_silent_node_is_told_of_where_it_matters() {
    let served = Served::over(Lists { silent: 1, ..lists() });
    for path in ["channels", "channels/news", "connections"] {
        let told = served.get(&format!("/apps/1/{path}"), "").await;
        assert_eq!((told.status, told.header(NODES)), (200, "2/3"), "{path}");
    }
    let told = served.post("/apps/1/users/7/terminate_connections", "{}").await;
    told.refuses(503, "2 of 3 nodes have closed the user's connections; try again");
}
