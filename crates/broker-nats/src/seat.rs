//! Where a shard stands, and its last messages.
//!
//! **Lives here:** the one lock under which a position and what is known before it are read together.
//! **Called by:** the shard's task puts in, whoever attaches to a channel reads.
//! **Must not know:** what the ring keeps and proves.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use carillon_broker::{Attached, Ring, RingBudget};
use carillon_model::{ChannelName, Position, Publication, ReplayLimits, Since};

/// One shard's ring, shared.
#[derive(Debug)]
pub(crate) struct Seat(Mutex<Ring>);

impl Seat {
    pub(crate) fn new(budget: &Arc<RingBudget>) -> Self {
        Self(Mutex::new(Ring::new(Arc::clone(budget))))
    }

    pub(crate) fn position(&self) -> Option<Position> {
        self.with(|ring| ring.position())
    }

    pub(crate) fn attach(
        &self,
        channel: &ChannelName,
        since: Since,
        limits: ReplayLimits,
    ) -> Option<Attached> {
        self.with(|ring| ring.attach(channel, since, limits))
    }

    /// Takes a publication that is about to be delivered: who attaches in between has it already.
    pub(crate) fn push(&self, publication: &Arc<Publication>, now: Instant) {
        self.with(|ring| ring.push(Arc::clone(publication), now));
    }

    /// Learns of a loss that is about to be told.
    pub(crate) fn lost(&self, position: Position) {
        self.with(|ring| ring.lost(position));
    }

    /// Moves to where the shard stands, past what cannot be read, and returns what all shards' rings take in bytes.
    pub(crate) fn settle(&self, position: Option<Position>, now: Instant) -> usize {
        self.with(|ring| {
            if let Some(position) = position {
                ring.advance(position);
            }
            ring.trim(now);
            ring.budget().used_bytes()
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Ring) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
