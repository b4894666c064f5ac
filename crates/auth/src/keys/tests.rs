#![expect(clippy::disallowed_methods, reason = "a test has no other clock")]

use std::time::{Duration, Instant};

use super::*;

fn id(text: &str) -> KeyId {
    KeyId::new("main", text).unwrap()
}

fn ring(records: Vec<KeyRecord>) -> KeyRing {
    KeyRing::new(records).unwrap()
}

fn record(name: &str, fresh: &FreshKey) -> KeyRecord {
    KeyRecord {
        id: id(name),
        secret: fresh.secret,
        scopes: [Scope::Publish].into(),
        channels: vec![ChannelPattern::new("orders.*").unwrap()],
        publishes_per_second: None,
    }
}

fn channel(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

#[test]
fn a_fresh_key_is_found_by_its_text_and_only_by_it() {
    let (web, cron) = (generate(&id("web")).unwrap(), generate(&id("cron")).unwrap());
    let ring = ring(vec![record("web", &web), record("cron", &cron)]);
    for (fresh, name) in [(&web, "main_web"), (&cron, "main_cron")] {
        assert_eq!(ring.find(&fresh.text).unwrap().id().to_string(), name);
        assert!(fresh.text.starts_with("crl_main_"), "{}", fresh.text);
        assert_eq!(fresh.text.rsplit_once('_').unwrap().1.len(), 43);
    }
    // The secret of one under the id of the other.
    let mixed = format!("crl_main_cron_{}", web.text.rsplit_once('_').unwrap().1);
    assert_eq!(ring.find(&mixed).unwrap_err(), KeyError::Unknown);
    let unknown = web.text.replace("_web_", "_nobody_");
    assert_eq!(ring.find(&unknown).unwrap_err(), KeyError::Unknown);
}

#[test]
fn the_hash_is_that_of_the_secret_part_alone() {
    let secret = "a".repeat(43);
    // printf %s aaa… | sha256sum
    let hex = "66d34fba71f8f450f7e45598853e53bfc23bbd129027cbb131a2f4ffd7878cd0";
    let hash = SecretHash::of(&secret);
    assert_eq!(hash.to_string(), hex);
    assert_eq!(SecretHash::from_hex(&hash.to_string()), Ok(hash));
    assert_eq!(SecretHash::from_hex(&hash.to_string().to_uppercase()), Ok(hash));
    let ring = ring(vec![KeyRecord {
        id: id("web"),
        secret: SecretHash::from_hex(&hash.to_string()).unwrap(),
        scopes: BTreeSet::new(),
        channels: Vec::new(),
        publishes_per_second: None,
    }]);
    assert!(ring.find(&format!("crl_main_web_{secret}")).is_ok());
    for bad in ["", "ab", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65), &"é".repeat(32)] {
        assert!(SecretHash::from_hex(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn what_is_no_key_is_told_apart_from_a_wrong_one() {
    let fresh = generate(&id("web")).unwrap();
    let ring = ring(vec![record("web", &fresh)]);
    let bearer = format!("Bearer {}", fresh.text);
    assert!(ring.authorize(Some(bearer.as_bytes())).is_ok());
    assert!(ring.authorize(Some(bearer.replacen("Bearer", "bearer", 1).as_bytes())).is_ok());
    assert_eq!(ring.authorize(None).unwrap_err(), KeyError::Missing);
    let basic = format!("Basic {}", fresh.text);
    let short = bearer.get(..bearer.len() - 1).unwrap();
    let words: [&[u8]; 10] = [
        b"",
        b"Bearer",
        b"Bearer ",
        fresh.text.as_bytes(),
        basic.as_bytes(),
        short.as_bytes(),
        b"Bearer \xff\xfe",
        b"Bearer crl___",
        b"Bearer crl_main_web_",
        b"Bearer dev",
    ];
    for header in words {
        assert_eq!(ring.authorize(Some(header)).unwrap_err(), KeyError::Malformed, "{header:?}");
    }
}

#[test]
fn nothing_is_allowed_unless_the_record_says_so() {
    let fresh = generate(&id("web")).unwrap();
    let ring = ring(vec![record("web", &fresh)]);
    let key = ring.find(&fresh.text).unwrap();
    assert_eq!(key.allows(Scope::Publish, &channel("orders.7")), Ok(()));
    assert_eq!(
        key.allows(Scope::Publish, &channel("news")),
        Err(Denied::Channel { key: id("web"), channel: channel("news") })
    );
    for scope in [Scope::Read, Scope::Disconnect, Scope::Admin] {
        assert_eq!(
            key.allows(scope, &channel("orders.7")),
            Err(Denied::Scope { key: id("web"), scope }),
            "{scope:?}"
        );
    }
}

#[test]
fn the_dev_ring_takes_the_word_dev_and_nothing_else() {
    let ring = KeyRing::dev();
    let key = ring.authorize(Some(b"Bearer dev")).unwrap();
    for scope in Scope::ALL {
        assert_eq!(key.allows(scope, &channel("anything")), Ok(()));
    }
    assert_eq!(ring.find("DEV").unwrap_err(), KeyError::Malformed);
    let real = format!("Bearer {}", generate(&id("web")).unwrap().text);
    for header in [None, Some("Bearer DEV"), Some("Basic YTpi"), Some(&*real)] {
        let error = ring.authorize(header.map(str::as_bytes)).unwrap_err();
        assert_eq!(error, KeyError::Development, "{header:?}");
        assert!(error.to_string().contains("the API key is `dev`"), "{error}");
    }
}

#[test]
fn two_records_cannot_share_an_id() {
    let fresh = generate(&id("web")).unwrap();
    let twice = vec![record("web", &fresh), record("web", &fresh)];
    assert_eq!(KeyRing::new(twice).unwrap_err(), SameId(id("web")));
    for (app, key) in [("", "a"), ("a", ""), ("A", "a"), ("a", "a_b"), ("a", &"x".repeat(33))] {
        assert!(KeyId::new(app, key).is_err(), "{app:?} {key:?}");
    }
}

#[test]
fn no_debug_text_shows_a_secret_or_its_hash() {
    let fresh = generate(&id("web")).unwrap();
    let secret = fresh.text.rsplit_once('_').unwrap().1.to_owned();
    let ring = ring(vec![record("web", &fresh)]);
    let shown = format!("{fresh:?} {ring:?} {:?}", fresh.secret);
    assert!(!shown.contains(&secret), "{shown}");
    assert!(!shown.contains(&fresh.secret.to_string()), "{shown}");
}

#[test]
fn the_rate_allows_a_burst_of_one_second_and_refills() {
    let fresh = generate(&id("web")).unwrap();
    let limited = KeyRecord { publishes_per_second: NonZeroU32::new(10), ..record("web", &fresh) };
    let ring = ring(vec![limited]);
    let key = ring.find(&fresh.text).unwrap();
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(key.take(start), Ok(()));
    }
    assert_eq!(key.take(start), Err(TooFast { wait: Duration::from_millis(100) }));
    assert_eq!(key.take(start + Duration::from_millis(100)), Ok(()));
    assert!(key.take(start + Duration::from_millis(100)).is_err());
    // A pause never saves up more than one second's worth.
    let later = start + Duration::from_hours(1);
    assert_eq!((0..20).filter(|_| key.take(later).is_ok()).count(), 10);
}

#[test]
fn a_batch_larger_than_the_rate_passes_once_and_is_paid_off() {
    let fresh = generate(&id("web")).unwrap();
    let limited = KeyRecord { publishes_per_second: NonZeroU32::new(10), ..record("web", &fresh) };
    let ring = ring(vec![limited]);
    let key = ring.find(&fresh.text).unwrap();
    let start = Instant::now();
    assert_eq!(key.take(start), Ok(()));
    key.charge(99, start);
    assert_eq!(key.take(start), Err(TooFast { wait: Duration::from_millis(9_100) }));
    assert_eq!(key.take(start + Duration::from_millis(9_100)), Ok(()));
}
