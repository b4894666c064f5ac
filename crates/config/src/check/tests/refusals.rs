//! What sections say of each other: configurations that must not start.

use std::path::Path;

use carillon_model::Keeping;

use super::*;
use crate::config::NatsCredentials;

#[test]
fn what_is_open_to_strangers_does_not_start() {
    fault("[admin]\nlisten = \"0.0.0.0:9000\"", "admin.listen", "admin.exposed = true");
    fault("[api]\nlisten = \"[::]:8001\"", "api.listen", "add [[keys]]");
    good("[admin]\nlisten = \"0.0.0.0:9000\"\nexposed = true");
    good(&format!("[api]\nlisten = \"0.0.0.0:8001\"\n{}", key("shop_web")));
    fault("[api]\nlisten = \"127.0.0.1:8000\"", "api.listen", "public.listen has this port already");
    good("[public]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"");
    good("[public]\nlisten = \"127.0.0.2:8000\"\n[api]\nlisten = \"127.0.0.1:8000\"");
}

fn key(id: &str) -> String {
    format!(
        "[[keys]]\nid = {id:?}\nsecret_sha256 = {HASH:?}\nscopes = [\"publish\"]\nchannels = [\"orders.*\"]\n"
    )
}

#[test]
fn keys_are_read_and_never_shown() {
    let config = good(&(key("shop_web") + &key("shop_cron")));
    assert_eq!((config.keys.len(), config.keys[0].id.to_string().as_str()), (2, "shop_web"));
    assert!(!format!("{config:?}").contains("0011"));
    fault(&(key("shop_web") + &key("shop_web")), "keys[1].id = \"shop_web\"", "keys[0] has this id");
    fault(&key("web"), "keys[0].id", "must be an application and a key id");
    fault(&key("crl_shop_web_hush"), "keys[0].id   must be", "");
    fault(&key("shop_Web"), "keys[0].id", "1 to 32 characters");
    fault(
        &key("shop_web").replace(HASH, "crl_shop_web_hush"),
        "keys[0].secret_sha256   a key's sha256 is",
        "64",
    );
    fault(
        &key("shop_web").replace("\"publish\"", "\"publish\", \"all\""),
        "keys[0].scopes",
        "`all` is no scope",
    );
    fault(
        &key("shop_web").replace("orders.*", "orders.>"),
        "keys[0].channels",
        "no channel name contains '>'",
    );
    fault(&(key("shop_web") + "rate = 0"), "keys[0].rate = 0", "from 1 to 1000000");
    assert_eq!(faults("[[keys]]").len(), 4);
}

#[test]
fn weak_token_secrets_do_not_start() {
    for (secret, right) in [
        ("secret", "this is a sample"),
        ("changeme", "this is a sample"),
        ("please-CHANGE-ME-please-change-it-now-1234", "this is a sample"),
        ("a-string-secret-at-least-256-bits-long", "this is a sample"),
        ("k8Zr2vQxTn4LwYb6HsJd9MfPcGa3EuW", "at least 32 bytes, this one has 31"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repeats itself"),
        ("0123456789abcdef0123456789abcdef", "repeats itself"),
        ("abcdefgabdcfeabecdgabedcacfbdeacbedgacdb", "repeats itself"),
        ("0123456789abc0123456789abc0123456789abc01234", "repeats itself"),
    ] {
        let text = format!("[auth]\ntoken_secret = {secret:?}");
        fault(&text, "auth.token_secret   ", right);
        assert!(!faults(&text).concat().contains(&format!("{secret:?}")));
    }
    let config = good(&format!("[auth]\ntoken_secret = {SECRET:?}"));
    assert_eq!(config.auth.token_secret.as_ref().unwrap().expose(), SECRET);
    assert!(!format!("{config:?}").contains(SECRET));
    let env = [("CARILLON__AUTH__TOKEN_SECRET", "hush")];
    assert_eq!(faults_with("", &env).len(), 1);
    assert!(!faults_with("", &env).concat().contains("hush"));
}

#[test]
fn the_token_secret_may_stand_in_a_file() {
    let path = std::env::temp_dir().join(format!("carillon-config-{}", std::process::id()));
    let text = format!("[auth]\ntoken_secret_file = {:?}", path.display().to_string());
    fault(&text, "auth.token_secret_file", "cannot be read");
    std::fs::write(&path, format!("{SECRET}\n")).unwrap();
    assert_eq!(good(&text).auth.token_secret.unwrap().expose(), SECRET);
    fault(&format!("{text}\ntoken_secret = {SECRET:?}"), "auth.token_secret_file", "write one of the two");
    std::fs::write(&path, "x".repeat(4097)).unwrap();
    fault(&text, "auth.token_secret_file", "larger than 4097B".replace("4097B", "4KiB").as_str());
    let rule = format!("# {}\n{RULE}", "x".repeat(1 << 20));
    std::fs::write(&path, rule).unwrap();
    let faults = Config::load(Some(&path), []).unwrap_err().to_string();
    assert!(faults.contains("cannot be read: it is larger than 1MiB"), "{faults}");
    std::fs::write(&path, RULE).unwrap();
    assert!(Config::load(Some(&path), []).is_ok());
    std::fs::remove_file(&path).unwrap();
    assert!(Config::load(Some(&path), []).is_err());
}

#[test]
fn relative_paths_begin_at_the_file_s_folder() {
    let folder = std::env::temp_dir().join(format!("carillon-config-folder-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("token.key"), SECRET).unwrap();
    let text = format!(
        "[auth]\ntoken_secret_file = \"token.key\"\n\
         [broker]\nkind = \"nats\"\n\
         [broker.nats]\ncredentials_file = \"gateway.creds\"\nca_file = \"/etc/ca.pem\"\n{RULE}"
    );
    let file = folder.join("carillon.toml");
    std::fs::write(&file, text).unwrap();
    let config = Config::load(Some(&file), []).unwrap_or_else(|faults| panic!("{faults}"));
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(config.auth.token_secret.unwrap().expose(), SECRET);
    let Broker::Nats(nats) = config.broker else { panic!("NATS is configured") };
    assert!(matches!(nats.credentials, NatsCredentials::File(path) if path == folder.join("gateway.creds")));
    assert_eq!(nats.ca_file.as_deref(), Some(Path::new("/etc/ca.pem")), "an absolute path stays");
}

/// Loads rules alone.
fn rules(text: &str) -> Vec<String> {
    let faults = load(text, &[]).expect_err("there should be a fault").to_string();
    faults.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn channel_rules_make_sense_together() {
    assert!(rules("")[0].starts_with("channels   no channel can be used without a rule"));
    let rule = |name: &str, pattern: &str| RULE.replace("all", name).replace('*', pattern);
    let same = rules(&(rule("a", "x.*") + &rule("a", "y.*")));
    assert_eq!(same, ["channels[1].name = \"a\"   channels[0] has this name; names are unique"]);
    for second in [rule("b", "x.*"), rule("b", "y")] {
        let first = if second.contains("x.*") { rule("a", "x.*") } else { rule("a", "*") };
        let all = rules(&(first + &second));
        assert!(all.len() == 1 && all[0].contains("never applies: channels[0] comes first"), "{all:?}");
    }
    let unknown = rules(&format!("{RULE}history = \"shrt\""));
    assert_eq!(
        unknown,
        ["channels[0].history = \"shrt\"   no such class of history; there are cache, long, short"]
    );
    let token = rules(&RULE.replace("public", "token"));
    assert!(
        token.len() == 1 && token[0].starts_with("auth.token_secret   required: the channel rule `all`"),
        "{token:?}"
    );
    assert!(token[0].contains("name the file in auth.token_secret_file"), "the usual way: {token:?}");
    assert_eq!(rules("[[channels]]\n").len(), 2);
    assert!(rules(&rule("a b", "x"))[0].contains("a rule's name is made of"));
    assert!(rules(&rule("a", "x y"))[0].contains("no channel name contains ' '"));
    assert!(rules(&format!("{RULE}message_max = \"2MiB\""))[0].contains("from \"64B\" to \"1MiB\""));
    let config = load(&format!("{RULE}history = \"long\""), &[]).unwrap();
    assert!(
        matches!(&config.channels.as_slice()[0].keeping, Keeping::Durable(name) if name.as_str() == "long")
    );
    assert_eq!(config.classes_in_use()[0].max_messages, 1000);
}

#[test]
fn a_link_to_another_machine_is_guarded() {
    let nats = |rest: &str| format!("[broker]\nkind = \"nats\"\n[broker.nats]\n{rest}");
    let away = "servers = [\"nats://nats:4222\"]";
    assert_eq!(faults(&nats(away)).len(), 2);
    fault(&nats(&format!("{away}\ntoken = \"t\"")), "broker.nats.servers", "set broker.nats.tls = true");
    fault(&nats("servers = [\"tls://nats\"]"), "broker.nats.servers", "user and password, or token");
    for fine in [
        format!("{away}\ninsecure = true"),
        format!("{away}\ntls = true\ncredentials_file = \"a.creds\""),
        "servers = [\"tls://nats\"]\nuser = \"a\"\npassword = \"b\"".to_owned(),
        "servers = [\"nats://localhost\", \"nats://[::1]:4222\", \"nats://127.0.0.2:1\"]".to_owned(),
        String::new(),
    ] {
        good(&nats(&fine));
    }
    for bad in [
        "nats:4222",
        "http://nats:4222",
        "nats://",
        "nats://a:0",
        "nats://a:x",
        "nats://a b",
        "nats://a/b",
        "",
    ] {
        fault(
            &nats(&format!("servers = [{bad:?}]")),
            "broker.nats.servers",
            "each server is nats://host:port",
        );
    }
    let password = nats("servers = [\"nats://me:hush@nats\"]");
    fault(&password, "broker.nats.servers   an address holds no password", "");
    assert!(!faults(&password).concat().contains("hush"));
    for (rest, right) in [
        ("user = \"a\"", "user and password go together"),
        ("password = \"hush\"", "user and password go together"),
        ("user = \"a\"\npassword = \"b\"\ntoken = \"c\"", "give one of"),
        ("credentials_file = \"a\"\ntoken = \"c\"", "give one of"),
        ("replicas = 2", "must be 1 or 3"),
        ("prefix = \"gw.x\"", "a prefix has 1 to 32 characters"),
    ] {
        fault(&nats(rest), "broker.nats", right);
    }
    let config = good(&nats("user = \"a\"\npassword = \"hush\""));
    assert!(!format!("{config:?}").contains("hush"));
    assert!(
        matches!(config.broker, Broker::Nats(nats) if matches!(nats.credentials, NatsCredentials::User { .. }))
    );
}
