//! Applications: what they are by default, and which must not start.

use std::time::Duration;

use carillon_model::{Keeping, WebhookEvent};

use super::*;

/// As Pusher draws them.
const HEX: &str = "7ad3773142a6692b25b8";

fn app(id: &str, rest: &str) -> String {
    format!("[[apps]]\nid = {id:?}\n{rest}\n")
}

#[test]
fn an_application_is_what_was_written() {
    let text = app(
        "shop",
        &format!(
            "keys = [\"278d425bdf160c739803:{HEX}\", \"next:{SECRET}:x\"]\nenabled = false\nclient_events = true\n\
             subscription_count = true\nwatchlist = true\nsubscription_errors = false\nmax_connections = 7\n\
             authorize_within = \"10s\"\nevent_data_max = \"64KiB\"\nchannels_per_event = 50\n\
             events_per_batch = 20\nchannel_name_max = 200\npresence_members_max = 500\n\
             presence_member_max = \"2KiB\"\nwatchlist_max = 30\nclient_event_rate = 40\nclock_skew = \"60s\"\n\
             webhooks = [\"https://example.com/a\", \"http://[fd00::1]:81/?b=c\"]\n\
             webhook_events = [\"presence\", \"channel_existence\", \"presence\"]\nwebhook_batch = true"
        ),
    );
    let config = good(&(text + &app("forum", "")));
    let [shop, forum] = config.apps.all() else { panic!("two") };
    assert_eq!((shop.id.as_str(), shop.space.as_str()), ("shop", ""));
    assert_eq!((forum.id.as_str(), forum.space.as_str()), ("forum", "forum"));
    assert_eq!(shop.secret_of("278d425bdf160c739803"), Some(HEX));
    assert_eq!(shop.secret_of("next"), Some(format!("{SECRET}:x").as_str()), "a secret may hold a colon");
    assert_eq!(shop.keys[0].key, "278d425bdf160c739803", "in the operator's order");
    assert!(!shop.enabled && shop.client_events && shop.subscription_count && shop.watchlist);
    assert!(!shop.subscription_errors);
    assert_eq!(shop.connections_max, Some(7));
    assert_eq!(shop.authorize_within, Some(Duration::from_secs(10)));
    let limits = AppLimits {
        event_data_bytes: 65_536,
        channels_per_event: 50,
        events_per_batch: 20,
        channel_name_bytes: 200,
        presence_members: 500,
        presence_member_bytes: 2048,
        watchlist: 30,
        client_events_per_second: 40,
        clock_skew: Duration::from_secs(60),
    };
    assert_eq!(shop.limits, limits);
    let urls: Vec<_> = shop.webhooks.iter().map(|hook| hook.url.as_str()).collect();
    assert_eq!(urls, ["https://example.com/a", "http://[fd00::1]:81/?b=c"]);
    for hook in &shop.webhooks {
        assert_eq!(hook.events, [WebhookEvent::ChannelExistence, WebhookEvent::Presence]);
        assert!(hook.batch);
    }
    assert!(forum.enabled && forum.keys.is_empty() && forum.webhooks.is_empty() && forum.subscription_errors);
    assert_eq!(
        (forum.limits, forum.connections_max, forum.authorize_within),
        (AppLimits::default(), None, None)
    );
    let all = good(&app("shop", "webhooks = [\"http://a\"]"));
    assert_eq!(all.apps.first().webhooks[0].events, WebhookEvent::ALL[..4], "all but the count");
    assert!(!all.apps.first().webhooks[0].batch);
}

#[test]
fn no_secret_of_an_application_is_shown() {
    let config = good(&app("shop", &format!("keys = [\"key:{HEX}\"]")));
    assert!(!format!("{config:?}").contains(HEX));
    for keys in [
        format!("\"key:{HEX}\""),
        format!("[\"key:{HEX}\", 1]"),
        format!("[\"key:{HEX}\", \"{HEX}\"]"),
        format!("[\"key {HEX}:{HEX}\"]"),
        format!("[\"key:{HEX} {HEX}\"]"),
    ] {
        let all = faults(&app("shop", &format!("keys = {keys}")));
        assert!(all.len() == 1 && all[0].starts_with("apps[0].keys   ") && !all[0].contains(HEX), "{all:?}");
    }
}

#[test]
fn applications_do_not_share_ids_or_keys() {
    let one = |id: &str, key: &str| app(id, &format!("keys = [\"{key}:{HEX}\"]"));
    good(&(one("a", "k1") + &one("b", "k2")));
    fault(&(one("a", "k1") + &one("a", "k2")), "apps[1].id = \"a\"", "apps[0] has this id");
    fault(&(one("a", "k1") + &one("b", "k1")), "apps[1].keys   ", "apps[0] has the key `k1`");
    let twice = format!("keys = [\"k:{HEX}\", \"k:{SECRET}\"]");
    fault(&app("a", &twice), "apps[0].keys   ", "apps[0] has the key `k`");
    for id in ["Shop", "shop_1", "ä", "a.b", "a b"] {
        fault(&app(id, ""), "apps[0].id", "1 to 32 characters");
    }
}

