use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: UnixMillis = UnixMillis::from_seconds(1_000_000);

fn signed(claims: &Value) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

fn verifier() -> TokenVerifier {
    TokenVerifier::new(SECRET, None, None)
}

fn refused(token: &str) -> ErrorCode {
    verifier().verify(token, NOW).expect_err(token).refusal.code
}

#[test]
fn a_good_token_names_the_user_and_the_grants() {
    let token = signed(&json!({"sub": "ana", "exp": 1_000_060, "channels": ["orders.*", "news"]}));
    let claims = verifier().verify(&token, NOW).unwrap();
    assert_eq!((claims.user.as_str(), claims.expires), ("ana", UnixMillis::from_seconds(1_000_060)));
    let grants: Vec<_> = claims.grants.iter().map(ChannelPattern::as_str).collect();
    assert_eq!(grants, ["orders.*", "news"]);
    let without = verifier().verify(&signed(&json!({"sub": "ana", "exp": 1_000_060})), NOW).unwrap();
    assert!(without.grants.is_empty());
}

#[test]
fn time_is_the_callers_and_a_clock_may_be_ahead_a_little() {
    let until = |exp: u64| signed(&json!({"sub": "ana", "exp": exp}));
    assert!(verifier().verify(&until(1_000_001), NOW).is_ok());
    assert_eq!(refused(&until(1_000_000)), ErrorCode::TokenExpired);
    let from = |nbf: u64| signed(&json!({"sub": "ana", "exp": 2_000_000, "nbf": nbf}));
    assert!(verifier().verify(&from(1_000_030), NOW).is_ok());
    assert_eq!(refused(&from(1_000_031)), ErrorCode::Unauthorized);
}

#[test]
fn a_time_in_milliseconds_is_refused_with_the_reason() {
    let until = |exp: u64| verifier().verify(&signed(&json!({"sub": "ana", "exp": exp})), NOW);
    for exp in [1_000_000_060_000, 1_795_205_265_123, u64::MAX] {
        let bad = until(exp).expect_err("refused");
        assert_eq!(bad.check, "its time (`exp`) is in milliseconds, not in seconds");
        assert_eq!(bad.refusal.code, ErrorCode::Unauthorized);
        assert!(bad.refusal.message.contains("in seconds since 1970"), "{}", bad.refusal.message);
    }
    // The last second of the year 9999, which means never.
    assert!(until(253_402_300_799).is_ok());
}

#[test]
fn forged_and_malformed_tokens_are_refused_alike() {
    let good = json!({"sub": "ana", "exp": 1_000_060});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let none = format!("{}.{}.", part(&json!({"alg": "none"})), part(&good));
    let signature = signed(&good).rsplit('.').next().unwrap().to_owned();
    let other_body = format!(
        "{}.{}.{signature}",
        part(&json!({"alg": "HS256"})),
        part(&json!({"sub": "eve", "exp": 1_000_060}))
    );
    let other_secret =
        jsonwebtoken::encode(&Header::default(), &good, &EncodingKey::from_secret(b"another")).unwrap();
    let longer_hash =
        jsonwebtoken::encode(&Header::new(Algorithm::HS512), &good, &EncodingKey::from_secret(SECRET));
    for token in [none, other_body, other_secret, longer_hash.unwrap(), String::new(), "a.b.c".to_owned()] {
        assert_eq!(refused(&token), ErrorCode::Unauthorized);
    }
    assert_eq!(refused(&"x".repeat(TOKEN_MAX_BYTES + 1)), ErrorCode::Unauthorized);
}

#[test]
fn claims_have_types_and_limits() {
    for claims in [
        json!({"exp": 1_000_060}),
        json!({"sub": "ana"}),
        json!({"sub": 7, "exp": 1_000_060}),
        json!({"sub": "ana", "exp": "never"}),
        json!({"sub": "ana", "exp": -1}),
        json!({"sub": "", "exp": 1_000_060}),
        json!({"sub": "a b", "exp": 1_000_060}),
        json!({"sub": "ana", "exp": 1_000_060, "channels": "orders.*"}),
        json!({"sub": "ana", "exp": 1_000_060, "channels": ["a b"]}),
        json!({"sub": "ana", "exp": 1_000_060, "channels": vec!["a"; GRANTS_MAX + 1]}),
    ] {
        assert_eq!(refused(&signed(&claims)), ErrorCode::Unauthorized, "{claims}");
    }
}

#[test]
fn issuer_and_audience_are_required_where_they_are_configured() {
    let strict = TokenVerifier::new(SECRET, Some("shop"), Some("carillon"));
    let with =
        |iss: &str, aud: &str| signed(&json!({"sub": "ana", "exp": 1_000_060, "iss": iss, "aud": aud}));
    assert!(strict.verify(&with("shop", "carillon"), NOW).is_ok());
    for bad in
        [with("eve", "carillon"), with("shop", "other"), signed(&json!({"sub": "ana", "exp": 1_000_060}))]
    {
        assert_eq!(strict.verify(&bad, NOW).expect_err("refused").refusal.code, ErrorCode::Unauthorized);
    }
}

#[test]
fn the_operator_learns_which_check_failed_and_the_client_does_not() {
    let strict = TokenVerifier::new(SECRET, Some("shop"), Some("carillon"));
    let claims = json!({"sub": "ana", "exp": 1_000_060, "iss": "shop", "aud": "carillon"});
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().insert(name.to_owned(), value);
        signed(&claims)
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        signed(&claims)
    };
    let key = |secret: &[u8]| EncodingKey::from_secret(secret);
    let other_secret = jsonwebtoken::encode(&Header::default(), &claims, &key(b"another")).unwrap();
    let other_hash = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, &key(SECRET)).unwrap();
    let told = |token: &str| {
        let bad = strict.verify(token, NOW).expect_err(token);
        (bad.check, bad.refusal.message)
    };
    for (token, check) in [
        (other_secret, "it is not signed with auth.token_secret"),
        (other_hash, "it is not signed with HS256"),
        (with("iss", json!("eve")), "its `iss` is not auth.issuer"),
        (with("aud", json!("other")), "its `aud` does not contain auth.audience"),
        ("no-token".to_owned(), "it is no JWT"),
    ] {
        assert_eq!(told(&token), (check, "the token is not valid here".into()), "{token}");
    }
    let lacks = "it lacks `iss` or `aud`, which auth.issuer and auth.audience ask for";
    let claims = "it is no JWT with `sub` (text), `exp` (seconds) and `channels` (a list)";
    for (token, check) in [
        (without("iss"), lacks),
        (without("aud"), lacks),
        (without("exp"), claims),
        (without("sub"), claims),
        (with("sub", json!(7)), claims),
    ] {
        let (found, message) = told(&token);
        assert!(found == check && message.starts_with("the token must be a JWT with"), "{found}: {message}");
    }
    assert_eq!(told(&with("nbf", json!(1_000_031))).0, "its time (`nbf`) has not come; do the clocks agree?");
}
