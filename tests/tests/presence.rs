//! Members of presence channels as native clients and backends see them, and channels of several applications.

use std::sync::Arc;

use carillon_tasks::clock;
use carillon_tests::{
    client::Client,
    gateway::Gateway,
    http,
    pusher::{App, Shared, Socket},
};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

const SECRET: &str = "a secret of at least thirty-two bytes";
/// What belongs to the hash in [`CONFIG`].
const KEY: &str = "crl_shop_main_000000000000000000000000000000000000000test";
const SHOP: App = App { id: "shop", key: "0f1e2d3c4b5a69788796", secret: "8d7c2a914bb0f5e36a17" };

const CONFIG: &str = r#"
[auth]
token_secret = "a secret of at least thirty-two bytes"

[[apps]]
id = "shop"
keys = ["0f1e2d3c4b5a69788796:8d7c2a914bb0f5e36a17"]

[[apps]]
id = "blog"

[[keys]]
id = "shop_main"
secret_sha256 = "HASH"
scopes = ["publish", "read"]
channels = ["*"]

[[keys]]
id = "blog_main"
secret_sha256 = "HASH"
scopes = ["publish", "read"]
channels = ["*"]

[[channels]]
name = "kept"
match = "*kept*"
history = "short"
auth = "public"

[[channels]]
name = "all"
match = "*"
auth = "public"
"#;

async fn gateway() -> Arc<Gateway> {
    static GATEWAY: Shared<Gateway> = Shared::new();
    let gateway = GATEWAY.get(|| Gateway::serve(&CONFIG.replace("HASH", &hash())));
    gateway.ready().await;
    gateway
}