#[test]
fn weak_secrets_of_applications_do_not_start() {
    for (key, right) in [
        ("", "each key is written `key:secret`"),
        ("key", "each key is written `key:secret`"),
        (":0123456789abcdef", "a key is 1 to 64"),
        ("a b:0123456789abcdef", "a key is 1 to 64"),
        ("a/b:0123456789abcdef", "a key is 1 to 64"),
        ("key:dev-secret", "the secret of `key`: a secret has at least 16 bytes, this one has 10"),
        ("key:", "the secret of `key`: a secret has at least 16 bytes"),
        ("key:7ad3773142a6692", "a secret has at least 16 bytes, this one has 15"),
        ("key:change-me-change-me-change-me", "this is a sample"),
        ("key:aaaaaaaaaaaaaaaaaaaa", "repeats itself"),
        ("key:0123456701234567", "repeats itself"),
        ("key:7ad3773142a6692b25b8é", "printable ASCII"),
        ("key: 7ad3773142a6692b25b8", "printable ASCII"),
    ] {
        fault(&app("shop", &format!("keys = [{key:?}]")), "apps[0].keys   ", right);
    }
    let long = format!("key:{}", "7ad3773142a6692b25b8".repeat(20));
    fault(&app("shop", &format!("keys = [{long:?}]")), "apps[0].keys   ", "at most 256");
    good(&app("shop", "keys = [\"key:7ad3773142a6692b\"]"));
}

