//! The Pusher protocol's REST API: what it answers to questions, and where it is. (PUSHER §2.2, §2.3)

use carillon_tests::{
    gateway::Gateway,
    http,
    listener::Listener,
    pusher::{App, COUNTED, DEV, FIRST, NARROW, OFF, PLAIN, Request, Rest, SMALL, Socket, alone, refusal},
    raw::eventually,
};
use serde_json::{Value, json};

/// Connects and subscribes to a public or private channel.
async fn subscriber(gateway: &Gateway, channel: &str) -> Socket {
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe(channel).await;
    socket
}

/// Asks until the answer is as expected: those who left are not counted for long.
async fn reads(rest: &Rest, tail: &str, parameters: &[(&str, &str)], expected: &Value) {
    let what = format!("{tail} {parameters:?}: {expected}");
    eventually(&what, || async { (rest.read(tail, parameters).await == *expected).then_some(()) }).await;
}

#[tokio::test]
async fn occupied_channels_are_listed_and_nothing_of_them_unless_asked() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let _one = subscriber(&gateway, "rest-list-a").await;
    let _two = subscriber(&gateway, "private-rest-list-b").await;
    let mut three = Socket::open(gateway.public, &FIRST).await;
    let _members = three.join("presence-rest-list-c", "1").await;
    let all = [("filter_by_prefix", "rest-list-")];
    reads(&rest, "/channels", &all, &json!({"channels": {"rest-list-a": {}}})).await;
    reads(&rest, "/channels", &[("filter_by_prefix", "rest-list-none")], &json!({"channels": {}})).await;
    let private = [("filter_by_prefix", "private-rest-list-")];
    reads(&rest, "/channels", &private, &json!({"channels": {"private-rest-list-b": {}}})).await;
    let users = [("filter_by_prefix", "presence-rest-list-"), ("info", "user_count")];
    let expected = json!({"channels": {"presence-rest-list-c": {"user_count": 1}}});
    reads(&rest, "/channels", &users, &expected).await;
    let counts = [("filter_by_prefix", "rest-list-"), ("info", "subscription_count")];
    reads(&rest, "/channels", &counts, &json!({"channels": {"rest-list-a": {"subscription_count": 1}}}))
        .await;
    let list = rest.read("/channels", &[]).await;
    for name in ["rest-list-a", "private-rest-list-b", "presence-rest-list-c"] {
        assert_eq!(list["channels"][name], json!({}), "{list}");
    }
}

#[tokio::test]
async fn an_application_without_subscribers_has_no_channels() {
    let gateway = alone().await;
    let answer = gateway.rest(&NARROW).get("/channels", &[]).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"channels":{}}"#));
}

#[tokio::test]
async fn users_are_counted_on_presence_channels_only() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    for parameters in [
        &[("info", "user_count")][..],
        &[("info", "user_count"), ("filter_by_prefix", "private-")],
        &[("info", "user_count"), ("filter_by_prefix", "presence")],
        &[("info", "subscription_count,user_count"), ("filter_by_prefix", "rest-")],
    ] {
        assert_eq!(refusal(&rest.get("/channels", parameters).await).0, 400, "{parameters:?}");
    }
    for tail in ["/channels/rest-not-presence", "/channels/private-rest", "/channels/presence"] {
        assert_eq!(refusal(&rest.get(tail, &[("info", "user_count")]).await).0, 400, "{tail}");
        assert_eq!(refusal(&rest.get(&format!("{tail}/users"), &[]).await).0, 400, "{tail}");
    }
}

/// What is ours is not shown: channels of users, and who is online.
#[tokio::test]
async fn channels_of_users_are_not_listed() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.sign_in("rest-hidden").await;
    socket.subscribe("#server-to-user-rest-hidden").await;
    socket.subscribe("rest-hidden-visible").await;
    let list = eventually("the visible one", || async {
        let list = gateway.rest(&FIRST).read("/channels", &[]).await;
        list["channels"].get("rest-hidden-visible").is_some().then_some(list)
    })
    .await;
    for name in list["channels"].as_object().unwrap().keys() {
        assert!(!name.starts_with(['#', '$']), "{name}");
    }
}

