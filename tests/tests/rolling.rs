//! A rolling restart as it is done in production: three gateways on one NATS behind nginx, under load, watched by
//! Prometheus. Each is stopped with SIGTERM and started again, one after another, and nobody is the worse for it.
//!
//! The configurations are those of deploy/, with addresses in the place of names and seconds in the place of minutes.
#![expect(
    clippy::disallowed_methods,
    reason = "clients and publishers run beside the restart, which has wall-clock times"
)]

use std::{
    fs,
    net::SocketAddr,
    process::Command,
    time::{Duration, SystemTime},
};

use carillon_tests::{
    curve::{self, Line, Span},
    daemon::{Daemon, Folder, Net},
    document::root,
    gateway::{self, Gateway, PATIENCE},
    http::{self, Answer},
    nats::{NatsServer, NatsVersion},
    prometheus::Prometheus,
    visitor::{self, Story},
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::{JoinHandle, block_in_place},
    time::{sleep, timeout},
};

const GATEWAYS: [&str; 3] = ["gateway-1", "gateway-2", "gateway-3"];
const NGINX: u8 = 20;
const PROMETHEUS: u8 = 40;

/// The key in deploy/compose.yaml.
const KEY: &str = "crl_main_example_SBhP2rS7pfIhnAaYEcc2EZJmabL8sRsqjrjkrXrkBEj";

/// What the nodes know of it.
const SECRET_SHA256: &str = "b77f384eec96e0fd60b1fa4e4f34c793527e7558e0f57d88280e36af5daca059";

/// A channel with history, and one without.
const CHANNELS: [&str; 2] = ["orders.7", "news"];

/// Clients that stay, and clients that come and go, so that there is always one in its handshake.
const CLIENTS: usize = 300;
const PASSERS_BY: usize = 3;

const PUBLISHERS: usize = 3;
const BETWEEN_PUBLICATIONS: Duration = Duration::from_millis(100);

/// The PHP client: what a call may take by default, the least that it keeps for a second attempt, and its pause where
/// the answer names none, which is 20 to 60 ms.
const PHP_TIMEOUT_MS: u64 = 1000;
const PHP_ATTEMPT_MS: u64 = 50;
const PHP_PAUSE_MS: u64 = 40;

const DRAIN: Duration = Duration::from_secs(4);
const GRACE: Duration = Duration::from_secs(10);
const AGE_MAX: Duration = Duration::from_secs(20);

/// How far the fullest and the emptiest node are from the average, as a share of it. For 300 clients that choose one of
/// three nodes by dice this would be three standard deviations; nginx takes turns, which is more even than dice.
const EVEN: f64 = 0.25;

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("1970 is over").as_secs_f64()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"))
}

/// The deployment: everything but the gateways, which come and go.
struct Stand {
    prometheus: Prometheus,
    _nginx: Daemon,
    nats: NatsServer,
    net: Net,
    folder: Folder,
}

impl Stand {
    async fn start() -> (Self, [Daemon; 3]) {
        let folder = Folder::new("rolling");
        let ports = [8000, 8001, 9000].into_iter().flat_map(|port| [(1, port), (2, port), (3, port)]);
        let ports: Vec<_> = ports.chain([(NGINX, 8000), (NGINX, 8001), (PROMETHEUS, 9090)]).collect();
        let net = Net::free(&ports);
        let nats = NatsServer::start(NatsVersion::Newest);
        let gateways = [0, 1, 2].map(|number| start_gateway(number, net, &nats, &folder));
        for number in 0..3 {
            ready(number, net).await;
        }
        let nginx = start_nginx(net, &folder);
        answers(net.at(NGINX, 8000)).await;
        let prometheus = start_prometheus(net, &folder).await;
        (Self { prometheus, _nginx: nginx, nats, net, folder }, gateways)
    }

    /// Stops one gateway, starts it again, and waits until everybody is back and Prometheus has seen it.
    async fn restart(&self, number: usize, gateway: &mut Daemon, began: f64) -> Span {
        let from = now() - began;
        gateway.terminate();
        assert_eq!(block_in_place(|| gateway.ended(DRAIN + GRACE)), Some(0), "nobody was cut");
        *gateway = start_gateway(number, self.net, &self.nats, &self.folder);
        ready(number, self.net).await;
        let to = now() - began;
        self.prometheus.until(PATIENCE, "sum(up)", |up| up > 2.5).await;
        self.everybody_is_there().await;
        Span { line: number, name: format!("{} restarts", GATEWAYS[number]), from, to }
    }

    /// But for those who are between two connections just now.
    async fn everybody_is_there(&self) {
        let most = f64::from(u32::try_from(CLIENTS * 9 / 10).expect("few"));
        self.prometheus.until(PATIENCE, "sum(carillon_connections)", |open| open >= most).await;
    }
}

