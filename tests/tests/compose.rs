//! The files of deploy/compose.yaml: held against the schema of Compose, and run as they stand, as processes. No engine
//! is needed: each service listens on an address of its own, which stands in the place of its name, and on the ports of the file.
//! The snippets of docs/nginx.md are read by nginx here as well.
#![expect(clippy::disallowed_methods, reason = "the tests wait for processes")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use carillon_config::Config;
use carillon_tests::{
    client::Client,
    daemon::{Daemon, Folder, Net},
    document::{Document, root},
    gateway, http,
    nats::NatsVersion,
    php::{self, Extensions},
};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long three servers may take to find each other and to make every stream three times, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The services that run here, and the last part of their addresses.
const SERVICES: [(&str, u8); 8] = [
    ("nats-1", 1),
    ("nats-2", 2),
    ("nats-3", 3),
    ("gateway-1", 11),
    ("gateway-2", 12),
    ("gateway-3", 13),
    ("nginx", 20),
    ("shop", 30),
];

const GATEWAYS: [&str; 3] = ["gateway-1", "gateway-2", "gateway-3"];

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"))
}

/// Prints a YAML file as JSON, with what its anchors and merge keys stand for.
const TO_JSON: &str = "
import json, sys
from ruamel.yaml import YAML
with open(sys.argv[1], encoding='utf-8') as file:
    json.dump(YAML(typ='safe', pure=True).load(file), sys.stdout)
";

/// Returns what a Python program prints that ends well.
fn python(arguments: &[&str]) -> Vec<u8> {
    let tools = root().join(".test-tools/linters/python");
    assert!(tools.exists(), "{} is missing: run `make tools`", tools.display());
    let mut command = Command::new("python3");
    let output = command.args(arguments).env("PYTHONPATH", tools).current_dir(root()).output();
    let output = output.expect("there is python3");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    output.stdout
}

/// Returns the file as it is written, with what its merge keys stand for.
fn compose() -> Value {
    serde_json::from_slice(&python(&["-c", TO_JSON, "deploy/compose.yaml"])).expect("JSON")
}

/// Returns the mounts of a service: what, where and how.
fn mounts(service: &Value) -> Vec<(&str, &str, &str)> {
    let mounts = service["volumes"].as_array().into_iter().flatten();
    mounts
        .map(|mount| {
            let mount = mount.as_str().unwrap_or_else(|| panic!("{mount}: write `what:where:how`"));
            let (what, rest) = mount.split_once(':').unwrap_or_else(|| panic!("{mount} is nowhere"));
            let (at, how) = rest.split_once(':').unwrap_or((rest, ""));
            (what, at, how)
        })
        .collect()
}

fn config() -> Config {
    let path = root().join("deploy/compose/carillon.toml");
    Config::load(Some(&path), []).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Returns the hosts that a text names, as `host:port`.
fn hosts(text: &str) -> Vec<&str> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && !"-.:".contains(c)));
    words.filter_map(host_of).collect()
}

fn host_of(word: &str) -> Option<&str> {
    let (host, port) = word.split_once(':')?;
    (host.starts_with(|c: char| c.is_ascii_lowercase()) && port.parse::<u16>().is_ok()).then_some(host)
}

/// Reads `90s` and `1m30s`.
fn seconds(text: &str) -> u64 {
    let (mut all, mut number) = (0, 0);
    for c in text.chars() {
        match (c, c.to_digit(10)) {
            (_, Some(digit)) => number = number * 10 + u64::from(digit),
            ('m', None) => all += std::mem::take(&mut number) * 60,
            ('s', None) => all += std::mem::take(&mut number),
            _ => panic!("{text} is no duration"),
        }
    }
    all
}

