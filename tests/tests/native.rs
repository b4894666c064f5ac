//! The native protocol over WebSocket, as a client sees it: a real gateway process, real sockets.

use std::time::Duration;

use carillon_tasks::clock;
use carillon_tests::{
    client::{Client, Got},
    gateway::Gateway,
    http::{self, Answer},
    raw::{Raw, eventually, handshake},
};
use futures_util::future::join_all;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

const SECRET: &str = "a secret of at least thirty-two bytes";

/// The key whose hash is in [`CONFIG`].
const KEY: &str = "crl_test_main_CarillonCarillonCarillonCarillonCarillonCar";

const CONFIG: &str = r#"
[auth]
token_secret = "a secret of at least thirty-two bytes"

[[keys]]
id = "test_main"
secret_sha256 = "da46ae6850c1693ffe77bb9ba1e6e522444c805fa960c26997dcab03938cdc8e"
scopes = ["publish"]
channels = ["*"]

[[channels]]
name = "kept"
match = "kept.*"
history = "short"
auth = "public"

[[channels]]
name = "live"
match = "live.*"
auth = "public"

[[channels]]
name = "private"
match = "private.*"
history = "short"
auth = "token"
"#;

fn gateway() -> Gateway {
    Gateway::serve(CONFIG)
}

/// Makes a token that ends `seconds` from now, which may be negative.
fn token(user: &str, channels: &[&str], seconds: i64) -> String {
    let now = i64::try_from(clock::since_1970().as_secs()).expect("seconds fit");
    let claims = json!({"sub": user, "channels": channels, "exp": now + seconds});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("claims can be signed")
}

/// Publishes, and returns the results.
async fn publish(gateway: &Gateway, message: Value) -> Value {
    let answer = gateway.publish_as(KEY, &message).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["results"].take()
}