#[test]
fn keys_may_stand_in_a_file() {
    let path = std::env::temp_dir().join(format!("carillon-config-apps-{}", std::process::id()));
    let text = app("shop", &format!("keys_file = {:?}", path.display().to_string()));
    let at = "apps[0].keys_file";
    fault(&text, at, "cannot be read");
    std::fs::write(&path, format!("first:{HEX}\r\n\nsecond:{SECRET}\n")).unwrap();
    let config = good(&text);
    assert_eq!(config.apps.first().secret_of("first"), Some(HEX));
    assert_eq!(config.apps.first().secret_of("second"), Some(SECRET));
    fault(&format!("{text}keys = [\"third:{HEX}\"]"), at, "apps[0].keys is there too; write one of the two");
    for (content, right) in [
        ("\n", "holds no `key:secret`"),
        ("hush-hush", "each key is written"),
        ("k:hush", "at least 16 bytes"),
    ] {
        std::fs::write(&path, content).unwrap();
        fault(&text, at, right);
        assert!(!faults(&text).concat().contains("hush"));
    }
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn an_api_key_is_of_an_application_that_there_is() {
    let key = |id: &str| {
        format!(
            "[[keys]]\nid = {id:?}\nsecret_sha256 = {HASH:?}\nscopes = [\"publish\"]\nchannels = [\"*\"]\n"
        )
    };
    good(&key("shop_web"));
    good(&(key("shop_web") + &key("forum_web") + &app("shop", "") + &app("forum", "")));
    let strange = key("shop_web") + &key("blog_web") + &app("shop", "") + &app("forum", "");
    fault(&strange, "keys[1].id = \"blog_web\"", "there is no application `blog`; there are shop, forum");
}

#[test]
fn backends_of_applications_may_be_on_other_machines() {
    let api = "[api]\nlisten = \"0.0.0.0:8001\"\n";
    good(&format!("{api}{}", app("shop", &format!("keys = [\"key:{HEX}\"]"))));
    fault(&format!("{api}{}", app("shop", "")), "api.listen", "or keys of [[apps]]");
}

#[test]
fn webhooks_have_an_address_and_something_to_tell() {
    let hook = |url: &str| app("shop", &format!("webhooks = [{url:?}]"));
    for url in
        ["https://example.com", "http://127.0.0.1:8080/a/b?c=%20&d", "https://a_b.example./", "http://[::1]/"]
    {
        good(&hook(url));
    }
    for url in [
        "example.com/a",
        "ftp://example.com",
        "HTTPS://example.com",
        "https://",
        "https:///a",
        "https://:80/",
        "https://a:0/",
        "https://a:65536/",
        "https://a:x/",
        "https://a b/",
        "https://a/b c",
        "https://a/#b",
        "https://é.example/",
        "https://[::1/",
    ] {
        fault(&hook(url), "apps[0].webhooks", "each address is https://host/path");
    }
    fault(
        &hook("https://me:hush@example.com/"),
        "apps[0].webhooks   an address holds no name and password",
        "",
    );
    fault(&hook(&format!("https://a/{}", "b".repeat(2048))), "apps[0].webhooks", "at most 2048 bytes");
    let told = app("shop", "webhook_events = [\"presence\", \"channels\"]");
    fault(
        &told,
        "apps[0].webhook_events",
        "`channels` is nothing that is told; there are channel_existence, presence",
    );
}

#[test]
fn networks_are_read() {
    let egress = |networks: &str| format!("[webhooks]\negress = [{networks}]");
    let config = good(&egress("\"10.1.0.0/16\", \"127.0.0.1/32\", \"fd00::/8\", \"0.0.0.0/0\", \"::1/128\""));
    let read: Vec<_> = config
        .webhooks
        .egress
        .iter()
        .map(|network| format!("{}/{}", network.address, network.bits))
        .collect();
    assert_eq!(read, ["10.1.0.0/16", "127.0.0.1/32", "fd00::/8", "0.0.0.0/0", "::1/128"]);
    for bad in [
        "10.1.0.0",
        "10.1.0.0/33",
        "::/129",
        "10.1/16",
        "a/8",
        "10.0.0.0/",
        "10.0.0.0/-1",
        "/8",
        "10.0.0.0/8/8",
    ] {
        fault(
            &egress(&format!("{bad:?}")),
            "webhooks.egress",
            "is no network; write an address and its bits",
        );
    }
    for beyond in ["10.1.0.0/8", "127.0.0.1/31", "fd00::1/8", "1.0.0.0/0"] {
        fault(&egress(&format!("{beyond:?}")), "webhooks.egress", "its address goes beyond its");
    }
}

#[test]
fn a_webhook_that_is_never_sent_is_warned_of() {
    let warnings = |url: &str, egress: &str| {
        let networks = format!("[webhooks]\negress = [{egress}]\n");
        let networks = if egress.is_empty() { "" } else { &networks };
        good(&format!("{}{networks}", app("shop", &format!("webhooks = [{url:?}]")))).warnings()
    };
    for (url, host, network) in [
        ("http://127.0.0.1:8080/a?b", "127.0.0.1", "127.0.0.1/32"),
        ("https://10.1.2.3", "10.1.2.3", "10.1.2.3/32"),
        ("http://[fd00::1]:81/?b=c", "fd00::1", "fd00::1/128"),
        ("http://[::ffff:10.0.0.1]/", "::ffff:10.0.0.1", "10.0.0.1/32"),
        ("http://LocalHost:3000/hook", "LocalHost", "127.0.0.1/32"),
        ("http://169.254.169.254?a", "169.254.169.254", "169.254.169.254/32"),
    ] {
        let told = format!(
            "a webhook of the application `shop` leads to `{host}`, which is not in the Internet, and is never \
             sent; to allow it, add \"{network}\" to `egress` under [webhooks]"
        );
        assert_eq!(warnings(url, ""), [told.as_str()]);
        assert_eq!(warnings(url, "\"192.168.0.0/16\""), [told]);
        assert_eq!(warnings(url, &format!("{network:?}")), [""; 0]);
    }
    // What a name leads to is known when it is called.
    for url in ["https://shop.example/hook", "http://backend:8080/", "https://1.1.1.1/"] {
        assert_eq!(warnings(url, ""), [""; 0]);
    }
    assert_eq!(warnings("http://localhost/", "\"::1/128\""), [""; 0], "one of its addresses is enough");
}

#[test]
fn cache_channels_are_kept_where_somebody_can_join_them() {
    let cached = |text: &str| {
        let config = good(text);
        let keeping = config.channels.keeping(&ChannelName::new("cache-news").unwrap()).cloned();
        (keeping, config.classes_in_use())
    };
    let with_keys = app("shop", &format!("keys = [\"key:{HEX}\"]"));
    let (keeping, classes) = cached(&with_keys);
    assert!(matches!(keeping, Some(Keeping::Durable(class)) if class.as_str() == "cache"));
    let [class] = classes.as_slice() else { panic!("{classes:?}") };
    assert_eq!((class.max_messages, class.max_age.as_secs(), class.max_bytes), (1, 1800, 64 << 20));
    let (_, classes) = cached(&format!("{with_keys}[history.cache]\nmax_age = \"5m\""));
    assert_eq!(classes[0].max_age.as_secs(), 300, "the operator may change it");
    for without in ["", &app("shop", "")] {
        assert_eq!(cached(without), (Some(Keeping::Live), Vec::new()));
    }
    // Nothing is created where every rule keeps.
    let kept = load(&format!("{with_keys}{RULE}history = \"short\""), &[]).unwrap();
    assert_eq!(kept.classes_in_use().len(), 1);
}
