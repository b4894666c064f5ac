use carillon_model::{AppKey, AppSpace};
use proptest::prelude::*;

use super::*;
use crate::sign;

const KEY: &str = "278d425bdf160c739803";
const SECRET: &str = "7ad3773142a6692b25b8";
const THEN: u64 = 1_353_088_179;
const NOW: UnixMillis = UnixMillis::from_seconds(THEN);
const BODY: &[u8] = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
const EMPTY_MD5: &str = "d41d8cd98f00b204e9800998ecf8427e";

fn apps() -> Apps {
    let app = |id: &str, space, key: &str, secret: &str| {
        let keys = vec![AppKey { key: key.to_owned(), secret: secret.to_owned() }];
        App { keys, ..App::bare(id, space) }
    };
    let other = app("other", AppSpace::new("other").unwrap(), "other-key", "other-secret");
    Apps::new(vec![app("3", AppSpace::default(), KEY, SECRET), other])
}

/// Returns the query of a good request with `more` parameters, signed over them as `sent` and `path` say.
fn query(method: &str, path: &str, more: &str) -> String {
    let base = format!("auth_key={KEY}&auth_timestamp={THEN}&auth_version=1.0");
    let all = if more.is_empty() { base } else { format!("{base}&{more}") };
    let signature = sign(SECRET, format!("{method}\n{path}\n{all}").as_bytes());
    format!("{all}&auth_signature={signature}")
}

fn verify(
    app_id: Option<&str>,
    method: &str,
    path: &str,
    query: &str,
    body: &[u8],
    now: UnixMillis,
) -> Result<String, BadRequestSignature> {
    let apps = apps();
    let head = verify_head(&apps, app_id, method, path, query, now)?;
    head.verify_body(body).map(|()| head.app.id.clone())
}

fn get(path: &str, query: &str) -> Result<String, BadRequestSignature> {
    verify(Some("3"), "GET", path, query, b"", NOW)
}

fn refused(query: &str) -> String {
    get("/apps/3/channels", query).unwrap_err().to_string()
}

#[test]
fn the_protocols_own_example_is_good() {
    let query = "auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
                 &body_md5=ec365a775a4cd0599faeb73354201b6f\
                 &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c";
    for app_id in [Some("3"), None] {
        assert_eq!(verify(app_id, "POST", "/apps/3/events", query, BODY, NOW), Ok("3".to_owned()));
    }
}

#[test]
fn checks_come_in_the_protocols_order() {
    assert_eq!(refused(""), "Missing parameter: auth_key");
    assert_eq!(refused("auth_keys=1&auth_signature=x"), "Missing parameter: auth_key");
    assert_eq!(refused("auth_key=nobody"), "Unknown auth_key");
    assert_eq!(refused("auth_key=%ff"), "Unknown auth_key");
    assert_eq!(refused("auth_key=other-key"), "Unknown auth_key");
    let key = format!("auth_key={KEY}");
    assert_eq!(refused(&key), "Version required");
    assert_eq!(refused(&format!("{key}&auth_version=2.0")), "Version not supported");
    let version = format!("{key}&auth_version=1.0");
    assert_eq!(refused(&version), "Timestamp required");
    for time in ["", "x", "-1", "+1353088179", "1353088179.0", "1e9", "%20", "١"] {
        let why = "Invalid timestamp: auth_timestamp is a whole number of seconds since 1970";
        assert_eq!(refused(&format!("{version}&auth_timestamp={time}")), why, "{time}");
    }
    assert_eq!(
        refused(&format!("{version}&auth_timestamp=1353087579")),
        "Timestamp expired: Given timestamp (2012-11-16T17:39:39Z) not within 600s of server time \
         (2012-11-16T17:49:39Z)"
    );
    assert_eq!(
        refused(&format!("{version}&auth_timestamp={THEN}&info=a%2Cb&auth_signature=ab%22c")),
        "Invalid signature: you should have sent HmacSHA256Hex(\"GET\\n/apps/3/channels\\nauth_key=278d425bdf160c739803\
         &auth_timestamp=1353088179&auth_version=1.0&info=a,b\", your_secret_key), but you sent \"ab\\\"c\""
    );
    assert!(refused(&format!("{version}&auth_timestamp={THEN}")).ends_with("but you sent \"\""));
}

