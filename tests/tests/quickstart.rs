//! docs/quickstart.md, step by step, as it stands there.

use std::{fs, process::Command, time::Duration};

use carillon_tests::{
    browser::Page,
    client::Client,
    daemon::{Folder, Net},
    document::{Document, localised, output, root},
    gateway::{Gateway, PATIENCE, run},
    http,
    nats::{NatsServer, NatsVersion},
    php,
    process::Process,
};
use serde_json::json;
use tokio::time::{sleep, timeout};

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn page() -> Document {
    Document::read("docs/quickstart.md")
}

#[tokio::test]
async fn curl_and_php_publish_without_a_setup() {
    let gateway = Gateway::dev(&[]);
    let mut client = Client::subscribed(&gateway.ws(""), &["news", "orders.7"]).await;
    let curl = page().block("sh", "curl -H");
    let _answer = output(Command::new("sh").arg("-c").arg(localised(&curl, &gateway)));
    assert_eq!(client.data().await, json!({"hello": "from a shell"}));
    let code = localised(&page().block("php", "on_error"), &gateway);
    let _nothing = output(Command::new("php").args(["-r", code.trim_start_matches("<?php")]));
    assert_eq!(client.data().await["status"], "shipped");
}

/// Runs the guide's way to make a secret in a folder and to put it into the environment, and returns the secret.
fn secret(folder: &Folder) -> String {
    let [makes, exports] = ["openssl", "CARILLON_SECRET"].map(|part| {
        let block = page().block("sh", part);
        block.lines().find(|line| line.contains(part)).expect("it is in the block").to_owned()
    });
    let commands =
        format!("cd {}; {makes}; {exports}; printf %s \"$CARILLON_SECRET\"", folder.path().display());
    output(Command::new("sh").args(["-c", &commands]))
}

/// Serves the example of private channels, as the guide shows it, for a gateway that is elsewhere.
struct Private {
    folder: Folder,
    token: String,
    environment: Vec<(&'static str, String)>,
}

impl Private {
    fn new(gateway: &Gateway, key: &str, secret: &str) -> Self {
        let [html, token] = ["index.html", "token.php"].map(|name| {
            let file = php::folder().join("examples/private").join(name);
            fs::read_to_string(&file).unwrap_or_else(|fault| panic!("{}: {fault}", file.display()))
        });
        assert_eq!(html, page().block("html", "/token.php") + "\n");
        assert_eq!(token, page().block("php", "CARILLON_SECRET") + "\n");
        let folder = Folder::new("private-page");
        let _written = folder.write("index.html", &localised(&html, gateway));
        let client = format!("'{}/src", php::folder().display());
        let token = token.replace("__DIR__ . '/../../src", &client);
        let environment = vec![("CARILLON_KEY", key.to_owned()), ("CARILLON_SECRET", secret.to_owned())];
        Self { folder, token, environment }
    }

    /// Changes how many seconds tokens are good for.
    fn tokens_last(&self, seconds: &str) {
        assert!(self.token.contains(" 3600,"));
        // Renamed into its place: PHP never reads half of it.
        let written = self.folder.write("written", &self.token.replace(" 3600,", &format!(" {seconds},")));
        fs::rename(written, self.folder.path().join("token.php")).expect("the folder is ours");
    }

    fn open(&self) -> (Process, Page) {
        let environment: Vec<_> = self.environment.iter().map(|(name, value)| (*name, &**value)).collect();
        let (server, at) = php::serve(&["-t", self.folder.path().to_str().expect("UTF-8")], &environment);
        (server, Page::open(&format!("http://{at}/")))
    }
}

/// Publishes until a page shows it: while the page is between two connections it hears nothing.
async fn page_hears(shown: &Page, gateway: &Gateway, key: &str) {
    let message = json!({"channel": "orders.7", "data": {"status": "shipped"}});
    let heard = async {
        while shown.text("#status") != "shipped" {
            assert_eq!(gateway.publish_as(key, &message).await.status, 200);
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, heard).await.unwrap_or_else(|_late| panic!("{:?}", shown.complaints()));
}

async fn metric(gateway: &Gateway, begins: &str) -> f64 {
    let metrics = http::get(gateway.admin, "/metrics").await.body;
    let line = metrics.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("{metrics}"));
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

async fn is_counted(gateway: &Gateway, begins: &str) {
    let counted = async {
        while metric(gateway, begins).await < 1.0 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, counted).await.unwrap_or_else(|_late| panic!("{begins} stays 0"));
}

#[tokio::test]
async fn a_page_of_a_private_channel_renews_its_token() {
    let folder = Folder::new("private");
    let secret = secret(&folder);
    let (code, printed, complaints) = run(&["key", "new"], &[]);
    assert_eq!(code, Some(0), "{complaints}");
    let key = printed.lines().next().expect("the key is the first line");
    let hash = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("secret_sha256")).expect("there is a hash");
        line.to_owned()
    };
    let config = page().block("toml", "[[keys]]");
    let config = config.replace(&hash(&config), &hash(&printed));
    let token_key = folder.path().join("token.key").display().to_string();
    let gateway = Gateway::serve(&config.replace("token.key", &token_key));
    gateway.ready().await;