async fn post(gateway: &Gateway, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Answer {
    let authorization = format!("Bearer {KEY}");
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", content_type)];
    http::post(gateway.api, path, &headers, body).await
}

/// Connects, and takes the welcome.
async fn welcome(url: &str) -> (Client, Value) {
    let mut client = Client::connect(url).await;
    let welcome = client.frame().await;
    assert_eq!(welcome["type"], "welcome", "{welcome}");
    (client, welcome)
}

/// Checks that nothing was sent before the answer to a ping.
async fn nothing_came(client: &mut Client) {
    client.send(&json!({"type": "ping", "ref": 99})).await;
    assert_eq!(client.frame().await, json!({"type": "pong", "ref": 99}));
}

/// Splits an id into epoch and offset.
fn offset(id: &Value) -> u64 {
    let id = id.as_str().expect("a message on a kept channel has an id");
    id.split_once('-').and_then(|(_, offset)| offset.parse().ok()).expect("an id is <epoch>-<offset>")
}

/// Native protocol §4: the frames of a conversation, and `ref` echoed in every answer.
#[tokio::test]
async fn every_frame_is_as_the_protocol_page_says() {
    let gateway = gateway();
    let (mut client, welcome) = welcome(&gateway.ws("")).await;
    let connection = welcome["connection"].as_str().unwrap().to_owned();
    let limits = json!({"frame_bytes": 65536, "channels": 500});
    let expected =
        json!({"type": "welcome", "connection": connection, "protocol": 1, "ping": 25, "limits": limits});
    assert_eq!(welcome, expected);

    client.send(&json!({"type": "subscribe", "channel": "kept.a", "ref": 7, "unknown": [1]})).await;
    let answer = client.frame().await;
    assert_eq!(
        (&answer["type"], &answer["channel"], &answer["ref"]),
        (&json!("subscribed"), &json!("kept.a"), &json!(7))
    );
    assert!(answer["position"].is_string() && answer.get("recovered").is_none(), "{answer}");
    client
        .send(&json!({"type": "subscribe", "channels": ["live.a", {"channel": "live.b"}], "ref": -8}))
        .await;
    for name in ["live.a", "live.b"] {
        assert_eq!(client.frame().await, json!({"type": "subscribed", "channel": name, "ref": -8}));
    }

    publish(&gateway, json!({"channel": "kept.a", "event": "shipped", "data": {"id": 7}})).await;
    let message = client.frame().await;
    let members: Vec<_> = message.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["channel", "data", "event", "id", "time", "type"]);
    assert_eq!((&message["event"], &message["data"]), (&json!("shipped"), &json!({"id": 7})));
    assert!(offset(&message["id"]) > offset(&answer["position"]));
    publish(&gateway, json!({"channel": "live.a", "data": null})).await;
    let message = client.frame().await;
    assert!(message.get("id").is_none() && message.get("event").is_none(), "{message}");

    client.send(&json!({"type": "unsubscribe", "channel": "kept.a", "ref": 9})).await;
    assert_eq!(client.frame().await, json!({"type": "unsubscribed", "channel": "kept.a", "ref": 9}));
    client.send(&json!({"type": "ping"})).await;
    assert_eq!(client.frame().await, json!({"type": "pong"}));
    for (sent, code, error) in [
        (json!({"type": "dance", "ref": 1}), 4307, "unknown_type"),
        (json!({"type": "history", "channel": "kept.a", "ref": 1}), 4309, "not_enabled"),
        (json!({"type": "subscribe", "ref": 1}), 4300, "bad_request"),
        (json!({"type": "subscribe", "channel": "live.a", "ref": 1}), 4308, "already_subscribed"),
        (json!({"type": "subscribe", "channel": "nobody's", "ref": 1}), 4304, "not_found"),
        (json!({"type": "subscribe", "channel": "private.a", "ref": 1}), 4301, "unauthorized"),
        (json!({"type": "unsubscribe", "channel": "kept.a", "ref": 1}), 4304, "not_found"),
        (
            json!({"type": "subscribe", "channel": "kept.a", "since": "yesterday", "ref": 1}),
            4300,
            "bad_request",
        ),
        (json!({"type": "authenticate", "ref": 1}), 4300, "bad_request"),
    ] {
        client.send(&sent).await;
        let frame = client.frame().await;
        assert_eq!(
            (&frame["type"], &frame["code"], &frame["ref"]),
            (&json!("error"), &json!(code), &json!(1)),
            "{sent}"
        );
        assert!(
            frame["error"] == error && frame["message"].as_str().is_some_and(|text| !text.is_empty()),
            "{frame}"
        );
    }
    nothing_came(&mut client).await;
}

/// Native protocol §3: `channel=` in the URL, several times; what is wrong with one is told in the conversation.
#[tokio::test]
async fn channels_can_be_named_in_the_url() {
    let gateway = gateway();
    let (mut client, _) = welcome(
        &gateway.ws("channel=kept.a&channel=live.gr%C3%BC%C3%9Fe&channel=other&channel=a%20b&since=0"),
    )
    .await;
    let mut answers =
        [client.frame().await, client.frame().await, client.frame().await, client.frame().await];
    answers.sort_by_key(|answer| answer["channel"].to_string());
    let [bad, kept, live, other] = answers;
    assert_eq!((&bad["channel"], &bad["error"]), (&json!("a b"), &json!("bad_request")));
    assert_eq!((&kept["type"], &kept["recovered"]), (&json!("subscribed"), &json!(true)));
    assert_eq!((&live["type"], &live["channel"]), (&json!("subscribed"), &json!("live.grüße")));
    assert_eq!((&other["channel"], &other["error"]), (&json!("other"), &json!("not_found")));
    publish(&gateway, json!({"channels": ["kept.a", "live.grüße"], "data": 1})).await;
    assert_eq!(client.data().await, 1);
    assert_eq!(client.data().await, 1);
}

