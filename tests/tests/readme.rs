//! Every command and snippet of the README, as it stands there.

use std::{path::PathBuf, process::Command};

use carillon_tests::{
    client::Client,
    document::{Document, javascript, localised, output, root},
    gateway::{Gateway, run},
};
use serde_json::Value;

fn readme() -> Document {
    Document::read("README.md")
}

/// Runs the README's way to make a token secret in a new folder, beside its configuration, and returns the folder.
fn configured() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("carillon-readme-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary directory is writable");
    std::fs::write(folder.join("carillon.toml"), readme().blocks("toml").concat())
        .expect("the folder is writable");
    let lines = readme().blocks("sh").join("\n");
    let line = lines.lines().find(|line| line.starts_with("openssl")).expect("the README says how");
    let made = Command::new("sh").args(["-c", line]).current_dir(&folder).status();
    assert!(made.is_ok_and(|status| status.success()), "{line}");
    folder
}

#[tokio::test]
async fn curl_publishes_to_the_page() {
    let gateway = Gateway::dev(&[]);
    let mut client = Client::subscribed(&gateway.ws(""), &["news"]).await;
    let curl = readme().block("sh", "curl");
    let answer = output(Command::new("sh").arg("-c").arg(localised(&curl, &gateway)));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["results"][0]["stored"], true);
    assert_eq!(client.data().await["hello"], "world");
    let page = carillon_tests::http::get(gateway.public, "/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
}

#[tokio::test]
async fn php_publishes_and_javascript_listens() {
    let gateway = Gateway::dev(&[]);
    let [js] = readme().blocks("js").try_into().unwrap();
    let [php] = readme().blocks("php").try_into().unwrap();
    // The script ends with its first message.
    let script = format!(
        "{}\n\
         socket.addEventListener('message', event => {{\n\
           const type = JSON.parse(event.data).type;\n\
           if (type === 'subscribed') console.error('ready');\n\
           if (type === 'message') process.exit(0);\n\
         }});",
        localised(&js, &gateway)
    );
    let node = javascript(&script);
    let code = localised(&php, &gateway);
    output(Command::new("php").args(["-r", code.trim_start_matches("<?php")]));
    let heard = node.wait_with_output().unwrap();
    assert!(heard.status.success());
    assert_eq!(String::from_utf8_lossy(&heard.stdout), "order.changed { status: 'shipped' }\n");
}

#[test]
fn the_configuration_is_good() {
    let folder = configured();
    let config = folder.join("carillon.toml");
    let check = ["check", "--config", config.to_str().unwrap()];
    let (code, said, complained) = run(&check, &[]);
    assert_eq!((code, said.trim()), (Some(0), "the configuration is good"), "{complained}");
    assert!(complained.contains("is an example"), "its hash is known as one: {complained}");
    let replicas = [("CARILLON__BROKER__NATS__REPLICAS", "3")];
    let (code, _, complained) = run(&check, &replicas);
    assert_eq!(code, Some(0), "{complained}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn several_channels_are_named_in_the_url() {
    let gateway = Gateway::dev(&[]);
    let readme = readme().text;
    let query = "channel=orders.7&channel=news.today";
    assert!(readme.contains(&format!("`?{query}`")));
    let mut client = Client::connect(&gateway.ws(query)).await;
    let mut subscribed = Vec::new();
    while subscribed.len() < 2 {
        let frame = client.frame().await;
        if frame["type"] == "subscribed" {
            subscribed.push(frame["channel"].as_str().unwrap().to_owned());
        }
    }
    subscribed.sort();
    assert_eq!(subscribed, ["news.today", "orders.7"]);
}

#[test]
fn mistakes_of_the_first_hour_are_explained() {
    let gateway = Gateway::dev(&[]);
    assert!(gateway.logged("\"listening\"").contains(r#""broker":"memory""#));
    let (api, public) = (format!("http://{}", gateway.api), format!("http://{}", gateway.public));
    for (arguments, says) in [
        (&["check"][..], "carillon: no file was given (--config FILE); environment: 1 fault"),
        (&["publish", "news", "1", "--api", &api, "--key", "wrong"], "the API key is `dev`"),
        (
            &["publish", "news", "1", "--api", &public],
            "publishing is on the api listener (port 8001 by default)",
        ),
        (&["tail", "news", "--url", "ws://127.0.0.1:8000/v1/ws"], "has the path /v1/ws; leave it out"),
    ] {
        let (code, _, complained) = run(arguments, &[]);
        assert!(code != Some(0) && complained.contains(says), "{arguments:?}: {complained}");
        assert!(!complained.contains('{'), "no raw JSON: {complained}");
    }
    let (code, said, complained) = run(&["publish", "news", "12345678901234567890", "--api", &api], &[]);
    assert_eq!(code, Some(0), "{complained}");
    assert!(said.contains("stored"), "{said}");
}

#[test]
fn the_message_of_the_readme_is_one() {
    let [json] = readme().blocks("json").try_into().unwrap();
    let message: Value = serde_json::from_str(&json).unwrap();
    let members: Vec<_> = message.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members.len(), 6, "{members:?}");
}

#[test]
fn every_command_that_is_named_exists() {
    let readme = readme().text;
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    for link in self::readme().links() {
        assert!(root().join(&link).exists(), "{}", link.display());
    }
    // The quickstart's own test runs it.
    let nats_server = Document::read("docs/quickstart.md").block("sh", "nats-server");
    assert_eq!(self::readme().block("sh", "nats-server"), nats_server);
    for target in ["run", "test", "build", "image", "bench"] {
        assert!(readme.contains(&format!("make {target}")), "{target}");
        assert!(makefile.contains(&format!("\n{target}:")), "{target}");
    }
    for command in [&["key", "new"][..], &["check", "--help"], &["serve", "--help"]] {
        let (code, _, complained) = run(command, &[]);
        assert_eq!(code, Some(0), "{command:?}: {complained}");
    }
}