/// Puts addresses in the place of names.
fn placed(net: Net, text: &str) -> String {
    (1..).zip(GATEWAYS).fold(text.to_owned(), |text, (last, name)| {
        text.replace(&format!("{name}:"), &format!("{}:", net.at(last, 0).ip()))
    })
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "there is no `{from}` in\n{text}");
    text.replace(from, to)
}

fn start_gateway(number: usize, net: Net, nats: &NatsServer, folder: &Folder) -> Daemon {
    let last = u8::try_from(number + 1).expect("there are three");
    let mut command = Command::new(gateway::binary());
    command.args(["serve", "--config"]).arg(root().join("deploy/compose/carillon.toml")).envs([
        ("CARILLON__PUBLIC__LISTEN", net.at(last, 8000).to_string()),
        ("CARILLON__API__LISTEN", net.at(last, 8001).to_string()),
        ("CARILLON__ADMIN__LISTEN", net.at(last, 9000).to_string()),
        ("CARILLON__BROKER__NATS__SERVERS", nats.url()),
        ("CARILLON__BROKER__NATS__REPLICAS", "1".to_owned()),
        ("CARILLON__NODE__DRAIN", format!("{}s", DRAIN.as_secs())),
        ("CARILLON__NODE__GRACE", format!("{}s", GRACE.as_secs())),
        ("CARILLON__CLIENT__CONNECTION_AGE_MAX", format!("{}s", AGE_MAX.as_secs())),
        // Nothing here is refused because the machine is busy.
        ("CARILLON__API__DEADLINE", "4s".to_owned()),
    ]);
    Daemon::start(GATEWAYS[number], &mut command, folder)
}

async fn ready(number: usize, net: Net) {
    let at = net.at(u8::try_from(number + 1).expect("there are three"), 9000);
    let asking = async {
        answers(at).await;
        while http::get(at, "/readyz").await.status != 200 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_late| panic!("{} is not ready", GATEWAYS[number]));
}