fn hash() -> String {
    let secret = KEY.rsplit('_').next().expect("a key has a secret");
    let digest = <sha2::Sha256 as sha2::Digest>::digest(secret.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn token(user: &str, more: &Value) -> String {
    let mut claims = json!({"sub": user, "channels": ["*"], "exp": clock::since_1970().as_secs() + 60});
    let more = more.as_object().cloned().unwrap_or_default();
    claims.as_object_mut().expect("claims are an object").extend(more);
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("claims can be signed")
}

/// Connects as a user, and takes the welcome.
async fn client(gateway: &Gateway, user: &str, more: &Value) -> Client {
    let mut client = Client::connect(&gateway.ws(&format!("token={}", token(user, more)))).await;
    assert_eq!(client.frame().await["type"], "welcome");
    client
}

/// Joins as a member, and returns who is there.
async fn join(client: &mut Client, channel: &str) -> Value {
    client.send(&json!({"type": "subscribe", "channel": channel, "presence": true})).await;
    let mut answer = client.frame().await;
    assert_eq!((&answer["type"], &answer["channel"]), (&json!("subscribed"), &json!(channel)), "{answer}");
    answer["members"].take()
}

async fn ask(gateway: &Gateway, key: &str, path: &str) -> Value {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\r\n"
    );
    let answer = http::raw(gateway.api, request.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[tokio::test]
async fn members_are_told_who_is_there_who_comes_and_who_goes() {
    let gateway = gateway().await;
    let channel = "presence-room";
    let mut anna = client(&gateway, "anna", &json!({"info": {"name": "Anna"}})).await;
    assert_eq!(join(&mut anna, channel).await, json!([{"user": "anna", "info": {"name": "Anna"}}]));
    let mut ben = client(&gateway, "ben", &json!({})).await;
    let both = json!([{"user": "anna", "info": {"name": "Anna"}}, {"user": "ben"}]);
    assert_eq!(join(&mut ben, channel).await, both);
    assert_eq!(anna.frame().await, json!({"type": "joined", "channel": channel, "user": "ben"}));
    // A second tab of the same user changes nothing.
    let mut tab = client(&gateway, "ben", &json!({})).await;
    assert_eq!(join(&mut tab, channel).await, both);
    ben.send(&json!({"type": "unsubscribe", "channel": channel})).await;
    assert_eq!(ben.frame().await["type"], "unsubscribed");
    anna.send(&json!({"type": "presence", "channel": channel, "ref": 5})).await;
    let expected = json!({"type": "reply", "ref": 5, "channel": channel, "data": {"members": both}});
    assert_eq!(anna.frame().await, expected);
    drop(tab);
    assert_eq!(anna.frame().await, json!({"type": "left", "channel": channel, "user": "ben"}));
}

#[tokio::test]
async fn clients_of_both_protocols_are_members_of_one_channel() {
    let gateway = gateway().await;
    let channel = "presence-both";
    let mut native = client(&gateway, "anna", &json!({"info": {"n": 1}})).await;
    join(&mut native, channel).await;
    let mut pusher = Socket::open(gateway.public, &SHOP).await;
    let members = pusher.join(channel, "7").await;
    assert_eq!(members["hash"]["anna"], json!({"n": 1}), "{members}");
    let joined = native.frame().await;
    assert_eq!((&joined["type"], &joined["user"]), (&json!("joined"), &json!("7")));
    let told = ask(&gateway, KEY, &format!("/v1/channels/{channel}/presence")).await;
    let users: Vec<_> =
        told["members"].as_array().expect("a list").iter().map(|one| one["user"].clone()).collect();
    assert_eq!(users, [json!("7"), json!("anna")], "{told}");
    drop(native);
    let left = pusher.next().await;
    assert_eq!(
        (left.event.as_str(), left.json()),
        ("pusher_internal:member_removed", json!({"user_id": "anna"}))
    );
}

#[tokio::test]
async fn a_channel_with_history_and_members_brings_both_in_order() {
    let gateway = gateway().await;
    let channel = "presence-kept";
    let mut first = client(&gateway, "anna", &json!({})).await;
    join(&mut first, channel).await;
    for n in 1..=3 {
        let answer = gateway.publish_as(KEY, &json!({"channel": channel, "data": n})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let mut second = client(&gateway, "ben", &json!({})).await;
    second.send(&json!({"type": "subscribe", "channel": channel, "presence": true, "since": "-2"})).await;
    let answer = second.frame().await;
    assert_eq!((&answer["recovered"], &answer["replayed"]), (&json!(true), &json!(2)), "{answer}");
    assert_eq!(answer["members"], json!([{"user": "anna"}, {"user": "ben"}]));
    assert_eq!([second.data().await, second.data().await], [json!(2), json!(3)]);
}

#[tokio::test]
async fn guarded_names_need_a_token_although_their_rule_is_public() {
    let gateway = gateway().await;
    let mut stranger = Client::connect(&gateway.ws("")).await;
    assert_eq!(stranger.frame().await["type"], "welcome");
    for channel in ["private-a", "presence-a", "private-encrypted-a", "private-cache-a"] {
        stranger.send(&json!({"type": "subscribe", "channel": channel})).await;
        let answer = stranger.frame().await;
        assert_eq!(
            (&answer["error"], &answer["channel"]),
            (&json!("unauthorized"), &json!(channel)),
            "{answer}"
        );
        let listened = http::get(gateway.public, &format!("/v1/poll?channel={channel}&timeout=0")).await;
        assert_eq!(listened.status, 401, "{}", listened.body);
    }
    stranger.send(&json!({"type": "subscribe", "channel": "privateer"})).await;
    assert_eq!(stranger.frame().await["type"], "subscribed");
    let mut known = client(&gateway, "anna", &json!({"channels": ["private-a"]})).await;
    known.send(&json!({"type": "subscribe", "channel": "private-a", "presence": true})).await;
    assert_eq!(known.frame().await["error"], "bad_request", "it has no members");
    known.send(&json!({"type": "subscribe", "channel": "private-a"})).await;
    assert_eq!(known.frame().await["type"], "subscribed");
    known.send(&json!({"type": "presence", "channel": "presence-other"})).await;
    assert_eq!(known.frame().await["error"], "forbidden");
}

#[tokio::test]
async fn who_listens_without_being_a_member_is_not_seen() {
    let gateway = gateway().await;
    let channel = "presence-seen";
    let mut listener = client(&gateway, "ghost", &json!({})).await;
    listener.send(&json!({"type": "subscribe", "channel": channel})).await;
    let answer = listener.frame().await;
    assert_eq!((&answer["type"], answer.get("members")), (&json!("subscribed"), None));
    let mut member = client(&gateway, "anna", &json!({})).await;
    assert_eq!(join(&mut member, channel).await, json!([{"user": "anna"}]));
    listener.send(&json!({"type": "ping", "ref": 1})).await;
    assert_eq!(listener.frame().await, json!({"type": "pong", "ref": 1}), "it is not told who comes");
}

#[tokio::test]
async fn channels_of_two_applications_have_nothing_but_their_names_in_common() {
    let gateway = gateway().await;
    let blog_key = KEY.replace("shop", "blog");
    let mut shop = Client::subscribed(&gateway.ws(""), &["kept.two"]).await;
    let mut blog = Client::subscribed(&gateway.ws("app=blog&"), &["kept.two"]).await;
    for (key, data) in [(KEY, "for the shop"), (blog_key.as_str(), "for the blog")] {
        let answer = gateway.publish_as(key, &json!({"channel": "kept.two", "data": data})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(shop.data().await, "for the shop");
    assert_eq!(blog.data().await, "for the blog");
    assert_eq!(ask(&gateway, &blog_key, "/v1/channels/kept.two").await["subscriptions"], 1);
    let polled = http::get(gateway.public, "/v1/poll?channel=kept.two&app=blog&since=0&timeout=0").await;
    let messages = polled.json()["messages"].clone();
    assert_eq!(messages.as_array().map(Vec::len), Some(1), "{messages}");
    assert_eq!(messages[0]["data"], "for the blog");
}

#[tokio::test]
async fn a_token_is_for_one_application() {
    let gateway = gateway().await;
    for (query, app, expected) in [
        ("", json!({}), "welcome"),
        ("", json!({"app": "shop"}), "welcome"),
        ("&app=blog", json!({"app": "blog"}), "welcome"),
        ("&app=blog", json!({}), "error"),
        ("&app=shop", json!({"app": "blog"}), "error"),
        ("&app=none", json!({}), "error"),
    ] {
        let url = gateway.ws(&format!("token={}{query}", token("anna", &app)));
        let mut client = Client::connect(&url).await;
        let mut last = client.frame().await;
        if last["type"] == "welcome" && expected == "error" {
            last = client.frame().await;
        }
        assert_eq!(last["type"], expected, "{query} {app}: {last}");
        if expected == "error" {
            assert_eq!(client.frame().await["type"], "goodbye");
            assert_eq!(client.closed().await.0, 4001);
        }
    }
}