#[tokio::test]
async fn a_channel_is_occupied_or_not() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let empty = rest.get("/channels/rest-one", &[]).await;
    assert_eq!((empty.status, empty.body.as_str()), (200, r#"{"occupied":false}"#));
    let socket = subscriber(&gateway, "rest-one").await;
    reads(&rest, "/channels/rest-one", &[], &json!({"occupied": true})).await;
    let info = [("info", "subscription_count")];
    reads(&rest, "/channels/rest-one", &info, &json!({"occupied": true, "subscription_count": 1})).await;
    socket.leave().await;
    reads(&rest, "/channels/rest-one", &[], &json!({"occupied": false})).await;
    let mut one = Socket::open(gateway.public, &FIRST).await;
    let mut two = Socket::open(gateway.public, &FIRST).await;
    let _members = one.join("presence-rest-one", "1").await;
    let _members = two.join("presence-rest-one", "2").await;
    let info = [("info", "user_count,subscription_count")];
    let expected = json!({"occupied": true, "user_count": 2, "subscription_count": 2});
    reads(&rest, "/channels/presence-rest-one", &info, &expected).await;
    let nobody = rest.read("/channels/presence-rest-one-empty", &[("info", "user_count")]).await;
    assert_eq!((&nobody["occupied"], nobody["user_count"].as_u64().unwrap_or(0)), (&json!(false), 0));
}

#[tokio::test]
async fn what_a_cache_channel_keeps_can_be_asked_for() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let tail = "/channels/cache-rest";
    let empty = rest.read(tail, &[("info", "cache")]).await;
    assert_eq!(empty, json!({"occupied": false, "cache": null}));
    rest.trigger("cache-rest", "x", "{\"a\":1}").await;
    let kept = rest.read(tail, &[("info", "cache")]).await;
    assert_eq!(kept["cache"]["data"], "{\"a\":1}");
    let seconds = kept["cache"]["ttl"].as_u64().unwrap();
    assert!((1..=1800).contains(&seconds), "{kept}");
}

