//! docs/http.md, docs/systemd.md with its unit, and the part of docs/nginx.md that is for one node: run as they stand.

use std::{
    fs,
    process::{Command, Output},
    time::Duration,
};

use carillon_config::Config;
use carillon_model::ErrorCode;
use carillon_tests::{
    client::Client,
    daemon::{Daemon, Folder, Net},
    document::{Document, localised, output, root},
    gateway::{self, Gateway, PATIENCE, run},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

const UNIT: &str = "deploy/carillon.service";

/// The least configuration.
const OPEN: &str = "[[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n";

/// Returns each command of a page with the answer that stands under it.
fn exchanges(page: &Document) -> Vec<(String, Value)> {
    let after = |text: &str, language: &str| {
        let (_, text) = text.split_once(&format!("```{language}\n")).expect("there is such a block");
        text.split_once("\n```").expect("it ends").0.to_owned()
    };
    let commands = page.text.match_indices("```sh\n").map(|(at, _)| {
        let text = &page.text[at..];
        let answer = serde_json::from_str(&after(text, "json")).expect("an answer is JSON");
        (after(text, "sh"), answer)
    });
    commands.collect()
}

/// Puts one word in the place of every position: they differ from run to run.
fn without_positions(mut answer: Value) -> Value {
    for result in answer["results"].as_array_mut().into_iter().flatten() {
        if let Some(id) = result.get_mut("id") {
            *id = json!("a position");
        }
    }
    answer
}

#[tokio::test]
async fn every_request_of_the_page_is_answered_as_it_says() {
    let gateway = Gateway::dev(&[]);
    let mut orders = Client::subscribed(&gateway.ws(""), &["orders.7"]).await;
    let mut news = Client::subscribed(&gateway.ws(""), &["news"]).await;
    let exchanges = exchanges(&Document::read("docs/http.md"));
    assert_eq!(exchanges.len(), 8);
    for (command, answer) in exchanges {
        let command = format!("{} -sS", localised(&command, &gateway));
        let answered: Value = serde_json::from_str(&output(Command::new("sh").args(["-c", &command])))
            .unwrap_or_else(|fault| panic!("{command}: {fault}"));
        assert_eq!(without_positions(answered), without_positions(answer), "{command}");
    }
    let expected = [
        json!({"status": "shipped"}),
        json!("hello"),
        json!({"status": "paid"}),
        json!({"status": "packed"}),
    ];
    for data in expected {
        assert_eq!(orders.data().await, data);
    }
    for data in ["hello", "Closed on Monday"] {
        assert_eq!(news.data().await, data);
    }
}

#[test]
fn the_page_has_every_error_with_its_numbers() {
    // What only clients are told.
    let clients = ["token_expired", "unknown_type", "already_subscribed"];
    let page = Document::read("docs/http.md").text;
    for code in ErrorCode::ALL {
        let row = page.lines().find(|line| line.contains(&format!("{} `{}`", code.number(), code.name())));
        assert_eq!(row.is_none(), clients.contains(&code.name()), "{}", code.name());
        assert!(row.is_none_or(|row| row.starts_with(&format!("| {} ", code.http_status()))), "{row:?}");
    }
}

/// Returns the value of a line of the unit.
fn setting(name: &str) -> String {
    let unit = Document::read(UNIT).text;
    let values: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix(&format!("{name}="))).collect();
    assert_eq!(values.len(), 1, "{UNIT} has one {name}");
    values[0].to_owned()
}

#[test]
fn the_unit_fits_the_program() {
    let folder = Folder::new("systemd");
    let file = folder.write("carillon.toml", OPEN);
    let usual = Config::load(Some(&file), []).unwrap_or_else(|faults| panic!("{faults}"));
    let stop: u64 =
        setting("TimeoutStopSec").strip_suffix('s').and_then(|time| time.parse().ok()).expect("seconds");
    assert!(Duration::from_secs(stop) >= usual.node.drain + usual.node.grace + Duration::from_secs(10));
    let descriptors: usize = setting("LimitNOFILE").parse().expect("a number");
    assert!(descriptors > usual.public.max_connections.get());

    let start = setting("ExecStart");
    let words: Vec<_> = start.split(' ').collect();
    let ["/usr/local/bin/carillon", arguments @ ..] = &words[..] else { panic!("{start}") };
    let ["serve", "--config", placed] = arguments else { panic!("{arguments:?}") };
    let page = Document::read("docs/systemd.md");
    assert!(page.text.contains(placed) && page.text.contains(UNIT));
    for link in page.links() {
        assert!(root().join(&link).exists(), "{}", link.display());
    }
    let faulty = folder.write("faulty.toml", "[publik]\n").display().to_string();
    let (code, _, complaints) = run(&["serve", "--config", &faulty], &[]);
    assert_eq!(code.map(|code| code.to_string()), Some(setting("RestartPreventExitStatus")), "{complaints}");
}

/// Returns what systemd has to say to a unit.
fn verified(folder: &Folder, unit: &str) -> String {
    let path = folder.write("carillon.service", unit);
    let Output { stdout, stderr, .. } = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .unwrap_or_else(|fault| panic!("systemd-analyze: {fault}; run `make tools`"));
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    // It also looks at units of the machine that ours stands beside.
    said.lines().filter(|line| line.contains("carillon")).collect::<Vec<_>>().join("\n")
}

#[test]
fn systemd_reads_the_unit() {
    let folder = Folder::new("unit");
    let binary = gateway::binary().display().to_string();
    let unit = fs::read_to_string(root().join(UNIT)).expect("it is there");
    let unit = unit.replace("/usr/local/bin/carillon", &binary);
    assert_eq!(verified(&folder, &unit), "");
    let misspelt = unit.replace("Restart=on-failure", "Restart=on-falure");
    assert!(verified(&folder, &misspelt).contains("on-falure"));
}

#[tokio::test]
async fn one_node_is_reached_through_an_nginx_that_serves_an_application() {
    let gateway = Gateway::serve(OPEN);
    let (folder, net) = (Folder::new("nginx"), Net::free(&[(1, 8080)]));
    let (door, here) = (net.at(1, 8080), folder.path().display());
    let block = Document::read("docs/nginx.md").block("nginx", "location = /v1/ws");
    let block = localised(&block, &gateway).replace("443 ssl", &door.to_string());
    // Without TLS here.
    let lines = block.lines().filter(|line| !line.contains("ssl_certificate"));
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {here}/{kind};\n"))
        .concat();
    let config = format!(
        "daemon off;\npid {here}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{}\n}}\n",
        lines.collect::<Vec<_>>().join("\n")
    );
    let config = folder.write("nginx.conf", &config);
    let mut nginx = Command::new("/usr/sbin/nginx");
    let _nginx = Daemon::start("nginx", nginx.arg("-p").arg(folder.path()).arg("-c").arg(config), &folder);
    let listens = async {
        while TcpStream::connect(door).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, listens).await.expect("nginx listens");
    // It has asked, and was answered.
    let _subscribed = Client::subscribed(&format!("ws://{door}/v1/ws?"), &["news"]).await;
}
