//! The command line against real nodes: what is said when something is not as it should be.

use std::process::Command;

use carillon_tasks::clock;
use carillon_tests::{
    client::Client,
    gateway::{self, Gateway, run},
    process::Process,
    pusher::{App, Socket, path},
    raw::eventually,
};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

/// Only root may listen there, and nobody does.
const NOBODY: &str = "127.0.0.1:1";

/// A node where one channel asks for a token, one is open, and there is no rule for the rest.
const GUARDED: &str = "[auth]\ntoken_secret = \"k8Zr2vQxTn4LwYb6HsJd9MfPcGa3EuWi\"\naudience = \"carillon\"\n\
    [node]\ndrain = \"0s\"\n\
    [[channels]]\nname = \"orders\"\nmatch = \"orders.*\"\n\
    [[channels]]\nname = \"news\"\nmatch = \"news\"\nauth = \"public\"\n";

#[test]
fn a_port_that_is_none_is_never_another_one() {
    for (arguments, says) in [
        (
            &["publish", "news", "1", "--api", "http://127.0.0.1:80010"][..],
            "http://127.0.0.1:80010/v1/publish",
        ),
        (&["healthcheck", "--admin", "http://127.0.0.1:90000"], "http://127.0.0.1:90000/livez"),
        (&["tail", "news", "--url", "ws://127.0.0.1:80000"], "ws://127.0.0.1:80000/v1/ws"),
    ] {
        let (code, said, complained) = run(arguments, &[]);
        let expected = format!("carillon: the port of `{says}` is not a number from 0 to 65535\n");
        assert_eq!((code, said.as_str(), complained), (Some(1), "", expected));
    }
}

#[test]
fn a_key_of_the_environment_is_used_unless_one_is_given() {
    let gateway = Gateway::dev(&[]);
    let api = format!("http://{}", gateway.api);
    let publish = |arguments: &[&str], key: &str| {
        let (code, _, complained) =
            run(&[&["publish", "news", "1", "--api", &api], arguments].concat(), &[("CARILLON_KEY", key)]);
        assert_eq!(code == Some(1), complained.contains("unauthorized"), "{complained}");
        code
    };
    assert_eq!(publish(&[], "dev"), Some(0));
    assert_eq!(publish(&[], "wrong"), Some(1));
    assert_eq!(publish(&["--key", "dev"], "wrong"), Some(0));
    assert_eq!(publish(&["--key", "wrong"], "dev"), Some(1));
    let (_, help, _) = run(&["publish", "--help"], &[("CARILLON_KEY", "hush")]);
    assert!(help.contains("CARILLON_KEY") && !help.contains("hush"), "{help}");
}

