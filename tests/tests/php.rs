//! What PHP applications use: our client, with curl and without, and the example page.

use std::process::Command;

use carillon_tests::{
    client::Client,
    gateway::Gateway,
    http,
    php::{self, Extensions},
    process::Process,
};
use serde_json::json;

/// Long and drawn, as the gateway wants it.
const SECRET: &str = "m3pWkQ8vYx0ZrT5nB7uJ1sLdF6hGcA2e";

fn script(extensions: Extensions, name: &str) -> Command {
    let mut command = php::php(extensions);
    command.arg(php::folder().join(name));
    command
}

fn succeeds(command: &mut Command, says: &str) {
    let (status, output, complaints) = Process::start(command).ended();
    assert!(status.success(), "{command:?}: {status}\n{output}\n{complaints}");
    assert!(output.contains(says), "{output}");
}

fn client_tests_pass(extensions: Extensions) {
    let gateway = Gateway::dev(&[]);
    let mut command = script(extensions, "tests/run.php");
    command.env("CARILLON_API", format!("http://{}", gateway.api)).env("CARILLON_KEY", "dev");
    succeeds(&mut command, " passed, 0 failed");
}

#[test]
fn the_client_passes_its_tests_with_curl() {
    let curl = "exit(extension_loaded('curl') ? 0 : 1);";
    let has_curl = php::php(Extensions::Installed).args(["-r", curl]).status();
    assert!(has_curl.is_ok_and(|status| status.success()), "php has no curl: run `make tools`");
    client_tests_pass(Extensions::Installed);
}

#[test]
fn the_client_passes_its_tests_without_curl() {
    client_tests_pass(Extensions::None);
}

#[test]
fn the_client_is_written_in_php_7_2() {
    succeeds(&mut script(Extensions::Installed, "tests/syntax72.php"), " files, 0 faults");
}

#[tokio::test]
async fn a_form_that_is_posted_to_the_example_page_reaches_a_browser() {
    let gateway = Gateway::dev(&[]);
    let mut client = Client::subscribed(&gateway.ws(""), &["orders.7"]).await;
    let (api, ws) = (format!("http://{}", gateway.api), format!("ws://{}", gateway.public));
    let environment = [("CARILLON_API", &*api), ("CARILLON_WS", &*ws), ("CARILLON_KEY", "dev")];
    let script = php::folder().join("examples/legacy.php");
    let (_server, page) = php::serve(&[script.to_str().expect("UTF-8")], &environment);

    let shown = http::get(page, "/").await;
    assert_eq!(shown.status, 200);
    let socket = json!(format!("{ws}/v1/ws?channel=orders.7")).to_string().replace('/', "\\/");
    assert!(shown.body.contains(&socket), "{}", shown.body);

    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let saved = http::post(page, "/", &form, "status=shipped").await;
    assert!(saved.body.contains("Saved and told everybody: shipped"), "{}", saved.body);
    // Who has saved sees it too, without waiting for the message.
    for shows in ["<b id=\"status\">shipped</b>", "<option selected>shipped</option>"] {
        assert!(saved.body.contains(shows), "{}", saved.body);
    }
    let message = client.message().await;
    assert_eq!(message["event"], "status");
    assert_eq!(message["data"], json!({"id": 7, "status": "shipped"}));

    // A shop goes on selling when the gateway is away.
    drop(gateway);
    let saved = http::post(page, "/", &form, "status=delivered").await;
    assert!(saved.body.contains("Saved, but nobody could be told: delivered"), "{}", saved.body);
}

fn token(secret: &str) -> String {
    let code = r#"
        $carillon = new Carillon\Client('http://127.0.0.1:1', 'unused', ['token_secret' => getenv('SECRET')]);
        echo $carillon->token('visitor-7', 600, ['channels' => ['orders.7', 'news.*']]);
    "#;
    let (status, output, complaints) = php::piece(code, &[("SECRET", secret)]).ended();
    assert!(status.success(), "{output}{complaints}");
    output
}

#[tokio::test]
async fn a_token_that_php_signed_opens_its_channels_and_no_others() {
    let gateway = Gateway::serve(&format!(
        "[auth]\ntoken_secret = \"{SECRET}\"\n[[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"token\"\n"
    ));
    let mut client = Client::connect(&gateway.ws(&format!("token={}", token(SECRET)))).await;
    let welcome = client.frame().await;
    assert!(welcome["expires"].is_u64(), "{welcome}");
    for channel in ["orders.7", "news.sport"] {
        assert_eq!(client.subscribe(channel).await["type"], "subscribed");
    }
    let refused = client.subscribe("orders.8").await;
    assert_eq!((&refused["type"], &refused["error"]), (&json!("error"), &json!("forbidden")), "{refused}");

    let mut nobody = Client::connect(&gateway.ws("")).await;
    assert_eq!(nobody.frame().await["type"], "welcome");
    let refused = nobody.subscribe("orders.7").await;
    assert_eq!(refused["error"], "unauthorized", "{refused}");

    let forged = token(&SECRET.chars().rev().collect::<String>());
    let mut client = Client::connect(&gateway.ws(&format!("token={forged}"))).await;
    assert_eq!(client.closed().await.0, 4001);
}
