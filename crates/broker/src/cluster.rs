//! Short words between the nodes of a cluster: heartbeats, questions, changes of rosters.
//!
//! **Lives here:** the trait, who listens, and the node that is alone.
//! **Called by:** `node` says and hears; implemented by `broker-nats`.
//! **Must not know:** what the words mean.

use std::fmt;

use bytes::Bytes;
use carillon_model::NodeId;

/// Whom a word is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every other node.
    All,
    /// One other node.
    Node(NodeId),
}

/// Whether words come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// From now on words are heard, and those that are said are sent.
    Up,
    /// Words that are said now, or were said a moment ago, may be lost, and those of others.
    Down,
}

/// Carries short words between the nodes of a cluster, at most once. Those of one sender to one audience come in
/// order; some may be missing, above all around a [`Link::Down`].
pub trait Cluster: Send + Sync + fmt::Debug {
    /// Returns who this node is.
    fn me(&self) -> NodeId;

    /// Sends a word. Never waits: where too many wait already, or the link is down, the word is lost and counted.
    /// A node does not hear what it says itself, to whomever.
    fn say(&self, audience: Audience, word: Bytes);
}

/// Who hears the words of other nodes. The calls come one after the other and must return without waiting.
pub trait Listen: Send + Sync {
    /// Takes a word of another node.
    fn hear(&self, from: NodeId, word: Bytes);

    /// Learns how the link stands, whenever that changes. It begins down. A word that is heard after `Up` may have
    /// been said before it; of what is said after it none is missing because of the interruption.
    fn link(&self, link: Link);
}

/// The cluster of a node that is alone, as with the embedded broker: nobody hears it, and there is no link to tell of.
#[derive(Debug)]
pub struct Alone(NodeId);

impl Alone {
    /// Makes the cluster of `me`.
    #[must_use]
    pub const fn new(me: NodeId) -> Self {
        Self(me)
    }
}

impl Cluster for Alone {
    fn me(&self) -> NodeId {
        self.0
    }

    fn say(&self, _audience: Audience, _word: Bytes) {}
}
