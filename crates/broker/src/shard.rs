//! Which shard a channel belongs to.
//!
//! **Lives here:** the hash. Changing it, or the number of shards, is a new layout on the broker.
//! **Called by:** both brokers.
//! **Must not know:** streams, subjects.

use carillon_model::ChannelName;
use xxhash_rust::xxh3::xxh3_64;

/// How many shards a retention class has.
pub const SHARDS: u16 = 16;

/// One of a class's [`SHARDS`] parts. All publications of a channel are in one shard, which counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(u16);

impl Shard {
    /// Returns the shard of `channel`: xxh3 of its name, modulo [`SHARDS`].
    #[must_use]
    pub fn of(channel: &ChannelName) -> Self {
        let index = xxh3_64(channel.as_str().as_bytes()) % u64::from(SHARDS);
        Self(u16::try_from(index).unwrap_or(0))
    }

    /// Returns every shard.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// Returns the shard's number, from 0.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }
}
