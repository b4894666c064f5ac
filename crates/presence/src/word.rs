//! What nodes say to each other about their members.
//!
//! **Lives here:** the words.
//! **Called by:** `rosters` says and hears them; the presence task carries them as bytes.
//! **Must not know:** what follows from a word.

use bytes::Bytes;
use carillon_model::{ChannelName, ConnectionId};

use crate::{Digests, Member, Shard};

mod wire;

pub(crate) use wire::is_json_line;
pub use wire::{Garbage, WORD_MAX_BYTES};

/// What one node says to another, or to all.
///
/// The words of one node to all arrive in the order in which they were said, or not at all. Those to one node may
/// overtake those to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The node is alive, and this is what its entries amount to.
    Heartbeat {
        /// The node's last change that was said.
        sequence: u64,
        /// Of each shard, after that change.
        digests: Box<Digests>,
        /// Whether it tells facts, or did.
        standing: Standing,
        /// How many times it has begun to listen to others: at its start, after each interruption and each doubt.
        life: u32,
    },
    /// What has changed at the node.
    Delta {
        /// The number of the first change, from 1. The others follow without a hole.
        first: u64,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// Asks the node for some of its entries of a shard, as many as one word has.
    Ask {
        /// Which question it is; the answers repeat it.
        ask: u64,
        /// Of which shard.
        shard: Shard,
        /// Those that come after this one in the owner's order, or from the first on.
        after: Option<Place>,
    },
    /// Some of the node's entries of a shard.
    State {
        /// The question that is answered.
        ask: u64,
        /// Of which shard.
        shard: Shard,
        /// What was asked for.
        after: Option<Place>,
        /// The node's last change that is in them.
        as_of: u64,
        /// The entries.
        entries: Vec<Entry>,
        /// What the next question is to ask for, if there are more.
        next: Option<Place>,
    },
    /// The node was thought dead, or never heard of, by the one that says it: it begins another life, in which it is heard.
    Doubt {
        /// The life that is not believed.
        life: u32,
    },
    /// The node stops, and its entries are gone.
    Bye,
}

impl Word {
    /// Writes the word as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        wire::encode(self)
    }

    /// Reads a word.
    ///
    /// # Errors
    /// [`Garbage`] says what is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, Garbage> {
        wire::decode(bytes)
    }
}

/// An entry's place in its owner's order, which has no meaning to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The channel's number at the owner.
    pub channel: u64,
    /// Whose membership it is; none for the count, and all counts come after all members.
    pub connection: Option<ConnectionId>,
}

/// What a node can tell the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It never told anything.
    New,
    /// It told facts, and knows what the application believed then.
    Told,
    /// It tells facts.
    Ready,
}

/// One change at its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A connection has become a member.
    Join {
        /// Of which channel.
        channel: ChannelName,
        /// Which connection.
        connection: ConnectionId,
        /// Who it is.
        member: Member,
    },
    /// A connection is no member any more.
    Leave {
        /// Of which channel.
        channel: ChannelName,
        /// Which connection.
        connection: ConnectionId,
    },
    /// The owner's subscriptions of a channel are now so many.
    Count {
        /// Of which channel.
        channel: ChannelName,
        /// How many; 0 for none.
        subscribers: u32,
    },
}

impl Change {
    /// Returns the channel that has changed.
    #[must_use]
    pub const fn channel(&self) -> &ChannelName {
        match self {
            Self::Join { channel, .. } | Self::Leave { channel, .. } | Self::Count { channel, .. } => channel,
        }
    }

    /// Returns about how many bytes the change takes in a word, and not less than it does.
    pub(crate) fn bytes(&self) -> usize {
        let member = if let Self::Join { member, .. } = self { member_bytes(member) } else { 0 };
        channel_bytes(self.channel()).saturating_add(member)
    }
}

/// One entry of its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A connection that is a member.
    Member {
        /// Of which channel.
        channel: ChannelName,
        /// Which connection.
        connection: ConnectionId,
        /// Who it is.
        member: Member,
        /// The change that made it a member.
        born: u64,
    },
    /// The owner's subscriptions of a channel.
    Count {
        /// Of which channel.
        channel: ChannelName,
        /// How many; at least 1.
        subscribers: u32,
        /// The change by which they became more than none.
        since: u64,
    },
}

impl Entry {
    /// Returns the channel of the entry.
    #[must_use]
    pub const fn channel(&self) -> &ChannelName {
        match self {
            Self::Member { channel, .. } | Self::Count { channel, .. } => channel,
        }
    }

    /// Returns about how many bytes the entry takes in a word, and not less than it does.
    pub(crate) fn bytes(&self) -> usize {
        let member = if let Self::Member { member, .. } = self { member_bytes(member) } else { 0 };
        channel_bytes(self.channel()).saturating_add(member)
    }
}

/// Lengths, tags and numbers take less than 64 bytes.
fn channel_bytes(channel: &ChannelName) -> usize {
    channel.as_str().len().saturating_add(channel.app().len()).saturating_add(64)
}

fn member_bytes(member: &Member) -> usize {
    member.user.as_str().len().saturating_add(member.info.as_ref().map_or(0, Bytes::len))
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "tests may panic")]
mod tests;
