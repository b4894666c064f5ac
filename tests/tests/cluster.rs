//! Several gateways on one real NATS, with a real PHP application and WebSocket clients everywhere.
#![expect(clippy::disallowed_methods, reason = "tests run publishers and watchers beside their steps")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use carillon_tasks::clock;
use carillon_tests::{
    client::Client,
    gateway::{self, Gateway, PATIENCE},
    http::{self, Answer},
    nats::{NatsServer, NatsVersion},
    php,
};
use serde_json::{Value, json};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

/// A channel with history, and one without.
const DURABLE: &str = "orders.7";
const LIVE: &str = "live.score";

/// Publishers that go on while NATS is killed.
const PUBLISHERS: usize = 4;

/// Pause between two looks at something that will change, and before a retry.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How long a publisher waits for a refusal when the node knows that NATS is away, as is promised. Held against the
/// median: the test's machine is shared.
const REFUSED_WITHIN: Duration = Duration::from_millis(250);

/// A NATS address and a key that its gateways take.
struct Cluster {
    config: String,
    key: String,
}

impl Cluster {
    fn new(nats: &NatsServer) -> Self {
        let (code, printed, complaints) = gateway::run(&["key", "new"], &[]);
        assert_eq!(code, Some(0), "{complaints}");
        let key = printed.lines().next().expect("the key is the first line").to_owned();
        let keys = &printed[printed.find("[[keys]]").expect("its configuration follows")..];
        let url = nats.url();
        let config = format!(
            "{keys}\n\
             [node]\nworkers = 2\n\
             [broker]\nkind = \"nats\"\n\
             [broker.nats]\nservers = [\"{url}\"]\nreplicas = 1\n\
             [[channels]]\nname = \"orders\"\nmatch = \"orders.*\"\nhistory = \"long\"\nauth = \"public\"\n\
             [[channels]]\nname = \"live\"\nmatch = \"live.*\"\nauth = \"public\"\n"
        );
        Self { config, key }
    }

    fn node(&self) -> Gateway {
        Gateway::serve(&self.config)
    }

    async fn nodes(&self, count: usize) -> Vec<Gateway> {
        let nodes: Vec<_> = (0..count).map(|_| self.node()).collect();
        for node in &nodes {
            node.ready().await;
        }
        nodes
    }

    async fn publish(&self, node: &Gateway, channel: &str, data: impl Into<Value>) -> Answer {
        let data = data.into();
        // The same data, the same id.
        node.publish_as(&self.key, &json!({"channel": channel, "id": data.to_string(), "data": data})).await
    }
}

/// Reads messages of a client until `count` came on each channel, and returns them by channel.
async fn read(mut client: Client, channels: &[&str], count: usize) -> BTreeMap<String, Vec<Value>> {
    let mut read: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    while channels.iter().any(|channel| read.get(*channel).is_none_or(|all| all.len() < count)) {
        let message = client.message().await;
        read.entry(message["channel"].as_str().expect("a channel").to_owned()).or_default().push(message);
    }
    read
}

