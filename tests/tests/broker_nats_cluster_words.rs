//! Words between nodes over a real NATS: who hears them, in which order, and what an interruption means.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use carillon_broker::{Audience, Cluster, Link, Listen};
use carillon_broker_nats::{Config, Credentials, NatsCluster};
use carillon_model::NodeId;
use carillon_tests::{
    conformance::PATIENCE,
    nats::{NatsServer, NatsVersion},
    nats_node::{Node, config},
};
use tokio::{sync::Notify, time::timeout};

/// What a node has heard.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<(NodeId, Bytes)>>,
    links: Mutex<Vec<Link>>,
    changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ear {
    fn words_of(&self, from: NodeId) -> Vec<String> {
        let of = |(node, word): &(NodeId, Bytes)| {
            (*node == from).then(|| String::from_utf8_lossy(word).into_owned())
        };
        lock(&self.heard).iter().filter_map(of).collect()
    }

    fn links(&self) -> Vec<Link> {
        lock(&self.links).clone()
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if done(self) {
                    return;
                }
                changed.await;
            }
        });
        assert!(waited.await.is_ok(), "never came: {what}; {self:?}");
    }

    async fn up(&self) {
        self.until("up", |ear| ear.links().last() == Some(&Link::Up)).await;
    }

    async fn hears(&self, from: NodeId, word: &str) {
        self.until(word, |ear| ear.words_of(from).iter().any(|heard| heard == word)).await;
    }
}

impl Listen for Ear {
    fn hear(&self, from: NodeId, word: Bytes) {
        lock(&self.heard).push((from, word));
        self.changed.notify_waiters();
    }

    fn link(&self, link: Link) {
        lock(&self.links).push(link);
        self.changed.notify_waiters();
    }
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heard = lock(&self.heard);
        let last = heard.iter().rev().take(5).collect::<Vec<_>>();
        write!(f, "{:?}; heard {}, the last: {last:?}", self.links(), heard.len())
    }
}

/// A node that hears and speaks.
struct Member {
    ear: Arc<Ear>,
    cluster: Arc<NatsCluster>,
    /// Its end is the end of the tasks.
    node: Node,
}

impl Member {
    fn start(bits: u64, config: Config) -> Self {
        let (node, ear) = (Node::start(config).expect("a good configuration"), Arc::new(Ear::default()));
        let listen: Arc<dyn Listen> = ear.clone();
        let cluster = node.broker.cluster(NodeId::from_bits(bits), listen);
        Self { ear, cluster, node }
    }

    fn id(&self) -> NodeId {
        self.cluster.me()
    }

    fn say(&self, audience: Audience, word: &str) {
        self.cluster.say(audience, Bytes::from(word.to_owned()));
    }
}

