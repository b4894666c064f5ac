//! Which shard a channel belongs to, and what stands for the content of a shard.
//!
//! **Lives here:** the hashes. Changing one makes nodes of both versions fetch from each other for ever.
//! **Called by:** `part` for digests, `telling` for who tells, `word`.
//! **Must not know:** what a roster is.

use carillon_model::{ChannelName, ConnectionId, NodeId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How many shards the channels are in.
pub const SHARDS: usize = 16;

/// What a heartbeat says of the content of each shard.
pub type Digests = [u64; SHARDS];

/// One of [`SHARDS`] parts of the channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard(u8);

impl Shard {
    /// Returns the shard of `channel`.
    #[must_use]
    pub fn of(channel: &ChannelName) -> Self {
        Self::of_hash(hash(channel))
    }

    pub(crate) fn of_hash(hash: u64) -> Self {
        Self((hash & 15).to_le_bytes()[0])
    }

    /// Takes a shard's number, if it is one.
    #[must_use]
    pub fn new(index: u32) -> Option<Self> {
        u8::try_from(index).ok().filter(|index| usize::from(*index) < SHARDS).map(Self)
    }

    /// Returns every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..16).map(Self)
    }

    /// Returns the shard's number, from 0.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) const fn number(self) -> u32 {
        self.0 as u32
    }
}

/// Some of the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct ShardSet(u16);

impl ShardSet {
    /// Says whether `shard` is one of them.
    pub(crate) const fn has(self, shard: Shard) -> bool {
        self.0 & Self::one(shard) != 0
    }

    /// Adds a shard.
    pub(crate) const fn insert(&mut self, shard: Shard) {
        self.0 |= Self::one(shard);
    }

    /// Takes a shard out.
    pub(crate) const fn remove(&mut self, shard: Shard) {
        self.0 &= !Self::one(shard);
    }

    /// Returns the shards that are not in `other`.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns the first shard, if there is one.
    pub(crate) fn first(self) -> Option<Shard> {
        Shard::all().find(|shard| self.has(*shard))
    }

    const fn one(shard: Shard) -> u16 {
        1_u16.wrapping_shl(shard.0 as u32)
    }
}

/// Returns what stands for a channel: xxh3 of its name, seeded by its application's.
pub(crate) fn hash(channel: &ChannelName) -> u64 {
    xxh3_64_with_seed(channel.as_str().as_bytes(), xxh3_64(channel.app().as_bytes()))
}

/// Returns what stands for a member's entry. What it says cannot change, so the change that made it names it.
pub(crate) fn of_entry(channel: u64, connection: ConnectionId, born: u64) -> u64 {
    mix([1, channel, connection.bits(), born])
}

/// Returns what stands for a node's count of a channel.
pub(crate) fn of_count(channel: u64, subscribers: u32, since: u64) -> u64 {
    mix([2, channel, u64::from(subscribers), since])
}

/// Returns how near a node is to a shard: the nearest of the nodes that are ready tells the shard's facts.
pub(crate) fn nearness(node: NodeId, shard: Shard) -> u64 {
    mix([3, node.bits(), u64::from(shard.0), 0])
}

fn mix(words: [u64; 4]) -> u64 {
    let mut bytes = [0; 32];
    for (slot, word) in bytes.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    xxh3_64(&bytes)
}
