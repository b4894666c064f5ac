//! How a process starts, refuses to, and goes: politely, or at once when it is told twice.
#![expect(clippy::disallowed_methods, reason = "tests run clients and publishers beside their steps")]

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use carillon_tasks::clock;
use carillon_tests::{
    client::{Client, Got},
    gateway::{self, ConfigFile, Gateway, PATIENCE},
    http,
    process::Process,
    raw::{Raw, handshake},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Beyond what a test's machine may add.
const SLACK: Duration = Duration::from_secs(20);

/// What one client saw until its connection was closed.
struct Departure {
    /// The data of the messages that it got.
    messages: Vec<Value>,
    goodbye: Value,
    at: Instant,
    close: (u16, String),
}

impl Departure {
    fn retry_after_ms(&self) -> u64 {
        self.goodbye["retry_after_ms"].as_u64().unwrap_or_else(|| panic!("{}", self.goodbye))
    }
}

/// Reads until the end, which must come with a goodbye and a close frame and nothing between or after them.
async fn depart(mut client: Client) -> Departure {
    let mut messages = Vec::new();
    let goodbye = loop {
        let frame = client.frame().await;
        match frame["type"].as_str() {
            Some("message") => messages.push(frame["data"].clone()),
            Some("goodbye") => break frame,
            _ => panic!("{frame}"),
        }
    };
    let at = clock::now();
    let Got::Closed(Some(close)) = client.next().await else { panic!("a close frame follows a goodbye") };
    Departure { messages, goodbye, at, close }
}

fn dev(drain: &str, grace: &str) -> Gateway {
    Gateway::dev(&[("CARILLON__NODE__DRAIN", drain), ("CARILLON__NODE__GRACE", grace)])
}

async fn clients(gateway: &Gateway, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::subscribed(&gateway.ws(""), &["news"]).await);
    }
    clients
}

/// Waits until nobody can connect any more; a listener that closes may still break one that was waiting.
async fn refuses_sockets(address: SocketAddr) {
    let trying = async {
        loop {
            match TcpStream::connect(address).await {
                Err(fault) if fault.kind() == ErrorKind::ConnectionRefused => return,
                Ok(_) | Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
    };
    timeout(PATIENCE, trying).await.expect("the listener closes");
}

async fn health_client(api: SocketAddr) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{api}")).expect("a URL");
    HealthClient::new(endpoint.connect().await.expect("the API listens"))
}

async fn grpc_health(api: SocketAddr) -> ServingStatus {
    let asked = health_client(api).await.check(HealthCheckRequest::default()).await;
    asked.expect("health is answered").into_inner().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_moves_every_client_politely_and_spread_over_the_drain() {
    let (drain, grace) = (Duration::from_secs(6), Duration::from_secs(30));
    let mut gateway = dev("6s", "30s");
    let clients = clients(&gateway, 60).await;
    assert_eq!(grpc_health(gateway.api).await, ServingStatus::Serving);
    let over = Arc::new(AtomicBool::new(false));
    let publisher = tokio::spawn(publish_on_and_on(gateway.api, Arc::clone(&over)));
    let departures: Vec<_> = clients.into_iter().map(|client| tokio::spawn(depart(client))).collect();

    let began = clock::now();
    gateway.signal("TERM");
    let ready = gateway.until("/readyz", |answer| answer.status == 503).await;
    assert!(ready.body.contains("draining: true"), "{}", ready.body);
    assert!(clock::now() - began < drain, "readiness goes at once");
    refuses_sockets(gateway.public).await;
    assert_eq!(http::get(gateway.admin, "/livez").await.status, 200);
    assert_eq!(grpc_health(gateway.api).await, ServingStatus::NotServing);
    let admin = format!("http://{}", gateway.admin);
    assert_eq!(gateway::run(&["healthcheck", "--admin", &admin], &[]).0, Some(0));
    assert_eq!(gateway::run(&["healthcheck", "--ready", "--admin", &admin], &[]).0, Some(1));

    let mut seen = Vec::new();
    for departure in departures {
        seen.push(timeout(PATIENCE, departure).await.expect("clients leave in time").unwrap());
    }
    over.store(true, Ordering::Relaxed);
    let acknowledged = publisher.await.unwrap();
    assert_eq!(gateway.ended().code(), Some(0), "nothing was cut");
    assert!(clock::now() - began < drain + grace, "{:?}", clock::now() - began);
    all_were_polite(&seen);
    they_were_spread(&seen, began, drain);
    nobody_missed_a_message_before_its_goodbye(&seen, &acknowledged, began);
}

/// Publishes numbers until told to stop or until nobody answers; returns when each was acknowledged.
async fn publish_on_and_on(api: SocketAddr, over: Arc<AtomicBool>) -> Vec<Instant> {
    let headers = [("Authorization", "Bearer dev"), ("Content-Type", "application/json")];
    let mut acknowledged = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let body = json!({"channel": "news", "data": acknowledged.len()}).to_string();
        let Some(answer) = http::post_if_there(api, "/v1/publish", &headers, &body).await else { break };
        assert_eq!(answer.status, 200, "{}", answer.body);
        acknowledged.push(clock::now());
        sleep(LOOK_AGAIN).await;
    }
    acknowledged
}

fn all_were_polite(seen: &[Departure]) {
    for departure in seen {
        assert_eq!(departure.goodbye["code"], 4201, "{}", departure.goodbye);
        assert_eq!(departure.goodbye["error"], "draining");
        assert_eq!(departure.close, (4201, "draining".to_owned()));
        assert!(departure.retry_after_ms() <= 2000);
    }
    let mut waits: Vec<_> = seen.iter().map(Departure::retry_after_ms).collect();
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > seen.len() / 2, "they would all come back at once: {waits:?}");
}