#[test]
fn the_file_fits_the_schema_and_nothing_in_it_is_open_or_loose() {
    python(&["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"]);
    assert!(!read("deploy/compose.yaml").contains('$'), "Compose would put a variable there");
    let compose = compose();
    for (name, service) in compose["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        let tag = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image} has no tag")).1;
        assert_ne!(tag, "latest", "{name}");
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        for port in service["ports"].as_array().into_iter().flatten() {
            let ports = port.as_str().and_then(|port| port.strip_prefix("127.0.0.1:"));
            let ports = ports.unwrap_or_else(|| panic!("{name}: {port} is not for this machine only"));
            let (outer, inner) = ports.split_once(':').unwrap_or_else(|| panic!("{name}: {port} is no pair"));
            assert!([outer, inner].iter().all(|port| port.parse::<u16>().is_ok()), "{name}: {port}");
        }
        for (what, _, how) in mounts(service) {
            // What does not look like a path is a volume.
            if what.starts_with(['.', '/', '~']) {
                assert!(root().join("deploy").join(what).exists(), "{name}: {what} is missing");
                assert_eq!(how, "ro", "{name}: {what}");
            } else {
                assert!(compose["volumes"].get(what).is_some(), "{name}: there is no volume {what}");
            }
        }
        for (network, _) in service["networks"].as_object().into_iter().flatten() {
            assert!(compose["networks"].get(network).is_some(), "{name}: there is no network {network}");
        }
        // The schema says that they are texts.
        for time in ["interval", "timeout"].iter().filter_map(|key| service["healthcheck"][key].as_str()) {
            assert!(seconds(time) > 0, "{name}: {time}");
        }
        // A list of names would wait for none of them to be healthy.
        assert!(!service["depends_on"].is_array(), "{name}");
        for (needed, how) in service["depends_on"].as_object().into_iter().flatten() {
            assert_eq!(how["condition"], "service_healthy", "{name}");
            let of_its_own = !compose["services"][needed]["healthcheck"].is_null();
            assert!(of_its_own || GATEWAYS.contains(&needed.as_str()), "{needed} has no health check");
        }
    }
    let (node, client) = (config().node, config().client);
    for gateway in GATEWAYS {
        let service = &compose["services"][gateway];
        let patience = seconds(service["stop_grace_period"].as_str().unwrap());
        assert!(patience > (node.drain + node.grace).as_secs(), "{gateway}: {patience} s");
        assert!(service["ports"].is_null(), "{gateway}: its admin listener asks for no key");
    }
    // nginx hears something at least this often, from a client that lives.
    let silence = (client.heartbeat + client.pong_timeout).as_secs();
    for directive in ["proxy_read_timeout", "proxy_send_timeout"] {
        let nginx = read("deploy/compose/nginx.conf");
        let value = nginx.split_once(&format!("{directive} ")).unwrap().1.split_once(';').unwrap().0;
        assert!(seconds(value) >= 2 * silence, "{directive} {value}");
    }
}

#[test]
fn every_host_that_a_file_names_is_a_service() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    for file in [
        "deploy/compose/carillon.toml",
        "deploy/compose/nats.conf",
        "deploy/compose/nginx.conf",
        "deploy/compose/grafana/provisioning/datasources/prometheus.yaml",
        "deploy/prometheus/prometheus.yml",
    ] {
        let text = read(file);
        let hosts = hosts(&text);
        assert!(!hosts.is_empty(), "{file} names no host");
        for host in hosts {
            assert!(services.contains_key(host), "{file}: there is no service {host}");
        }
    }
    let prometheus = read("deploy/prometheus/prometheus.yml");
    for gateway in GATEWAYS {
        assert!(hosts(&prometheus).contains(&gateway), "{gateway} is not scraped");
    }
}

#[test]
fn the_files_of_grafana_are_where_they_say() {
    let compose = compose();
    let grafana = &compose["services"]["grafana"];
    let mounted = |target: &str| mounts(grafana).iter().any(|(_, at, _)| at.starts_with(target));
    let provider = read("deploy/compose/grafana/provisioning/dashboards/carillon.yaml");
    let folder = provider.split_once("path: ").unwrap().1.trim();
    assert!(mounted(folder) && mounted("/etc/grafana/provisioning"));
    let home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].as_str().unwrap();
    assert!(mounted(home) && home.starts_with(folder), "{home}");
}

/// The services as processes, in a folder that is removed after them.
struct Stand {
    folder: Folder,
    net: Net,
}

impl Stand {
    fn new() -> Self {
        let taken = GATEWAYS.iter().flat_map(|name| [(*name, 8000), (*name, 8001), (*name, 9000)]);
        let taken = taken.chain([("nginx", 8000), ("nginx", 8001), ("shop", 8080)]);
        let servers =
            ["nats-1", "nats-2", "nats-3"].into_iter().flat_map(|name| [(name, 4222), (name, 8222)]);
        let taken: Vec<_> = taken.chain(servers).map(|(name, port)| (last(name), port)).collect();
        Self { folder: Folder::new("compose"), net: Net::free(&taken) }
    }