async fn answers(at: SocketAddr) {
    let trying = async {
        while tokio::net::TcpStream::connect(at).await.is_err() {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, trying).await.unwrap_or_else(|_late| panic!("nobody listens on {at}"));
}

fn start_nginx(net: Net, folder: &Folder) -> Daemon {
    let here = format!("{}/", folder.path().display());
    let mut config = replaced(&placed(net, &read("deploy/compose/nginx.conf")), "/tmp/", &here);
    for port in [8000, 8001] {
        config = replaced(&config, &format!("listen {port}"), &format!("listen {}", net.at(NGINX, port)));
    }
    let config = folder.write("nginx.conf", &config);
    let mut command = Command::new("/usr/sbin/nginx");
    command.args(["-g", "daemon off;", "-p", &here, "-c"]).arg(config);
    Daemon::start("nginx", &mut command, folder)
}

async fn start_prometheus(net: Net, folder: &Folder) -> Prometheus {
    // A quarter: the whole takes a minute, and an alert that goes off after two could not.
    let mut alerts = read("deploy/prometheus/alerts.yml");
    for minutes in [1, 2, 5] {
        alerts = replaced(&alerts, &format!("{minutes}m"), &format!("{}s", minutes * 15));
    }
    let _loaded = folder.write("alerts.yml", &alerts);
    let config = placed(net, &read("deploy/prometheus/prometheus.yml"));
    let config = folder.write("prometheus.yml", &replaced(&config, "15s", "1s"));
    Prometheus::start(net.at(PROMETHEUS, 9090), &config, folder).await
}

/// What became of a publisher's messages.
#[derive(Default)]
struct Published {
    at_once: usize,
    /// What the first attempt met.
    retried: Vec<String>,
    /// What the second attempt met, or why there was none.
    refused: Vec<String>,
}

/// Publishes until `enough`, as the PHP client does: with an id, and with one more attempt.
async fn publish(at: SocketAddr, name: String, enough: watch::Receiver<bool>) -> Published {
    let mut published = Published::default();
    let mut number: u64 = 0;
    while !*enough.borrow() {
        for channel in CHANNELS {
            let data = json!({"from": name, "number": number});
            // The same for both attempts.
            let message =
                json!({"channel": channel, "id": format!("{name}-{channel}-{number}"), "data": data});
            let first = attempt(at, &message).await;
            let Err((pause_ms, why)) = understood(first) else {
                published.at_once += 1;
                continue;
            };
            if pause_ms + PHP_ATTEMPT_MS >= PHP_TIMEOUT_MS {
                published.refused.push(format!("asked to wait for {pause_ms} ms: {why}"));
                continue;
            }
            sleep(Duration::from_millis(pause_ms)).await;
            match understood(attempt(at, &message).await) {
                Ok(()) => published.retried.push(why),
                Err((_, then)) => published.refused.push(format!("{why}; then {then}")),
            }
        }
        number += 1;
        sleep(BETWEEN_PUBLICATIONS).await;
    }
    published
}

async fn attempt(at: SocketAddr, message: &Value) -> Option<Answer> {
    let authorization = format!("Bearer {KEY}");
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    http::post_if_there(at, "/v1/publish", &headers, message.to_string()).await
}

/// Returns whether the message was taken, or else the pause before another attempt and what was said.
fn understood(answer: Option<Answer>) -> Result<(), (u64, String)> {
    let Some(answer) = answer else { return Err((PHP_PAUSE_MS, "no answer".to_owned())) };
    if answer.status == 200 {
        return Ok(());
    }
    let said: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let header = answer.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
    let told = said["retry_after_ms"].as_u64().or(header.map(|seconds| seconds * 1000));
    Err((told.unwrap_or(PHP_PAUSE_MS), format!("{} {}", answer.status, answer.body)))
}

/// Everybody who uses the deployment.
struct Load {
    clients: Vec<JoinHandle<Story>>,
    passers_by: Vec<JoinHandle<Story>>,
    publishers: Vec<JoinHandle<Published>>,
    enough: watch::Sender<bool>,
}

impl Load {
    fn start(net: Net) -> Self {
        let (enough, ends) = watch::channel(false);
        let url = |channel| format!("ws://{}/v1/ws?channel={channel}", net.at(NGINX, 8000));
        let client = |number: usize| tokio::spawn(visitor::stay(url(CHANNELS[number % 2]), ends.clone()));
        let passer_by =
            |number: usize| tokio::spawn(visitor::pass_by(url(CHANNELS[number % 2]), ends.clone()));
        let api = net.at(NGINX, 8001);
        let publisher = |number: usize| tokio::spawn(publish(api, format!("php-{number}"), ends.clone()));
        Self {
            clients: (0..CLIENTS).map(client).collect(),
            passers_by: (0..PASSERS_BY).map(passer_by).collect(),
            publishers: (0..PUBLISHERS).map(publisher).collect(),
            enough,
        }
    }

    /// Ends it, and checks what everybody lived through.
    async fn end(self) {
        self.enough.send_replace(true);
        let (mut at_once, mut retried) = (0, Vec::new());
        for publisher in self.publishers {
            let published =
                timeout(PATIENCE * 2, publisher).await.expect("publishers end").expect("no panic");
            assert!(published.refused.is_empty(), "{:#?}", published.refused);
            at_once += published.at_once;
            retried.extend(published.retried);
        }
        let (mut closes, mut messages) = (0, 0);
        for client in self.clients {
            let story = timeout(PATIENCE * 2, client).await.expect("clients leave").expect("no panic");
            all_is_well(&story);
            assert!(
                story.welcomes >= 2,
                "every gateway was stopped, so everybody had to come back: {story:?}"
            );
            assert_eq!(story.welcomes, story.closes.len() + 1, "and did, every time: {story:?}");
            closes += story.closes.len();
            messages += story.messages;
        }
        let mut visits = 0;
        for passer_by in self.passers_by {
            let story = timeout(PATIENCE * 2, passer_by).await.expect("passers-by leave").expect("no panic");
            all_is_well(&story);
            visits += story.welcomes;
        }
        show(&format!(
            "{closes} goodbyes, {messages} messages, {visits} short visits, {at_once} publications at the first \
             attempt, {} at the second: {retried:#?}",
            retried.len()
        ));
    }
}

#[expect(clippy::print_stderr, reason = "what happened is worth a line")]
fn show(what: &str) {
    eprintln!("{what}");
}

fn all_is_well(story: &Story) {
    assert!(story.abnormal.is_empty(), "without a close frame (1006): {story:?}");
    assert!(story.faults.is_empty(), "{story:?}");
    assert!(story.closes.iter().all(|code| [4201, 4203].contains(code)), "draining and max_age: {story:?}");
}

/// Asks Prometheus for every expression of the dashboard, as Grafana does.
async fn every_panel_has_data(prometheus: &Prometheus) {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/dashboard.json")).expect("JSON");
    let targets = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| {
        panel["targets"].as_array().into_iter().flatten().map(|target| (&panel["title"], target))
    });
    let mut count = 0;
    for (title, target) in targets {
        let expression = target["expr"].as_str().expect("an expression");
        let expression = expression.replace("$job", "carillon").replace("$__rate_interval", "30s");
        let vector = prometheus.query(&expression).await;
        assert!(!vector.is_empty(), "{title} is empty: {expression}");
        assert!(vector.iter().all(|(_, value)| value.is_finite()), "{title}: {expression}: {vector:?}");
        let legend = target["legendFormat"].as_str().expect("a legend");
        for label in legend.split("{{").skip(1).filter_map(|rest| rest.split("}}").next()) {
            assert!(
                vector.iter().all(|(labels, _)| labels[label].is_string()),
                "{title}: no {label}: {vector:?}"
            );
        }
        count += 1;
    }
    assert!(count > 10, "{count}");
}

