use carillon_model::{AppKey, AppSpace};
use proptest::prelude::*;

use super::*;

const KEY: &str = "278d425bdf160c739803";
const SECRET: &str = "7ad3773142a6692b25b8";

fn app() -> App {
    let key = |key: &str, secret: &str| AppKey { key: key.to_owned(), secret: secret.to_owned() };
    let keys = vec![key("older", "another secret"), key(KEY, SECRET)];
    App { keys, ..App::bare("3", AppSpace::default()) }
}

#[test]
fn the_protocols_own_examples_are_signed_alike() {
    let data = |name| format!(r#"{{"user_id":10,"user_info":{{"name":"{name}"}}}}"#);
    for (text, signature) in [
        (
            channel_text("1234.1234", "private-foobar", None),
            "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4",
        ),
        (
            channel_text("1234.1234", "presence-foobar", Some(&data("Mr. Pusher"))),
            "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c",
        ),
        (
            channel_text("1234.1234", "presence-foobar", Some(&data("Mr. Channels"))),
            "31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80",
        ),
        (
            user_text("1234.1234", r#"{"id":"12345"}"#),
            "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba",
        ),
    ] {
        assert_eq!(sign(SECRET, text.as_bytes()), signature, "{text}");
        assert_eq!(verify_auth(&app(), &format!("{KEY}:{signature}"), &text), Ok(()));
    }
    assert_eq!(
        channel_signature(SECRET, "1234.1234", "presence-foobar", Some(&data("Mr. Pusher"))),
        "afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c"
    );
}

#[test]
fn every_key_of_the_application_signs_and_no_other() {
    let text = channel_text("1.2", "private-a", None);
    let auth = |key: &str, secret: &str| format!("{key}:{}", sign(secret, text.as_bytes()));
    assert_eq!(verify_auth(&app(), &auth(KEY, SECRET), &text), Ok(()));
    assert_eq!(verify_auth(&app(), &auth("older", "another secret"), &text), Ok(()));
    // A key with the secret of another.
    assert!(matches!(verify_auth(&app(), &auth("older", SECRET), &text), Err(BadAuth::Signature { .. })));
    assert_eq!(verify_auth(&app(), &auth("new", SECRET), &text), Err(BadAuth::Key { key: "new".to_owned() }));
}

#[test]
fn a_secret_in_the_place_of_a_key_is_not_shown() {
    let apps = Apps::new(vec![app()]);
    for (key, shown) in [("", ""), ("dev-keys", "dev-keys"), ("dev-keys2", "dev-keys…"), (KEY, "278d425b…")]
    {
        assert_eq!(shown_key(&apps, key), shown);
    }
    // As it stands in the configuration, with what a copy brings along, and a key of the publish API.
    for other in
        [&format!("{KEY}:{SECRET}"), &format!("{SECRET} "), &format!("{SECRET}%0a"), "crl_main_x_abc", "ключ"]
    {
        assert_eq!(shown_key(&apps, other), "(no application's key looks like it)");
    }
    for secret in [SECRET, "another secret"] {
        assert_eq!(shown_key(&apps, secret), "(a secret, which is no key)");
    }
}

#[test]
fn a_bad_auth_is_refused_with_the_protocols_words() {
    let text = channel_text("1.2", "private-a", Some("{}"));
    let refused = |auth: &str| verify_auth(&app(), auth, &text).unwrap_err().to_string();
    assert_eq!(refused(""), "Invalid format: auth must have the format key:signature");
    assert_eq!(refused("abc"), "Invalid format: auth must have the format key:signature");
    assert_eq!(refused(":abc"), "Invalid key in subscription auth data: ''");
    assert_eq!(refused("k:a:b"), "Invalid key in subscription auth data: 'k'");
    assert_eq!(
        refused(&format!("{KEY}:a:b")),
        "Invalid signature: Expected HMAC SHA256 hex digest of 1.2:private-a:{}, but got a:b"
    );
    let right = sign(SECRET, text.as_bytes());
    for wrong in [
        right.to_uppercase(),
        format!("{right} "),
        format!("{right}00"),
        String::new(),
        right.chars().take(63).collect(),
    ] {
        assert!(
            refused(&format!("{KEY}:{wrong}")).ends_with(&format!("of {text}, but got {wrong}")),
            "{wrong}"
        );
    }
}

#[test]
fn what_a_client_sends_comes_back_cut() {
    let long = "é".repeat(100_000);
    for auth in [format!("{long}:x"), format!("{KEY}:{long}")] {
        let refused = verify_auth(&app(), &auth, &long).unwrap_err().to_string();
        assert!(refused.chars().count() < 5000, "{}", refused.len());
    }
}

#[test]
fn a_socket_id_is_read_as_it_was_written() {
    for (text, bits) in
        [("0.0", Some(0)), ("1.2", Some(1 << 32 | 2)), ("4294967295.4294967295", Some(u64::MAX))]
    {
        assert_eq!(read_socket_id(text), Ok(bits.map(ConnectionId::from_bits)), "{text}");
    }
    // Of the right shape, and nobody's.
    for text in ["4294967296.1", "1.4294967296", "01.1", "1.00", &format!("{0}.{0}", "9".repeat(10_000))] {
        assert_eq!(read_socket_id(text), Ok(None), "{text:.40}");
    }
    for text in ["", ".", "1", "1.", ".1", "1.2.3", "1,2", "-1.2", "+1.2", "1.2\n", " 1.2", "1.x", "١.٢"] {
        assert!(read_socket_id(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn every_connection_has_a_socket_id_of_its_own(bits: u64) {
        let id = ConnectionId::from_bits(bits);
        prop_assert_eq!(read_socket_id(&socket_id(id)), Ok(Some(id)));
    }

    #[test]
    fn no_text_is_too_strange_for_an_auth(auth: String, signed: String) {
        prop_assert!(verify_auth(&app(), &auth, &signed).is_err());
        let _any = read_socket_id(&auth);
        let good = format!("{KEY}:{}", sign(SECRET, signed.as_bytes()));
        prop_assert_eq!(verify_auth(&app(), &good, &signed), Ok(()));
    }
}
