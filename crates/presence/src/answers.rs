//! Answers to nodes that ask for this one's entries, and how fast they are given.
//!
//! A node gets a small piece at a time, and asks for the next when it has that: what nobody takes is not made, and what
//! is on its way stays small however much there is to tell. All nodes together get so much in a while, so that
//! heartbeats never wait behind more.
//!
//! **Lives here:** who waits for which piece, and when the next one may be said.
//! **Called by:** `rosters`, which says the pieces.
//! **Must not know:** what an entry is.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use carillon_model::NodeId;

use crate::{Place, Shard, effect::after, rosters::NODES_MAX};

/// So many bytes of entries are said in each time of [`ANSWERS_EVERY`], and at most a piece more: 40 MB/s.
pub(crate) const ANSWERS_MAX_BYTES: usize = 4 * 1024 * 1024;
/// A piece counts as so many at least: so there are at most 1024 of them.
const PIECE_MIN_BYTES: usize = 4 * 1024;
const ANSWERS_EVERY: Duration = Duration::from_millis(100);

/// A piece of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Which question it belongs to.
    pub(crate) ask: u64,
    pub(crate) shard: Shard,
    /// What the node has already; nothing before the first piece.
    pub(crate) after: Option<Place>,
}

/// The pieces that are wanted.
#[derive(Debug)]
pub(crate) struct Answers {
    /// At most one for each node, of at most [`NODES_MAX`]. A node that is not among them asks again.
    waiting: VecDeque<(NodeId, Wanted)>,
    since: Instant,
    /// What was said since then.
    bytes: usize,
}

impl Answers {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { waiting: VecDeque::new(), since: now, bytes: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Takes a wish. A node's last is the one that counts.
    pub(crate) fn want(&mut self, whom: NodeId, wanted: Wanted) {
        if let Some((_, before)) = self.waiting.iter_mut().find(|(node, _)| *node == whom) {
            *before = wanted;
        } else if self.waiting.len() < NODES_MAX {
            self.waiting.push_back((whom, wanted));
        }
    }

    /// Returns the next piece to be said, if there may be one now.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(NodeId, Wanted)> {
        if after(self.since, ANSWERS_EVERY) <= now {
            (self.since, self.bytes) = (now, 0);
        }
        if self.bytes >= ANSWERS_MAX_BYTES {
            return None;
        }
        self.waiting.pop_front()
    }

    /// Learns how many bytes of entries a piece had.
    pub(crate) fn said(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes.max(PIECE_MIN_BYTES));
    }

    /// Returns when the next piece may be said, if one is wanted.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| after(self.since, ANSWERS_EVERY))
    }
}
