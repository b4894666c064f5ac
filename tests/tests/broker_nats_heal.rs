//! The NATS broker when the numbers of a stream do not tell the truth, and when live messages are lost: never silence.
#![expect(clippy::disallowed_methods, reason = "tests start tasks of their own")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_nats::Client;
use carillon_broker::{Broker as _, Shard};
use carillon_broker_nats::Config;
use carillon_model::{ChannelName, Position, RetentionClass};
use carillon_tasks::clock;
use carillon_telemetry::Metrics;
use carillon_tests::{
    client::Client as Browser,
    conformance::{Brought, Inbox, PATIENCE, channel, class, classes, message, publish},
    faults::cable::Cable,
    gateway::{self, Gateway},
    nats::{NatsServer, NatsVersion},
    nats_node::{Node, config},
};
use serde_json::{Value, json};

/// One class, which keeps more than any test publishes.
fn long() -> Vec<RetentionClass> {
    classes().into_iter().take(1).map(|long| RetentionClass { max_messages: 100_000, ..long }).collect()
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| carillon_telemetry::install("0", "test").expect("the only recorder"))
}

/// Returns how many live messages were lost for this reason, in all tests of this process.
fn live_lost(reason: &str) -> u64 {
    let row = format!("carillon_broker_live_lost_total{{broker=\"nats\",reason=\"{reason}\"}} ");
    let text = metrics().render();
    text.lines().find_map(|line| line.strip_prefix(&row)?.parse().ok()).expect("the counter is shown")
}

async fn start(config: Config) -> Node {
    let node = Node::start(config).expect("a good configuration");
    node.connected().await;
    node
}

async fn behind(cable: &Cable, server: &NatsServer) -> Node {
    let servers = vec![format!("nats://127.0.0.1:{}", cable.port())];
    start(Config { servers, ..config(server, long()) }).await
}

async fn publish_some(node: &Node, to: &ChannelName, numbers: std::ops::Range<u32>) -> Vec<Position> {
    let mut positions = Vec::new();
    for n in numbers {
        let published = publish(&*node.broker, &class("long"), message(to, n)).await;
        positions.push(published.expect("a good message is stored").position);
    }
    positions
}

async fn publish_live(node: &Node, to: &ChannelName, numbers: std::ops::Range<u32>) {
    for n in numbers {
        let sent = node.broker.publish_live(message(to, n), clock::now() + PATIENCE).await;
        sent.expect("the link is up");
    }
}

fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{from:?} cannot be copied");
}

/// Copies what the server has stored, while it is away for a moment.
async fn back_up(server: &mut NatsServer, nodes: &[&Node]) -> PathBuf {
    server.kill();
    for node in nodes {
        node.degraded().await;
    }
    let backup = server.store().with_extension("backup");
    copy(&server.store(), &backup);
    server.restart();
    for node in nodes {
        node.connected().await;
    }
    backup
}

fn restore(server: &mut NatsServer, backup: &Path) {
    server.kill();
    server.forget();
    copy(backup, &server.store());
    server.restart();
}

