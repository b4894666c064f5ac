use std::{
    collections::HashSet,
    io::IoSlice,
    sync::{Mutex, OnceLock, Weak},
};

use bytes::Bytes;
use carillon_broker::{Audience, Cluster, Link, Listen as _};
use carillon_model::ChannelRules;
use carillon_node::{Neighbours, Relay, Router};
use carillon_tasks::Tasks;
use tokio::runtime::Handle;

use super::*;
use crate::xhr::{Shared, session::Session, word::PIECE_BYTES};

const OWNER: NodeId = NodeId::from_bits(1);
const OTHER: NodeId = NodeId::from_bits(2);

const NAME: &str = "key/1/abc";

/// A cluster of two that loses words of transports as it is told, and all others.
#[derive(Debug)]
struct Lossy {
    me: NodeId,
    peer: OnceLock<Weak<Neighbours>>,
    loses: fn(&mut HashSet<Bytes>, &Bytes) -> bool,
    said: Mutex<HashSet<Bytes>>,
}

impl Cluster for Lossy {
    fn me(&self) -> NodeId {
        self.me
    }

    fn say(&self, _audience: Audience, word: Bytes) {
        let loses = !word.starts_with(b"x") || (self.loses)(&mut lock(&self.said), &word);
        if let Some(peer) = self.peer.get().and_then(Weak::upgrade).filter(|_| !loses) {
            peer.hear(self.me, word);
        }
    }
}

struct Two {
    owner: Arc<Fallback>,
    other: Arc<Fallback>,
    session: Arc<Shared>,
    _tasks: Tasks,
}

/// Joins two nodes; the first has a session.
fn two(loses: fn(&mut HashSet<Bytes>, &Bytes) -> bool) -> Two {
    let tasks = Tasks::new(Handle::current());
    let node = |me| {
        let neighbours = Neighbours::new(me, &Arc::new(Router::new(1, ChannelRules::default())), &tasks);
        let fallback = Fallback::new(&neighbours, tasks.stop());
        neighbours.set_relay(Arc::clone(&fallback) as Arc<dyn Relay>);
        let cluster = Arc::new(Lossy { me, peer: OnceLock::new(), loses, said: Mutex::default() });
        neighbours.join(Arc::clone(&cluster) as Arc<dyn Cluster>);
        (neighbours, fallback, cluster)
    };
    let ((one, owner, from_one), (two, other, from_two)) = (node(OWNER), node(OTHER));
    from_one.peer.set(Arc::downgrade(&two)).expect("it is set once");
    from_two.peer.set(Arc::downgrade(&one)).expect("it is set once");
    one.link(Link::Up);
    two.link(Link::Up);
    let session = Arc::new(Shared(Mutex::new(Session::new(clock::now()))));
    lock(&owner.sessions).insert(NAME.into(), Arc::clone(&session));
    Two { owner, other, session, _tasks: tasks }
}

impl Two {
    fn push(&self, line: &str) {
        let (taken, saying) = self.session.lock().push(&[IoSlice::new(line.as_bytes())]);
        assert_eq!(taken, line.len());
        self.owner.say(saying);
    }
}

fn lines(text: &str, last: bool) -> Taken {
    Taken::Lines { bytes: Bytes::copy_from_slice(text.as_bytes()), last }
}

/// Every word is lost the first time that it is said.
#[tokio::test]
async fn what_is_lost_between_nodes_is_asked_for_again_and_comes_once() {
    let two = two(|said, word| said.insert(word.clone()));
    let patience = || after(Duration::from_secs(60));
    assert_eq!(Asking::new(&two.other).find(NAME).await, Found::At(OWNER));
    let mut afar = Afar::new(&two.other, OWNER, &NAME.into());
    assert_eq!(afar.take(u64::MAX, patience()).await, lines("o\n", false));
    let texts = vec!["one".to_owned(), "two".to_owned()];
    assert_eq!(Asking::new(&two.other).say(OWNER, NAME, texts).await, Some(true));
    let heard: Vec<_> = std::iter::from_fn(|| two.session.lock().next_text()).collect();
    assert_eq!(heard, ["one", "two"]);
    let long = format!("a[\"{}\"]\n", "x".repeat(PIECE_BYTES * 2));
    two.push(&long);
    assert_eq!(afar.take(u64::MAX, patience()).await, lines(&long, false));
    assert_eq!(afar.take(u64::MAX, clock::now()).await, Taken::Nothing);
    // Its node knows that somebody waits, and says it at once.
    two.push("a[\"late\"]\n");
    assert_eq!(afar.take(u64::MAX, patience()).await, lines("a[\"late\"]\n", false));
    two.push("c[4200,\"\"]\n");
    assert_eq!(afar.take(u64::MAX, patience()).await, lines("c[4200,\"\"]\n", true));
}

#[tokio::test]
async fn a_node_that_does_not_answer_is_out_of_reach() {
    let two = two(|_said, _word| true);
    let mut afar = Afar::new(&two.other, OWNER, &NAME.into());
    let (found, said, taken) = tokio::join!(
        Asking::new(&two.other).find(NAME),
        Asking::new(&two.other).say(OWNER, NAME, Vec::new()),
        afar.take(u64::MAX, after(Duration::from_secs(60))),
    );
    assert_eq!((found, said, taken), (Found::Unknown, None, Taken::Over));
    assert!(lock(&two.other.asking).len() == 1, "only what still receives is remembered");
    drop(afar);
    assert!(lock(&two.other.asking).is_empty());
}

/// Whichever of two nodes is heard first again after an interruption.
#[tokio::test]
async fn a_session_that_something_was_lost_of_ends_once_its_node_is_heard() {
    let two = two(|said, word| said.insert(word.clone()));
    // This is lost, and what is asked about it at first.
    two.other.lose(&NAME.into());
    assert!(!two.session.lock().is_gone());
    two.owner.link_is_up();
    two.owner.link_is_up();
    assert!(two.session.lock().is_gone());
}