#[test]
fn another_applications_key_is_unknown_here_and_known_without_a_path() {
    let text = format!(
        "POST\n/users/7/terminate_connections\nauth_key=other-key&auth_timestamp={THEN}&auth_version=1.0"
    );
    let signature = sign("other-secret", text.as_bytes());
    let query =
        format!("auth_key=other-key&auth_timestamp={THEN}&auth_version=1.0&auth_signature={signature}");
    let by = |id| {
        let path = "/users/7/terminate_connections";
        verify(id, "POST", path, &query, b"", NOW)
    };
    assert_eq!(by(None), Ok("other".to_owned()));
    assert_eq!(by(Some("other")), Ok("other".to_owned()));
    let unknown = || Err(BadRequestSignature::KeyUnknown { key: "other-key".to_owned() });
    assert_eq!(by(Some("3")), unknown());
    assert_eq!(by(Some("4")), unknown());
}

#[test]
fn a_clock_may_be_wrong_by_less_than_the_limit() {
    let query = query("GET", "/apps/3/channels", "");
    let at = |now: u64| verify(Some("3"), "GET", "/apps/3/channels", &query, b"", UnixMillis::new(now));
    for (now, good) in [
        (THEN * 1000, true),
        ((THEN + 599) * 1000 + 999, true),
        ((THEN + 600) * 1000, false),
        ((THEN + 601) * 1000, false),
        ((THEN - 599) * 1000, true),
        ((THEN - 600) * 1000, false),
        ((THEN - 601) * 1000, false),
        (0, false),
        (u64::MAX, false),
    ] {
        assert_eq!(at(now).is_ok(), good, "{now}");
        if let Err(why) = at(now) {
            assert!(why.to_string().starts_with("Timestamp expired: Given timestamp (2012-11-16T17:49:39Z)"));
        }
    }
    let far = format!("auth_key={KEY}&auth_version=1.0&auth_timestamp={}", "9".repeat(5000));
    assert!(refused(&far).starts_with("Timestamp expired: Given timestamp (9999-12-31T23:59:59Z)"));
}

#[test]
fn names_are_lowered_and_sorted_by_their_bytes_and_values_are_decoded() {
    let path = "/apps/3/channels";
    let signed = query("GET", path, "filter_by_prefix=presence-&info=user_count,subscription_count");
    assert_eq!(get(path, &signed), Ok("3".to_owned()));
    let signature = signed.rsplit('=').next().unwrap();
    for sent in [
        // As Guzzle writes it, in another order, with names in capitals.
        format!(
            "info=user_count%2Csubscription_count&auth_version=1.0&AUTH_KEY={KEY}&auth_signature={signature}\
             &auth_timestamp={THEN}&Filter_By_Prefix=presence%2D"
        ),
        signed.replace('=', "%3D").replace("%3D", "="),
        signed.replace("info", "%69nfo"),
        signed.replace("auth_signature", "Auth_Signature"),
        format!("&{signed}&&"),
    ] {
        assert_eq!(get(path, &sent), Ok("3".to_owned()), "{sent}");
    }
    for sent in [
        signed.replace("presence-", "presence"),
        signed.replace("info", "inf"),
        format!("{signed}&more=1"),
        format!("{signed}&info=cache"),
        signed.replace("1.0", "1.0%00"),
        signed.replace(&signature[..4], "0000"),
        signed.replace(signature, &signature.to_uppercase()),
        signed.replace(signature, ""),
    ] {
        assert!(get(path, &sent).is_err(), "{sent}");
    }
    assert!(get("/apps/3/channel", &signed).is_err());
    let post = verify(Some("3"), "POST", path, &signed, b"", NOW);
    assert!(post.is_err());
}

#[test]
fn a_space_may_be_a_plus() {
    let path = "/apps/3/channels";
    let query = query("GET", path, "filter_by_prefix=a b");
    assert!(get(path, &query.replace(' ', "+")).is_ok());
    assert!(get(path, &query.replace(' ', "%20")).is_ok());
}

#[test]
fn the_digest_of_an_empty_body_may_be_there() {
    let path = "/apps/3/channels";
    assert!(get(path, &query("GET", path, &format!("body_md5={EMPTY_MD5}"))).is_ok());
    assert!(get(path, &query("GET", path, "")).is_ok());
    let wrong = get(path, &query("GET", path, "body_md5=ec365a775a4cd0599faeb73354201b6f"));
    assert_eq!(wrong, Err(BadRequestSignature::DigestWrong));
}

