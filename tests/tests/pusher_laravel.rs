//! Laravel as Debian packages it, with its own broadcaster, and laravel-echo: what one node is told, the other's clients
//! hear. docs/laravel.md is the application.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use carillon_tests::{
    daemon::Folder,
    document::{Document, root},
    gateway::{self, Gateway},
    http, php,
    process::Process,
    pusher::{App, DEV, FIRST, Socket, cluster},
    scenario::{node, run, world},
};
use serde_json::json;

/// What the route of the page takes for granted.
const USES: &str = "use Illuminate\\Http\\Request;
use Illuminate\\Support\\Facades\\Log;
use Illuminate\\Support\\Facades\\Route;";

fn page() -> Document {
    Document::read("docs/laravel.md")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder is ours");
    for entry in fs::read_dir(from).expect("a folder of the checkout") {
        let from = entry.expect("it can be read").path();
        let to = to.join(from.file_name().expect("it has a name"));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("the folder is ours");
        }
    }
}

/// Returns the `.env` of the page for a broadcaster, with the ports that Laravel and clients go to, and the keys of an
/// application.
fn environment(broadcaster: &str, told: u16, heard: u16, app: &App) -> String {
    let block = page().block("ini", &format!("BROADCAST_CONNECTION={broadcaster}\n"));
    let value = |line: &str| {
        let name = line.split('=').next().unwrap_or_default();
        let value = match name.split_once('_').map_or("", |(_, name)| name) {
            "APP_ID" => app.id.to_owned(),
            "APP_KEY" => app.key.to_owned(),
            "APP_SECRET" => app.secret.to_owned(),
            "PORT" => told.to_string(),
            "PUSHER_PORT" | "REVERB_PORT" => heard.to_string(),
            _ => return line.to_owned(),
        };
        format!("{name}={value}")
    };
    block.lines().map(value).collect::<Vec<_>>().join("\n")
}

/// A Laravel application and PHP's own web server, which ends with it.
struct Laravel {
    server: Process,
    at: SocketAddr,
    _folder: Folder,
}

impl Laravel {
    /// Lays out the application of the page, with an `.env`.
    async fn start(environment: &str) -> Self {
        let folder = Folder::new("laravel");
        let here = folder.path();
        let tests = root().join("tests/php");
        copy(&tests.join("laravel"), here);
        for name in ["storage/framework", "bootstrap/cache", "app/Events"] {
            fs::create_dir_all(here.join(name)).expect("the folder is ours");
        }
        for block in page().blocks("php") {
            let name = block.lines().next().and_then(|line| line.strip_prefix("<?php // "));
            if let Some(name) = name {
                let _path: PathBuf = folder.write(name, &block);
            }
        }
        let route = page().block("php", "Route::post('/carillon'");
        let _path: PathBuf = folder.write("routes/page.php", &format!("<?php\n{USES}\n{route}\n"));
        // Debian's Laravel knows Reverb by Pusher's name only; its settings are the same.
        let _path: PathBuf =
            folder.write(".env", &environment.replace("REVERB_", "PUSHER_").replace("=reverb", "=pusher"));
        let (index, class) = (here.join("index.php"), tests.join("Pusher.php"));
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (server, at) = php::serve(&[&text(&index)], &[("PUSHER_CLASS", &text(&class))]);
        let open = http::get(at, "/").await;
        assert_eq!(open.body, "open", "Laravel does not start; run `make tools`: {open:?}");
        Self { server, at, _folder: folder }
    }

    /// Returns a command that runs a scenario of tests/js/pusher/echo.mjs.
    fn scenario(&self, name: &str) -> Command {
        let mut command = node("echo", name);
        command.env("LARAVEL", format!("http://{}", self.at));
        command
    }
}

async fn echo(scenario: &str) {
    let cluster = cluster().await;
    let [told, heard] = &cluster.nodes[..] else { panic!("two nodes") };
    let laravel = Laravel::start(&environment("pusher", told.api.port(), heard.public.port(), &FIRST)).await;
    run(laravel.scenario(scenario), world(&cluster.nodes)).await;
}

#[tokio::test]
async fn names_of_events_are_found() {
    echo("namesOfEventsAreFound").await;
}

#[tokio::test]
async fn what_is_for_others_reaches_others() {
    echo("whatIsForOthersReachesOthers").await;
}

#[tokio::test]
async fn laravel_says_who_may_listen() {
    echo("laravelSaysWhoMayListen").await;
}

#[tokio::test]
async fn members_are_here_join_and_leave() {
    echo("membersAreHereJoinAndLeave").await;
}

#[tokio::test]
async fn notifications_reach_their_user() {
    echo("notificationsReachTheirUser").await;
}

