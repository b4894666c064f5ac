//! The signature of requests to the Pusher protocol's REST API: whatever is changed is noticed. (PUSHER §2.1)

use carillon_tasks::clock;
use carillon_tests::{
    gateway::Gateway,
    http::Answer,
    pusher::{FIRST, PLAIN, Request, Rest, SECOND_KEY, Socket, alone, hmac_sha256, md5_hex, refusal},
    raw::eventually,
};
use serde_json::json;

/// MD5 of nothing.
const MD5_OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";
/// By how many seconds a clock may be wrong, and no more.
const SKEW_SECONDS: u64 = 600;

fn event() -> String {
    json!({"name": "x", "channel": "signed", "data": "1"}).to_string()
}

/// Returns a good request to publish, not yet signed.
fn publish(rest: &Rest) -> Request {
    rest.request("POST", "/events").body(event()).stamped(&FIRST)
}

/// Returns a good request to read, not yet signed.
fn read(rest: &Rest) -> Request {
    rest.request("GET", "/channels/signed").stamped(&FIRST)
}

/// Signs, sends, and returns the text of the 401.
async fn refused(gateway: &Gateway, request: Request) -> String {
    unauthorized(&request.signed(FIRST.secret).send(gateway.api).await)
}

fn unauthorized(answer: &Answer) -> String {
    let (status, text) = refusal(answer);
    assert_eq!(status, 401, "{text}");
    text
}

#[tokio::test]
async fn a_request_without_a_key_or_with_an_unknown_one_is_refused() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    assert_eq!(refused(&gateway, publish(&rest).without("auth_key")).await, "Missing parameter: auth_key");
    assert_eq!(refused(&gateway, publish(&rest).changed("auth_key", "nobody")).await, "Unknown auth_key");
    let _text = refused(&gateway, publish(&rest).changed("auth_key", "")).await;
    // A key without any parameter.
    let mut bare = Request::new("POST", "/apps/7001/events").body(event());
    bare.query = Some(String::new());
    assert_eq!(unauthorized(&bare.send(gateway.api).await), "Missing parameter: auth_key");
}

#[tokio::test]
async fn a_key_of_another_application_is_refused() {
    let gateway = alone().await;
    let foreign = Rest::new(gateway.api, &PLAIN);
    let request = Request::new("POST", format!("/apps/{}/events", FIRST.id)).body(event());
    assert_eq!(unauthorized(&foreign.send(request).await), "Unknown auth_key");
}

#[tokio::test]
async fn every_key_of_an_application_signs_with_its_own_secret() {
    let gateway = alone().await;
    let rest = gateway.rest(&SECOND_KEY);
    rest.trigger("signed-second", "x", "1").await;
    let mixed = rest.request("POST", "/events").body(event()).stamped(&SECOND_KEY).signed(FIRST.secret);
    let text = unauthorized(&mixed.send(gateway.api).await);
    assert!(text.starts_with("Invalid signature: "), "{text}");
}

#[tokio::test]
async fn the_version_is_required_and_is_1_0() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    assert_eq!(refused(&gateway, publish(&rest).without("auth_version")).await, "Version required");
    for version in ["2.0", "1", "1.00", ""] {
        let text = refused(&gateway, publish(&rest).changed("auth_version", version)).await;
        assert!(
            ["Version not supported", "Version required"].contains(&text.as_str()),
            "{version:?}: {text}"
        );
    }
}

#[tokio::test]
async fn the_timestamp_is_required_and_a_whole_number() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    assert_eq!(refused(&gateway, publish(&rest).without("auth_timestamp")).await, "Timestamp required");
    let now = clock::since_1970().as_secs();
    for timestamp in [
        format!("{now}.0"),
        format!("{now}x"),
        format!("{now}000"),
        format!("-{now}"),
        "NaN".to_owned(),
        String::new(),
    ] {
        let _text = refused(&gateway, publish(&rest).changed("auth_timestamp", timestamp.as_str())).await;
    }
}

