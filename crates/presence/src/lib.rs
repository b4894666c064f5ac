//! Who is in which presence channel, and how many subscribe to what, over all nodes.
//!
//! Every node holds the entries of every node. Each owns those of its own connections and says each change to all;
//! nobody else changes them. Heartbeats carry a digest of each shard, so that whatever was lost on the way is found
//! within one of them, and fetched from its owner. Nothing is asked when somebody joins.
//!
//! **Lives here:** the rosters and how they are kept the same, the words between nodes, who is alive, and what the
//! application is told of all this.
//! **Called by:** the presence task of a node, which owns the clock and the way to the other nodes; `node` asks.
//! **Must not know:** NATS, tasks, clocks, frames, HTTP.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod answers;
mod effect;
mod member;
mod part;
mod peer;
mod rosters;
mod shard;
mod spell;
mod state;
mod telling;
mod view;
mod word;

pub use effect::{Audience, Effect, Full, Link, Settings};
pub use member::{INFO_MAX_BYTES, IdKind, Member};
pub use rosters::{NODES_MAX, Rosters};
pub(crate) use shard::ShardSet;
pub use shard::{Digests, SHARDS, Shard};
pub use telling::{Fact, What};
pub use word::{Change, Entry, Garbage, Place, Standing, WORD_MAX_BYTES, Word};