    fn at(&self, service: &str, port: u16) -> SocketAddr {
        self.net.at(last(service), port)
    }

    fn ip(&self, service: &str) -> IpAddr {
        self.at(service, 0).ip()
    }

    /// Puts addresses in the place of names.
    fn placed(&self, text: &str) -> String {
        SERVICES.iter().fold(text.to_owned(), |text, (name, _)| {
            let from = format!("{name}:");
            text.replace(&from, &format!("{}:", self.ip(name)))
        })
    }

    /// Writes a file of the repository, with addresses and more in the place of names, and returns where.
    fn write(&self, name: &str, file: &str, replace: &[(&str, &str)]) -> PathBuf {
        let text = replace.iter().fold(self.placed(&read(file)), |text, (from, to)| {
            assert!(text.contains(from), "{file} has no `{from}`");
            text.replace(from, to)
        });
        self.folder.write(name, &text)
    }

    /// Starts a server as its service does.
    fn nats(&self, service: &str, compose: &Value) -> Daemon {
        let data = self.folder.path().join(service);
        let name = format!("{service}.conf");
        let config =
            self.write(&name, "deploy/compose/nats.conf", &[("/data", data.to_str().expect("UTF-8"))]);
        let (_, binary) = NatsVersion::Oldest.find();
        let mut command = Command::new(binary);
        for word in compose["services"][service]["command"].as_array().expect("a list") {
            let word = word.as_str().expect("a text");
            command.arg(if word == "/etc/nats/nats.conf" { config.as_os_str() } else { word.as_ref() });
        }
        let ip = self.ip(service).to_string();
        command.args(["--addr", &ip, "--cluster", &format!("nats://{ip}:6222")]);
        Daemon::start(service, &mut command, &self.folder)
    }

    fn gateway(&self, service: &str) -> Daemon {
        let config = self.write(&format!("{service}.toml"), "deploy/compose/carillon.toml", &[]);
        let mut command = Command::new(gateway::binary());
        command.arg("serve").arg("--config").arg(config);
        for (listener, port) in [("PUBLIC", 8000), ("API", 8001), ("ADMIN", 9000)] {
            command.env(format!("CARILLON__{listener}__LISTEN"), self.at(service, port).to_string());
        }
        Daemon::start(service, &mut command, &self.folder)
    }

    fn nginx(&self) -> Daemon {
        let temporary = format!("{}/", self.folder.path().display());
        let [public, api] = [8000, 8001].map(|port| format!("listen {}", self.at("nginx", port)));
        let replace = [("/tmp/", temporary.as_str()), ("listen 8000", &public), ("listen 8001", &api)];
        let config = self.write("nginx.conf", "deploy/compose/nginx.conf", &replace);
        let mut command = Command::new("/usr/sbin/nginx");
        command.args(["-g", "daemon off;", "-p", &temporary, "-c"]).arg(config);
        Daemon::start("nginx", &mut command, &self.folder)
    }

    fn shop(&self, compose: &Value) -> Daemon {
        let mut command = php::php(Extensions::Installed);
        command
            .args(["-S", &self.at("shop", 8080).to_string()])
            .arg(php::folder().join("examples/legacy.php"));
        for (name, value) in compose["services"]["shop"]["environment"].as_object().expect("variables") {
            command.env(name, self.placed(value.as_str().expect("a text")));
        }
        Daemon::start("shop", &mut command, &self.folder)
    }

    async fn connections(&self, gateway: &str) -> f64 {
        let metrics = http::get(self.at(gateway, 9000), "/metrics").await.body;
        let of_clients = metrics.lines().filter(|line| line.starts_with("carillon_connections{"));
        of_clients.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Returns the last part of a service's address.
fn last(service: &str) -> u8 {
    SERVICES.iter().find(|(name, _)| *name == service).expect("a service").1
}

/// Waits until something listens and answers a path with a status.
async fn answers(at: SocketAddr, path: &str, status: u16, process: &Daemon) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if tokio::net::TcpStream::connect(at).await.is_ok() && http::get(at, path).await.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "{at}{path} does not answer {status}\n{}", process.log());
        sleep(LOOK_AGAIN).await;
    }
}