/// Signs at a distance from now and returns the answer of an exchange that took place within one second of the
/// clock, so that the distance is exact.
async fn at_distance(gateway: &Gateway, distance: i64) -> Answer {
    let rest = gateway.rest(&FIRST);
    for _ in 0..100 {
        let now = clock::since_1970().as_secs();
        let request = rest
            .request("POST", "/events")
            .body(event())
            .stamped_at(&FIRST, now.checked_add_signed(distance).expect("the clock is right"));
        let answer = request.signed(FIRST.secret).send(gateway.api).await;
        if clock::since_1970().as_secs() == now {
            return answer;
        }
    }
    panic!("a request never takes less than a second");
}

#[tokio::test]
async fn a_clock_that_is_599_seconds_wrong_is_right_enough_and_601_is_not() {
    let gateway = alone().await;
    let skew = i64::try_from(SKEW_SECONDS).unwrap();
    for distance in [0, skew - 1, 1 - skew] {
        let answer = at_distance(&gateway, distance).await;
        assert_eq!(answer.status, 200, "{distance}: {answer:?}");
    }
    for distance in [skew + 1, -skew - 1, skew, -skew, 86_400, -86_400] {
        let text = unauthorized(&at_distance(&gateway, distance).await);
        assert!(text.starts_with("Timestamp expired: Given timestamp ("), "{distance}: {text}");
        assert!(text.contains(") not within 600s of server time ("), "{distance}: {text}");
    }
}

#[tokio::test]
async fn an_expired_timestamp_is_told_as_a_date() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let request = rest.request("POST", "/events").body(event()).stamped_at(&FIRST, 1_749_435_123);
    let text = refused(&gateway, request).await;
    let expected =
        "Timestamp expired: Given timestamp (2025-06-09T02:12:03Z) not within 600s of server time (";
    assert!(text.starts_with(expected), "{text}");
}

#[tokio::test]
async fn a_wrong_signature_is_told_with_what_should_have_been_signed() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let request = publish(&rest);
    let right = hmac_sha256(FIRST.secret, &request.to_sign());
    let wrong = "0123456789abcdef".repeat(4);
    let (status, text) = refusal(&request.clone().with("auth_signature", &wrong).send(gateway.api).await);
    assert_eq!(status, 401);
    let signed = request.to_sign().replace('\n', "\\n");
    let expected = format!(
        "Invalid signature: you should have sent HmacSHA256Hex(\"{signed}\", your_secret_key), but you sent \"{wrong}\""
    );
    assert_eq!(text, expected);
    assert!(!text.contains(&right), "{text}");
}

#[tokio::test]
async fn a_missing_a_cut_and_a_changed_signature_are_refused() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let request = publish(&rest);
    let _text = unauthorized(&request.clone().send(gateway.api).await);
    let right = hmac_sha256(FIRST.secret, &request.to_sign());
    let last = if right.ends_with('0') { "1" } else { "0" };
    for wrong in [
        String::new(),
        right[..63].to_owned(),
        format!("{right}0"),
        format!("{}{last}", &right[..63]),
        format!("{right} "),
        "x".repeat(64),
        "ü".repeat(32),
    ] {
        let answer = request.clone().with("auth_signature", &wrong).send(gateway.api).await;
        let _text = unauthorized(&answer);
    }
}

/// Each part of a request is signed; one that is changed afterwards is noticed.
#[tokio::test]
async fn whatever_is_changed_after_signing_is_noticed() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("signed").await;
    let good = publish(&rest).signed(FIRST.secret);
    let now = clock::since_1970().as_secs();
    let mut other_path = good.clone();
    other_path.path = "/apps/7001/batch_events".to_owned();
    let mut other_method = publish(&rest);
    other_method.method = "PUT".to_owned();
    other_method = other_method.signed(FIRST.secret);
    other_method.method = "POST".to_owned();
    let mut other_body = good.clone();
    other_body.body = event().replace("\"1\"", "\"2\"").into_bytes();
    let md5 = md5_hex(&other_body.body);
    let mut longer_body = good.clone();
    longer_body.body.push(b' ');
    let mut no_body = good.clone();
    no_body.body.clear();
    for (what, request) in [
        ("path", other_path),
        ("method", other_method),
        ("body", other_body.clone()),
        ("body and its hash", other_body.changed("body_md5", md5)),
        ("a space", longer_body),
        ("no body", no_body),
        ("no hash", good.clone().without("body_md5")),
        ("time", good.clone().changed("auth_timestamp", (now + 60).to_string())),
        ("a parameter more", good.clone().with("info", "user_count")),
        ("key", good.clone().changed("auth_key", SECOND_KEY.key)),
        ("a second hash", good.clone().with("body_md5", MD5_OF_NOTHING)),
    ] {
        let answer = request.send(gateway.api).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
    }
    for (what, request) in [
        ("a parameter less", read(&rest).with("info", "cache").signed(FIRST.secret).without("info")),
        ("a value", read(&rest).with("info", "a").signed(FIRST.secret).changed("info", "b")),
    ] {
        let answer = request.send(gateway.api).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
    }
    assert_eq!(good.send(gateway.api).await.status, 200);
    socket.hears("signed", "x", "1").await;
    socket.quiet().await;
}