async fn php_reaches_every_node(version: NatsVersion, nodes: usize, count: usize) {
    let nats = NatsServer::start(version);
    let cluster = Cluster::new(&nats);
    let nodes = cluster.nodes(nodes).await;
    let mut readers = Vec::new();
    for node in &nodes {
        for _ in 0..2 {
            let client = Client::subscribed(&node.ws(""), &[DURABLE, LIVE]).await;
            readers.push(tokio::spawn(read(client, &[DURABLE, LIVE], count)));
        }
    }
    let api = format!("http://{}", nodes[0].api);
    let count_text = count.to_string();
    let code = r#"
        $carillon = new Carillon\Client(getenv('API'), getenv('KEY'), ['timeout_ms' => 10000]);
        for ($number = 0; $number < (int) getenv('COUNT'); $number++) {
            $results = $carillon->publish(['orders.7', 'live.score'], ['number' => $number], ['event' => 'tick']);
            echo json_encode($results), "\n";
        }
    "#;
    let environment = [("API", api.as_str()), ("KEY", &cluster.key), ("COUNT", &count_text)];
    let mut php = php::piece(code, &environment);
    let (status, output, complaints) = php.ended();
    assert!(status.success(), "{output}{complaints}");
    let answers: Vec<Value> =
        output.lines().map(|line| serde_json::from_str(line).expect("a result is JSON")).collect();
    assert_eq!(answers.len(), count);

    let mut first: Option<BTreeMap<String, Vec<Value>>> = None;
    for reader in readers {
        let read =
            timeout(PATIENCE, reader).await.expect("all messages come in time").expect("and as they should");
        for (channel, messages) in &read {
            let numbers: Vec<_> = messages.iter().map(|message| message["data"]["number"].clone()).collect();
            let wanted: Vec<_> = (0..count).map(Value::from).collect();
            assert_eq!(numbers, wanted, "{channel}: each once, in order");
        }
        for (message, answer) in read[DURABLE].iter().zip(&answers) {
            assert_eq!(message["id"], answer[0]["id"], "the publisher knows the id that clients see");
        }
        assert!(read[LIVE].iter().all(|message| message.get("id").is_none()));
        // Equal byte for byte, `time` included, on whatever node.
        assert_eq!(first.get_or_insert_with(|| read.clone()), &read);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_php_publishes_on_one_node_reaches_clients_of_all_three() {
    php_reaches_every_node(NatsVersion::Oldest, 3, 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_nats_does_as_well() {
    php_reaches_every_node(NatsVersion::Newest, 2, 20).await;
}

/// What a publisher that never gives up has seen.
#[derive(Default)]
struct Seen {
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    /// The node has said that its link is down, until this is taken back.
    known_down: AtomicBool,
    stop: AtomicBool,
}

impl Seen {
    /// Waits until `count` more publications were acknowledged, or refused.
    async fn more(&self, of: &AtomicUsize, count: usize) {
        let wanted = of.load(Ordering::Relaxed) + count;
        let growing = async {
            while of.load(Ordering::Relaxed) < wanted {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(PATIENCE, growing).await.expect("publishing goes on");
    }
}

/// Publishes `publisher`/0, /1, /2… on a node, each until it is acknowledged, always with the same id. Returns how
/// many there were and how long each refusal took while the node knew that NATS was away.
async fn publish_on_and_on(
    publisher: usize,
    cluster: Arc<Cluster>,
    node: Arc<Gateway>,
    seen: Arc<Seen>,
) -> (usize, Vec<Duration>) {
    let mut refused_after = Vec::new();
    let mut number = 0;
    while !seen.stop.load(Ordering::Relaxed) {
        let known_down = seen.known_down.load(Ordering::Relaxed);
        let began = clock::now();
        let answer = cluster.publish(&node, DURABLE, format!("{publisher}/{number}")).await;
        let took = clock::now() - began;
        if answer.status == 200 {
            number += 1;
            seen.acknowledged.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        assert_unavailable(&answer);
        if known_down && seen.known_down.load(Ordering::Relaxed) {
            refused_after.push(took);
            seen.refused.fetch_add(1, Ordering::Relaxed);
        }
        sleep(LOOK_AGAIN).await;
    }
    (number, refused_after)
}

fn assert_unavailable(answer: &Answer) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    assert!(
        answer
            .header("retry-after")
            .is_some_and(|after| after.parse::<u32>().is_ok_and(|seconds| seconds > 0)),
        "{answer:?}"
    );
    let problem = answer.json();
    assert_eq!((&problem["error"], &problem["retryable"]), (&json!("unavailable"), &json!(true)));
}

/// Asks whether nodes are alive, over and over; returns how often it was told so.
fn watch_livez(nodes: &[Arc<Gateway>], seen: &Arc<Seen>) -> JoinHandle<usize> {
    let (admins, seen): (Vec<_>, _) = (nodes.iter().map(|node| node.admin).collect(), Arc::clone(seen));
    tokio::spawn(async move {
        let mut asked = 0;
        while !seen.stop.load(Ordering::Relaxed) {
            for admin in &admins {
                let answer = http::get(*admin, "/livez").await;
                assert_eq!(answer.status, 200, "{}", answer.body);
                asked += 1;
            }
            sleep(LOOK_AGAIN).await;
        }
        asked
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_is_killed_while_messages_flow_and_nothing_acknowledged_is_lost() {
    let mut nats = NatsServer::start(NatsVersion::Oldest);
    let cluster = Arc::new(Cluster::new(&nats));
    let nodes: Vec<_> = cluster.nodes(3).await.into_iter().map(Arc::new).collect();
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Client::subscribed(&node.ws(""), &[DURABLE]).await);
    }
    let seen = Arc::new(Seen::default());
    let livez = watch_livez(&nodes, &seen);
    let publish = |publisher| {
        let (cluster, node, seen) = (Arc::clone(&cluster), Arc::clone(&nodes[0]), Arc::clone(&seen));
        tokio::spawn(publish_on_and_on(publisher, cluster, node, seen))
    };
    let publishers: Vec<_> = (0..PUBLISHERS).map(publish).collect();

    seen.more(&seen.acknowledged, 100).await;
    nats.kill();
    for node in &nodes {
        let answer = node.until("/readyz", |answer| answer.body.contains("degraded")).await;
        // If every node stopped to be ready, clients would have nowhere to go.
        assert_eq!(answer.status, 200);
    }
    seen.known_down.store(true, Ordering::Relaxed);
    seen.more(&seen.refused, 60).await;
    let live = cluster.publish(&nodes[0], LIVE, 0).await;
    assert_unavailable(&live);
    seen.known_down.store(false, Ordering::Relaxed);

    nats.restart();
    seen.more(&seen.acknowledged, 100).await;
    seen.stop.store(true, Ordering::Relaxed);
    let (mut published, mut refused_after) = (Vec::new(), Vec::new());
    for publisher in publishers {
        let (count, some) = timeout(PATIENCE, publisher).await.expect("it stops in time").unwrap();
        refused_after.extend(some);
        published.push(count);
    }
    refused_after.sort_unstable();
    let (usual, slowest) = (refused_after[refused_after.len() / 2], refused_after[refused_after.len() - 1]);
    show(&format!("refused in {usual:?}, at most {slowest:?}, while NATS was known to be away"));
    assert!(usual < REFUSED_WITHIN, "{refused_after:?}");
    assert!(livez.await.unwrap() > 20);
    everything_came_to_all(clients, &published).await;
}

/// Every client has, on the connection that was there before, each message of each publisher once and in order, and
/// all clients have the same.
async fn everything_came_to_all(clients: Vec<Client>, published: &[usize]) {
    let mut same: Option<Vec<(Value, Value)>> = None;
    for client in clients {
        let reading = read(client, &[DURABLE], published.iter().sum());
        let read = timeout(PATIENCE, reading).await.expect("all comes in time");
        for (publisher, count) in published.iter().enumerate() {
            let prefix = format!("{publisher}/");
            let texts = read[DURABLE].iter().filter_map(|message| message["data"].as_str());
            let numbers: Vec<_> = texts.filter_map(|text| text.strip_prefix(&prefix)).collect();
            let wanted: Vec<_> = (0..*count).map(|number| number.to_string()).collect();
            assert_eq!(numbers, wanted, "publisher {publisher}");
        }
        let pairs = read[DURABLE].iter().map(|message| (message["id"].clone(), message["data"].clone()));
        let pairs: Vec<_> = pairs.collect();
        assert_eq!(same.get_or_insert_with(|| pairs.clone()), &pairs);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_stands_still_and_a_retry_with_the_same_id_is_safe() {
    let nats = NatsServer::start(NatsVersion::Oldest);
    let cluster = Arc::new(Cluster::new(&nats));
    let nodes: Vec<_> = cluster.nodes(2).await.into_iter().map(Arc::new).collect();
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(Client::subscribed(&node.ws(""), &[DURABLE]).await);
    }
    assert_eq!(cluster.publish(&nodes[0], DURABLE, 0).await.status, 200);
    nats.pause();
    // Each takes its deadline of a second: three seconds in all.
    for _ in 0..3 {
        let began = clock::now();
        assert_unavailable(&cluster.publish(&nodes[0], DURABLE, 1).await);
        let took = clock::now() - began;
        assert!(took < PATIENCE, "a deadline of 1 s ended after {took:?}");
        assert_eq!(http::get(nodes[0].admin, "/livez").await.status, 200);
    }
    nats.resume();
    for number in 1..5 {
        let acknowledged = async {
            while cluster.publish(&nodes[1], DURABLE, number).await.status != 200 {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(PATIENCE, acknowledged).await.expect("NATS goes on");
    }
    for client in clients {
        let read = timeout(PATIENCE, read(client, &[DURABLE], 5)).await.expect("all comes in time");
        let numbers: Vec<_> = read[DURABLE].iter().map(|message| message["data"].clone()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4].map(Value::from));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_nats_and_serves_once_it_comes() {
    let mut nats = NatsServer::prepare(NatsVersion::Oldest, "", "");
    let cluster = Cluster::new(&nats);
    let node = cluster.node();
    assert_eq!(http::get(node.admin, "/livez").await.status, 200);
    let ready = http::get(node.admin, "/readyz").await;
    assert_eq!((ready.status, ready.body.contains("connecting")), (503, true), "{}", ready.body);

    let mut client = Client::subscribed(&node.ws(""), &[LIVE]).await;
    // A wish is kept until there is a position to give, and forgotten when the client takes it back.
    client.send(&json!({"type": "subscribe", "channels": [DURABLE, "orders.other"], "ref": 1})).await;
    client.send(&json!({"type": "unsubscribe", "channel": "orders.other", "ref": 2})).await;
    assert_eq!(client.frame().await["type"], "unsubscribed");
    let _tried = node.logged("NATS cannot be reached");
    let mut refused_after = Vec::new();
    for channel in [DURABLE, LIVE, DURABLE, LIVE, DURABLE] {
        let began = clock::now();
        assert_unavailable(&cluster.publish(&node, channel, 0).await);
        refused_after.push(clock::now() - began);
    }
    // Waiting for the deadline would take each of them a second.
    assert!(refused_after.iter().any(|took| *took < REFUSED_WITHIN), "{refused_after:?}");

    nats.restart();
    let began = clock::now();
    node.ready().await;
    show(&format!("ready {:?} after NATS came", clock::now() - began));
    let subscribed = client.frame().await;
    assert_eq!((&subscribed["type"], &subscribed["channel"]), (&json!("subscribed"), &json!(DURABLE)));
    assert!(subscribed["position"].is_string() && subscribed["ref"] == 1, "{subscribed}");
    for channel in [LIVE, DURABLE] {
        // What was refused before is accepted under the same id.
        let answer = cluster.publish(&node, channel, 0).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["results"][0]["duplicate"], false);
        assert_eq!(client.message().await["channel"], channel);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stood_still_has_missed_nothing() {
    const COUNT: usize = 200;
    let nats = NatsServer::start(NatsVersion::Oldest);
    let cluster = Cluster::new(&nats);
    let nodes = cluster.nodes(2).await;
    let client = Client::subscribed(&nodes[1].ws(""), &[DURABLE]).await;
    nodes[1].signal("STOP");
    for number in 0..COUNT {
        assert_eq!(cluster.publish(&nodes[0], DURABLE, number).await.status, 200);
    }
    nodes[1].signal("CONT");
    let read = timeout(PATIENCE, read(client, &[DURABLE], COUNT)).await.expect("all comes in time");
    let numbers: Vec<_> = read[DURABLE].iter().map(|message| message["data"].clone()).collect();
    assert_eq!(numbers, (0..COUNT).map(Value::from).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publication_under_way_is_acknowledged_before_the_process_ends() {
    let nats = NatsServer::start(NatsVersion::Oldest);
    let cluster = Arc::new(Cluster::new(&nats));
    let node = Gateway::serve(&format!("[api]\ndeadline = \"10s\"\n{}", cluster.config));
    node.ready().await;
    nats.pause();
    let mut node = Arc::new(node);
    let publishing = (Arc::clone(&cluster), Arc::clone(&node));
    let publisher = tokio::spawn(async move { publishing.0.publish(&publishing.1, DURABLE, 0).await });
    let under_way = async {
        while node.metric("carillon_broker_pending_messages{broker=\"nats\"}").await < 1.0 {
            sleep(LOOK_AGAIN).await;
        }
    };
    timeout(PATIENCE, under_way).await.expect("the publication is sent");
    node.signal("TERM");
    let _line = node.logged("stopping");
    nats.resume();
    let answer = timeout(PATIENCE, publisher).await.expect("an answer comes in time").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(Arc::get_mut(&mut node).unwrap().ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_politely_also_while_nats_is_away() {
    let mut nats = NatsServer::start(NatsVersion::Oldest);
    let cluster = Cluster::new(&nats);
    let mut node = Gateway::serve(&cluster.config.replace("[node]\n", "[node]\ndrain = \"1s\"\n"));
    node.ready().await;
    let mut client = Client::subscribed(&node.ws(""), &[DURABLE]).await;
    nats.kill();
    let _degraded = node.until("/readyz", |answer| answer.body.contains("degraded")).await;
    node.signal("TERM");
    assert_eq!(client.closed().await.0, 4201);
    drop(client);
    assert_eq!(node.ended().code(), Some(0));

    let mut early = cluster.node();
    early.signal("TERM");
    assert_eq!(early.ended().code(), Some(0), "it never reached NATS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_old_is_asked_to_move_at_a_time_of_its_own() {
    const CLIENTS: usize = 16;
    let nats = NatsServer::start(NatsVersion::Oldest);
    let cluster = Cluster::new(&nats);
    let node = Gateway::serve(&format!("{}\n[client]\nconnection_age_max = \"10s\"\n", cluster.config));
    node.ready().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let opening = clock::now();
        let mut client = Client::subscribed(&node.ws(""), &[DURABLE]).await;
        clients.push(tokio::spawn(async move {
            let goodbye = client.frame().await;
            let age = clock::now().saturating_duration_since(opening);
            (goodbye, client.closed().await, age)
        }));
    }
    let mut ages = Vec::new();
    for client in clients {
        let (goodbye, close, age) = client.await.expect("the client is told");
        assert_eq!((&goodbye["type"], &goodbye["error"]), (&json!("goodbye"), &json!("max_age")));
        assert_eq!((&goodbye["retry_after_ms"], close.0), (&json!(0), 4203), "{goodbye}");
        ages.push(age);
    }
    ages.sort();
    assert!(ages[0] >= Duration::from_secs(8), "a fifth at most is taken off: {ages:?}");
    assert!(ages[CLIENTS - 1] - ages[0] > Duration::from_millis(300), "not all at once: {ages:?}");
    let closed = "carillon_connections_closed_total{transport=\"websocket\",reason=\"max_age\"}";
    let _all = node.until("/metrics", |answer| answer.body.contains(&format!("{closed} {CLIENTS}"))).await;
    assert_eq!(node.metric("carillon_connections{transport=\"websocket\",protocol=\"native\"}").await, 0.0);
}

#[tokio::test]
async fn a_nats_that_is_too_old_ends_the_process_with_the_reason() {
    let nats = NatsServer::start(NatsVersion::TooOld);
    let (version, _) = NatsVersion::TooOld.find();
    let mut node = Cluster::new(&nats).node();
    let status = node.ended();
    assert_eq!(status.code(), Some(1));
    let reason = format!("carillon: nats-server {version} is too old");
    assert!(node.log().contains(&reason), "{}", node.log());
    assert!(node.log().contains("use 2.11 or later"), "{}", node.log());
}

#[expect(clippy::print_stderr, reason = "measured figures are shown, not judged")]
fn show(line: &str) {
    eprintln!("measured: {line}");
}