#[tokio::test]
async fn the_users_of_a_presence_channel_are_listed_once_each_as_texts() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let tail = "/channels/presence-rest-users/users";
    let empty = rest.get(tail, &[]).await;
    assert_eq!((empty.status, empty.body.as_str()), (200, r#"{"users":[]}"#));
    let mut sockets = Vec::new();
    for member in
        [r#"{"user_id":"b"}"#, r#"{"user_id":7}"#, r#"{"user_id":"7"}"#, r#"{"user_id":"a","user_info":{}}"#]
    {
        let mut socket = Socket::open(gateway.public, &FIRST).await;
        socket.ask_as("presence-rest-users", member).await;
        let _members = socket.joined("presence-rest-users").await;
        sockets.push(socket);
    }
    let mut answer = rest.read(tail, &[]).await;
    let users = answer["users"].as_array_mut().unwrap();
    users.sort_by_key(ToString::to_string);
    assert_eq!(answer, json!({"users": [{"id": "7"}, {"id": "a"}, {"id": "b"}]}));
}

#[tokio::test]
async fn connections_of_an_application_are_counted() {
    let gateway = alone().await;
    let rest = gateway.rest(&SMALL);
    reads(&rest, "/connections", &[], &json!({"connections": 0})).await;
    let one = Socket::open(gateway.public, &SMALL).await;
    let _two = Socket::open(gateway.public, &SMALL).await;
    let _foreign = Socket::open(gateway.public, &COUNTED).await;
    reads(&rest, "/connections", &[], &json!({"connections": 2})).await;
    one.leave().await;
    reads(&rest, "/connections", &[], &json!({"connections": 1})).await;
}

#[tokio::test]
async fn an_unknown_application_is_404_or_401_and_one_that_is_off_403() {
    let gateway = alone().await;
    let body = json!({"name": "x", "channel": "y", "data": "1"});
    let nobody = App { id: "no-such", ..FIRST };
    let (status, _) = gateway.rest(&nobody).refused("/events", &body).await;
    assert!([401, 404].contains(&status), "{status}");
    assert_eq!(gateway.rest(&OFF).refused("/events", &body).await.0, 403);
    assert_eq!(refusal(&gateway.rest(&OFF).get("/channels", &[]).await).0, 403);
}

/// PUSHER §2.3: what is deprecated is not there, and neither is what was never there.
#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_are_refused() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    for (method, tail) in [
        ("GET", "/nothing"),
        ("GET", ""),
        ("GET", "/"),
        ("POST", "/channels/x/events"),
        ("GET", "/channels/x/stats"),
        ("GET", "/channels/x/users/y"),
        ("POST", "/users//terminate_connections"),
        ("POST", "/events/"),
        ("POST", "//events"),
    ] {
        let answer = rest.send(rest.request(method, tail)).await;
        assert!([400, 404].contains(&answer.status), "{method} {tail}: {answer:?}");
    }
    for (method, tail) in
        [("GET", "/events"), ("POST", "/channels"), ("DELETE", "/channels/x"), ("PUT", "/events")]
    {
        let answer = rest.send(rest.request(method, tail)).await;
        assert!([404, 405].contains(&answer.status), "{method} {tail}: {answer:?}");
    }
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = subscriber(&gateway, "rest-alive").await;
    let mut connection = Listener::connect(gateway.api).await;
    for number in 0..5 {
        let body = json!({"name": "x", "channel": "rest-alive", "data": number.to_string()}).to_string();
        let request = rest.request("POST", "/events").body(body).stamped(&FIRST).signed(FIRST.secret);
        let bytes = String::from_utf8(request.bytes()).unwrap();
        connection.send(bytes.replace("Connection: close\r\n", "")).await;
        let answer = connection.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
        assert_ne!(answer.header("connection"), Some("close"));
        socket.hears("rest-alive", "x", &number.to_string()).await;
    }
}

/// The public listener has the API where the operator says so, as in development mode; Laravel knows one host only.
#[tokio::test]
async fn the_public_listener_has_the_api_in_development_mode_and_not_otherwise() {
    let dev = Gateway::dev(&[]);
    dev.ready().await;
    let mut socket = Socket::open(dev.public, &DEV).await;
    socket.subscribe("rest-public").await;
    for at in [dev.public, dev.api] {
        Rest::new(at, &DEV).trigger("rest-public", "x", "1").await;
        socket.hears("rest-public", "x", "1").await;
        let list = Rest::new(at, &DEV).read("/channels/rest-public", &[]).await;
        assert_eq!(list, json!({"occupied": true}));
    }
    let served = alone().await;
    let body = json!({"name": "x", "channel": "rest-public", "data": "1"});
    let answer = Rest::new(served.public, &FIRST).post("/events", &body).await;
    assert_eq!(answer.status, 404, "{answer:?}");
}

/// PyPI's `pusher` 3.3 leaves the application out of this one path.
#[tokio::test]
async fn a_path_without_the_application_terminates_a_user_of_the_keys() {
    let gateway = alone().await;
    let mut first = Socket::open(gateway.public, &FIRST).await;
    first.sign_in("rest-pypi").await;
    let mut plain = Socket::open(gateway.public, &PLAIN).await;
    plain.sign_in("rest-pypi").await;
    let request = Request::new("POST", "/users/rest-pypi/terminate_connections").body("{}");
    let answer = gateway.rest(&FIRST).send(request).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    assert_eq!(first.closed().await.0, 4009);
    plain.quiet().await;
}

#[tokio::test]
async fn an_answer_is_never_a_redirect_and_says_its_length() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let good = rest.get("/channels/rest-length", &[]).await;
    assert_eq!(good.header("content-length"), Some(good.body.len().to_string().as_str()), "{good:?}");
    for path in ["/apps", "/apps/", "/apps/7001", "/apps/7001/"] {
        let answer = http::get(gateway.api, path).await;
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
    }
}
