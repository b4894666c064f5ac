//! What a shard tracker is told, and what it wants done.
//!
//! **Lives here:** the words.
//! **Called by:** the tracker, and the task that owns it.
//! **Must not know:** the rules.

use std::sync::Arc;

use carillon_model::{Epoch, NewMessage, Offset, Position, Publication};

use super::Fingerprint;

/// How much a tracker holds while it waits for what is missing. Beyond it, what is held is dropped and fetched
/// later.
#[derive(Clone, Copy, Debug)]
pub struct HeldLimits {
    /// At most this many messages.
    pub messages: usize,
    /// At most this many bytes of data and overhead.
    pub bytes: usize,
}

impl Default for HeldLimits {
    fn default() -> Self {
        Self { messages: 4096, bytes: 4 << 20 }
    }
}

/// A message of the stream, from the feed or fetched.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its place in the stream.
    pub offset: Offset,
    /// What tells it from another at the same place.
    pub print: Fingerprint,
    /// What it says; `None` when it cannot be read. Its place is taken all the same.
    pub message: Option<NewMessage>,
}

/// What a poll of the stream's tail found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// Which life the stream is in.
    pub epoch: Epoch,
    /// The oldest message that is kept; after `last` when none is.
    pub first: Offset,
    /// The last message that was stored.
    pub last: Offset,
    /// What the stream keeps at one of [`ShardTracker::witnesses`](crate::ShardTracker::witnesses), or at its end when there are none.
    pub kept: Option<(Offset, Fingerprint)>,
}

/// What the tracker wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Hand this on. Publications come in order and once.
    Deliver(Arc<Publication>),
    /// Fetch this range, ends included, and answer with [`ShardTracker::handle_fetched`](crate::ShardTracker::handle_fetched) or
    /// [`ShardTracker::handle_fetch_failed`](crate::ShardTracker::handle_fetch_failed). It replaces an earlier fetch that has not been answered.
    Fetch {
        /// The first message that is missing.
        from: Offset,
        /// The last one.
        to: Offset,
    },
    /// Messages were lost. What is delivered next comes after `position`.
    Lost {
        /// Where the stream goes on.
        position: Position,
    },
    /// The stream is in another life than before, or was found for the first time.
    Epoch(Epoch),
    /// The stream went backwards while it claims to be what it was: storage was lost, or an old copy restored. It
    /// needs another epoch than this one, that every node can see. Nothing is delivered before a tail names it.
    WentBack(Epoch),
}

/// What happened since the tally was taken last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times that something was found missing.
    pub gaps: u64,
    /// Messages that were missing and fetched.
    pub repaired: u64,
    /// Messages that came again.
    pub duplicates: u64,
    /// Messages that could not be brought.
    pub lost: u64,
}
