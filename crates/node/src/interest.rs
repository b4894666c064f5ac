//! Which workers have subscribers of which channel.
//!
//! **Lives here:** the table that a publication is looked up in, once.
//! **Called by:** workers at their first join and last leave; the router for every publication.
//! **Must not know:** sessions.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use carillon_model::ChannelName;

/// A set of workers: one bit each.
pub(crate) type WorkerSet = u64;

/// Most workers of a node: the bits of a [`WorkerSet`].
pub(crate) const WORKERS_MAX: usize = 64;

/// Channels that have subscribers on this node.
#[derive(Debug, Default)]
pub(crate) struct Interest(RwLock<HashMap<ChannelName, WorkerSet>>);

impl Interest {
    /// Adds a worker to a channel. What the router sees from here on reaches it.
    pub(crate) fn add(&self, channel: &ChannelName, worker: usize) {
        *self.write().entry(channel.clone()).or_default() |= 1 << worker;
    }

    /// Takes a worker off a channel.
    pub(crate) fn remove(&self, channel: &ChannelName, worker: usize) {
        let mut table = self.write();
        if let Some(workers) = table.get_mut(channel) {
            *workers &= !(1 << worker);
            if *workers == 0 {
                table.remove(channel);
            }
        }
    }

    /// Returns the workers with subscribers of `channel`.
    pub(crate) fn of(&self, channel: &ChannelName) -> WorkerSet {
        self.read().get(channel).copied().unwrap_or(0)
    }

    /// Returns the channels that `affected` says yes to, with their workers, in no order.
    #[expect(clippy::disallowed_methods, reason = "the order of different channels means nothing here")]
    pub(crate) fn matching(&self, affected: impl Fn(&ChannelName) -> bool) -> Vec<(ChannelName, WorkerSet)> {
        let table = self.read();
        let pairs = table.iter().filter(|(channel, _)| affected(channel));
        pairs.map(|(channel, workers)| (channel.clone(), *workers)).collect()
    }

    /// Returns how many channels have subscribers on this node.
    pub(crate) fn len(&self) -> usize {
        self.read().len()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ChannelName, WorkerSet>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ChannelName, WorkerSet>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