#[tokio::test]
async fn a_body_needs_its_hash_and_no_body_needs_none() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let _text = refused(&gateway, publish(&rest).without("body_md5")).await;
    let _text = refused(&gateway, publish(&rest).changed("body_md5", MD5_OF_NOTHING)).await;
    let _text = refused(&gateway, publish(&rest).changed("body_md5", "")).await;
    assert_eq!(read(&rest).signed(FIRST.secret).send(gateway.api).await.status, 200);
    let no_body = rest.request("POST", "/users/signed-nobody/terminate_connections").stamped(&FIRST);
    assert_eq!(no_body.signed(FIRST.secret).send(gateway.api).await.status, 200);
}

/// PUSHER §2.1, 3: PyPI's `pusher` hashes the body that a GET does not have.
#[tokio::test]
async fn a_get_may_carry_the_hash_of_nothing() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let request = read(&rest).with("body_md5", MD5_OF_NOTHING).signed(FIRST.secret);
    assert_eq!(request.send(gateway.api).await.status, 200);
    let _text = refused(&gateway, read(&rest).with("body_md5", md5_hex(b"x"))).await;
}

/// PUSHER §2.1: names are read in lower case, and sorted.
#[tokio::test]
async fn names_of_parameters_may_be_capitals_and_in_any_order() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut request = publish(&rest).signed(FIRST.secret);
    request.parameters.reverse();
    assert_eq!(request.send(gateway.api).await.status, 200);
    for (name, _) in &mut request.parameters {
        *name = name.to_ascii_uppercase();
    }
    assert_eq!(request.send(gateway.api).await.status, 200);
    let request = read(&rest).with("Info", "subscription_count").signed(FIRST.secret);
    let answer = request.send(gateway.api).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.json()["subscription_count"].is_u64(), "{answer:?}");
}

/// PUSHER §2.1, 2: Guzzle escapes commas, Node does not; both sign them as commas.
#[tokio::test]
async fn commas_may_be_escaped_or_not() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let info = "user_count,subscription_count";
    let mut request = rest
        .request("GET", "/channels/presence-signed")
        .with("info", info)
        .stamped(&FIRST)
        .signed(FIRST.secret);
    assert!(String::from_utf8(request.bytes()).unwrap().contains("%2C"));
    assert_eq!(request.send(gateway.api).await.status, 200);
    let pairs: Vec<_> = request.parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
    request.query = Some(pairs.join("&"));
    assert_eq!(request.send(gateway.api).await.status, 200);
}

/// Values are signed as they mean, not as they are spelled.
#[tokio::test]
async fn values_may_be_escaped_in_any_way() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    for prefix in ["a b", "a&b=c", "ü€😀", "a+b", "100%", "#;,@="] {
        let request = rest.request("GET", "/channels").with("filter_by_prefix", prefix);
        let answer = rest.send(request).await;
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, r#"{"channels":{}}"#),
            "{prefix}: {answer:?}"
        );
    }
}

/// PUSHER §2.1, 6: Ruby's verifier signs each element, PHP signs them joined.
#[tokio::test]
async fn lists_in_parameters_are_signed_in_either_way() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let plain = read(&rest);
    let ruby = plain.clone().with("k[]", "v1").with("k[]", "v2").signed(FIRST.secret);
    assert_eq!(ruby.send(gateway.api).await.status, 200, "{}", ruby.to_sign());
    let joined = plain.clone().with("k", "v1,v2").signed(FIRST.secret);
    let signature = joined.parameters.last().unwrap().1.clone();
    let php = plain.clone().with("k[]", "v1").with("k[]", "v2").with("auth_signature", signature.clone());
    assert_eq!(php.send(gateway.api).await.status, 200, "{}", joined.to_sign());
    let indexed = plain.with("k[0]", "v1").with("k[1]", "v2").with("auth_signature", signature);
    assert_eq!(indexed.send(gateway.api).await.status, 200, "{}", joined.to_sign());
}