#[tokio::test]
async fn what_the_php_page_saves_is_seen_behind_nginx_on_all_three_gateways() {
    let (compose, stand) = (compose(), Stand::new());
    let nats = ["nats-1", "nats-2", "nats-3"].map(|name| stand.nats(name, &compose));
    for (name, process) in ["nats-1", "nats-2", "nats-3"].iter().zip(&nats) {
        // As its health check asks.
        answers(stand.at(name, 8222), "/healthz?js-server-only=true", 200, process).await;
    }
    let mut gateways = GATEWAYS.map(|name| stand.gateway(name));
    for (name, process) in GATEWAYS.iter().zip(&gateways) {
        answers(stand.at(name, 9000), "/readyz", 200, process).await;
    }
    let nginx = stand.nginx();
    // As its health check asks.
    answers(stand.at("nginx", 8000), "/", 404, &nginx).await;
    let shop = stand.shop(&compose);
    answers(stand.at("shop", 8080), "/", 200, &shop).await;

    let door = format!("ws://{}/v1/ws?", stand.at("nginx", 8000));
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Client::subscribed(&door, &["orders.7"]).await);
    }
    for gateway in GATEWAYS {
        assert!((stand.connections(gateway).await - 2.0).abs() < 0.1, "{gateway}: nginx takes turns");
    }

    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let deadline = Instant::now() + PATIENCE;
    // The page gives up after a second, which a busy machine may need: what it says then is that nobody was told.
    while !http::post(stand.at("shop", 8080), "/", &form, "status=shipped")
        .await
        .body
        .contains("told everybody")
    {
        assert!(Instant::now() < deadline, "the page reaches nobody");
    }
    for client in &mut clients {
        assert_eq!(client.data().await, json!({"id": 7, "status": "shipped"}));
    }

    // All are stopped, and every client hears through nginx that it shall come again.
    gateways.iter().for_each(Daemon::terminate);
    for client in &mut clients {
        let (code, reason) = client.closed().await;
        assert!((4200..4300).contains(&code), "{code} {reason}");
    }
    for gateway in &mut gateways {
        assert_eq!(gateway.ended(PATIENCE), Some(0));
    }
}

/// Asks nginx whether it can read a configuration.
fn nginx_reads(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    fs::write(&path, text).expect("the folder is ours");
    let mut command = Command::new("/usr/sbin/nginx");
    let output = command.args(["-t", "-p"]).arg(folder).arg("-c").arg(&path).output();
    let output = output.unwrap_or_else(|fault| panic!("{fault}: run `make tools`"));
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !complaints.contains("[warn]"), "{complaints}\n{text}");
}

#[test]
fn nginx_reads_every_snippet_of_its_page() {
    let page = Document::read("docs/nginx.md");
    let guard = Folder::new("nginx");
    let folder = guard.path();
    let certificate = folder.join("push.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=push.example.com", "-keyout"])
        .arg(folder.join("push.key"))
        .arg("-out")
        .arg(&certificate)
        .output();
    assert!(made.is_ok_and(|made| made.status.success()), "openssl makes a certificate");

    let here = folder.to_str().expect("UTF-8");
    // Names are looked up, and listeners bound, by a dry run too.
    let local = |text: &str| {
        let text = GATEWAYS.iter().fold(text.to_owned(), |text, name| text.replace(name, "127.0.0.1"));
        text.replace("/etc/nginx/tls", here)
            .replace("listen 443", &format!("listen unix:{here}/public"))
            .replace("listen 127.0.0.1:8001", &format!("listen unix:{here}/api"))
    };
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
        .concat();
    let top = format!("pid {here}/nginx.pid;\nerror_log stderr;\n");
    let snippets = page.blocks("nginx");
    for (number, snippet) in snippets.iter().enumerate() {
        let http = format!("{top}events {{}}\nhttp {{\naccess_log off;\n{paths}{}\n}}\n", local(snippet));
        nginx_reads(folder, &format!("{number}.conf"), &http);
    }
    for snippet in page.blocks("nginx main") {
        nginx_reads(folder, "main.conf", &format!("{top}{snippet}\nhttp {{\naccess_log off;\n{paths}}}\n"));
    }
}
