//! What goes into the rules and comes out of them, besides words.
//!
//! **Lives here:** the times and sizes, the link, what is to be done.
//! **Called by:** the presence task, which sets them and does the effects.
//! **Must not know:** why something is to be done.

use std::time::{Duration, Instant};

use carillon_model::{ChannelName, NodeId};

use crate::{Fact, Member, Word, telling::BETWEEN};

/// The times, and a size.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often a node says that it is alive. Default 2 s.
    pub heartbeat: Duration,
    /// After how long a silence a node is dead. Default 8 s.
    pub dead_after: Duration,
    /// For how long an end is held: who comes back within it was never away. Default 3 s.
    pub hold: Duration,
    /// For how long a node listens to others before it tells the application anything. More than a heartbeat; zero where
    /// there are no other nodes. Default 2.5 s.
    pub settle: Duration,
    /// After so many bytes of entries a piece of an answer ends. Default 192 KiB.
    pub piece_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(2),
            dead_after: Duration::from_secs(8),
            hold: Duration::from_secs(3),
            settle: Duration::from_millis(2500),
            piece_bytes: 192 * 1024,
        }
    }
}

impl Settings {
    /// For how long a node follows before it tells: nodes that died before it came are found by then, and the ends that
    /// follow from it told.
    pub(crate) fn follow(&self) -> Duration {
        self.dead_after.saturating_add(self.hold).saturating_add(BETWEEN)
    }
}

/// Whether words get through to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// They do.
    Up,
    /// They do not, and none come.
    Down,
}

/// Whom a word is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    /// Every node.
    All,
    /// One.
    Node(NodeId),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A word is to be said.
    Say(Audience, Word),
    /// A user has become a member: this node's subscribers are told.
    Added {
        /// Of which channel.
        channel: ChannelName,
        /// Who.
        member: Member,
    },
    /// A user is no member any more: this node's subscribers are told.
    Removed {
        /// Of which channel.
        channel: ChannelName,
        /// Who.
        member: Member,
    },
    /// A channel has so many subscribers on all nodes: this node's are told. Up to 100 each change is said; above, one
    /// every 5 s while it changes.
    Counted {
        /// Which channel.
        channel: ChannelName,
        /// How many.
        count: u64,
    },
    /// The application is to be told, by this node.
    Told(Fact),
}

/// A roster that has no room for another user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the channel has as many members as it may have")]
pub struct Full;

pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now)
}