/// Native protocol §3: a list has no place in the URL. Whoever writes one is told so, on every transport.
#[tokio::test]
async fn channels_under_another_name_are_refused_with_the_right_one() {
    let gateway = gateway();
    for (name, other) in
        [("channels", "channels"), ("channel[]", "channel%5B%5D"), ("channels[0]", "channels%5B0%5D")]
    {
        let message = format!("`{name}=` names no channels in a URL; write `channel=` once for each of them");
        let (mut client, _) = welcome(&gateway.ws(&format!("{other}=kept.a,kept.b&channel=kept.c"))).await;
        let mut answers = [client.frame().await, client.frame().await];
        answers.sort_by_key(|answer| answer["type"].to_string());
        let [refused, subscribed] = answers;
        assert_eq!((&refused["type"], &refused["error"]), (&json!("error"), &json!("bad_request")));
        assert_eq!((&refused["channel"], &refused["message"]), (&json!("kept.a,kept.b"), &json!(message)));
        assert_eq!((&subscribed["type"], &subscribed["channel"]), (&json!("subscribed"), &json!("kept.c")));
        for path in ["/v1/sse", "/v1/stream", "/v1/poll"] {
            let answer = http::get(gateway.public, &format!("{path}?{other}=kept.a,kept.b")).await;
            assert_eq!(answer.status, 400, "{answer:?}");
            assert_eq!(answer.json()["detail"], json!(message), "{path}");
        }
    }
}

/// Native protocol §2 and §4: whoever asks for the past gets all of it or is told that it cannot be had.
#[tokio::test]
async fn since_is_answered_with_everything_or_with_the_reason() {
    let gateway = gateway();
    let results = publish(&gateway, json!({"channel": "kept.a", "data": 1})).await;
    let first = results[0]["id"].as_str().unwrap().to_owned();
    let results = publish(&gateway, json!({"channel": "kept.a", "data": 2})).await;
    let head = results[0]["id"].as_str().unwrap().to_owned();
    let (epoch, number) = head.split_once('-').unwrap();
    let future = format!("{epoch}-{}", number.parse::<u64>().unwrap() + 1000);
    let other = format!("{}-{number}", if epoch == "zzzz" { "yyyy" } else { "zzzz" });
    let before = format!("{epoch}-{}", first.split_once('-').unwrap().1.parse::<u64>().unwrap() - 1);
    let all = |replayed: u32| json!({"recovered": true, "replayed": replayed});
    let none = |reason: &str| json!({"recovered": false, "reason": reason});
    for (channel, since, expected, stands) in [
        ("kept.a", head.as_str(), all(0), Some(&head)),
        ("kept.a", first.as_str(), all(1), Some(&first)),
        ("kept.a", before.as_str(), all(2), Some(&before)),
        ("kept.a", "0", all(2), Some(&before)),
        ("kept.a", "-1", all(1), Some(&first)),
        ("kept.a", "-5", all(2), Some(&before)),
        ("kept.a", "-0", all(0), Some(&head)),
        ("kept.a", "@1700000000000", all(2), Some(&before)),
        ("kept.a", "@99999999999999", all(0), Some(&head)),
        ("kept.a", future.as_str(), none("epoch"), Some(&head)),
        ("kept.a", other.as_str(), none("epoch"), Some(&head)),
        ("kept.a", "$", json!({}), Some(&head)),
        ("live.a", head.as_str(), none("expired"), None),
        ("live.a", "0", none("expired"), None),
        ("live.a", "$", json!({}), None),
    ] {
        let (mut client, _) = welcome(&gateway.ws("")).await;
        client.send(&json!({"type": "subscribe", "channels": [{"channel": channel, "since": since}]})).await;
        let mut answer = client.frame().await;
        assert_eq!(answer["type"], "subscribed", "{answer}");
        assert_eq!(
            answer["position"].as_str(),
            stands.map(String::as_str),
            "where it stands before the replay"
        );
        let replayed = answer["replayed"].as_i64().unwrap_or(0);
        let said = answer.as_object_mut().unwrap();
        said.retain(|name, _| ["recovered", "replayed", "reason"].contains(&name.as_str()));
        assert_eq!(answer, expected, "since={since} on {channel}");
        for data in 3 - replayed..3 {
            assert_eq!(client.data().await, data, "since={since} on {channel}");
        }
        nothing_came(&mut client).await;
    }
}

