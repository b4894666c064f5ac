//! docs/quickstart.md, step by step, as it stands there.

use std::{path::PathBuf, process::Command};

use carillon_tests::{
    client::Client,
    document::{Document, javascript, localised, output, root},
    gateway::{Gateway, run},
    nats::{NatsServer, NatsVersion},
};
use serde_json::json;

fn page() -> Document {
    Document::read("docs/quickstart.md")
}

/// A folder that is there as long as the value.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("carillon-quickstart-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a snippet of PHP in a folder; what it requires is looked for in the checkout as well.
fn php(code: &str, folder: &Folder, environment: &[(&str, &str)]) -> String {
    let include = format!("include_path=.:{}", root().display());
    let code = format!("chdir('{}');{}", folder.0.display(), code.trim_start_matches("<?php"));
    output(Command::new("php").args(["-d", &include, "-r", &code]).envs(environment.iter().copied()))
}

#[tokio::test]
async fn curl_and_php_publish_without_a_setup() {
    let gateway = Gateway::dev(&[]);
    let mut client = Client::subscribed(&gateway.ws(""), &["news", "orders.7"]).await;
    let curl = page().block("sh", "curl -H");
    let _answer = output(Command::new("sh").arg("-c").arg(localised(&curl, &gateway)));
    assert_eq!(client.data().await, json!({"hello": "from a shell"}));
    let folder = Folder::new("open");
    let _nothing = php(&localised(&page().block("php", "on_error"), &gateway), &folder, &[]);
    assert_eq!(client.data().await["status"], "shipped");
}

#[tokio::test]
async fn a_private_channel_opens_with_the_token_that_php_wrote_into_the_page() {
    let folder = Folder::new("private");
    let secret = page().block("sh", "openssl");
    let secret = secret.lines().find(|line| line.starts_with("openssl")).expect("a line makes the secret");
    let _nothing = output(Command::new("sh").args(["-c", &format!("cd {}; {secret}", folder.0.display())]));
    let (code, printed, complaints) = run(&["key", "new"], &[]);
    assert_eq!(code, Some(0), "{complaints}");
    let key = printed.lines().next().expect("the key is the first line");
    let hash = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("secret_sha256")).expect("there is a hash");
        line.to_owned()
    };
    let config = page().block("toml", "[[keys]]");
    let config = config.replace(&hash(&config), &hash(&printed));
    let token_key = folder.0.join("token.key").display().to_string();
    let gateway = Gateway::serve(&config.replace("token.key", &token_key));
    gateway.ready().await;

    let printed = php(&page().block("php", "data-token"), &folder, &[("CARILLON_KEY", key)]);
    let token = printed.split('"').nth(1).expect("the token is an attribute's value");
    let script = format!(
        "globalThis.document = {{ body: {{ dataset: {{ token: {} }} }} }};\n{}\n\
         socket.addEventListener('message', event => {{\n\
           const type = JSON.parse(event.data).type;\n\
           if (type === 'subscribed') console.error('ready');\n\
           if (type === 'message') process.exit(0);\n\
         }});",
        json!(token),
        localised(&page().block("js", "bearer"), &gateway),
    );
    let listener = javascript(&script);
    let answer = gateway.publish_as(key, &json!({"channel": "orders.7", "data": "for your eyes"})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let heard = listener.wait_with_output().expect("it ends with its message");
    let heard = String::from_utf8_lossy(&heard.stdout).into_owned();
    assert!(heard.contains("for your eyes"), "{heard}");

    let mut stranger = Client::connect(&gateway.ws("channel=orders.7")).await;
    assert_eq!(stranger.frame().await["type"], "welcome");
    assert_eq!(stranger.frame().await["error"], "unauthorized");
}

#[tokio::test]
async fn three_development_nodes_on_one_nats_are_one_gateway() {
    let nats = NatsServer::start(NatsVersion::Oldest);
    let lines = page().block("sh", "carillon dev");
    let environment: Vec<(String, String)> = lines
        .lines()
        .filter_map(|line| line.strip_prefix("export "))
        .flat_map(str::split_whitespace)
        .filter_map(|setting| setting.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("127.0.0.1:4222", &nats.address().to_string())))
        .collect();
    assert_eq!(environment.len(), 3, "{environment:?}");
    let environment: Vec<_> = environment.iter().map(|(key, value)| (&**key, &**value)).collect();
    let started = lines.lines().filter(|line| line.starts_with("carillon dev")).count();
    let nodes: Vec<_> = (0..started).map(|_| Gateway::dev(&environment)).collect();
    let mut clients = Vec::new();
    for node in &nodes {
        node.ready().await;
        clients.push(Client::subscribed(&node.ws(""), &["news"]).await);
    }
    assert_eq!(clients.len(), 3);
    assert_eq!(nodes[0].publish(&json!({"channel": "news", "data": 1})).await.status, 200);
    for client in &mut clients {
        assert_eq!(client.data().await, json!(1));
    }
}

#[test]
fn every_file_and_command_that_is_named_exists() {
    let page = page();
    let makefile = std::fs::read_to_string(root().join("Makefile")).expect("there is a Makefile");
    for target in ["run", "build"] {
        assert!(page.text.contains(&format!("make {target}")), "{target}");
        assert!(makefile.contains(&format!("\n{target}:")), "{target}");
    }
    for link in page.links() {
        assert!(root().join(&link).exists(), "{}", link.display());
    }
    for file in ["clients/php/examples/legacy.php", "deploy/compose.yaml"] {
        assert!(page.text.contains(file) && root().join(file).exists(), "{file}");
    }
    let (code, help, _) = run(&["dev", "--help"], &[]);
    assert_eq!(code, Some(0));
    for option in ["--public", "--api", "--admin"] {
        assert!(page.text.contains(option) && help.contains(option), "{option}");
    }
}
