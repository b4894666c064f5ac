//! The command line against real nodes: what is said when something is not as it should be.

use std::process::Command;

use carillon_tests::{
    client::Client,
    gateway::{self, Gateway, run},
    process::Process,
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
