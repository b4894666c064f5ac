//! The NATS broker on a cluster of three servers, of which one is killed.
#![expect(clippy::disallowed_methods, reason = "tests start tasks of their own")]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use carillon_broker::Shard;
use carillon_broker_nats::Config;
use carillon_model::{IdempotencyKey, NewMessage, RetentionClass};
use carillon_tests::{
    conformance::{Fixture, channel, class, classes, message, publish},
    nats::{NatsServer, NatsVersion},
    nats_node::{Node, config},
};
use serde_json::Value;

fn on_three(servers: &[NatsServer], classes: Vec<RetentionClass>) -> Config {
    let urls = servers.iter().map(NatsServer::url).collect();
    Config { servers: urls, replicas: 3, ..config(&servers[0], classes) }
}

async fn start(config: Config) -> Node {
    let node = Node::start(config).expect("a good configuration");
    node.connected().await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_conforms_on_three_servers() {
    let servers = NatsServer::cluster(NatsVersion::Newest);
    let publisher = start(on_three(&servers, classes())).await;
    let reader = start(on_three(&servers, classes())).await;
    let inbox = Arc::clone(&reader.inbox);
    Fixture { publisher: publisher.broker.clone(), broker: reader.broker.clone(), inbox }.check_all().await;
}

/// Asks which server leads the stream of `news`.
async fn leader(url: String) -> String {
    let client = async_nats::connect(url).await.expect("a server is there");
    let subject = format!("$JS.API.STREAM.INFO.gw_long_{}", Shard::of(&channel("news")).index());
    let info = client.request(subject, "".into()).await.expect("an answer");
    let info: Value = serde_json::from_slice(&info.payload).expect("JSON");
    info.pointer("/cluster/leader").and_then(Value::as_str).expect("a leader").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_killed_loses_nothing_that_was_acknowledged() {
    let mut servers = NatsServer::cluster(NatsVersion::Newest);
    let long = || classes().into_iter().take(1).map(|long| RetentionClass { max_messages: 1 << 20, ..long });
    let reader = start(on_three(&servers, long().collect())).await;
    let writer = Arc::new(start(on_three(&servers, long().collect())).await);
    let (news, stop) = (channel("news"), Arc::new(AtomicBool::new(false)));
    let publishers = (1..5_u32).map(|publisher| {
        let (writer, news, stop) = (Arc::clone(&writer), news.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let (mut stored, mut n) = (Vec::new(), 0_u32);
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let key = IdempotencyKey::new(&format!("{publisher}-{n}")).expect("a good key");
                let message = NewMessage { id: Some(key), ..message(&news, format!("{publisher}{n:06}")) };
                // What the publishing application does: the same key again until it is told that it is stored.
                while publish(&*writer.broker, &class("long"), message.clone()).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                stored.push(message.data.clone());
            }
            stored
        })
    });
    let publishers: Vec<_> = publishers.collect();
    reader.inbox.until("some", |inbox| inbox.of(&news).len() > 200).await;
    let name = leader(servers[0].url()).await;
    let index = ["n1", "n2", "n3"].iter().position(|known| *known == name).expect("one of ours");
    servers[index].kill();
    let before = reader.inbox.of(&news).len();
    reader.inbox.until("more after the election", |inbox| inbox.of(&news).len() > before + 500).await;
    stop.store(true, Ordering::Relaxed);
    let mut stored = BTreeSet::new();
    for publisher in publishers {
        stored.extend(publisher.await.expect("no publisher panics"));
    }
    reader.inbox.until("all", |inbox| inbox.of(&news).len() >= stored.len()).await;
    reader.connected().await;
    let brought = reader.inbox.of(&news);
    let offsets: Vec<_> = brought.iter().filter_map(|publication| publication.position).collect();
    assert!(offsets.is_sorted_by(|a, b| a.offset < b.offset), "in order and once");
    let texts: BTreeSet<_> = brought.iter().map(|publication| publication.message.data.clone()).collect();
    assert_eq!((texts.len(), &texts), (brought.len(), &stored), "each message once, and no other");
    assert_eq!(reader.inbox.losses(), []);
}