/// PUSHER §2.1, 6: names of channels stand in the path as they are, or escaped.
#[tokio::test]
async fn names_in_the_path_may_be_escaped_or_not() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("signed-=@,.;").await;
    let (plain, escaped) = ("/apps/7001/channels/signed-=@,.;", "/apps/7001/channels/signed-%3D%40%2C.%3B");
    for (sent, signed) in [(plain, plain), (escaped, escaped), (escaped, plain)] {
        let mut request = Request::new("GET", signed).stamped(&FIRST).signed(FIRST.secret);
        request.path = sent.to_owned();
        // Who has just come may be counted a moment later.
        eventually(sent, || async {
            let answer = request.send(gateway.api).await;
            assert_eq!(answer.status, 200, "{sent} signed as {signed}: {answer:?}");
            (answer.json()["occupied"] == true).then_some(())
        })
        .await;
    }
    rest.trigger("signed-=@,.;", "x", "1").await;
    socket.hears("signed-=@,.;", "x", "1").await;
}

/// PUSHER §2.1: the first fault is told, in the order of the checks.
#[tokio::test]
async fn of_many_faults_the_first_is_told() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let worst = Request::new("POST", "/apps/7001/events").body("not JSON").with("auth_signature", "x");
    let send = async |request: &Request| unauthorized(&request.send(gateway.api).await);
    assert_eq!(send(&worst).await, "Missing parameter: auth_key");
    let worse = worst.with("auth_key", "nobody");
    assert_eq!(send(&worse).await, "Unknown auth_key");
    let bad = worse.changed("auth_key", FIRST.key);
    assert_eq!(send(&bad).await, "Version required");
    let bad = bad.with("auth_version", "9");
    assert_eq!(send(&bad).await, "Version not supported");
    let bad = bad.changed("auth_version", "1.0");
    assert_eq!(send(&bad).await, "Timestamp required");
    let bad = bad.with("auth_timestamp", "1");
    assert!(send(&bad).await.starts_with("Timestamp expired"));
    let bad = bad.changed("auth_timestamp", clock::since_1970().as_secs().to_string());
    assert!(send(&bad).await.starts_with("Invalid signature"));
    let unhashed = bad.without("auth_signature").signed(FIRST.secret);
    let _text = send(&unhashed).await;
    // Only then is the body looked at.
    let hashed = rest.request("POST", "/events").body("not JSON");
    assert_eq!(refusal(&rest.send(hashed).await).0, 400);
}

#[tokio::test]
async fn a_signature_is_required_for_every_path() {
    let gateway = alone().await;
    for (method, tail) in [
        ("POST", "/events"),
        ("POST", "/batch_events"),
        ("GET", "/channels"),
        ("GET", "/channels/x"),
        ("GET", "/channels/presence-x/users"),
        ("POST", "/users/x/terminate_connections"),
        ("GET", "/connections"),
    ] {
        let request = gateway.rest(&FIRST).request(method, tail);
        let unsigned = request.clone().send(gateway.api).await;
        assert_eq!(unsigned.status, 401, "{method} {tail}: {unsigned:?}");
        let forged = request.stamped(&FIRST).signed("not the secret").send(gateway.api).await;
        assert_eq!(forged.status, 401, "{method} {tail}: {forged:?}");
    }
    let pypi = Request::new("POST", "/users/x/terminate_connections").body("{}");
    assert_eq!(pypi.send(gateway.api).await.status, 401);
}

/// The secret is nowhere in what the gateway says.
#[tokio::test]
async fn secrets_are_not_logged() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    rest.trigger("signed-log", "x", "1").await;
    let _text = refused(&gateway, publish(&rest).changed("auth_version", "9")).await;
    for app in [FIRST, SECOND_KEY, PLAIN] {
        assert!(!gateway.log().contains(app.secret));
    }
}