/// Rolls the storage back while a node is cut off, and publishes `count` messages before it is back. All but the
/// first ten of twenty are lost. Nobody else is there who remembers them.
async fn a_rollback_behind_a_nodes_back(version: NatsVersion, count: u32) {
    let mut server = NatsServer::start(version);
    let cable = Cable::to(server.address()).await;
    let reader = behind(&cable, &server).await;
    let news = channel("news");
    let before = publish_some(&reader, &news, 0..10).await;
    let backup = back_up(&mut server, &[&reader]).await;
    publish_some(&reader, &news, 10..20).await;
    reader.inbox.until("twenty", |inbox| inbox.texts(&news) == texts(0..20)).await;
    cable.cut();
    reader.degraded().await;
    restore(&mut server, &backup);
    let other = start(config(&server, long())).await;
    let overtaken = publish_some(&other, &news, 20..20 + count).await.pop().expect("some");
    assert_eq!(overtaken.epoch, before[0].epoch, "the stream does not know that it was rolled back");
    assert_eq!(overtaken.offset.get(), before[9].offset.get() + u64::from(count));
    cable.mend();
    for node in [&reader, &other] {
        node.inbox.until("word of the loss", |inbox| inbox.losses().len() == 1).await;
        node.connected().await;
    }
    let lost = reader.inbox.losses().remove(0);
    assert_eq!(other.inbox.losses(), std::slice::from_ref(&lost), "all nodes agree");
    assert_eq!((&lost.class, lost.shard), (&class("long"), Shard::of(&news)));
    assert_ne!(lost.position.epoch, before[0].epoch);
    assert_eq!(lost.position.offset, overtaken.offset);
    let after = publish_some(&other, &news, 90..93).await;
    assert_eq!(after[0].epoch, lost.position.epoch);
    let all = [texts(0..20), texts(90..93)].concat();
    reader.inbox.until("what follows", |inbox| inbox.texts(&news) == all).await;
    assert_eq!((reader.inbox.losses().len(), other.inbox.losses().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_that_was_overtaken_is_a_loss_and_a_new_epoch() {
    a_rollback_behind_a_nodes_back(NatsVersion::Newest, 15).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_of_the_same_length_is_a_loss_and_a_new_epoch() {
    a_rollback_behind_a_nodes_back(NatsVersion::Newest, 10).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_server_tells_of_a_rollback_too() {
    a_rollback_behind_a_nodes_back(NatsVersion::Oldest, 11).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_old_copy_for_a_second_time_is_a_third_epoch() {
    let mut server = NatsServer::start(NatsVersion::Newest);
    let (node, news) = (start(config(&server, long())).await, channel("news"));
    let mut epochs = vec![publish_some(&node, &news, 0..10).await[0].epoch];
    let backup = back_up(&mut server, &[&node]).await;
    for round in 1..=2 {
        publish_some(&node, &news, 10..15).await;
        restore(&mut server, &backup);
        node.inbox.until("word of the loss", |inbox| inbox.losses().len() == round).await;
        node.connected().await;
        let lost = node.inbox.losses().remove(round - 1).position;
        assert!(!epochs.contains(&lost.epoch), "{lost} after {epochs:?}");
        epochs.push(lost.epoch);
    }
}

/// What is brought of a shard on which one channel is published to has no hole without word of a loss.
fn assert_no_silent_gap(inbox: &Inbox, of: &ChannelName) -> BTreeMap<(String, u64), String> {
    let (mut at, mut said) = (None::<Position>, BTreeMap::new());
    for brought in inbox.all() {
        match brought {
            Brought::Lost(lost) => at = Some(lost.position),
            Brought::LostLive(_) => {}
            Brought::Publication(publication) => {
                assert_eq!(publication.message.channel, *of);
                let here = publication.position.expect("a durable channel");
                if let Some(at) = at {
                    assert_eq!(here, Position { offset: at.offset.next(), ..at }, "no gap");
                }
                at = Some(here);
                let text = String::from_utf8_lossy(&publication.message.data).into_owned();
                said.insert((here.epoch.to_string(), here.offset.get()), text);
            }
        }
    }
    said
}

async fn ask(client: &Client, subject: String, body: &str) -> Value {
    let answer = client.request(subject, body.to_owned().into()).await.expect("JetStream answers");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert_eq!(answer.get("error"), None, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_made_anew_under_load_is_never_taken_for_the_old_one() {
    let server = NatsServer::start(NatsVersion::Newest);
    let nodes = [start(config(&server, long())).await, start(config(&server, long())).await];
    let (writer, news) = (Arc::new(start(config(&server, long())).await), channel("news"));
    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let publishers = (0..16).map(|_| {
        let (writer, news) = (Arc::clone(&writer), news.clone());
        let (stop, next) = (Arc::clone(&stop), Arc::clone(&next));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                // What falls into the moment without a stream is tried again for a while, and may fail.
                let deadline = clock::now() + Duration::from_millis(500);
                let _outcome = writer.broker.publish(&class("long"), message(&news, n), deadline).await;
            }
        })
    });
    let publishers: Vec<_> = publishers.collect();
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    let stream = format!("gw_long_{}", Shard::of(&news).index());
    for round in 1..=3 {
        let brought = nodes.each_ref().map(|node| node.inbox.of(&news).len());
        for (node, brought) in nodes.iter().zip(brought) {
            node.inbox.until("some", |inbox| inbox.of(&news).len() > brought + 200).await;
        }
        let info = ask(&client, format!("$JS.API.STREAM.INFO.{stream}"), "").await;
        ask(&client, format!("$JS.API.STREAM.DELETE.{stream}"), "").await;
        ask(&client, format!("$JS.API.STREAM.CREATE.{stream}"), &info["config"].to_string()).await;
        for node in nodes.iter().chain([&*writer]) {
            node.inbox.until("word of the loss", |inbox| inbox.losses().len() >= round).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.expect("no publisher panics");
    }
    let last = publish_some(&writer, &news, 1_000_000..1_000_001).await.remove(0);
    for node in &nodes {
        node.inbox.until("the last", |inbox| inbox.texts(&news).last().is_some_and(|n| n == "1000000")).await;
        node.connected().await;
    }
    let [one, other] = nodes.each_ref().map(|node| assert_no_silent_gap(&node.inbox, &news));
    for (place, text) in &one {
        assert!(other.get(place).is_none_or(|same| same == text), "{place:?} says {text} and {other:?}");
    }
    let end = (last.epoch.to_string(), last.offset.get());
    assert!(one.contains_key(&end) && other.contains_key(&end));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_is_a_loss_to_those_who_missed_something() {
    let server = NatsServer::start(NatsVersion::Newest);
    let cable = Cable::to(server.address()).await;
    let reader = behind(&cable, &server).await;
    let (other, news) = (start(config(&server, long())).await, channel("news"));
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    let purge = format!("$JS.API.STREAM.PURGE.gw_long_{}", Shard::of(&news).index());
    publish_some(&other, &news, 0..5).await;
    reader.inbox.until("five", |inbox| inbox.texts(&news) == texts(0..5)).await;
    ask(&client, purge.clone(), "").await;
    publish_some(&other, &news, 5..7).await;
    reader.inbox.until("seven", |inbox| inbox.texts(&news) == texts(0..7)).await;
    cable.cut();
    reader.degraded().await;
    let missed = publish_some(&other, &news, 7..10).await;
    ask(&client, purge, "").await;
    publish_some(&other, &news, 10..12).await;
    cable.mend();
    reader.connected().await;
    assert_eq!(reader.inbox.texts(&news), [texts(0..7), texts(10..12)].concat());
    let losses: Vec<_> = reader.inbox.losses().iter().map(|lost| lost.position).collect();
    assert_eq!((losses, other.inbox.losses()), (vec![missed[2]], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_interruption_is_told_once_to_live_channels() {
    metrics();
    let server = NatsServer::start(NatsVersion::Newest);
    let cable = Cable::to(server.address()).await;
    let reader = behind(&cable, &server).await;
    let (other, chat) = (start(config(&server, long())).await, channel("chat"));
    let every_shard: Vec<_> = Shard::all().collect();
    publish_live(&other, &chat, 0..3).await;
    reader.inbox.until("three", |inbox| inbox.texts(&chat) == texts(0..3)).await;
    let counted = live_lost("interrupted");
    let mut due = texts(0..3);
    for round in 1..=3_u32 {
        cable.cut();
        reader.degraded().await;
        publish_live(&other, &chat, round * 10..round * 10 + 4).await;
        cable.mend();
        let told = |inbox: &Inbox| inbox.live_losses().len() == round as usize;
        reader.inbox.until("word of the loss", told).await;
        publish_live(&other, &chat, round * 10 + 4..round * 10 + 6).await;
        due.extend(texts(round * 10 + 4..round * 10 + 6));
        reader.inbox.until("what follows", |inbox| inbox.texts(&chat) == due).await;
        assert_eq!(reader.inbox.live_losses(), vec![every_shard.clone(); round as usize]);
    }
    assert!(live_lost("interrupted") >= counted + 12, "the publisher's count shows how many");
    assert_eq!((reader.inbox.losses(), other.inbox.live_losses()), (vec![], vec![]));
}

/// Publishes one number after another, until one is the last that has come: nothing is on its way any more.
async fn publish_until_one_comes(from: &Node, to: &Node, channel: &ChannelName, next: &mut u32) {
    let deadline = clock::now() + PATIENCE;
    loop {
        publish_live(from, channel, *next..*next + 1).await;
        let due = next.to_string();
        *next += 1;
        let soon = clock::now() + Duration::from_millis(200);
        while clock::now() < soon {
            if to.inbox.texts(channel).last() == Some(&due) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(clock::now() < deadline, "nothing comes: {:?}", to.inbox);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_messages_that_the_library_drops_are_told() {
    metrics();
    let server = NatsServer::start(NatsVersion::Newest);
    let reader = start(Config { subscription_capacity: 4, ..config(&server, long()) }).await;
    let (other, chat) = (start(config(&server, long())).await, channel("chat"));
    let (counted, mut next) = (live_lost("missing"), 0);
    publish_until_one_comes(&other, &reader, &chat, &mut next).await;
    let deadline = clock::now() + PATIENCE;
    while reader.inbox.live_losses().is_empty() {
        assert!(clock::now() < deadline, "a queue of four never overflows");
        publish_live(&other, &chat, next..next + 2000).await;
        next += 2000;
        publish_until_one_comes(&other, &reader, &chat, &mut next).await;
    }
    // When another has come, all is said about those before.
    publish_until_one_comes(&other, &reader, &chat, &mut next).await;
    // Behind each hole, soon, is word of it.
    let brought = reader.inbox.all();
    let (mut last, mut missing) = (0, 0);
    for (place, one) in brought.iter().enumerate() {
        let Brought::Publication(publication) = one else { continue };
        let n: u32 = String::from_utf8_lossy(&publication.message.data).parse().expect("a number");
        if n > last + 1 {
            missing += n - last - 1;
            let told =
                |one: &Brought| matches!(one, Brought::LostLive(shards) if *shards == [Shard::of(&chat)]);
            assert!(
                brought[place..].iter().take(258).any(told),
                "nobody was told what is missing before {n}"
            );
        }
        last = last.max(n);
    }
    assert!(missing > 0);
    assert!(live_lost("missing") > counted);
    assert_eq!(reader.inbox.losses(), []);
    assert_eq!(other.inbox.live_losses(), Vec::<Vec<Shard>>::new(), "it has all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_live_channels_find_one_gap_for_every_interruption() {
    let server = NatsServer::start(NatsVersion::Newest);
    let cable = Cable::to(server.address()).await;
    let (_, printed, _) = gateway::run(&["key", "new"], &[]);
    let key = printed.lines().next().expect("the key is the first line");
    let keys = &printed[printed.find("[[keys]]").expect("its configuration follows")..];
    let serve = |port: u16| {
        Gateway::serve(&format!(
            "{keys}\n\
             [broker]\nkind = \"nats\"\n\
             [broker.nats]\nservers = [\"nats://127.0.0.1:{port}\"]\nreplicas = 1\n\
             [[channels]]\nname = \"orders\"\nmatch = \"orders.*\"\nhistory = \"long\"\nauth = \"public\"\n\
             [[channels]]\nname = \"live\"\nmatch = \"live.*\"\nauth = \"public\"\n"
        ))
    };
    let (node, other) = (serve(cable.port()), serve(server.address().port()));
    node.ready().await;
    other.ready().await;
    let publish = async |channel: &str, data: u32| {
        let answer = other.publish_as(key, &json!({"channel": channel, "data": data})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    let channels = ["live.score", "live.chat", "orders.7"];
    let mut client = Browser::subscribed(&node.ws(""), &channels).await;
    let mut said = Vec::new();
    for round in 1..=2 {
        node.until("/readyz", |answer| !answer.body.contains("degraded")).await;
        cable.cut();
        node.until("/readyz", |answer| answer.body.contains("degraded")).await;
        for channel in channels {
            publish(channel, round * 10).await;
        }
        cable.mend();
        let all = |said: &[String]| {
            let gaps = said.iter().filter(|said| said.starts_with("gap")).count();
            (gaps, said.contains(&format!("orders.7 {}", round * 10))) == (2 * round as usize, true)
        };
        while !all(&said) {
            said.push(shown(&client.frame().await));
        }
        // Nothing more is said about it.
        for channel in channels {
            publish(channel, round * 10 + 1).await;
        }
        for _ in channels {
            said.push(shown(&client.frame().await));
        }
    }
    said.sort();
    let due = |round: u32| {
        let told = channels[..2].iter().map(|channel| format!("gap {channel}"));
        let brought = channels.map(|channel| format!("{channel} {}", round * 10 + 1));
        told.chain(brought).chain([format!("orders.7 {}", round * 10)]).collect::<Vec<_>>()
    };
    let mut due = [due(1), due(2)].concat();
    due.sort();
    assert_eq!(said, due);
}

/// Writes a frame shortly: its channel, and its data or that it is a gap.
fn shown(frame: &Value) -> String {
    let channel = frame["channel"].as_str().expect("a channel");
    match frame["type"].as_str() {
        Some("gap") => {
            assert_eq!(frame.get("position"), None, "a live channel has no positions: {frame}");
            format!("gap {channel}")
        }
        _ => format!("{channel} {}", frame["data"]),
    }
}