fn they_were_spread(seen: &[Departure], began: Instant, drain: Duration) {
    let mut at: Vec<_> = seen.iter().map(|departure| departure.at - began).collect();
    at.sort_unstable();
    assert!(at[at.len() - 1] < drain + SLACK, "{at:?}");
    // Sixty throws all miss a third of the window once in 10^10.
    assert!(at[0] < drain / 3 && at[at.len() - 1] > drain * 2 / 3, "{at:?}");
    let at_once =
        at.windows(20).map(|twenty| twenty[19] - twenty[0]).min().expect("there are more than twenty");
    assert!(at_once > drain / 20, "twenty of sixty were asked within {at_once:?}");
}

fn nobody_missed_a_message_before_its_goodbye(seen: &[Departure], acknowledged: &[Instant], began: Instant) {
    let count = |before: Instant| acknowledged.iter().filter(|at| **at < before).count();
    for departure in seen {
        let first =
            departure.messages.first().map_or(0, |number| number.as_u64().expect("numbers were published"));
        let wanted: Vec<_> = (first..).take(departure.messages.len()).map(Value::from).collect();
        assert_eq!(departure.messages, wanted, "without a gap");
        // What was acknowledged in the last moment may have met the goodbye.
        let sure = count(departure.at - Duration::from_millis(200));
        assert!(departure.messages.len() >= sure, "{} of {sure}", departure.messages.len());
    }
    let longest = seen.iter().map(|departure| departure.messages.len()).max().expect("there were clients");
    assert!(longest > count(began) + 20, "messages go on during the drain");
}

