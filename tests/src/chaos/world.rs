//! What everybody in a run knows.
//!
//! **Lives here:** names and numbers of channels, addresses, what is being done to which node, when it is over.
//! **Called by:** clients, publishers, the nemesis.
//! **Must not know:** what clients see.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use carillon_model::Position;
use carillon_tasks::clock;
use tokio::sync::watch;

/// Why clients lose their connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Their node is asked to end.
    Term = 1,
    /// Their node is killed.
    Kill = 2,
    /// Their node is stopped for a while.
    Stop = 3,
    /// Their network is spoilt.
    Cut = 4,
    /// Nothing is being done to their node or their network.
    Other = 0,
}

impl Cause {
    /// All of them, with their names.
    pub(super) const NAMES: [(Self, &str); 5] = [
        (Self::Term, "sigterm"),
        (Self::Kill, "kill -9"),
        (Self::Stop, "sigstop"),
        (Self::Cut, "network"),
        (Self::Other, "other"),
    ];
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Farewell {
    /// With a close frame, or with a goodbye where there are none.
    Polite(u16),
    /// Without: what browsers call 1006.
    Abnormal,
    /// By the client, because nothing came.
    Silence,
}

/// The addresses of one node, each straight and through a cable that can be spoilt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) public: [SocketAddr; 2],
    pub(super) api: [SocketAddr; 2],
    pub(super) admin: SocketAddr,
}

/// What is counted while a run goes on.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// From the end of a connection until everything that was missed was read.
    pub(super) caught_up: BTreeMap<(Cause, &'static str), Vec<Duration>>,
    /// Ends of connections.
    pub(super) farewells: BTreeMap<(Cause, &'static str, Farewell), u64>,
    /// Connections that did not begin.
    pub(super) not_begun: BTreeMap<Cause, u64>,
    /// What clients were refused, and publishers.
    pub(super) refusals: BTreeMap<String, u64>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) began: Instant,
    pub(super) seed: u64,
    pub(super) channels: Vec<String>,
    pub(super) numbers: BTreeMap<String, u16>,
    pub(super) nodes: Vec<Node>,
    pub(super) key: String,
    trouble: Vec<AtomicU8>,
    pub(super) counted: Mutex<Counted>,
    /// Clients that are subscribed to all that they want, and clients that have seen all that there is.
    pub(super) settled: AtomicUsize,
    pub(super) finished: AtomicUsize,
    /// Whether clients may connect.
    pub(super) gate: watch::Sender<bool>,
    /// Whether publishers end.
    pub(super) quiet: watch::Sender<bool>,
    /// Where each channel ends, once it does.
    pub(super) ends: watch::Sender<Option<Vec<Position>>>,
}

impl World {
    pub(super) fn new(seed: u64, channels: Vec<String>, nodes: Vec<Node>, key: String) -> Self {
        let numbers = (0..).zip(&channels).map(|(number, name)| (name.clone(), number)).collect();
        Self {
            began: clock::now(),
            seed,
            channels,
            numbers,
            trouble: nodes.iter().map(|_| AtomicU8::new(Cause::Other as u8)).collect(),
            nodes,
            key,
            counted: Mutex::default(),
            settled: AtomicUsize::new(0),
            finished: AtomicUsize::new(0),
            gate: watch::Sender::new(true),
            quiet: watch::Sender::new(false),
            ends: watch::Sender::new(None),
        }
    }

    /// Milliseconds since the beginning.
    pub(super) fn at_ms(&self) -> u32 {
        u32::try_from((clock::now() - self.began).as_millis()).unwrap_or(u32::MAX)
    }

    /// Notes what is being done to a node.
    pub(super) fn trouble(&self, node: usize, cause: Cause) {
        if let Some(trouble) = self.trouble.get(node) {
            trouble.store(cause as u8, Ordering::Relaxed);
        }
    }

    /// Returns what is being done to a node.
    pub(super) fn cause(&self, node: usize) -> Cause {
        let number = self.trouble.get(node).map_or(0, |trouble| trouble.load(Ordering::Relaxed));
        let causes = Cause::NAMES.iter().map(|(cause, _)| *cause);
        causes.clone().find(|cause| *cause as u8 == number).unwrap_or(Cause::Other)
    }

    /// Counts something.
    pub(super) fn count(&self, count: impl FnOnce(&mut Counted)) {
        count(&mut self.counted.lock().expect("nobody panics with the lock"));
    }

    pub(super) fn name(&self, channel: u16) -> &str {
        self.channels.get(usize::from(channel)).map_or("?", String::as_str)
    }
}