#[test]
fn tail_ends_when_every_channel_is_refused() {
    let gateway = Gateway::serve(GUARDED);
    let url = format!("ws://{}", gateway.public);
    let (code, said, complained) = run(&["tail", "orders.7", "nowhere", "a b", "--url", &url], &[]);
    assert_eq!(code, Some(1));
    for channel in ["orders.7", "nowhere", "a b"] {
        assert!(said.contains(&format!(r#""channel":"{channel}""#)), "{said}");
    }
    assert_eq!(complained, "carillon: no channel is left to listen to\n");

    let mut tail = Process::start(
        Command::new(gateway::binary()).args(["tail", "a b", "orders.7", "news", "--url", &url]),
    );
    let _granted = tail.says(r#""type":"subscribed","channel":"news""#);
    assert!(!tail.has_ended());
    drop(gateway);
    let (status, _, complained) = tail.ended();
    assert_eq!(status.code(), Some(1));
    assert!(!complained.contains("no channel is left"), "{complained}");
}

#[test]
fn tail_says_what_is_wrong_with_its_url() {
    let gateway = Gateway::dev(&[]);
    let elsewhere =
        "is another listener (HTTP 404): clients connect to the public listener (port 8000 by default)";
    for (url, says) in [
        (format!("ws://{}", gateway.api), elsewhere),
        (format!("ws://{}", gateway.admin), elsewhere),
        (format!("http://{}", gateway.public), "must begin with ws:// — this command speaks no TLS"),
        (format!("wss://{}", gateway.public), "must begin with ws:// — this command speaks no TLS"),
        (format!("ws://{NOBODY}"), "nobody answers at 127.0.0.1:1: "),
    ] {
        let (code, said, complained) = run(&["tail", "news", "--url", &url], &[]);
        assert!(code == Some(1) && said.is_empty() && complained.contains(says), "{url}: {complained}");
        assert!(complained.matches("Connection refused").count() <= 1, "{complained}");
    }
}

#[test]
fn an_address_that_is_taken_comes_with_what_to_do() {
    let other = Gateway::dev(&[]);
    let (code, _, complained) =
        run(&["dev", "--public", &other.public.to_string(), "--api", "0", "--admin", "0"], &[]);
    assert_eq!(code, Some(1));
    let advice = "Another carillon may be running: stop it, or choose another address with `public.listen` (`carillon dev`: --public)";
    assert!(complained.contains(advice), "{complained}");
}

#[test]
fn a_hash_of_an_example_is_warned_of() {
    let config = |hash: &str| {
        gateway::ConfigFile::new(&format!(
            "[[keys]]\nid = \"main_shop\"\nsecret_sha256 = \"{hash}\"\nscopes = [\"publish\"]\nchannels = [\"*\"]\n\
             [[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n"
        ))
    };
    for (hash, warned) in [("0".repeat(64), true), ("F".repeat(64), true), ("0f".repeat(32), false)] {
        let file = config(&hash);
        let (code, said, complained) = run(&["check", "--config", file.path().to_str().unwrap()], &[]);
        assert_eq!((code, said.trim()), (Some(0), "the configuration is good"), "{complained}");
        let warning = "carillon: warning: the secret_sha256 of the key `main_shop` is an example";
        assert_eq!(complained.starts_with(warning), warned, "{complained}");
    }
    let gateway = Gateway::serve(&std::fs::read_to_string(config(&"0".repeat(64)).path()).unwrap());
    assert!(gateway.logged("is an example").contains("WARN"));
}

#[test]
fn a_key_of_an_application_is_let_in_by_the_lines_that_it_comes_with() {
    let (code, said, complained) = run(&["key", "new", "--app", "forum", "--id", "web"], &[]);
    assert_eq!((code, complained.as_str()), (Some(0), ""));
    let (key, lines) = said.split_once("\n\n").expect("the key comes first");
    let lines = &lines[lines.find("[[keys]]").expect("then its lines")..];
    assert!(key.starts_with("crl_forum_web_") && lines.contains("\nid = \"forum_web\"\n"), "{said}");
    let gateway = Gateway::serve(&format!(
        "[[apps]]\nid = \"shop\"\n[[apps]]\nid = \"forum\"\n{lines}\n\
         [[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n"
    ));
    let (code, _, complained) =
        run(&["publish", "news", "1", "--api", &format!("http://{}", gateway.api), "--key", key], &[]);
    assert_eq!((code, complained.as_str()), (Some(0), ""));

    let (code, said, complained) = run(&["key", "new", "--app", "The Shop"], &[]);
    assert_eq!((code, said.as_str()), (Some(1), ""));
    assert!(
        complained.contains("an application's name has 1 to 32 characters of a-z, 0-9 and `-`"),
        "{complained}"
    );
    let (_, said, _) = run(&["key", "new"], &[]);
    assert!(said.starts_with("crl_main_backend_"), "{said}");
}

#[tokio::test]
async fn a_webhook_to_an_address_that_is_not_allowed_is_told_at_once_and_once() {
    let app = "[[apps]]\nid = \"shop\"\nkeys = [\"a1b2c3d4e5f6:0f1e2d3c4b5a69788796\"]\n\
               webhooks = [\"http://127.0.0.1:9/hook\"]\n\
               [[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n[node]\ndrain = \"0s\"\n";
    let file = gateway::ConfigFile::new(app);
    let (code, said, complained) = run(&["check", "--config", file.path().to_str().unwrap()], &[]);
    assert_eq!((code, said.trim()), (Some(0), "the configuration is good"));
    let advice = "add \"127.0.0.1/32\" to `egress` under [webhooks]";
    assert!(
        complained.starts_with("carillon: warning: a webhook") && complained.contains(advice),
        "{complained}"
    );

    let gateway = Gateway::serve(app);
    assert!(gateway.logged("never sent").contains("WARN"));
    let shop = App { id: "shop", key: "a1b2c3d4e5f6", secret: "0f1e2d3c4b5a69788796" };
    let mut socket = Socket::open(gateway.public, &shop).await;
    socket.subscribe("one").await;
    let told = gateway.logged("webhooks fail; still trying");
    assert!(told.contains("WARN") && told.contains("not allowed by `webhooks.egress`"), "{told}");
    socket.subscribe("two").await;
    let refused = "carillon_webhook_requests_total{result=\"forbidden\"}";
    let more = async || (gateway.metric(refused).await >= 3.0).then_some(());
    eventually("the next attempts", more).await;
    assert_eq!(gateway.log().matches("webhooks fail").count(), 1, "{}", gateway.log());
}

#[tokio::test]
async fn the_log_says_which_check_a_token_failed() {
    let gateway = Gateway::serve(GUARDED);
    let token = |audience: &str, secret: &[u8]| {
        let claims =
            json!({"sub": "ana", "exp": 4_000_000_000_u64, "aud": audience, "channels": ["orders.*"]});
        jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret)).unwrap()
    };
    let ours = b"k8Zr2vQxTn4LwYb6HsJd9MfPcGa3EuWi";
    for (token, reason) in [
        (token("carillon", b"another secret"), "it is not signed with auth.token_secret"),
        (token("other", ours), "its `aud` does not contain auth.audience"),
        ("no-token".to_owned(), "it is no JWT"),
    ] {
        let mut client = Client::connect(&gateway.ws(&format!("token={token}"))).await;
        assert_eq!(client.frame().await["type"], "welcome");
        let refused = client.frame().await;
        assert_eq!(
            (&refused["error"], &refused["message"]),
            (&json!("unauthorized"), &json!("the token is not valid here"))
        );
        assert!(gateway.logged(reason).contains("a token was refused"));
        assert!(!gateway.log().contains(&token));
    }
}

/// JavaScript's `Date.now()` in the place of seconds would be good for 50,000 years.
#[tokio::test]
async fn a_token_that_ends_in_milliseconds_is_refused_with_the_reason() {
    let gateway = Gateway::serve(GUARDED);
    let claims =
        json!({"sub": "ana", "exp": 1_795_205_265_123_u64, "aud": "carillon", "channels": ["orders.*"]});
    let key = EncodingKey::from_secret(b"k8Zr2vQxTn4LwYb6HsJd9MfPcGa3EuWi");
    let token = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
    let mut client = Client::connect(&gateway.ws(&format!("token={token}"))).await;
    assert_eq!(client.frame().await["type"], "welcome");
    let refused = client.frame().await;
    let message = "the token's time (`exp`) is in seconds since 1970; this looks like milliseconds";
    assert_eq!((&refused["error"], &refused["message"]), (&json!("unauthorized"), &json!(message)));
    assert!(gateway.logged("in milliseconds, not in seconds").contains("a token was refused"));
}

#[tokio::test]
async fn the_log_says_which_pusher_key_and_signature_was_refused() {
    let gateway = Gateway::serve(
        "[[apps]]\nid = \"shop\"\nkeys = [\"a1b2c3d4e5f6:0f1e2d3c4b5a69788796\"]\n[node]\ndrain = \"0s\"\n\
         [[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n",
    );
    let shop = App { id: "shop", key: "a1b2c3d4e5f6", secret: "0f1e2d3c4b5a69788796" };
    let typo = App { key: "a1b2c3d4e5f7", ..shop };
    let thief = App { secret: "a-secret-that-is-not-it", ..shop };
    let refused = async |series: &str| gateway.metric(series).await;

    let mut stranger = Socket::connect(gateway.public, &typo, &path(typo.key)).await;
    assert_eq!(stranger.closed().await.0, 4001);
    let line = gateway.logged("\"unknown app key\"");
    assert!(line.contains("\"key\":\"a1b2c3d4…\"") && line.contains("INFO"), "{line}");
    let denied = r#"carillon_connections_rejected_total{transport="websocket",reason="denied"}"#;
    assert_eq!(refused(denied).await, 1.0);

    let event = json!({"name": "x", "channel": "news", "data": "1"});
    assert_eq!(gateway.rest(&typo).post("/events", &event).await.status, 401);
    let line = gateway.logged("a request of a backend was refused");
    assert!(line.contains("unknown app key") && line.contains("\"key\":\"a1b2c3d4…\""), "{line}");
    assert_eq!(gateway.rest(&thief).post("/events", &event).await.status, 401);
    assert!(gateway.logged("with the key's secret\"").contains("a request of a backend was refused"));

    let mut socket = Socket::open(gateway.public, &shop).await;
    let auth = thief.auth(socket.id(), "private-a", None);
    socket.say("pusher:subscribe", &json!({"channel": "private-a", "auth": auth})).await;
    let _error = socket.error().await;
    let line = gateway.logged("or for another connection");
    assert!(
        line.contains("\"app\":\"shop\"") && line.contains("what a Pusher client showed was refused"),
        "{line}"
    );
    let (_, signature) = auth.split_once(':').expect("a signature");
    assert!(!gateway.log().contains(signature) && !gateway.log().contains(shop.secret), "{}", gateway.log());
    let invalid = r#"carillon_auth_total{method="signature",result="invalid"}"#;
    assert_eq!(refused(invalid).await, 3.0);

    // Whoever has changed places of key and secret does not find the secret in the log.
    let swapped = App { key: shop.secret, secret: shop.key, ..shop };
    assert_eq!(gateway.rest(&swapped).post("/events", &event).await.status, 401);
    let quiet = "(a secret, which is no key)";
    eventually("the line about the secret", async || {
        let mut stranger = Socket::connect(gateway.public, &swapped, &path(swapped.key)).await;
        assert_eq!(stranger.closed().await.0, 4001);
        gateway.log().contains(quiet).then_some(())
    })
    .await;
    assert!(!gateway.log().contains(shop.secret), "{}", gateway.log());

    // Who tries again and again does not fill the log.
    let lines = gateway.log().matches("unknown app key").count();
    let began = clock::now();
    for _ in 0..50 {
        let mut stranger = Socket::connect(gateway.public, &typo, &path(typo.key)).await;
        assert_eq!(stranger.closed().await.0, 4001);
    }
    let more = gateway.log().matches("unknown app key").count() - lines;
    assert!(more as u64 <= began.elapsed().as_secs() + 2, "{more} lines");
}

#[test]
fn a_nats_that_cannot_be_reached_is_named() {
    let gateway = Gateway::dev(&[
        ("CARILLON__BROKER__KIND", "nats"),
        ("CARILLON__BROKER__NATS__SERVERS", &format!("nats://{NOBODY},nats://[::1]:1")),
        ("CARILLON__BROKER__NATS__REPLICAS", "1"),
    ]);
    let line = gateway.logged("NATS cannot be reached; still trying");
    assert!(line.contains(r#""servers":"127.0.0.1:1, [::1]:1""#), "{line}");
}

#[test]
fn too_few_descriptors_are_told_where_they_matter() {
    let first_line = |descriptors: &str, environment: &[(&str, &str)]| {
        let limited = r#"ulimit -n "$0" && exec "$@""#;
        let mut command = Command::new("sh");
        command.args(["-c", limited, descriptors]).arg(gateway::binary());
        command.args(["dev", "--public", "0", "--api", "0", "--admin", "0"]);
        let node =
            Process::start(command.env("CARILLON__LOG__FORMAT", "json").envs(environment.iter().copied()));
        node.complains("{")
    };
    assert!(first_line("4000", &[]).contains("\"listening\""), "nobody asked for the default");
    let wanted = [("CARILLON__PUBLIC__MAX_CONNECTIONS", "50000")];
    let told = first_line("4000", &wanted);
    assert!(
        told.contains("fewer clients fit") && told.contains("INFO") && told.contains("\"room\":2000"),
        "{told}"
    );
    let told = first_line("800", &[]);
    assert!(
        told.contains("fewer clients fit") && told.contains("WARN") && told.contains("\"room\":400"),
        "{told}"
    );
}