/// No alert has gone off, though all were evaluated all the time.
async fn every_alert_was_quiet(prometheus: &Prometheus) {
    let alerts = prometheus.alerts().await;
    assert_eq!(alerts.len(), 5);
    for alert in alerts {
        assert_eq!(alert["health"], "ok", "{alert}");
    }
    let fired = prometheus.query("max_over_time(ALERTS{alertstate=\"firing\"}[10m])").await;
    assert!(fired.is_empty(), "{fired:?}");
}

/// Draws the connections of each node, and returns the picture.
async fn picture(stand: &Stand, began: f64, spans: &[Span]) -> String {
    let ends = now();
    let mut lines = Vec::new();
    let of = |last| format!("{{instance=\"{}\"}}", stand.net.at(last, 9000));
    let nodes = (1..).zip(GATEWAYS).map(|(last, name)| (name, of(last)));
    for (name, matcher) in nodes.chain([("all", String::new())]) {
        let curve = stand.prometheus.curve(&format!("sum(carillon_connections{matcher})"), began, ends).await;
        let points = curve.into_iter().flat_map(|(_, points)| points);
        let points = points.map(|(second, value)| (second - began, value)).collect();
        lines.push(Line { name: name.to_owned(), points });
    }
    for line in &lines[..GATEWAYS.len()] {
        let least = line.points.iter().map(|(_, value)| *value).fold(f64::MAX, f64::min);
        assert!(least < 50.0, "{} was never empty: {:?}", line.name, line.points);
    }
    curve::draw("Client connections of three nodes during a rolling restart", &lines, spans, ends - began)
}

/// Keeps it with what was built, and in the documentation where it is missing there.
fn keep(picture: &str) {
    let built = gateway::binary();
    let target = built.ancestors().nth(2).expect("it is in target/<profile>");
    fs::write(target.join("rolling-restart.svg"), picture).expect("the target folder is writable");
    let kept = root().join("docs/rolling-restart.svg");
    if !kept.exists() {
        fs::write(&kept, picture).expect("the checkout is writable");
        panic!("docs/rolling-restart.svg was missing; it is drawn anew: look at it and commit it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_the_worse_for_a_rolling_restart() {
    let (stand, mut gateways) = Stand::start().await;
    let load = Load::start(stand.net);
    stand.everybody_is_there().await;
    let began = now();
    sleep(Duration::from_secs(5)).await;

    let mut spans = Vec::new();
    for (number, gateway) in gateways.iter_mut().enumerate() {
        spans.push(stand.restart(number, gateway, began).await);
        sleep(Duration::from_secs(2)).await;
    }
    let nodes = "sum by (instance) (carillon_connections)";
    let unevenness = format!("max(abs({nodes} / scalar(avg({nodes})) - 1))");
    stand.prometheus.until(AGE_MAX + PATIENCE, &unevenness, |share| share <= EVEN).await;
    let last = spans.last().expect("three were restarted").to;
    show(&format!("even {:.0} s after the last restart", now() - began - last));

    every_panel_has_data(&stand.prometheus).await;
    every_alert_was_quiet(&stand.prometheus).await;
    let picture = picture(&stand, began, &spans).await;
    load.end().await;
    for gateway in &gateways {
        assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
    }
    keep(&picture);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_to_a_node_that_has_just_started_waits_for_the_broker() {
    // It takes the connection, and says nothing yet.
    let nats = NatsServer::start(NatsVersion::Newest);
    nats.pause();
    let url = nats.url();
    let gateway = Gateway::serve(&format!(
        "[api]\ndeadline = \"30s\"\n[broker]\nkind = \"nats\"\n[broker.nats]\nservers = [\"{url}\"]\nreplicas = 1\n\
         [[keys]]\nid = \"main_example\"\nsecret_sha256 = \"{SECRET_SHA256}\"\nscopes = [\"publish\"]\n\
         channels = [\"*\"]\n[[channels]]\nname = \"all\"\nmatch = \"*\"\nhistory = \"short\"\nauth = \"public\"\n"
    ));
    let api = gateway.api;
    let publishing =
        tokio::spawn(async move { attempt(api, &json!({"channel": "orders.7", "data": 1})).await });
    gateway.until("/metrics", |answer| answer.body.contains("carillon_api_connections 1")).await;
    nats.resume();
    let answer = publishing.await.unwrap().expect("an answer");
    assert_eq!(answer.status, 200, "a proxy sends publishers to whatever listens: {}", answer.body);
}
