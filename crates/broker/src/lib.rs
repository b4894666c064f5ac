//! The broker: carries publications between nodes, orders them and keeps their history.
//!
//! **Lives here:** the trait, the shards, the memory broker (the default), the shard tracker. The suite
//! that every implementation passes is `tests/src/conformance.rs`.
//! **Called by:** `node` publishes, attaches and reads history; `gateway` chooses the implementation.
//! **Must not know:** sockets of clients, dialects, who is subscribed.

mod catchup;
mod memory;
mod shard;
mod tracker;
mod words;

pub use catchup::{CatchUp, Step};
pub use memory::MemoryBroker;
pub use shard::{SHARDS, Shard};
pub use tracker::{Effect, HeldLimits, ShardTracker, Stored, Tail, Tally};
pub use words::{
    AttachError, Attached, Broker, Deliver, Health, HistoryError, HistoryPage, Lost, Page, Past,
    PublishError, Published, RecoverError, Recovery,
};