/// Runs the page's blocks of one broadcaster against development mode, which has the keys of the page.
async fn the_page_works(broadcaster: &str) {
    let gateway = Gateway::dev(&[]);
    let page = page();
    let text = environment(broadcaster, gateway.api.port(), gateway.public.port(), &DEV);
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let known: BTreeMap<&str, &str> = lines.collect();
    let reference = |value: &str| {
        value.strip_prefix("\"${").and_then(|value| value.strip_suffix("}\"")).map(str::to_owned)
    };
    let vite: BTreeMap<&str, String> = known
        .iter()
        .filter(|(name, _)| name.starts_with("VITE_"))
        .map(|(name, value)| (*name, reference(value).map_or(*value, |name| known[name.as_str()]).to_owned()))
        .collect();
    let blocks = [
        page.block("js", &format!("broadcaster: '{broadcaster}'")),
        page.block("js", "Echo.private"),
        page.block("js", "Echo.join"),
    ];
    let laravel = Laravel::start(&text).await;
    let mut command = laravel.scenario("thePageWorksAsItStands");
    command.env("VITE", json!(vite).to_string()).env("BLOCKS", json!(blocks).to_string());
    run(command, world([&gateway])).await;
}

#[tokio::test]
async fn the_page_works_as_it_stands_from_pusher() {
    the_page_works("pusher").await;
}

#[tokio::test]
async fn the_page_works_as_it_stands_from_reverb() {
    the_page_works("reverb").await;
}

/// Returns what Laravel says when it cannot broadcast some text.
async fn complaint(environment: &str, text: &str) -> String {
    let laravel = Laravel::start(environment).await;
    let body = json!({"channels": ["news"], "event": "x", "payload": {"text": text}}).to_string();
    let headers = [("Content-Type", "application/json"), ("Accept", "application/json")];
    let answer = http::post(laravel.at, "/broadcast", &headers, body).await;
    assert_eq!(answer.status, 500, "{answer:?}");
    answer.json()["message"].as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn mistakes_are_said_as_on_the_page() {
    let gateway = Gateway::dev(&[]);
    let told = |app: &App| environment("pusher", gateway.api.port(), gateway.public.port(), app);
    let page = page();
    let said = |complaint: String| {
        let says = |code: &str| complaint.starts_with(code.trim_end_matches('…').trim_end());
        let codes = page.text.split('`').skip(1).step_by(2);
        assert!(codes.filter(|code| code.contains("error")).any(says), "{complaint}");
    };
    said(complaint(&told(&DEV), &"x".repeat(10 * 1024)).await);
    said(complaint(&told(&App { secret: "wrong", ..DEV }), "x").await);
    // Nobody listens on this port.
    said(complaint(&environment("pusher", 1, 1, &DEV), "x").await);
}

#[tokio::test]
async fn webhooks_are_believed_and_others_are_not() {
    let laravel = Laravel::start(&environment("pusher", 1, 1, &FIRST)).await;
    let forged = [("Content-Type", "application/json"), ("X-Pusher-Signature", "0123456789abcdef")];
    let answer = http::post(laravel.at, "/carillon", &forged, r#"{"time_ms":1,"events":[]}"#).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    let gateway = Gateway::serve(&format!(
        "[[apps]]\nid = \"{}\"\nkeys = [\"{}:{}\"]\nwebhooks = [\"http://{}/carillon\"]\n\
         [webhooks]\negress = [\"127.0.0.0/8\"]\n\
         [[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n",
        FIRST.id, FIRST.key, FIRST.secret, laravel.at
    ));
    gateway.ready().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("news").await;
    let _line = laravel.server.complains("channel_occupied news");
}

#[test]
fn the_configurations_of_the_page_are_good() {
    let page = page();
    let blocks = page.blocks("toml");
    let rule = blocks[0].split_once("[[channels]]").expect("the first has a rule").1;
    for block in &blocks {
        // A block that is about something else leaves the rule out.
        let rule =
            if block.contains("[[channels]]") { String::new() } else { format!("\n[[channels]]{rule}") };
        let block = format!("{block}{rule}");
        let folder = Folder::new("laravel-toml");
        let config = folder.write("carillon.toml", &block);
        let keys = page.block("sh", "app.keys");
        let made = Command::new("sh").args(["-c", &keys]).current_dir(folder.path()).status();
        assert!(made.is_ok_and(|status| status.success()), "{keys}");
        let config = config.to_str().expect("UTF-8");
        let (code, said, complained) = gateway::run(&["check", "--config", config], &[]);
        assert_eq!((code, said.trim()), (Some(0), "the configuration is good"), "{block}\n{complained}");
    }
    // What the tables say has taken a setting's place is a setting.
    let known = Document::read("docs/configuration.md").text;
    let rows = page.text.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 3);
    let columns = rows.filter_map(|row| row.split(" | ").nth(1)).filter(|column| column.contains("of `["));
    let names: Vec<_> = columns.flat_map(|column| column.split('`').skip(1).step_by(2)).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names {
        let name = name.split(" = ").next().unwrap_or_default().trim_matches(['[', ']']);
        assert!(known.contains(name), "{name}");
    }
    for link in page.links() {
        assert!(root().join(&link).exists(), "{}", link.display());
    }
}
