//! Work that outlives the node that made it: what the application is to be told, in order and once.
//!
//! **Lives here:** the trait, the lanes, what is taken from them.
//! **Called by:** `backend` puts and takes; implemented by `work::memory` and by `broker-nats`.
//! **Must not know:** what the work is.

mod memory;

use std::{
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_model::IdempotencyKey;
use futures_util::future::BoxFuture;

use crate::{PublishError, Shard};

pub use memory::MemoryQueue;

/// For how long work is a taker's that says nothing. Then its node is taken for dead.
pub const LEASE: Duration = Duration::from_secs(30);
/// After this time [`WorkQueue::take`] comes back without work.
pub const TAKE_MAX: Duration = Duration::from_secs(10);
/// For how long the key of work that was put is remembered.
pub const KEY_AGE: Duration = Duration::from_mins(2);

/// Work that is done one after the other: what goes to one endpoint about the channels of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    endpoint: u64,
    shard: Shard,
}

impl Lane {
    /// Names a lane. `endpoint` is the same for one endpoint on every node.
    #[must_use]
    pub const fn new(endpoint: u64, shard: Shard) -> Self {
        Self { endpoint, shard }
    }
}

/// As one token: 16 hexadecimal digits, `-`, the shard's number.
impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.endpoint, self.shard.index())
    }
}

/// Keeps work until it is done, in lanes. One instance a process; all nodes of a cluster share one queue.
///
/// In a lane work is taken in the order in which it was put, by one taker at a time: nobody is given what follows
/// before it is done, or its taker has said nothing for [`LEASE`]. Then the next taker is given it again.
pub trait WorkQueue: Send + Sync + fmt::Debug {
    /// Puts work at the end of a lane, unless `key` was put into the lane within the last [`KEY_AGE`]. To keep the
    /// order of two, put the second after the answer to the first.
    ///
    /// # Errors
    /// [`PublishError`]. `StorageFull` when the queue is full: the newest work is refused. After `Unknown` it is safe
    /// to put it again under the same key.
    fn put(
        &self,
        lane: Lane,
        key: IdempotencyKey,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), PublishError>>;

    /// Takes the first work of a lane, at least one and up to `at_most` of what is there, and waits for it for up to
    /// [`TAKE_MAX`]. Where there is less than `at_most`, waits `gather` for more.
    ///
    /// # Errors
    /// [`WorkError`] when the queue cannot be reached.
    ///
    /// # Cancel safety
    /// Work that was about to be taken comes to whoever takes next, after up to [`LEASE`].
    fn take(
        &self,
        lane: Lane,
        at_most: usize,
        gather: Duration,
    ) -> BoxFuture<'_, Result<Option<Work>, WorkError>>;

    /// Keeps work for another [`LEASE`].
    ///
    /// # Errors
    /// [`WorkError`] when the queue cannot be reached.
    fn keep<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<(), WorkError>>;

    /// Removes work that is done. What follows it in the lane can then be taken.
    ///
    /// # Errors
    /// [`WorkError`] when the queue cannot be reached: somebody may be given the work again.
    fn done<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<(), WorkError>>;
}

/// Work in the hands of a taker.
#[derive(Debug)]
pub struct Work {
    /// What was put, oldest first; never empty.
    pub bodies: Vec<Bytes>,
    /// What the queue knows it by.
    pub receipt: Receipt,
}

/// What a queue knows work by that was taken. Only the queue itself understands it.
#[derive(Debug)]
pub struct Receipt {
    /// Where it was taken from.
    pub lane: Lane,
    /// Which taking it was.
    pub token: String,
    /// The last that was taken.
    pub last: u64,
}

/// Why a queue did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// It cannot be reached, or did not answer in time.
    #[error("the work queue cannot be reached: {0}")]
    Unavailable(String),
}
