//! The other nodes: what is said to them, and what they say.
//!
//! **Lives here:** the kinds of words, and who takes which.
//! **Called by:** the cluster brings words; the crowd and surveys say them; `gateway` joins this to a cluster.
//! **Must not know:** how words travel, what they mean.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use carillon_broker::{Audience, Cluster, Link, Listen};
use carillon_model::NodeId;
use carillon_presence::Settings;
use carillon_tasks::Tasks;

use crate::{Router, crowd::Crowd, relay::Relay, survey::Surveys, tell::Tell};

/// What a word is about: its first byte. A contract between versions that run side by side: never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Members and counts.
    Roster = b'p',
    /// A question to every node.
    Question = b'q',
    /// The answer to one.
    Answer = b'a',
    /// From a transport to its like.
    Relay = b'x',
}

/// Says words to other nodes, once there is a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Voice(Arc<OnceLock<Arc<dyn Cluster>>>);

impl Voice {
    /// Says a word. What is said before there is a cluster is heard by nobody.
    pub(crate) fn say(&self, audience: Audience, kind: Kind, word: &[u8]) {
        let Some(cluster) = self.0.get() else { return };
        let mut bytes = BytesMut::with_capacity(word.len() + 1);
        bytes.put_u8(kind as u8);
        bytes.put_slice(word);
        cluster.say(audience, bytes.freeze());
    }
}

/// A node's view of the others.
#[derive(Debug)]
pub struct Neighbours {
    me: NodeId,
    pub(crate) crowd: Arc<Crowd>,
    pub(crate) surveys: Arc<Surveys>,
    relay: OnceLock<Arc<dyn Relay>>,
    voice: Voice,
    tasks: Tasks,
}

impl Neighbours {
    /// Makes the view of a node that knows of no other yet, and lets time pass for it.
    #[must_use]
    pub fn new(me: NodeId, router: &Arc<Router>, tasks: &Tasks) -> Arc<Self> {
        Self::with(me, Settings::default(), router, tasks)
    }

    /// Makes the view of a node that will never know of another: it waits for nobody.
    #[must_use]
    pub fn none(me: NodeId, router: &Arc<Router>, tasks: &Tasks) -> Arc<Self> {
        Self::with(me, Settings { settle: Duration::ZERO, ..Settings::default() }, router, tasks)
    }

    fn with(me: NodeId, settings: Settings, router: &Arc<Router>, tasks: &Tasks) -> Arc<Self> {
        let voice = Voice::default();
        let crowd = Arc::new(Crowd::new(me, settings, Arc::clone(router), voice.clone()));
        let surveys = Arc::new(Surveys::new(Arc::clone(router), Arc::clone(&crowd), voice.clone()));
        let (time, stop) = (Arc::clone(&crowd), tasks.stop());
        tasks.spawn("rosters", async move { time.run(stop).await });
        Arc::new(Self { me, crowd, surveys, relay: OnceLock::new(), voice, tasks: tasks.clone() })
    }

    /// Joins a cluster, once.
    pub fn join(&self, cluster: Arc<dyn Cluster>) {
        let _joined_once = self.voice.0.set(cluster).is_ok();
    }

    /// Sets who is told what webhooks may tell, once.
    pub fn set_tell(&self, tell: Arc<dyn Tell>) {
        self.crowd.set_tell(tell);
    }

    /// Sets who takes the words of other nodes' transports, once, before a cluster is joined.
    pub fn set_relay(&self, relay: Arc<dyn Relay>) {
        let _set_once = self.relay.set(relay).is_ok();
    }

    /// Says a word to the transports of one node, or of all others. It may be lost.
    pub fn relay(&self, to: Option<NodeId>, word: &[u8]) {
        self.voice.say(to.map_or(Audience::All, Audience::Node), Kind::Relay, word);
    }

    /// Returns the other nodes that are alive.
    #[must_use]
    pub fn others(&self) -> Vec<NodeId> {
        self.crowd.nodes().into_iter().filter(|node| *node != self.me).collect()
    }

    pub(crate) fn farewell(&self) {
        self.crowd.farewell();
    }
}

impl Listen for Neighbours {
    fn hear(&self, from: NodeId, word: Bytes) {
        let Some((kind, word)) = word.split_first() else { return };
        if *kind == Kind::Roster as u8 {
            self.crowd.hear(from, word);
        } else if *kind == Kind::Question as u8 {
            let (surveys, word) = (Arc::clone(&self.surveys), word.to_vec());
            if let Some(answering) = surveys.admit() {
                self.tasks.spawn("survey", async move { surveys.answer(from, &word, answering).await });
            }
        } else if *kind == Kind::Answer as u8 {
            self.surveys.take(from, word);
        } else if *kind == Kind::Relay as u8
            && let Some(relay) = self.relay.get()
        {
            relay.hear(from, word);
        }
        // Other kinds are those of newer versions.
    }

    fn link(&self, link: Link) {
        self.crowd.link(link);
        if link == Link::Up
            && let Some(relay) = self.relay.get()
        {
            relay.link_up();
        }
    }
}