/// Native protocol §4: after `unsubscribed` nothing of the channel comes; after `subscribed` everything does.
#[tokio::test]
async fn an_unsubscribed_channel_is_silent_and_can_be_joined_again() {
    let gateway = gateway();
    let mut client = Client::subscribed(&gateway.ws(""), &["kept.a", "live.a"]).await;
    for round in 0..3 {
        publish(&gateway, json!({"channels": ["kept.a", "live.a"], "data": round})).await;
        assert_eq!(client.data().await, round);
        assert_eq!(client.data().await, round);
        client.send(&json!({"type": "unsubscribe", "channels": ["kept.a", "live.a"]})).await;
        for _ in 0..2 {
            assert_eq!(client.frame().await["type"], "unsubscribed");
        }
        publish(&gateway, json!({"channels": ["kept.a", "live.a"], "data": "unheard"})).await;
        nothing_came(&mut client).await;
        client.send(&json!({"type": "subscribe", "channels": ["kept.a", "live.a"]})).await;
        for _ in 0..2 {
            assert_eq!(client.frame().await["type"], "subscribed");
        }
    }
}

/// Native protocol §1: one text per publication, byte for byte the same for every subscriber, `data` verbatim.
#[tokio::test]
async fn every_subscriber_gets_the_same_bytes_and_data_is_untouched() {
    let gateway = gateway();
    let mut raws = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::open(gateway.public, "/v1/ws?channel=kept.a&channel=live.a").await;
        for expected in ["welcome", "subscribed", "subscribed"] {
            assert_eq!(raw.json().await["type"], expected);
        }
        raws.push(raw);
    }
    for data in [
        r#"{"price":1.10,"n":12345678901234567890,"a":1,"a":2}"#,
        r#"[ 1,	2.0e0, "é\u00e9 \/" ]"#,
        r#""<script> & 😀 \ud83d\ude00""#,
        "null",
        "-0.0",
        &format!("\"{}\"", "x".repeat(65_000)),
    ] {
        for channel in ["kept.a", "live.a"] {
            let body = format!(r#"{{"channel":"{channel}","event":"e","data":{data}}}"#);
            assert_eq!(post(&gateway, "/v1/publish", "application/json", body).await.status, 200);
            let mut frames = Vec::new();
            for raw in &mut raws {
                frames.push(raw.frame().await.unwrap());
            }
            let text = String::from_utf8(frames[0].payload.clone()).unwrap();
            assert!(text.starts_with(&format!(r#"{{"type":"message","channel":"{channel}","#)), "{text:.99}");
            assert!(text.contains(&format!(r#""event":"e","data":{data},"time":"#)), "{text:.200}");
            assert!(
                frames.iter().all(|frame| frame.bytes == frames[0].bytes),
                "the same bytes for everybody"
            );
        }
    }
}

/// Native protocol §1: text that is not JSON becomes a JSON string, bytes become base64; publish API: every way in.
#[tokio::test]
async fn forms_texts_and_raw_bodies_arrive_as_json() {
    let gateway = gateway();
    let mut client = Client::subscribed(&gateway.ws(""), &["kept.a"]).await;
    let form = "application/x-www-form-urlencoded";
    for (path, content_type, body, data) in [
        ("/v1/publish", form, &b"channel=kept.a&event=e&data=hello+w%C3%B6rld"[..], json!("hello wörld")),
        ("/v1/publish", form, b"channels[]=kept.a&data=%7B%22a%22%3A%5B1%5D%7D", json!({"a": [1]})),
        ("/v1/publish/kept.a", "application/json", b"{\"a\":\n\"line\"}", json!({"a": "line"})),
        ("/v1/publish/kept.a", "text/plain", b"line\none", json!("line\none")),
        ("/v1/publish/kept.a", "application/octet-stream", b"\xff\x00", json!({"base64": "/wA="})),
        ("/v1/publish", "application/json", br#"{"channel":"kept.a","data":"text"}"#, json!("text")),
    ] {
        let answer = post(&gateway, path, content_type, body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(client.data().await, data, "{path} {content_type}");
    }
}

/// Publish API: a connection that is named in `exclude` is left out, and only for that message.
#[tokio::test]
async fn an_excluded_connection_is_left_out() {
    let gateway = gateway();
    for channel in ["kept.a", "live.a"] {
        let (mut sender, welcome) = welcome(&gateway.ws(&format!("channel={channel}"))).await;
        assert_eq!(sender.frame().await["type"], "subscribed");
        let mut other = Client::subscribed(&gateway.ws(""), &[channel]).await;
        let id = &welcome["connection"];
        // In one batch, so that they reach the worker together.
        let items = json!([
            {"channel": channel, "data": 1},
            {"channel": channel, "data": 2, "exclude": [id]},
            {"channel": channel, "data": 3},
        ]);
        assert_eq!(post(&gateway, "/v1/batch", "application/json", items.to_string()).await.status, 200);
        assert_eq!((sender.data().await, sender.data().await), (json!(1), json!(3)));
        assert_eq!(
            (other.data().await, other.data().await, other.data().await),
            (json!(1), json!(2), json!(3))
        );
    }
}

/// Publish API: `user` reaches every connection of a user, whichever way it showed its token, and no other. The
/// channel behind it cannot be named by anybody.
#[tokio::test]
async fn a_message_to_a_user_reaches_all_of_the_user_s_connections() {
    let gateway = gateway();
    let (ana, ben) = (token("ana", &["*"], 600), token("ben", &["*"], 600));
    let (mut by_url, _) = welcome(&gateway.ws(&format!("token={ana}"))).await;
    let (mut by_frame, _) = welcome(&gateway.ws("")).await;
    by_frame.send(&json!({"type": "authenticate", "token": ana, "ref": 1})).await;
    assert_eq!(by_frame.frame().await["type"], "authenticated");
    let (mut other, _) = welcome(&gateway.ws(&format!("token={ben}"))).await;
    let (mut stranger, _) = welcome(&gateway.ws("")).await;
    for client in [&mut by_url, &mut other, &mut stranger] {
        for name in ["$user:ana", "$user:ben", "$anything"] {
            assert_eq!(client.subscribe(name).await["error"], "bad_request", "{name}");
        }
    }
    publish(&gateway, json!({"user": "ana", "data": "for ana"})).await;
    assert_eq!(by_url.data().await, "for ana");
    assert_eq!(by_frame.data().await, "for ana");
    nothing_came(&mut other).await;
    nothing_came(&mut stranger).await;

    // Nobody becomes somebody else within a connection: what is for one user would go to another.
    by_frame.send(&json!({"type": "authenticate", "token": ben, "ref": 2})).await;
    let refused = by_frame.frame().await;
    assert_eq!((&refused["error"], &refused["ref"]), (&json!("forbidden"), &json!(2)));
    publish(&gateway, json!({"user": "ben", "data": "for ben"})).await;
    assert_eq!(other.data().await, "for ben");
    nothing_came(&mut by_frame).await;
    let answer = gateway.publish_as(KEY, &json!({"channel": "$user:ana", "data": 1})).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
}

/// Native protocol §3: where a token may stand, and which place counts when there are several. RFC 6455 §4.2.2: a
/// subprotocol that was offered is answered.
#[tokio::test]
async fn a_token_is_taken_from_header_subprotocol_url_or_frame() {
    let gateway = gateway();
    let good = token("ana", &["private.*"], 600);
    let (bearer, protocol) = (format!("Bearer {good}"), format!("bearer.{good}"));
    let bad = "token=not.a.token";
    for (query, headers) in [
        ("", vec![("authorization", bearer.as_str())]),
        ("", vec![("sec-websocket-protocol", protocol.as_str())]),
        (&*format!("token={good}"), vec![]),
        (bad, vec![("authorization", &*bearer)]),
        (bad, vec![("sec-websocket-protocol", &*protocol)]),
        (bad, vec![("authorization", &*bearer), ("sec-websocket-protocol", "bearer.wrong")]),
    ] {
        let mut client = Client::connect_with(&gateway.ws(query), &headers).await;
        let welcome = client.frame().await;
        assert!(welcome["expires"].is_u64(), "{welcome}");
        assert_eq!(client.subscribe("private.7").await["type"], "subscribed");
    }
    for (offered, chosen) in [
        ("carillon.v1".to_owned(), "carillon.v1"),
        (protocol.clone(), protocol.as_str()),
        (format!("{protocol}, carillon.v1"), "carillon.v1"),
    ] {
        let mut raw = Raw::connect(gateway.public).await;
        raw.send(handshake("/v1/ws", &format!("Sec-WebSocket-Protocol: {offered}\r\n"))).await;
        let head = raw.head().await.to_lowercase();
        assert!(
            head.contains(&format!("\r\nsec-websocket-protocol: {}\r\n", chosen.to_lowercase())),
            "{head}"
        );
    }
    let mut raw = Raw::connect(gateway.public).await;
    raw.send(handshake("/v1/ws", "Sec-WebSocket-Protocol: chat\r\n")).await;
    let head = raw.head().await.to_lowercase();
    assert!(head.starts_with("http/1.1 101 ") && !head.contains("sec-websocket-protocol"), "{head}");
}

/// Native protocol §7: grants decide; a token that is refused ends the conversation with 4001, one that was good
/// once with 4102.
#[tokio::test]
async fn grants_decide_and_bad_tokens_end_the_conversation() {
    let gateway = gateway();
    let (mut client, _) = welcome(&gateway.ws("channel=private.7")).await;
    assert_eq!(client.frame().await["error"], "unauthorized");
    client.send(&json!({"type": "authenticate", "token": token("ana", &["private.7"], 600), "ref": 3})).await;
    let answer = client.frame().await;
    assert_eq!((&answer["type"], &answer["ref"]), (&json!("authenticated"), &json!(3)));
    assert_eq!(client.subscribe("private.7").await["type"], "subscribed");
    let refused = client.subscribe("private.77").await;
    assert_eq!((&refused["code"], &refused["error"]), (&json!(4303), &json!("forbidden")));
    // A bad token in a frame is refused; what was joined stays.
    client.send(&json!({"type": "authenticate", "token": "x.y.z", "ref": 4})).await;
    let refused = client.frame().await;
    assert_eq!((&refused["error"], &refused["ref"]), (&json!("unauthorized"), &json!(4)));
    publish(&gateway, json!({"channel": "private.7", "data": "still"})).await;
    assert_eq!(client.data().await, "still");

    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhbmEiLCJleHAiOjQ4MDAwMDAwMDAsImNoYW5uZWxzIjpbIioiXX0.";
    let mut forged = token("ana", &["*"], 600);
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    for (bad, error, code) in [
        (token("ana", &["*"], -600), "token_expired", 4102),
        (forged, "unauthorized", 4001),
        (unsigned.to_owned(), "unauthorized", 4001),
        ("x".repeat(9000), "unauthorized", 4001),
        (String::new(), "unauthorized", 4001),
    ] {
        let (mut client, welcome) = welcome(&gateway.ws(&format!("channel=kept.a&token={bad}"))).await;
        assert!(welcome.get("expires").is_none());
        assert_eq!(client.frame().await["error"], error);
        let goodbye = client.frame().await;
        assert_eq!((&goodbye["type"], &goodbye["code"]), (&json!("goodbye"), &json!(code)));
        assert!(matches!(client.next().await, Got::Closed(Some((closed, _))) if closed == code));
    }
}

/// Native protocol §7: 4102 when the token's time is over while connected; `authenticate` in time prevents it.
#[tokio::test]
async fn a_token_that_expires_ends_the_conversation_unless_it_is_replaced() {
    let gateway = gateway();
    let began = clock::now();
    let brief = token("ana", &["private.*"], 2);
    let (mut client, _) = welcome(&gateway.ws(&format!("channel=private.a&token={brief}"))).await;
    let (mut renewed, _) = welcome(&gateway.ws(&format!("channel=private.a&token={brief}"))).await;
    for client in [&mut client, &mut renewed] {
        assert_eq!(client.frame().await["type"], "subscribed");
    }
    renewed.send(&json!({"type": "authenticate", "token": token("ana", &["private.*"], 600)})).await;
    assert_eq!(renewed.frame().await["type"], "authenticated");
    let goodbye = client.frame().await;
    assert_eq!((&goodbye["type"], &goodbye["error"]), (&json!("goodbye"), &json!("token_expired")));
    assert!(goodbye["retry_after_ms"].is_u64(), "{goodbye}");
    assert_eq!(client.closed().await, (4102, "token_expired".to_owned()));
    assert!(clock::now() - began >= Duration::from_millis(900), "not before its time");
    publish(&gateway, json!({"channel": "private.a", "data": "after"})).await;
    assert_eq!(renewed.data().await, "after");
}

/// Native protocol §3: a token says what its bearer may join; a newer one with less takes the rest away.
#[tokio::test]
async fn a_new_token_takes_away_what_it_does_not_cover() {
    let gateway = gateway();
    let wide = token("ana", &["private.*"], 600);
    let (mut client, _) =
        welcome(&gateway.ws(&format!("channel=private.a&channel=private.b&token={wide}"))).await;
    for _ in 0..2 {
        assert_eq!(client.frame().await["type"], "subscribed");
    }
    client.send(&json!({"type": "authenticate", "token": token("ana", &["private.a"], 600)})).await;
    assert_eq!(client.frame().await["type"], "authenticated");
    let taken = client.frame().await;
    assert_eq!((&taken["type"], &taken["channel"]), (&json!("unsubscribed"), &json!("private.b")), "{taken}");
    assert_eq!((&taken["code"], &taken["error"]), (&json!(4303), &json!("forbidden")), "{taken}");
    publish(&gateway, json!({"channel": "private.b", "data": "not for ana"})).await;
    publish(&gateway, json!({"channel": "private.a", "data": "for ana"})).await;
    assert_eq!(client.data().await, "for ana");
}

/// Native protocol §4: `?heartbeat=1` asks for a ping that the page can see.
#[tokio::test]
async fn a_page_can_ask_for_pings_that_it_sees() {
    let gateway = Gateway::dev(&[("CARILLON__CLIENT__HEARTBEAT", "1s")]);
    let (mut watching, _) = welcome(&gateway.ws("heartbeat=1")).await;
    let (mut other, _) = welcome(&gateway.ws("")).await;
    assert_eq!(watching.frame().await, json!({"type": "ping"}));
    assert_eq!(watching.frame().await, json!({"type": "ping"}));
    nothing_came(&mut other).await;
}

/// Publish API: a retry with the same `id` answers `duplicate:true` with the first position, and is delivered once.
#[tokio::test]
async fn a_retry_with_the_same_id_is_delivered_once() {
    let gateway = gateway();
    let mut client = Client::subscribed(&gateway.ws(""), &["kept.a", "live.a"]).await;
    for channel in ["kept.a", "live.a"] {
        let message = json!({"channel": channel, "data": "once", "id": "order-7"});
        let first = publish(&gateway, message.clone()).await;
        assert_eq!(
            (&first[0]["stored"], &first[0]["duplicate"]),
            (&json!(channel == "kept.a"), &json!(false))
        );
        let retries = join_all((0..5).map(|_| publish(&gateway, message.clone()))).await;
        for retry in retries {
            assert_eq!((&retry[0]["duplicate"], &retry[0]["id"]), (&json!(true), &first[0]["id"]));
        }
        assert_eq!(client.data().await, "once");
        nothing_came(&mut client).await;
    }
}

/// Publish API: a batch answers each item, in order, and its messages arrive in order.
#[tokio::test]
async fn a_batch_arrives_in_order() {
    let gateway = gateway();
    for channel in ["kept.a", "live.a"] {
        let mut client = Client::subscribed(&gateway.ws(""), &[channel]).await;
        for batch in 0..5 {
            let items: Vec<_> =
                (0..100).map(|n| json!({"channel": channel, "data": batch * 100 + n})).collect();
            let answer = post(&gateway, "/v1/batch", "application/json", json!(items).to_string()).await;
            assert_eq!((answer.status, answer.json()["results"].as_array().unwrap().len()), (200, 100));
        }
        for number in 0..500 {
            assert_eq!(client.data().await, number);
        }
    }
}

/// Promise: per channel all subscribers see the same order, without gap and without duplicate.
#[tokio::test]
async fn concurrent_publishers_make_one_order_for_everybody() {
    const PUBLISHERS: u64 = 8;
    const EACH: u64 = 40;
    let gateway = gateway();
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Client::subscribed(&gateway.ws(""), &["kept.a"]).await);
    }
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let gateway = &gateway;
        async move {
            for number in 0..EACH {
                publish(gateway, json!({"channel": "kept.a", "data": [publisher, number]})).await;
            }
        }
    });
    join_all(publishers).await;
    let mut orders = Vec::new();
    for client in &mut clients {
        let (mut order, mut last) = (Vec::new(), 0);
        for _ in 0..PUBLISHERS * EACH {
            let frame = client.frame().await;
            assert!(offset(&frame["id"]) > last, "ids rise: {frame} after {last}");
            last = offset(&frame["id"]);
            order.push((frame["data"][0].as_u64().unwrap(), frame["data"][1].as_u64().unwrap()));
        }
        nothing_came(client).await;
        orders.push(order);
    }
    assert!(orders.iter().all(|order| *order == orders[0]), "all agree");
    for publisher in 0..PUBLISHERS {
        let own = orders[0].iter().filter(|(who, _)| *who == publisher).map(|(_, number)| *number);
        assert!(own.eq(0..EACH), "each publisher's messages are in its order");
    }
}

/// Native protocol §8: the outbox bounds what waits for a slow reader. Somebody who reads is never taken for one,
/// however much he asks for or is sent at once.
#[tokio::test]
async fn whoever_reads_is_not_closed_as_slow() {
    let gateway = Gateway::dev(&[("CARILLON__CLIENT__OUTBOX_MAX", "64KiB")]);
    let (mut client, _) = welcome(&gateway.ws("")).await;
    let names: Vec<_> = (0..500).map(|n| format!("{n}.{}", "x".repeat(100))).collect();
    client.send(&json!({"type": "subscribe", "channels": names})).await;
    for name in &names {
        let frame = client.frame().await;
        assert_eq!((&frame["type"], &frame["channel"]), (&json!("subscribed"), &json!(name)));
    }
    let (small, large) = ("s".repeat(20_000), "l".repeat(60_000));
    for round in 0..20 {
        let items = json!([
            {"channel": names[round], "data": small},
            {"channel": names[round + 1], "data": large},
            {"channel": names[round + 2], "data": small},
            {"channel": names[round + 2], "data": large},
        ]);
        let headers = [("Authorization", "Bearer dev"), ("Content-Type", "application/json")];
        assert_eq!(http::post(gateway.api, "/v1/batch", &headers, items.to_string()).await.status, 200);
        for expected in [&small, &large, &small, &large] {
            assert_eq!(client.data().await, expected.as_str());
        }
    }
}

/// A connection that has ended leaves nothing behind in the gauges.
#[tokio::test]
async fn gauges_follow_the_subscriptions() {
    let gateway = gateway();
    let shown = async || {
        let connections = r#"carillon_connections{transport="websocket",protocol="native"}"#;
        [
            gateway.metric(connections).await,
            gateway.metric("carillon_subscriptions").await,
            gateway.metric("carillon_channels").await,
        ]
        .map(|value| value.to_string())
    };
    let mut client = Client::subscribed(&gateway.ws(""), &["kept.a", "live.a"]).await;
    let second = Client::subscribed(&gateway.ws(""), &["kept.a"]).await;
    assert_eq!(shown().await, ["2", "3", "2"]);
    client.send(&json!({"type": "unsubscribe", "channel": "live.a"})).await;
    assert_eq!(client.frame().await["type"], "unsubscribed");
    assert_eq!(shown().await, ["2", "2", "1"]);
    drop((client, second));
    eventually("nothing is left", || async { (shown().await == ["0", "0", "0"]).then_some(()) }).await;
}
