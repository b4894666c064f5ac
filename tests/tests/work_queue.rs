//! The work queue, in memory and on a real NATS: order, one taker at a time, what a taker leaves behind that dies.

use std::time::{Duration, Instant};

use bytes::Bytes;
use carillon_broker::{LEASE, Lane, MemoryQueue, Shard, TAKE_MAX, Work, WorkQueue};
use carillon_broker_nats::{Config, Credentials};
use carillon_model::IdempotencyKey;
use carillon_tasks::clock;
use carillon_tests::{
    conformance::PATIENCE,
    nats::{NatsServer, NatsVersion},
    nats_node::{Node, config},
};
use tokio::time::{sleep, timeout};

const NONE: Duration = Duration::ZERO;

fn lane(endpoint: u64) -> Lane {
    Lane::new(endpoint, Shard::all().last().expect("there are shards"))
}

async fn put(queue: &dyn WorkQueue, lane: Lane, text: &str) {
    let key = IdempotencyKey::new(text).expect("a test uses good keys");
    let deadline = clock::now() + PATIENCE;
    loop {
        match queue.put(lane, key.clone(), Bytes::from(text.to_owned()), deadline).await {
            Ok(()) => return,
            Err(error) => assert!(clock::now() < deadline, "{text} is not put: {error}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Takes what comes next, with patience.
async fn take(queue: &dyn WorkQueue, lane: Lane, at_most: usize, gather: Duration) -> Work {
    let deadline = clock::now() + PATIENCE * 3;
    loop {
        let error = match queue.take(lane, at_most, gather).await {
            Ok(Some(work)) => return work,
            Ok(None) => None,
            Err(error) => Some(error),
        };
        assert!(clock::now() < deadline, "nothing is there to take: {error:?}");
        if error.is_some() {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn done(queue: &dyn WorkQueue, work: &Work) {
    queue.done(work).await.expect("the queue is there");
}

fn texts(work: &Work) -> Vec<&str> {
    work.bodies.iter().map(|body| std::str::from_utf8(body).expect("a test puts texts")).collect()
}

fn numbers(from: u32, to: u32) -> Vec<String> {
    (from..to).map(|n| n.to_string()).collect()
}

/// What every queue does. `here` and `there` are two nodes' handles of one queue, where there can be two.
async fn check_all(here: &dyn WorkQueue, there: &dyn WorkQueue) {
    tokio::join!(order(here, there), patience(here), one_taker(here, there), gathering(here, there));
}

/// Order, across puts of two nodes; a key counts in its lane alone.
async fn order(here: &dyn WorkQueue, there: &dyn WorkQueue) {
    for n in numbers(0, 20) {
        let node = if n.len() == 1 { here } else { there };
        put(node, lane(1), &n).await;
        put(node, lane(1), &n).await;
    }
    put(here, lane(2), "0").await;
    for (n, text) in numbers(0, 20).iter().enumerate() {
        let taker = if n % 2 == 0 { here } else { there };
        let work = take(taker, lane(1), 1, NONE).await;
        assert_eq!(texts(&work), [text]);
        done(taker, &work).await;
    }
    assert_eq!(texts(&take(there, lane(2), 1, NONE).await), ["0"]);
}

/// Who comes for an empty lane waits, and is not kept for ever.
async fn patience(here: &dyn WorkQueue) {
    let begun = clock::now();
    let nothing = here.take(lane(3), 1, NONE).await;
    assert!(!matches!(nothing, Ok(Some(_))), "{nothing:?}");
    assert!(clock::now().duration_since(begun) >= TAKE_MAX, "it did not wait");
}

/// A lane has one taker at a time, who may have several; what is put meanwhile stays.
async fn one_taker(here: &dyn WorkQueue, there: &dyn WorkQueue) {
    for n in numbers(0, 60) {
        put(here, lane(4), &n).await;
    }
    let first = take(here, lane(4), 50, PATIENCE).await;
    assert_eq!(texts(&first), numbers(0, 50));
    put(there, lane(4), "60").await;
    let second = there.take(lane(4), 50, NONE).await;
    assert!(!matches!(second, Ok(Some(_))), "{second:?}");
    here.keep(&first).await.expect("the queue is there");
    done(here, &first).await;
    let second = take(there, lane(4), 50, NONE).await;
    assert_eq!(texts(&second), numbers(50, 61));
    done(there, &second).await;
}

/// Who wants several waits a while for them.
async fn gathering(here: &dyn WorkQueue, there: &dyn WorkQueue) {
    put(here, lane(5), "0").await;
    let gather = Duration::from_secs(8);
    let (work, ()) = tokio::join!(take(there, lane(5), 50, gather), put(here, lane(5), "1"));
    assert_eq!(texts(&work), ["0", "1"]);
}

#[tokio::test]
async fn the_queue_in_memory_keeps_its_word() {
    let queue = MemoryQueue::default();
    check_all(&queue, &queue).await;
}

async fn node(server: &NatsServer) -> Node {
    let node = Node::start(config(server, vec![])).expect("a good configuration");
    node.connected().await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_on_the_oldest_server_keeps_its_word() {
    let server = NatsServer::start(NatsVersion::Oldest);
    let (a, b) = (node(&server).await, node(&server).await);
    // The stream is made when the first work is taken.
    let (first, ()) = tokio::join!(take(&*b.broker, lane(9), 1, NONE), put(&*a.broker, lane(9), "first"));
    assert_eq!(texts(&first), ["first"]);
    check_all(&*a.broker, &*b.broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_queue_on_the_newest_server_keeps_its_word_with_the_permissions_that_it_needs() {
    let publish = [
        "gw.w.*",
        "gw.ctl.barrier",
        "$JS.API.STREAM.INFO.gw_work",
        "$JS.API.STREAM.CREATE.gw_work",
        "$JS.API.STREAM.PURGE.gw_work",
        "$JS.API.CONSUMER.CREATE.gw_work.>",
        "$JS.API.CONSUMER.MSG.NEXT.gw_work.*",
        "$JS.API.DIRECT.GET.gw_work",
        "$JS.ACK.gw_work.>",
    ];
    let publish = publish.map(|subject| format!("\"{subject}\"")).join(", ");
    let permissions = format!("{{ publish: [{publish}], subscribe: [\"gw.e.>\", \"_INBOX_gw.>\"] }}");
    let users =
        format!("authorization {{ users: [{{ user: a, password: a, permissions: {permissions} }}] }}");
    let server = NatsServer::start_with(NatsVersion::Newest, "", &users);
    let start = || {
        let credentials = Credentials::Password { user: "a".to_owned(), password: "a".to_owned() };
        Node::start(Config { credentials, ..config(&server, vec![]) }).expect("a good configuration")
    };
    let (a, b) = (start(), start());
    a.connected().await;
    b.connected().await;
    let (first, ()) = tokio::join!(take(&*b.broker, lane(9), 1, NONE), put(&*a.broker, lane(9), "first"));
    assert_eq!(texts(&first), ["first"]);
    check_all(&*a.broker, &*b.broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_made_on_a_server_for_a_queue_that_is_not_used() {
    let server = NatsServer::start(NatsVersion::Newest);
    let node = node(&server).await;
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    let streams = client.request("$JS.API.STREAM.NAMES", "".into()).await.expect("an answer").payload;
    let streams: serde_json::Value = serde_json::from_slice(&streams).expect("JSON");
    assert_eq!(streams.get("total"), Some(&0.into()), "{streams}");
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_node_held_comes_to_another_in_order_when_the_lease_is_over() {
    let server = NatsServer::start(NatsVersion::Newest);
    let (a, b) = (node(&server).await, node(&server).await);
    let (there, one, several) = (&*b.broker, lane(1), lane(2));
    for lane in [one, several] {
        let (warm, ()) = tokio::join!(take(there, lane, 1, NONE), put(there, lane, "warm"));
        done(there, &warm).await;
        for n in numbers(0, 6) {
            put(there, lane, &n).await;
        }
    }
    let held = [take(&*a.broker, one, 1, NONE).await, take(&*a.broker, several, 4, NONE).await];
    assert_eq!(held.each_ref().map(texts), [vec!["0"], vec!["0", "1", "2", "3"]]);
    // They are kept past the first lease.
    sleep(LEASE / 3).await;
    let kept_at = clock::now();
    for work in &held {
        a.broker.keep(work).await.expect("the queue is there");
    }
    drop(a);
    let taken = async |lane, at_most| {
        let mut all = Vec::new();
        while all.len() < 6 {
            let work = take(there, lane, at_most, NONE).await;
            let waited = clock::now().duration_since(kept_at);
            assert!(waited >= LEASE, "it was given to another after {waited:?}");
            all.extend(texts(&work).into_iter().map(str::to_owned));
            done(there, &work).await;
        }
        all
    };
    let (one, several) = tokio::join!(taken(one, 1), taken(several, 4));
    assert_eq!((one, several), (numbers(0, 6), numbers(0, 6)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_is_still_there_after_the_server_was_killed() {
    let mut server = NatsServer::start(NatsVersion::Newest);
    let node = node(&server).await;
    let queue = &*node.broker;
    let (first, ()) = tokio::join!(take(queue, lane(1), 1, NONE), put(queue, lane(1), "0"));
    done(queue, &first).await;
    for n in numbers(1, 10) {
        put(queue, lane(1), &n).await;
    }
    let waiting = queue.take(lane(2), 1, NONE);
    let begun: Instant = clock::now();
    let killed = async {
        server.kill();
        node.degraded().await;
    };
    let (waiting, ()) = tokio::join!(waiting, killed);
    assert!(waiting.is_err(), "who waits is told that the queue is away: {waiting:?}");
    assert!(clock::now().duration_since(begun) < PATIENCE);
    server.restart();
    node.connected().await;
    for n in numbers(1, 10) {
        let work = take(queue, lane(1), 1, NONE).await;
        assert_eq!(texts(&work), [n]);
        done(queue, &work).await;
    }
}

/// Returns which of three servers leads the stream.
async fn leader(url: &str) -> usize {
    let client = async_nats::connect(url).await.expect("the server is there");
    let info = client.request("$JS.API.STREAM.INFO.gw_work", "".into()).await.expect("an answer").payload;
    let info: serde_json::Value = serde_json::from_slice(&info).expect("JSON");
    let leader = info.pointer("/cluster/leader").and_then(serde_json::Value::as_str);
    ["n1", "n2", "n3"].iter().position(|name| Some(*name) == leader).expect("somebody leads")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_stays_when_the_server_that_leads_dies() {
    let mut servers = NatsServer::cluster(NatsVersion::Newest);
    let urls: Vec<_> = servers.iter().map(NatsServer::url).collect();
    let on_three = || Config { servers: urls.clone(), replicas: 3, ..config(&servers[0], vec![]) };
    let (a, b) = (on_three(), on_three());
    let (a, b) =
        (Node::start(a).expect("a good configuration"), Node::start(b).expect("a good configuration"));
    a.connected().await;
    b.connected().await;
    let putting = async {
        for n in numbers(0, 200) {
            put(&*a.broker, lane(1), &n).await;
        }
    };
    let taking = async {
        let mut taken: Vec<String> = Vec::new();
        while taken.len() < 200 {
            if taken.len() == 50 {
                let leader = leader(&urls[0]).await;
                servers[leader].kill();
            }
            let work = take(&*b.broker, lane(1), 1, NONE).await;
            // Removing it may have failed, or have been forgotten by who led: then it comes again.
            if taken.last().is_none_or(|last| [last.as_str()] != *texts(&work)) {
                taken.extend(texts(&work).into_iter().map(str::to_owned));
            }
            let _comes_again = b.broker.done(&work).await;
        }
        taken
    };
    let both = async { tokio::join!(putting, taking).1 };
    let taken = timeout(PATIENCE * 6, both).await.expect("it ends");
    assert_eq!(taken, numbers(0, 200));
}