    let site = Private::new(&gateway, key, &secret);
    site.tokens_last("2");
    let (_server, shown) = site.open();
    is_counted(
        &gateway,
        "carillon_connections_closed_total{transport=\"websocket\",reason=\"auth_expired\"}",
    )
    .await;
    site.tokens_last("3600");
    page_hears(&shown, &gateway, key).await;

    let mut stranger = Client::connect(&gateway.ws("channel=orders.7")).await;
    assert_eq!(stranger.frame().await["type"], "welcome");
    assert_eq!(stranger.frame().await["error"], "unauthorized");
}

#[tokio::test]
async fn a_page_of_a_private_channel_comes_back_after_a_restart() {
    let folder = Folder::new("restarted");
    let secret = secret(&folder);
    let net = Net::free(&[(1, 8000), (1, 8001), (1, 9000)]);
    let start = || {
        let places = [net.at(1, 8000), net.at(1, 8001), net.at(1, 9000)];
        Gateway::dev_at(places, &[("CARILLON__AUTH__TOKEN_SECRET", &secret)])
    };
    let mut gateway = start();
    let site = Private::new(&gateway, "dev", &secret);
    site.tokens_last("3600");
    let (_server, shown) = site.open();
    is_counted(&gateway, "carillon_subscriptions ").await;
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    let gateway = start();
    page_hears(&shown, &gateway, "dev").await;
}

#[test]
fn the_nats_of_the_guide_is_for_this_machine_alone() {
    let folder = Folder::new("nats");
    let line = page().block("sh", "nats-server");
    let arguments = line.strip_prefix("nats-server ").expect("it is the command").split(' ');
    let (_, binary) = NatsVersion::Oldest.find();
    let mut command = Command::new(binary);
    // A free port.
    command.args(arguments).args(["-p", "-1"]).current_dir(folder.path());
    let server = Process::start(&mut command);
    let listens = server.complains("Listening for client connections on ");
    assert!(listens.contains(" on 127.0.0.1:"), "{listens}");
    let _ready = server.complains("Server is ready");
    assert!(folder.path().join("nats-data/jetstream").exists());
}

#[tokio::test]
async fn three_development_nodes_on_one_nats_are_one_gateway() {
    let nats = NatsServer::start(NatsVersion::Oldest);
    let mut nodes = Vec::new();
    for line in page().block("sh", "carillon dev").lines() {
        let (settings, _options) = line.split_once(" carillon dev").expect("it starts a node");
        let mut environment: Vec<_> = settings.split(' ').filter_map(|word| word.split_once('=')).collect();
        assert_eq!(environment.len(), 2, "{line}");
        let url = nats.url();
        environment.push(("CARILLON__BROKER__NATS__SERVERS", &url));
        nodes.push(Gateway::dev(&environment));
    }
    assert_eq!(nodes.len(), 3);
    let mut clients = Vec::new();
    for node in &nodes {
        node.ready().await;
        clients.push(Client::subscribed(&node.ws(""), &["news"]).await);
    }
    assert_eq!(nodes[0].publish(&json!({"channel": "news", "data": 1})).await.status, 200);
    for client in &mut clients {
        assert_eq!(client.data().await, json!(1));
    }
    let count = ["9000", "9010", "9020"]
        .iter()
        .zip(&nodes)
        .fold(page().block("sh", "carillon_connections{"), |command, (port, node)| {
            command.replace(port, &node.admin.port().to_string())
        });
    let counts = output(Command::new("sh").args(["-c", &count]));
    assert_eq!(counts.lines().filter(|line| line.ends_with("} 1")).count(), 3, "{counts}");

    let mut stopped = nodes.pop().expect("there are three");
    stopped.signal("INT");
    let (code, reason) = clients.pop().expect("there are three").closed().await;
    assert!((4200..4300).contains(&code), "{code} {reason}");
    assert!(stopped.ended().success());
    assert_eq!(nodes[1].publish(&json!({"channel": "news", "data": 2})).await.status, 200);
    for client in &mut clients {
        assert_eq!(client.data().await, json!(2));
    }
}

#[test]
fn every_file_and_command_that_is_named_exists() {
    let page = page();
    let makefile = fs::read_to_string(root().join("Makefile")).expect("there is a Makefile");
    for target in ["run", "build"] {
        assert!(page.text.contains(&format!("make {target}")), "{target}");
        assert!(makefile.contains(&format!("\n{target}:")), "{target}");
    }
    for link in page.links() {
        assert!(root().join(&link).exists(), "{}", link.display());
    }
    for file in ["clients/php/examples/legacy.php", "clients/php/examples/private", "deploy/compose.yaml"] {
        assert!(page.text.contains(file) && root().join(file).exists(), "{file}");
    }
    let (code, help, _) = run(&["dev", "--help"], &[]);
    assert_eq!(code, Some(0));
    for option in ["--public", "--api", "--admin"] {
        assert!(page.text.contains(option) && help.contains(option), "{option}");
    }
}
