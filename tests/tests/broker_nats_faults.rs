//! What the NATS broker does when NATS fails: nothing that was acknowledged is missed in silence, nothing hangs.
#![expect(clippy::disallowed_methods, reason = "tests start tasks of their own")]

use std::{
    path::Path,
    process::Command,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_nats::HeaderMap;
use bytes::Bytes;
use carillon_broker::{AttachError, Broker as _, Health, Lost, PublishError, RecoverError, Shard};
use carillon_broker_nats::Config;
use carillon_model::{
    ChannelName, IdempotencyKey, NewMessage, Position, ReplayLimits, RetentionClass, Since, Unrecovered,
};
use carillon_tasks::clock;
use carillon_telemetry::Metrics;
use carillon_tests::{
    conformance::{PATIENCE, channel, class, classes, message, past, position, publish, stored},
    faults::cable::Cable,
    nats::{NatsServer, NatsVersion},
    nats_node::{Node, config},
};

/// The API promises an answer in this time once it is known that the broker is away.
const AT_ONCE: Duration = Duration::from_millis(250);

/// One class, which keeps more than any test publishes.
fn long() -> Vec<RetentionClass> {
    classes().into_iter().take(1).map(|long| RetentionClass { max_messages: 100_000, ..long }).collect()
}

fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| carillon_telemetry::install("0", "test").expect("the only recorder"))
}

/// Returns the value of one of the broker's counters.
fn counted(name: &str) -> f64 {
    let text = metrics().render();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{broker=\"nats\"")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(f64::NAN)
}

async fn start(config: Config) -> Node {
    let node = Node::start(config).expect("a good configuration");
    node.connected().await;
    node
}

async fn publish_some(node: &Node, to: &ChannelName, numbers: std::ops::Range<u32>) -> Vec<Position> {
    let mut positions = Vec::new();
    for n in numbers {
        let published = publish(&*node.broker, &class("long"), message(to, n)).await;
        positions.push(published.expect("a good message is stored").position);
    }
    positions
}

fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_that_is_away_at_the_start_is_waited_for() {
    let mut server = NatsServer::prepare(NatsVersion::Newest, "", "");
    let node = Node::start(config(&server, long())).expect("a good configuration");
    let (long, news, asked) = (class("long"), channel("news"), clock::now());
    assert!(matches!(*node.health().borrow(), Health::Connecting { .. }));
    assert_eq!(publish(&*node.broker, &long, message(&news, 1)).await, Err(PublishError::Unavailable));
    let live = node.broker.publish_live(message(&news, 1), clock::now() + PATIENCE).await;
    assert_eq!(live, Err(PublishError::Unavailable));
    assert_eq!(position(&*node.broker, &long, &news), Err(AttachError::Unavailable));
    let read = node.broker.recover(&long, &news, Since::Oldest, ReplayLimits::default()).await;
    assert_eq!(read.map(|_| ()), Err(RecoverError::Unavailable));
    assert!(clock::now().duration_since(asked) < AT_ONCE);
    server.restart();
    node.connected().await;
    publish_some(&node, &news, 0..3).await;
    node.inbox.until("three", |inbox| inbox.texts(&news) == texts(0..3)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_publish_while_a_node_is_cut_off_follows_in_order() {
    let server = NatsServer::start(NatsVersion::Newest);
    let cable = Cable::to(server.address()).await;
    let servers = vec![format!("nats://127.0.0.1:{}", cable.port())];
    let reader = start(Config { servers, ..config(&server, long()) }).await;
    let other = start(config(&server, long())).await;
    let news = channel("news");
    publish_some(&other, &news, 0..3).await;
    reader.inbox.until("three", |inbox| inbox.texts(&news).len() == 3).await;
    for (from, to) in [(3, 1500), (1500, 1600)] {
        cable.cut();
        reader.degraded().await;
        let asked = clock::now();
        let refused = publish(&*reader.broker, &class("long"), message(&news, 9)).await;
        assert_eq!(refused, Err(PublishError::Unavailable));
        assert!(clock::now().duration_since(asked) < AT_ONCE);
        let last = publish_some(&other, &news, from..to).await.pop().expect("some");
        cable.mend();
        reader.connected().await;
        // Healthy means that nothing is missing.
        let head = position(&*reader.broker, &class("long"), &news).expect("attached");
        assert_eq!((head, reader.inbox.texts(&news)), (last, texts(0..to)));
    }
    assert_eq!(reader.inbox.losses(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_kept_long_enough_is_said_to_be_lost() {
    let server = NatsServer::start(NatsVersion::Newest);
    let cable = Cable::to(server.address()).await;
    let servers = vec![format!("nats://127.0.0.1:{}", cable.port())];
    let few = vec![RetentionClass { max_messages: 3, ..long().remove(0) }];
    let reader = start(Config { servers, ..config(&server, few.clone()) }).await;
    let other = start(config(&server, few)).await;
    let news = channel("news");
    publish_some(&other, &news, 0..3).await;
    reader.inbox.until("three", |inbox| inbox.texts(&news).len() == 3).await;
    cable.cut();
    reader.degraded().await;
    let positions = publish_some(&other, &news, 3..20).await;
    cable.mend();
    reader.connected().await;
    let lost = Lost { class: class("long"), shard: Shard::of(&news), position: positions[13] };
    assert_eq!(reader.inbox.losses(), [lost]);
    assert_eq!(reader.inbox.texts(&news), ["0", "1", "2", "17", "18", "19"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_comes_back_is_followed_on() {
    let mut server = NatsServer::start(NatsVersion::Newest);
    let (reader, other) = (start(config(&server, long())).await, start(config(&server, long())).await);
    let (news, mut due) = (channel("news"), 0);
    for _ in 0..3 {
        publish_some(&other, &news, due..due + 10).await;
        server.kill();
        other.degraded().await;
        let asked = clock::now();
        let refused = publish(&*other.broker, &class("long"), message(&news, 9)).await;
        assert_eq!(refused, Err(PublishError::Unavailable));
        assert!(clock::now().duration_since(asked) < AT_ONCE);
        server.restart();
        other.connected().await;
        publish_some(&other, &news, due + 10..due + 20).await;
        due += 20;
        reader.inbox.until("what was published", |inbox| inbox.texts(&news) == texts(0..due)).await;
    }
    reader.connected().await;
    assert_eq!((reader.inbox.losses(), other.inbox.losses()), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_hangs_nobody() {
    let server = NatsServer::start(NatsVersion::Newest);
    let node = Arc::new(start(config(&server, long())).await);
    let news = channel("news");
    publish_some(&node, &news, 0..1).await;
    server.pause();
    let asked = clock::now();
    let deadline = asked + Duration::from_millis(1500);
    // More than may be in flight, and more than the library's queue takes.
    let attempts = (1..=5000_u32).map(|n| {
        let (node, news) = (Arc::clone(&node), news.clone());
        let key = IdempotencyKey::new(&format!("k{n}")).expect("a good key");
        let message = NewMessage { id: Some(key), ..message(&news, n) };
        tokio::spawn(async move {
            if n % 5 == 0 {
                let live = node.broker.publish_live(message, deadline).await;
                assert!(matches!(live, Ok(()) | Err(PublishError::Unavailable)), "{live:?}");
                return false;
            }
            let stored = node.broker.publish(&class("long"), message, deadline).await;
            assert!(matches!(stored, Err(PublishError::Unavailable | PublishError::Unknown)), "{stored:?}");
            stored == Err(PublishError::Unknown)
        })
    });
    let attempts: Vec<_> = attempts.collect();
    let mut unknown = 0;
    for attempt in attempts {
        unknown += u32::from(attempt.await.expect("no attempt panics"));
    }
    assert!(clock::now().duration_since(asked) < PATIENCE, "deadlines hold");
    assert!(unknown > 0, "what was sent may be stored yet");
    let read = node.broker.recover(&class("long"), &news, Since::Oldest, ReplayLimits::default()).await;
    assert_eq!(read.map(|_| ()), Err(RecoverError::Unavailable));
    server.resume();
    // The outcome was unknown: the same key again stores it once, whatever became of the first attempt.
    for n in [1, 2, 3] {
        let key = IdempotencyKey::new(&format!("k{n}")).expect("a good key");
        let again = NewMessage { id: Some(key), ..message(&news, n) };
        publish(&*node.broker, &class("long"), again).await.expect("it is stored now");
    }
    node.connected().await;
    let durable = node.inbox.of(&news).into_iter().filter(|publication| publication.position.is_some());
    let texts: Vec<_> = durable.map(|publication| publication.message.data.clone()).collect();
    for n in ["1", "2", "3"] {
        assert_eq!(texts.iter().filter(|text| *text == n).count(), 1, "{n}");
    }
    assert_eq!(node.inbox.losses(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_was_deleted_is_made_anew_with_another_epoch() {
    let server = NatsServer::start(NatsVersion::Newest);
    let (node, other) = (start(config(&server, long())).await, start(config(&server, long())).await);
    let (long, news) = (class("long"), channel("news"));
    let before = publish_some(&node, &news, 0..10).await;
    node.inbox.until("ten", |inbox| inbox.texts(&news).len() == 10).await;
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    let stream = format!("gw_long_{}", Shard::of(&news).index());
    let delete = client.request(format!("$JS.API.STREAM.DELETE.{stream}"), Bytes::new()).await;
    delete.expect("the stream is deleted");
    for node in [&node, &other] {
        node.inbox.until("word of the loss", |inbox| inbox.losses().len() == 1).await;
        let lost = node.inbox.losses().remove(0);
        assert_eq!((&lost.class, lost.shard), (&long, Shard::of(&news)));
        assert_ne!(lost.position.epoch, before[0].epoch);
        node.connected().await;
    }
    let after = publish_some(&node, &news, 10..12).await;
    assert_eq!(after[0].epoch, other.inbox.losses()[0].position.epoch, "all nodes agree");
    assert!(after[0].offset < before[9].offset, "the stream counts from the beginning");
    other.inbox.until("what follows", |inbox| inbox.texts(&news) == texts(0..12)).await;
    let read = past(&*node.broker, &long, &news, Since::After(before[3])).await;
    assert_eq!(read.err(), Some(Unrecovered::Epoch));
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "{from:?} cannot be copied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_copy_of_the_storage_is_another_epoch_for_everybody() {
    let mut server = NatsServer::start(NatsVersion::Newest);
    let (node, other) = (start(config(&server, long())).await, start(config(&server, long())).await);
    let news = channel("news");
    let before = publish_some(&node, &news, 0..10).await;
    server.kill();
    let backup = server.store().with_extension("backup");
    copy(&server.store(), &backup);
    server.restart();
    node.connected().await;
    other.connected().await;
    publish_some(&node, &news, 10..20).await;
    for node in [&node, &other] {
        node.inbox.until("twenty", |inbox| inbox.texts(&news).len() == 20).await;
    }
    server.kill();
    server.forget();
    copy(&backup, &server.store());
    server.restart();
    for node in [&node, &other] {
        node.inbox.until("word of the loss", |inbox| inbox.losses().len() == 1).await;
        node.connected().await;
    }
    let (lost, same) = (node.inbox.losses().remove(0), other.inbox.losses().remove(0));
    assert_eq!(lost, same, "all nodes agree");
    assert_ne!(lost.position.epoch, before[0].epoch);
    let late = start(config(&server, long())).await;
    assert_eq!(
        position(&*late.broker, &class("long"), &news),
        Ok(lost.position),
        "a node that starts later too"
    );
    let after = publish_some(&node, &news, 20..21).await;
    assert_eq!(after[0].epoch, lost.position.epoch);
    other.inbox.until("what follows", |inbox| inbox.texts(&news) == texts(0..21)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_storage_is_said_and_spares_live_channels() {
    let server = NatsServer::start_with(NatsVersion::Newest, "max_file_store: 2MB", "");
    let unlimited = RetentionClass { max_bytes: u64::MAX, ..long().remove(0) };
    let node = start(config(&server, vec![unlimited])).await;
    let (long, news) = (class("long"), channel("news"));
    let data = format!("\"{}\"", "x".repeat(20_000));
    let mut stored = 0;
    let full = loop {
        match publish(&*node.broker, &long, message(&news, &data)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "2 MB do not hold this");
    };
    assert_eq!(full, PublishError::StorageFull);
    assert!(stored > 50, "{stored}");
    node.broker.publish_live(message(&news, 7), clock::now() + PATIENCE).await.expect("live channels work");
    node.inbox.until("the live message", |inbox| inbox.texts(&news).contains(&"7".to_owned())).await;
    assert_eq!(*node.health().borrow(), Health::Connected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_server_would_not_take_is_refused_before() {
    let server = NatsServer::start_with(NatsVersion::Newest, "", "max_payload: 32KB");
    let node = start(config(&server, long())).await;
    let news = channel("news");
    let largest = 32 * 1024 - 2048;
    let data = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    let refused = PublishError::TooLarge { limit_bytes: largest };
    let large = message(&news, data(32 * 1024));
    assert_eq!(publish(&*node.broker, &class("long"), large.clone()).await, Err(refused.clone()));
    assert_eq!(node.broker.publish_live(large, clock::now() + PATIENCE).await, Err(refused));
    let name = channel(&"/".repeat(200));
    let key = IdempotencyKey::new(&"k".repeat(128)).expect("a good key");
    let fits = NewMessage { id: Some(key), ..message(&name, data(largest - 200)) };
    publish(&*node.broker, &class("long"), fits.clone()).await.expect("what is under the limit is taken");
    node.broker.publish_live(fits, clock::now() + PATIENCE).await.expect("on live channels too");
    node.inbox.until("both", |inbox| inbox.of(&name).len() == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_counted_and_passed_over() {
    metrics();
    let server = NatsServer::start(NatsVersion::Newest);
    let node = start(config(&server, long())).await;
    let (long, news) = (class("long"), channel("news"));
    let shard = Shard::of(&news).index();
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    publish_some(&node, &news, 0..1).await;
    let before = counted("carillon_broker_poison_total");
    let garbage = [b"".as_slice(), b"\xff\x00garbage", b"{\"data\":1}", b"\x12\x02}{"];
    let subjects = ["main.news", "other.news", "main.a.b", "main.=41", "main.x=", "main.news=00"];
    for subject in subjects {
        for payload in garbage {
            let stored = format!("gw.h.long.{shard}.{subject}");
            let mut forged = HeaderMap::new();
            forged.insert("Nats-Sequence", "999999");
            forged.insert("Nats-Stream", "another");
            let kept = client.request_with_headers(stored, forged, Bytes::from_static(payload)).await;
            kept.expect("the stream takes anything");
            for subject in [format!("gw.l.long.{shard}.{subject}"), format!("gw.e.{shard}.{subject}")] {
                client.publish(subject, Bytes::from_static(payload)).await.expect("it is sent");
            }
        }
    }
    client.flush().await.expect("it is sent");
    publish_some(&node, &news, 1..4).await;
    node.inbox.until("ours", |inbox| inbox.texts(&news) == texts(0..4)).await;
    let kept = stored(&*node.broker, &long, &news, Since::Oldest).await.expect("it is kept");
    assert_eq!(kept.len(), 4);
    assert_eq!((node.inbox.losses(), *node.health().borrow()), (vec![], Health::Connected));
    let stored = 4.0 * 6.0;
    assert!(counted("carillon_broker_poison_total") >= before + 2.0 * stored);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_library_drops_is_fetched() {
    const BURST: u32 = 3000;
    metrics();
    let server = NatsServer::start(NatsVersion::Newest);
    let reader = start(Config { subscription_capacity: 4, ..config(&server, long()) }).await;
    let other = Arc::new(start(config(&server, long())).await);
    let (repaired, slow) =
        (counted("carillon_broker_repaired_messages_total"), counted("carillon_broker_slow_consumer_total"));
    let channels: Vec<_> = (0..4).map(|n| channel(&format!("burst-{n}"))).collect();
    let publishing = (0..BURST).map(|n| {
        let (other, to) = (Arc::clone(&other), channels[usize::try_from(n % 4).expect("small")].clone());
        tokio::spawn(async move { publish(&*other.broker, &class("long"), message(&to, n)).await })
    });
    let publishing: Vec<_> = publishing.collect();
    for published in publishing {
        published.await.expect("no panic").expect("stored");
    }
    let all = |inbox: &carillon_tests::conformance::Inbox| {
        channels.iter().map(|c| inbox.of(c).len()).sum::<usize>()
    };
    reader
        .inbox
        .until("all of the burst", |inbox| all(inbox) == usize::try_from(BURST).expect("small"))
        .await;
    for channel in &channels {
        let offsets: Vec<_> =
            reader.inbox.of(channel).iter().filter_map(|publication| publication.position).collect();
        assert!(offsets.is_sorted_by(|a, b| a.offset < b.offset), "in order and once");
    }
    assert_eq!(reader.inbox.losses(), []);
    assert!(counted("carillon_broker_repaired_messages_total") > repaired, "something was dropped");
    assert!(counted("carillon_broker_slow_consumer_total") > slow, "and the library said so");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_are_read_in_pieces() {
    const COUNT: u32 = 24;
    let server = NatsServer::start(NatsVersion::Newest);
    let cable = Cable::to(server.address()).await;
    let servers = vec![format!("nats://127.0.0.1:{}", cable.port())];
    let roomy = || vec![RetentionClass { max_bytes: 64 << 20, ..long().remove(0) }];
    let reader = start(Config { servers, ..config(&server, roomy()) }).await;
    let other = start(config(&server, roomy())).await;
    let (long, news) = (class("long"), channel("news"));
    cable.cut();
    reader.degraded().await;
    let data = format!("\"{}\"", "x".repeat(1_000_000));
    for _ in 0..COUNT {
        publish(&*other.broker, &long, message(&news, &data)).await.expect("a good message is stored");
    }
    let much = stored(&*other.broker, &long, &news, Since::Oldest).await;
    assert_eq!(much.err(), Some(Unrecovered::Limit), "24 MB are not replayed");
    let last = stored(&*other.broker, &long, &news, Since::Last(3)).await.expect("3 MB are");
    assert_eq!(last.len(), 3);
    cable.mend();
    reader.connected().await;
    assert_eq!(reader.inbox.of(&news).len(), usize::try_from(COUNT).expect("small"));
    assert_eq!(reader.inbox.losses(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_is_there_from_the_start() {
    metrics();
    let server = NatsServer::prepare(NatsVersion::Newest, "", "");
    let _node = Node::start(config(&server, long())).expect("a good configuration");
    let text = metrics().render();
    for name in [
        "carillon_broker_connected",
        "carillon_broker_reconnects_total",
        "carillon_broker_pending_messages",
        "carillon_broker_slow_consumer_total",
        "carillon_broker_gaps_total",
        "carillon_broker_repaired_messages_total",
        "carillon_broker_duplicates_total",
        "carillon_broker_lost_total",
        "carillon_broker_poison_total",
    ] {
        assert!(text.contains(&format!("{name}{{broker=\"nats\"}}")), "{name} is missing:\n{text}");
    }
    assert!(text.contains("carillon_broker_errors_total{broker=\"nats\",op=\"publish\"}"), "{text}");
}
