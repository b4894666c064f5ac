//! The broker: carries publications between nodes, orders them and keeps their history.
//!
//! **Lives here:** the trait, the shards, the memory broker (the default), the shard tracker, the ring of the last
//! minutes, the way of a reader from its past to the present, the words between nodes. The suite
//! that every implementation passes is `tests/src/conformance.rs`.
//! **Called by:** `node` publishes, attaches and recovers; `gateway` chooses the implementation.
//! **Must not know:** sockets of clients, dialects, who is subscribed.

mod catchup;
mod cluster;
mod memory;
mod ring;
mod shard;
mod tracker;
mod words;
mod work;

pub use catchup::{CatchUp, Step};
pub use cluster::{Alone, Audience, Cluster, Link, Listen};
pub use memory::MemoryBroker;
pub use ring::{Ring, RingBudget};
pub use shard::{SHARDS, Shard};
pub use tracker::{Effect, Fingerprint, HeldLimits, ShardTracker, Stored, Tail, Tally};
pub use words::{
    AttachError, Attached, Broker, Deliver, Health, Lost, Past, PublishError, Published, RecoverError,
    Recovery,
};
pub use work::{KEY_AGE, LEASE, Lane, MemoryQueue, Receipt, TAKE_MAX, Work, WorkError, WorkQueue};