#[tokio::test]
async fn what_waits_for_a_slow_client_is_sent_before_the_goodbye() {
    let (messages, bytes) = (150, 60_000);
    let environment = [
        ("CARILLON__NODE__DRAIN", "1s"),
        ("CARILLON__NODE__GRACE", "10s"),
        ("CARILLON__CLIENT__OUTBOX_MAX", "64MiB"),
    ];
    let mut gateway = Gateway::dev(&environment);
    let mut client = Client::connect_narrowly(gateway.public, &gateway.ws("channel=news")).await;
    assert_eq!(client.frame().await["type"], "welcome");
    assert_eq!(client.frame().await["type"], "subscribed");
    for number in 0..messages {
        let data = format!("{number} {}", "x".repeat(bytes));
        assert_eq!(gateway.publish(&json!({"channel": "news", "data": data})).await.status, 200);
    }
    let waits = async {
        while gateway.metric("carillon_send_queue_messages").await < 10.0 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, waits).await.expect("a client that does not read has messages waiting");
    gateway.signal("TERM");
    refuses_sockets(gateway.public).await;
    let departure = depart(client).await;
    assert_eq!(departure.messages.len(), messages);
    for (number, data) in departure.messages.iter().enumerate() {
        assert!(data.as_str().unwrap().starts_with(&format!("{number} ")));
    }
    assert_eq!(departure.close.0, 4201);
    assert_eq!(gateway.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_sigterm_ends_at_once_and_still_with_close_frames() {
    let mut gateway = dev("10m", "1m");
    let clients = clients(&gateway, 20).await;
    let departures: Vec<_> = clients.into_iter().map(|client| tokio::spawn(depart(client))).collect();
    let began = clock::now();
    gateway.signal("TERM");
    let _answer = gateway.until("/readyz", |answer| answer.status == 503).await;
    gateway.signal("TERM");
    let mut cut = 0;
    for departure in departures {
        let departure = timeout(PATIENCE, departure).await.expect("clients leave in time").unwrap();
        // One may have drawn the first moment of ten minutes.
        assert!(matches!(departure.close.0, 4200 | 4201), "{:?}", departure.close);
        assert!(departure.retry_after_ms() <= 2000);
        cut += usize::from(departure.close == (4200, "going_away".to_owned()));
    }
    assert!(cut > 10, "{cut}");
    let status = gateway.ended();
    // 3 says that the drain was cut short.
    assert_eq!(status.code(), Some(3));
    assert!(clock::now() - began < Duration::from_secs(2) + SLACK, "{:?}", clock::now() - began);
}

#[tokio::test]
async fn a_handshake_under_way_is_finished_and_told_goodbye() {
    let environment =
        [("CARILLON__NODE__WORKERS", "1"), ("CARILLON__NODE__DRAIN", "0s"), ("CARILLON__NODE__GRACE", "1m")];
    let mut gateway = Gateway::dev(&environment);
    // One that does not answer its close keeps the worker for a few seconds.
    let deaf = Raw::open(gateway.public, "/v1/ws?channel=news").await;
    let request = handshake("/v1/ws?channel=news", "");
    let (begin, rest) = request.split_at(request.len() / 2);
    let mut half = Raw::connect(gateway.public).await;
    half.send(begin).await;
    gateway.signal("TERM");
    let _answer = gateway.until("/readyz", |answer| answer.status == 503).await;
    half.send(rest).await;
    refuses_sockets(gateway.public).await;
    assert!(
        half.head().await.starts_with("HTTP/1.1 101"),
        "a proxy or a browser would call anything else a failure"
    );
    assert_eq!(half.closed().await, (4201, "draining".to_owned()));
    drop((half, deaf));
    assert_eq!(gateway.ended().code(), Some(0));
}

#[tokio::test]
async fn whoever_waits_to_be_accepted_is_told_goodbye_too() {
    // More than a task of the runtime takes in one turn.
    const WAITING: usize = 300;
    let environment = [("CARILLON__PUBLIC__ACCEPT_RATE", "1"), ("CARILLON__NODE__GRACE", "1m")];
    let mut gateway = Gateway::dev(&environment);
    let mut waiting = Vec::new();
    for _ in 0..WAITING {
        let mut raw = Raw::connect(gateway.public).await;
        raw.send(handshake("/v1/ws?channel=news", "")).await;
        waiting.push(raw);
    }
    gateway.signal("TERM");
    for mut raw in waiting {
        assert!(raw.head().await.starts_with("HTTP/1.1 101"));
        assert_eq!(raw.closed().await, (4201, "draining".to_owned()));
    }
    assert_eq!(gateway.ended().code(), Some(0));
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_keep_the_process() {
    let mut gateway = Gateway::dev(&[]);
    let mut half = Raw::connect(gateway.admin).await;
    half.send("GET /metrics HTTP/1.1\r\nHost: te").await;
    gateway.signal("TERM");
    assert_eq!(gateway.ended().code(), Some(0), "nothing was cut");
    drop(half);
}

#[tokio::test]
async fn a_client_that_ignores_the_close_does_not_keep_the_process() {
    let mut gateway = dev("1s", "2s");
    let mut deaf = TcpStream::connect(gateway.public).await.unwrap();
    let request = "GET /v1/ws?channel=news HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    deaf.write_all(request.as_bytes()).await.unwrap();
    let connections = "carillon_connections{transport=\"websocket\",protocol=\"native\"}";
    let opens = async {
        while gateway.metric(connections).await < 1.0 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, opens).await.expect("the connection opens");
    let began = clock::now();
    gateway.signal("TERM");
    assert_eq!(gateway.ended().code(), Some(3), "something was cut");
    let took = clock::now() - began;
    assert!(took < Duration::from_secs(3) + SLACK, "{took:?}");
    drop(deaf);
}

#[tokio::test]
async fn connections_that_nobody_uses_do_not_keep_the_process() {
    let mut gateway = Gateway::dev(&[
        ("CARILLON__NODE__DRAIN", "10m"),
        ("CARILLON__NODE__GRACE", "1m"),
        // Longer than what is waited for.
        ("CARILLON__PUBLIC__HANDSHAKE_TIMEOUT", "60s"),
    ]);
    let mut idle = Vec::new();
    for address in [gateway.public, gateway.api, gateway.admin] {
        // One that never said anything, and one that is kept open after an answer.
        idle.push(TcpStream::connect(address).await.unwrap());
        let mut kept = TcpStream::connect(address).await.unwrap();
        kept.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
        let mut answer = [0; 8];
        timeout(PATIENCE, kept.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1");
        idle.push(kept);
    }
    let mut health = health_client(gateway.api).await;
    assert!(health.check(HealthCheckRequest::default()).await.is_ok());
    let began = clock::now();
    gateway.signal("INT");
    let status = tokio::task::spawn_blocking(move || gateway.ended()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(clock::now() - began < SLACK, "{:?}", clock::now() - began);
    drop((idle, health));
}

#[test]
fn a_signal_in_the_first_moment_is_heard() {
    for _ in 0..8 {
        let mut gateway = Gateway::dev(&[]);
        gateway.signal("TERM");
        assert_eq!(gateway.ended().code(), Some(0), "it must not die of the signal");
    }
}

#[tokio::test]
async fn healthcheck_tells_by_its_exit_code() {
    let gateway = Gateway::dev(&[]);
    let admin = format!("http://{}", gateway.admin);
    let (code, printed, _) = gateway::run(&["healthcheck", "--admin", &admin], &[]);
    assert_eq!((code, printed.trim()), (Some(0), "alive"));
    let (code, printed, _) = gateway::run(&["healthcheck", "--ready", "--admin", &admin], &[]);
    assert_eq!(code, Some(0));
    assert!(printed.contains("broker: connected"), "{printed}");
    drop(gateway);
    let (code, _, complaints) = gateway::run(&["healthcheck", "--admin", &admin], &[]);
    assert_eq!(code, Some(1));
    assert!(complaints.contains("nobody answers at"), "{complaints}");
}

#[test]
fn check_says_every_fault_at_once() {
    let file = ConfigFile::new(
        "[node]\ndrian = \"3s\"\ngrace = \"-1s\"\n[public]\nmax_connections = 0\n\
         [[keys]]\nid = \"shop\"\nsecret_sha256 = \"12\"\nscopes = [\"publish\", \"fly\"]\nchannels = [\"*\"]\n\
         [[channels]]\nname = \"orders\"\nmatch = \"orders.*\"\n\
         [[channels]]\nname = \"all\"\nmatch = \"*\"\nhistory = \"eternal\"\n",
    );
    let path = file.path().to_str().unwrap();
    for command in ["check", "serve"] {
        let (code, printed, complaints) = gateway::run(&[command, "--config", path], &[]);
        assert_eq!((code, printed.as_str()), (Some(2), ""), "{complaints}");
        for part in [
            "drian",
            "drain",
            "grace",
            "max_connections",
            "keys[0].id",
            "secret_sha256",
            "fly",
            "eternal",
            "auth.token_secret",
        ] {
            assert!(complaints.contains(part), "{command} does not mention {part}:\n{complaints}");
        }
    }
    let good = ConfigFile::new("[[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n");
    let (code, printed, complaints) =
        gateway::run(&["check", "--config", good.path().to_str().unwrap()], &[]);
    assert_eq!((code, printed.trim()), (Some(0), "the configuration is good"), "{complaints}");
    let (code, _, complaints) = gateway::run(&["check", "--config", "/nowhere/carillon.toml"], &[]);
    assert_eq!(code, Some(2));
    assert!(complaints.contains("/nowhere/carillon.toml"), "{complaints}");
}

#[test]
fn dev_listens_on_this_machine_only() {
    for address in ["0.0.0.0:0", "192.0.2.1:8000", "[::]:0", "[2001:db8::1]:80"] {
        for option in ["--public", "--api", "--admin"] {
            let (code, _, complaints) = gateway::run(&["dev", option, address], &[]);
            assert_eq!(code, Some(2), "{option} {address}");
            assert!(complaints.contains("listens on this machine only"), "{complaints}");
        }
    }
}

#[test]
fn a_port_in_use_is_said_and_ends_the_process() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["public", "api", "admin"] {
        let mut arguments = vec!["dev"];
        for option in ["--public", "--api", "--admin"] {
            arguments.extend([option, if option.ends_with(key) { &address } else { "0" }]);
        }
        let (code, _, complaints) = gateway::run(&arguments, &[]);
        assert_eq!(code, Some(1), "{complaints}");
        let expected = format!("cannot listen on {address} ({key}.listen): ");
        assert!(complaints.contains(&expected), "{complaints}");
        assert!(complaints.to_ascii_lowercase().contains("address already in use"), "{complaints}");
        assert_eq!(complaints.matches("already in use").count(), 1, "said once:\n{complaints}");
    }
}

#[test]
fn publish_and_tail_work_together() {
    let gateway = Gateway::dev(&[]);
    let (url, api) = (format!("ws://{}", gateway.public), format!("http://{}", gateway.api));
    let mut tail = Process::start(Command::new(gateway::binary()).args(["tail", "--url", &url, "a", "b"]));
    let _subscribed = (tail.says(r#""channel":"a""#), tail.says(r#""channel":"b""#));
    let publish = |arguments: &[&str]| gateway::run(&[&["publish", "--api", &api], arguments].concat(), &[]);
    let (code, printed, complaints) =
        publish(&["b", r#"{"n": 1}"#, "--event", "ticked", "--id", "only-once"]);
    assert_eq!(code, Some(0), "{complaints}");
    let answer: Value = serde_json::from_str(&printed).unwrap();
    let message: Value = serde_json::from_str(&tail.says(r#""type":"message""#)).unwrap();
    assert_eq!((&message["channel"], &message["event"]), (&json!("b"), &json!("ticked")));
    assert_eq!((&message["data"], &message["id"]), (&json!({"n": 1}), &answer["results"][0]["id"]));
    let (_, printed, _) = publish(&["b", r#"{"n": 1}"#, "--id", "only-once"]);
    assert!(printed.contains(r#""duplicate":true"#), "{printed}");
    assert_eq!(publish(&["a", "not JSON"]).0, Some(0));
    assert!(tail.says(r#""channel":"a","id""#).contains(r#""data":"not JSON""#));

    let (code, printed, complaints) = publish(&["a", "1", "--key", "wrong"]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert!(complaints.contains("unauthorized"), "{complaints}");
    drop(gateway);
    let (status, _, _) = tail.ended();
    assert_eq!(status.code(), Some(1));
    assert_eq!(publish(&["a", "1"]).0, Some(1), "nobody is there any more");
}