async fn members<const N: usize>(config: impl Fn() -> Config) -> [Member; N] {
    let members = std::array::from_fn(|n| Member::start(u64::MAX - n as u64, config()));
    for member in &members {
        member.ear.up().await;
    }
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_come_in_order_to_those_that_they_are_for_and_not_to_the_sender() {
    let server = NatsServer::start(NatsVersion::Newest);
    let [a, b, c] = members(|| config(&server, vec![])).await;
    let stranger = Member::start(7, Config { prefix: "other".to_owned(), ..config(&server, vec![]) });
    stranger.ear.up().await;
    for n in 0..1500 {
        a.say(Audience::All, &format!("all {n}"));
        a.say(Audience::Node(a.id()), &format!("a {n}"));
        a.say(Audience::Node(b.id()), &format!("b {n}"));
    }
    c.say(Audience::All, "the end of c");
    for hearer in [&b, &c] {
        hearer.ear.hears(a.id(), "all 1499").await;
    }
    b.ear.hears(a.id(), "b 1499").await;
    a.ear.hears(c.id(), "the end of c").await;
    // A's own words were sent before the last that b has heard, and would be here before the answer.
    b.say(Audience::Node(a.id()), "to a");
    a.ear.hears(b.id(), "to a").await;

    let said = |to: &str| (0..1500).map(|n| format!("{to} {n}")).collect::<Vec<_>>();
    let heard = |member: &Member, to: &str| {
        let mut words = member.ear.words_of(a.id());
        words.retain(|word| word.starts_with(to));
        words
    };
    assert_eq!(heard(&b, "all "), said("all"));
    assert_eq!(heard(&b, "b "), said("b"));
    assert_eq!(c.ear.words_of(a.id()), said("all"), "{:?}", c.ear);
    assert_eq!(a.ear.words_of(a.id()), Vec::<String>::new());
    assert!(lock(&stranger.ear.heard).is_empty(), "{:?}", stranger.ear);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interruption_is_told_and_words_come_again_after_it() {
    let mut server = NatsServer::prepare(NatsVersion::Oldest, "", "");
    let (a, b) = (Member::start(1, config(&server, vec![])), Member::start(2, config(&server, vec![])));
    a.say(Audience::All, "before NATS was there");
    assert_eq!(a.ear.links(), []);
    server.restart();
    for round in 0..3 {
        for (speaker, hearer) in [(&a, &b), (&b, &a)] {
            speaker.ear.up().await;
            hearer.ear.up().await;
            let word = format!("round {round}");
            speaker.say(Audience::All, &word);
            hearer.ear.hears(speaker.id(), &word).await;
            speaker.say(Audience::Node(hearer.id()), &format!("{word} again"));
            hearer.ear.hears(speaker.id(), &format!("{word} again")).await;
        }
        server.kill();
        for member in [&a, &b] {
            member.ear.until("down", |ear| ear.links().last() == Some(&Link::Down)).await;
            member.say(Audience::All, "while NATS was away");
        }
        server.restart();
    }
    for member in [&a, &b] {
        member.ear.up().await;
        // It begins down, and each change is told once.
        let links = member.ear.links();
        assert!(links.chunks(2).all(|pair| matches!(pair, [Link::Up, Link::Down] | [Link::Up])), "{links:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_is_too_large_is_lost_alone() {
    let server = NatsServer::start_with(NatsVersion::Newest, "", "max_payload: 4096");
    let [a, b] = members(|| config(&server, vec![])).await;
    for bytes in [4088, 4089, 100_000, 32 << 20] {
        a.say(Audience::All, &"x".repeat(bytes));
    }
    a.say(Audience::All, "small");
    b.ear.hears(a.id(), "small").await;
    let lengths: Vec<_> = b.ear.words_of(a.id()).iter().map(String::len).collect();
    assert_eq!(lengths, [4088, 5]);
    assert_eq!(b.ear.links(), [Link::Up]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_word_of_a_node_is_passed_over() {
    let server = NatsServer::start(NatsVersion::Newest);
    let [a, b] = members(|| config(&server, vec![])).await;
    let client = async_nats::connect(server.url()).await.expect("the server is there");
    for garbage in ["", "1234567"] {
        client.publish("gw.ctl.words", garbage.into()).await.expect("it is sent");
    }
    client.flush().await.expect("it is sent");
    a.say(Audience::All, "a word");
    b.ear.hears(a.id(), "a word").await;
    assert_eq!(lock(&b.ear.heard).len(), 1, "{:?}", b.ear);
}

#[tokio::test]
async fn a_permission_that_words_need_is_named() {
    for (verb, without) in
        [("subscribe", "gw.node.>"), ("subscribe", "gw.ctl.>"), ("publish", "gw.ctl.words")]
    {
        let denied = format!("{{ {verb}: {{ deny: \"{without}\" }} }}");
        let users = format!("authorization {{ users: [{{ user: a, password: a, permissions: {denied} }}] }}");
        let server = NatsServer::start_with(NatsVersion::Newest, "", &users);
        let credentials = Credentials::Password { user: "a".to_owned(), password: "a".to_owned() };
        let member = Member::start(1, Config { credentials, ..config(&server, vec![]) });
        if verb == "publish" {
            member.ear.up().await;
            member.say(Audience::All, "a word");
        }
        let refused = timeout(PATIENCE, member.node.broker.fatal()).await;
        let refused = refused.expect("it is refused in time").to_string();
        assert!(refused.contains(without.trim_end_matches('>')), "without {without}: {refused}");
    }
}