#[test]
fn a_body_must_be_the_one_that_was_signed() {
    let path = "/apps/3/events";
    let post = |query: &str, body: &[u8]| verify(Some("3"), "POST", path, query, body, NOW);
    let good = query("POST", path, "body_md5=ec365a775a4cd0599faeb73354201b6f");
    assert_eq!(post(&good, BODY), Ok("3".to_owned()));
    for body in [BODY.trim_ascii_end().split_last().unwrap().1, b"", b"{}"] {
        assert_eq!(post(&good, body), Err(BadRequestSignature::DigestWrong));
    }
    assert_eq!(post(&query("POST", path, ""), BODY), Err(BadRequestSignature::DigestMissing));
    for digest in ["", "EC365A775A4CD0599FAEB73354201B6F", "ec365a775a4cd0599faeb73354201b6f0", EMPTY_MD5] {
        let query = query("POST", path, &format!("body_md5={digest}"));
        assert_eq!(post(&query, BODY), Err(BadRequestSignature::DigestWrong), "{digest}");
    }
    // The signature comes first: nobody is told anything of a body that is not theirs.
    let forged = good.replace("auth_signature=", "auth_signature=0");
    assert!(matches!(post(&forged, b""), Err(BadRequestSignature::Signature { .. })));
}

#[test]
fn an_array_may_be_signed_as_it_stands_or_as_one_value() {
    let path = "/apps/3/channels";
    // As Ruby signs and sends it.
    let ruby = query("GET", path, "info[]=user_count&info[]=cache");
    assert!(get(path, &ruby).is_ok());
    assert!(get(path, &ruby.replace('[', "%5B").replace(']', "%5D")).is_ok());
    // As PHP signs it, and as it sends it: eleven values, of which the eleventh sorts before the third.
    let values: Vec<_> = (0..11).map(|value| format!("v{value}")).collect();
    let php = query("GET", path, &format!("info={}", values.join(",")));
    let items: Vec<_> =
        values.iter().enumerate().map(|(at, value)| format!("info%5B{at}%5D={value}")).collect();
    let sent = php.replace(&format!("info={}", values.join(",")), &items.join("&"));
    assert!(get(path, &sent).is_ok());
    assert!(get(path, &sent.replace("v3", "v4")).is_err());
}

#[test]
fn a_path_may_be_signed_as_it_was_sent_or_decoded() {
    let plain = "/apps/3/channels/private-a=@,.;b";
    let coded = "/apps/3/channels/private-a%3D%40%2C.%3Bb";
    for signed in [plain, coded] {
        assert!(get(coded, &query("GET", signed, "")).is_ok(), "{signed}");
    }
    assert!(get(plain, &query("GET", plain, "")).is_ok());
    assert!(get(plain, &query("GET", coded, "")).is_err());
    // Both at once.
    let both = query("GET", plain, "info=a,b").replace("info=a,b", "info[0]=a&info[1]=b");
    assert!(get(coded, &both).is_ok());
}

proptest! {
    #[test]
    fn no_query_is_too_strange(method: String, path: String, query: String, body: Vec<u8>, now: u64) {
        let now = UnixMillis::new(now);
        let refused = verify(Some("3"), &method, &path, &query, &body, now);
        prop_assert!(refused.is_err());
        let query = format!("auth_key={KEY}&auth_version=1.0&auth_timestamp={}&{query}", now.get() / 1000);
        let refused = verify(Some("3"), &method, &path, &query, &body, now);
        prop_assert!(refused.is_err());
        let _text = refused.unwrap_err().to_string();
    }

    /// Whatever the parameters are, what a client signs as the protocol says is good, in any order and spelling; and
    /// a change of any of them is not.
    #[test]
    fn what_was_signed_is_good_and_nothing_else_is(
        more in proptest::collection::btree_map("[b-z_]{1,9}", "[ -~é&=%+]{0,9}", 0..6),
        path in "/apps/3/[a-z/]{0,20}",
        body in proptest::collection::vec(any::<u8>(), 0..40),
        turn in 0_usize..5,
    ) {
        let mut all = more;
        let digest = hex(&Md5::digest(&body));
        let time = THEN.to_string();
        for (name, value) in
            [("auth_key", KEY), ("auth_timestamp", &time), ("auth_version", "1.0"), ("body_md5", &digest)]
        {
            all.insert(name.to_owned(), value.to_owned());
        }
        let pairs: Vec<_> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let signature = sign(SECRET, format!("POST\n{path}\n{}", pairs.join("&")).as_bytes());
        all.insert("auth_signature".to_owned(), signature);
        let coded = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let mut sent: Vec<_> =
            all.iter().map(|(name, value)| format!("{}={}", coded(name), coded(value))).collect();
        sent.rotate_left(turn);
        let post = |query: &str, body: &[u8]| {
            verify(Some("3"), "POST", &path, query, body, NOW)
        };
        prop_assert_eq!(post(&sent.join("&"), &body), Ok("3".to_owned()));
        let other_body = [&body[..], b"x"].concat();
        prop_assert_eq!(post(&sent.join("&"), &other_body), Err(BadRequestSignature::DigestWrong));
        sent.last_mut().unwrap().push('0');
        prop_assert!(post(&sent.join("&"), &body).is_err());
    }
}
