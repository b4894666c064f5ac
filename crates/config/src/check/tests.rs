mod apps;
mod refusals;

use std::fmt::Write as _;

use carillon_model::{Access, AppLimits, ChannelName};

use super::*;
use crate::{
    config::{Broker, DEFAULT_MAX_CONNECTIONS},
    table::{Kind, Preset, SECTIONS, Shape},
};

/// 64 hexadecimal digits.
const HASH: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
/// What a careful operator draws.
const SECRET: &str = "k8Zr2vQxTn4LwYb6HsJd9MfPcGa3EuWi";
/// The least that starts.
const RULE: &str = "[[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n";

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, Faults> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::from_text("gateway.toml", text, env)
}

/// Loads `text` before the least rule.
fn good(text: &str) -> Config {
    load(&format!("{text}\n{RULE}"), &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Returns the faults of `text` before the least rule, one a line.
fn faults(text: &str) -> Vec<String> {
    faults_with(text, &[])
}

fn faults_with(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let faults = load(&format!("{text}\n{RULE}"), env).expect_err("there should be a fault");
    faults.to_string().lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

/// Says that `text` has one fault, and that it begins and ends so.
fn fault(text: &str, left: &str, right: &str) {
    let all = faults(text);
    let found = all.len() == 1 && all.iter().all(|one| one.starts_with(left) && one.contains(right));
    assert!(found, "{text}\nshould say {left} … {right}, and says\n{all:#?}");
}

#[test]
fn all_faults_are_told_at_once_in_two_columns() {
    let text = format!("[client]\nheartbeat = \"25\"\nframe_maximum = \"1MiB\"\n{RULE}");
    let faults = load(&text, &[("CARILLON__API__DEADLINE", "1h")]).unwrap_err();
    assert_eq!(
        faults.to_string(),
        "gateway.toml: 3 faults
  client.frame_maximum      unknown key; did you mean client.frame_max?
  api.deadline = \"1h\"       must be from \"10ms\" to \"30s\" (from CARILLON__API__DEADLINE)
  client.heartbeat = \"25\"   a duration needs a unit, such as \"25s\""
    );
    assert!(faults_with("[log]\nformat = 1", &[]).len() == 1);
}

#[test]
fn the_least_that_starts_has_every_default() {
    let config = good("");
    assert_eq!(config.public.listen.to_string(), "0.0.0.0:8000");
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:8001");
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9000");
    assert_eq!(config.public.max_connections.get(), DEFAULT_MAX_CONNECTIONS);
    assert_eq!(config.public.accept_rate.get(), 2000);
    assert_eq!((config.client.frame_max_bytes, config.client.outbox_max_bytes), (65_536, 1 << 20));
    assert_eq!(config.client.connection_age_max.as_secs(), 1800);
    assert_eq!((config.node.drain.as_secs(), config.node.grace.as_secs()), (30, 15));
    assert!(matches!(config.broker, Broker::Memory) && config.keys.is_empty() && !config.dev);
    assert!(config.auth.token_secret.is_none() && config.classes_in_use().is_empty());
    let names: Vec<_> = config.history.iter().map(|class| class.name.to_string()).collect();
    assert_eq!(names, ["cache", "long", "short"]);
    assert!(!config.api.pusher_on_public && config.webhooks.egress.is_empty());
    let [app] = config.apps.all() else { panic!("{:?}", config.apps) };
    assert!(app.id == "main" && app.keys.is_empty() && app.enabled);
}

#[test]
fn development_mode_listens_on_loopback_only() {
    let config = Config::dev([]).unwrap();
    for listen in [config.public.listen, config.api.listen, config.admin.listen] {
        assert!(listen.ip().is_loopback());
    }
    let rule = config.channels.find(&ChannelName::new("orders.7").unwrap()).unwrap();
    assert_eq!(rule.access, Access::Public);
    assert!(config.dev && matches!(config.broker, Broker::Memory) && config.api.pusher_on_public);
    assert_eq!(config.classes_in_use().len(), 1);
    let [app] = config.apps.all() else { panic!("{:?}", config.apps) };
    assert_eq!((app.id.as_str(), app.secret_of("dev-key")), ("1", Some("dev-secret")));
    assert!(app.enabled && app.client_events && !app.subscription_count && !app.watchlist);
    assert_eq!((app.limits, app.space.as_str()), (AppLimits::default(), ""));
}

/// A file in which every key of the table is written; `instead` replaces the value of one.
fn everything(instead: Option<(&str, &str)>) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let (heading, path) = match section.shape {
            Shape::Once => (format!("[{}]", section.path), section.path.to_owned()),
            Shape::Named => (format!("[{}.mine]", section.path), format!("{}.mine", section.path)),
            Shape::List => (format!("[[{}]]", section.path), format!("{}[0]", section.path)),
        };
        writeln!(text, "{heading}").unwrap();
        for key in section.keys {
            let path = format!("{path}.{}", key.name);
            let other = instead.filter(|(at, _)| *at == path).map(|(_, value)| value.to_owned());
            let Some(value) = other.or_else(|| sample(&path, key)) else { continue };
            writeln!(text, "{} = {value}", key.name).unwrap();
        }
    }
    text
}

/// Returns a good value, or `None` where it would contradict another.
fn sample(path: &str, key: &crate::table::Key) -> Option<String> {
    let quoted = |text: &str| Some(format!("{text:?}"));
    match path {
        "auth.token_secret" => return quoted(SECRET),
        "auth.token_secret_file"
        | "apps[0].keys_file"
        | "broker.nats.user"
        | "broker.nats.password"
        | "broker.nats.token" => {
            return None;
        }
        "keys[0].id" => return quoted("shop_web"),
        "keys[0].secret_sha256" => return quoted(HASH),
        "keys[0].scopes" => return Some("[\"publish\", \"read\"]".to_owned()),
        "keys[0].channels" => return Some("[\"orders.*\", \"$user:*\"]".to_owned()),
        "apps[0].id" => return quoted("shop"),
        "apps[0].keys" => return Some(format!("[\"key:{SECRET}\"]")),
        "apps[0].webhooks" => return Some("[\"https://example.com/told\"]".to_owned()),
        "apps[0].webhook_events" => return Some("[\"presence\"]".to_owned()),
        "webhooks.egress" => return Some("[\"10.0.0.0/8\", \"fd00::/8\"]".to_owned()),
        "channels[0].history" => return quoted("mine"),
        "broker.nats.replicas" => return Some("3".to_owned()),
        _ => {}
    }
    match (key.preset, key.kind) {
        (Preset::Is(preset), kind) => Some(crate::reader::written(&kind, preset)),
        (_, Kind::Duration { max, .. }) => quoted(&crate::unit::show_duration(max)),
        (_, Kind::Size { max, .. }) => quoted(&crate::unit::show_size(max)),
        (_, Kind::Count { max, .. }) => Some(max.to_string()),
        (_, Kind::Text { .. }) => quoted("text"),
        (
            _,
            Kind::Address
            | Kind::Flag
            | Kind::Choice(_)
            | Kind::Secret { .. }
            | Kind::Texts { .. }
            | Kind::Secrets { .. },
        ) => panic!("{path} needs a sample"),
    }
}

/// Every path of the table, as [`everything`] writes it.
fn paths() -> Vec<(String, &'static crate::table::Key)> {
    let mut paths = Vec::new();
    for section in SECTIONS {
        let path = match section.shape {
            Shape::Once => section.path.to_owned(),
            Shape::Named => format!("{}.mine", section.path),
            Shape::List => format!("{}[0]", section.path),
        };
        paths.extend(section.keys.iter().map(|key| (format!("{path}.{}", key.name), key)));
    }
    paths
}

#[test]
fn every_key_of_the_table_is_read_and_checked() {
    let config = load(&everything(None), &[]).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(config.classes_in_use()[0].name.as_str(), "mine");
    // What the table says is what the model says.
    assert_eq!(config.apps.first().limits, AppLimits::default());
    for (path, key) in paths() {
        // A kind that no key has.
        for wrong in ["1979-05-27", "{ a = 1 }", "[[1]]", "-1.5"] {
            let faults = load(&everything(Some((&path, wrong))), &[]).expect_err(&path);
            let found = faults.as_slice().iter().any(|fault| fault.path == path);
            assert!(found, "{path} = {wrong} is accepted:\n{faults}");
        }
        let outside: &[&str] = match key.kind {
            Kind::Count { .. } => &["-1", "0", "9223372036854775807", "\"5\"", "1.0"],
            Kind::Size { .. } => &["-1", "\"0B\"", "\"99999GiB\"", "65536", "\"64KB\"", "\"\""],
            Kind::Duration { .. } => &["-1", "\"-1s\"", "\"365d\"", "25", "\"25\"", "\"1.5s\"", "\"\""],
            Kind::Flag => &["\"true\"", "0"],
            Kind::Choice(_) => &["\"other\"", "\"\"", "true"],
            Kind::Address => &["\"localhost:80\"", "\":80\"", "8000", "\"1.2.3.4\"", "\"1.2.3.4:65536\""],
            Kind::Text { .. } | Kind::Secret { .. } => &["\"\"", "\"a\\u0000b\"", "\"a\\nb\"", "5"],
            Kind::Texts { .. } | Kind::Secrets { .. } => &["[]", "[1]", "\"text\"", "[\"\"]"],
        };
        for wrong in outside {
            let faults = load(&everything(Some((&path, wrong))), &[]).expect_err(&path);
            let found = faults.as_slice().iter().any(|fault| fault.path == path);
            assert!(found, "{path} = {wrong} is accepted:\n{faults}");
        }
        let long = format!("\"{}\"", "x".repeat(5000));
        assert!(load(&everything(Some((&path, &long))), &[]).is_err(), "{path} takes 5000 bytes");
    }
}

#[test]
fn every_row_is_well_formed() {
    for section in SECTIONS {
        assert!(section.doc.ends_with('.'), "{}", section.path);
        for key in section.keys {
            let doc = key.doc;
            assert!(doc.len() > 10 && doc.ends_with('.') && !doc.contains(['\n', '|']), "{}: doc", key.name);
            match key.kind {
                Kind::Duration { min, max } => assert!(min < max, "{}", key.name),
                Kind::Size { min, max } => assert!(0 < min && min < max, "{}", key.name),
                Kind::Count { min, max } => {
                    assert!(0 < min && min < max && max <= u32::MAX.into(), "{}", key.name)
                }
                Kind::Text { max_bytes } | Kind::Secret { max_bytes } => {
                    assert!(max_bytes > 0, "{}", key.name)
                }
                Kind::Texts { max } | Kind::Secrets { max } => assert!(max > 0, "{}", key.name),
                Kind::Choice(words) => assert!(!words.is_empty(), "{}", key.name),
                Kind::Address | Kind::Flag => {}
            }
            if let Preset::Absent = key.preset {
                let says = ["When absent", "nstead", "with `", "`user`", ".creds"]
                    .iter()
                    .any(|word| doc.contains(word));
                assert!(says, "{}: the doc says what absence means", key.name);
            }
        }
    }
}

#[test]
fn unknown_keys_are_refused_at_every_level() {
    for (text, left, right) in [
        ("clients = 1", "clients", "unknown key; did you mean client"),
        ("[transport]\nheartbeat = \"1s\"", "transport", "unknown key"),
        ("[client]\nheartbeet = 3", "client.heartbeet", "did you mean client.heartbeat?"),
        ("[client]\ndrain = 3", "client.drain", "did you mean node.drain?"),
        ("[broker.nats]\nserver = 3", "broker.nats.server", "did you mean broker.nats.servers?"),
        ("[broker.kafka]\nx = 3", "broker.kafka", "unknown key"),
        ("[history.short]\nmaxage = 3", "history.short.maxage", "did you mean history.short.max_age?"),
        (
            "[[channels]]\nname=\"a\"\nmatch=\"a\"\nauth=\"public\"\nmesage_max=1",
            "channels[0].mesage_max",
            "channels[0].message_max?",
        ),
        ("zzz = { token = \"hush\" }", "zzz", "unknown key"),
    ] {
        fault(text, left, right);
        assert!(!faults(text).concat().contains("hush"));
    }
}

#[test]
fn sections_have_their_shape() {
    for (text, left, right) in [
        ("client = 3", "client", "a section is expected: [client]"),
        ("[[client]]", "client", "a section is expected: [client]"),
        ("[keys]\nid = \"a\"", "keys", "a list of sections is expected: [[keys]]"),
        ("keys = [1]", "keys", "a list of sections is expected: [[keys]]"),
        ("history = []", "history", "a section is expected: [history]"),
        ("[history]\nshort = 3", "history.short", "a section is expected: [history.short]"),
        ("[history.\"A.b\"]\nmax_age = \"1m\"", "history.A.b", "a history class has 1 to 32 characters"),
        ("\"client.heartbeat\" = \"1s\"", "client.heartbeat", "unknown key"),
        ("\"channels[0].name\" = \"a\"", "channels[0].name", "unknown key"),
        ("\"a\\nb\\u001b[2J\" = 1", "a\u{fffd}b\u{fffd}[2J", "unknown key"),
        ("[client]\nheartbeat = \"hush", "line 2, column 18", "string"),
        ("[client]\n[client]", "line 2, column", "duplicate key"),
    ] {
        fault(text, left, right);
    }
}

#[test]
fn the_environment_wins() {
    let env = [
        ("CARILLON__CLIENT__HEARTBEAT", "20s"),
        ("CARILLON__PUBLIC__MAX_CONNECTIONS", "7"),
        ("CARILLON__BROKER__KIND", "nats"),
        ("CARILLON__BROKER__NATS__SERVERS", "nats://127.0.0.1:1, nats://[::1]:2"),
        ("CARILLON__HISTORY__SHORT__MAX_AGE", "5m"),
        ("CARILLON__ADMIN__EXPOSED", "true"),
        ("CARILLON_PORT", "tcp://10.0.0.1:80"),
        ("PATH", "/bin"),
    ];
    let config = load(&format!("[client]\nheartbeat = \"1s\"\n{RULE}"), &env).unwrap();
    assert_eq!(config.client.heartbeat.as_secs(), 20);
    assert_eq!(config.public.max_connections.get(), 7);
    let short = config.history.iter().find(|class| class.name.as_str() == "short").unwrap();
    assert_eq!(short.max_age.as_secs(), 300);
    assert!(matches!(config.broker, Broker::Nats(nats) if nats.servers.len() == 2));
}

#[test]
fn a_variable_that_sets_nothing_is_a_fault() {
    for (name, value, right) in [
        ("CARILLON__CLIENT__HEARTBEET", "1s", "unknown variable; did you mean CARILLON__CLIENT__HEARTBEAT?"),
        ("CARILLON__client__heartbeat", "1s", "unknown variable; did you mean CARILLON__CLIENT__HEARTBEAT?"),
        ("CARILLON__CLIENT", "1s", "a section without a key; one is CARILLON__CLIENT__HEARTBEAT"),
        (
            "CARILLON__HISTORY__SHORT",
            "1s",
            "a section without a key; one is CARILLON__HISTORY__SHORT__MAX_AGE",
        ),
        ("CARILLON__", "1s", "unknown variable"),
        ("CARILLON__KEYS__0__ID", "a", "the environment cannot set [[keys]]: write the list in the file"),
        ("CARILLON__CHANNELS", "a", "the environment cannot set [[channels]]: write the list in the file"),
        ("CARILLON__HISTORY__A_B__MAX_AGE", "1m", "a history class has"),
    ] {
        let all = faults_with("", &[(name, value)]);
        assert!(all.len() == 1 && all[0].starts_with(name) && all[0].contains(right), "{all:?}");
    }
    for (name, value, right) in [
        ("CARILLON__CLIENT__HEARTBEAT", "", "a duration is a whole number and a unit"),
        ("CARILLON__NODE__WORKERS", "-1", "must be a whole number from 1 to 64"),
        ("CARILLON__NODE__WORKERS", "1e9", "a whole number is expected"),
        ("CARILLON__ADMIN__EXPOSED", "yes", "true or false is expected"),
        ("CARILLON__LOG__LEVEL", "\u{fffd}", "the variable is not UTF-8"),
    ] {
        let all = faults_with("", &[(name, value)]);
        let at = crate::environment::path(name);
        let found = all.len() == 1 && all[0].starts_with(&at) && all[0].contains(right);
        assert!(found && all[0].ends_with(&format!("(from {name})")), "{all:?}");
    }
}

#[test]
fn a_misspelt_log_level_is_a_fault() {
    fault("[log]\nlevel = \"inof\"", "log.level = \"inof\"", "`inof` is no log level");
    good("[log]\nlevel = \"info,carillon_node=debug\"\nformat = \"json\"");
}

#[test]
fn the_reference_names_every_key() {
    let page = crate::reference();
    for section in SECTIONS {
        for key in section.keys {
            assert!(page.contains(&format!("| `{}` | ", key.name)), "{}", key.name);
        }
    }
    for line in [
        "| `heartbeat` | duration, from \"1s\" to \"5m\" | `\"25s\"` |",
        "| `kind` | one of \"memory\", \"nats\" | `\"memory\"` |",
        "| `name` | a text of 1 to 64 bytes | required |",
        "In the environment: `CARILLON__BROKER__NATS__SERVERS` and so on.",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    // Every row has four cells, so that no text breaks its table.
    for row in page.lines().filter(|line| line.starts_with('|')) {
        assert_eq!(row.matches('|').count(), 5, "{row}");
    }
}
