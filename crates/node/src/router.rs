//! From the broker to the workers.
//!
//! **Lives here:** each publication is looked up once and put into the mailbox of every worker that wants it.
//! **Called by:** the broker delivers; publishers ask whether the workers keep up.
//! **Must not know:** sessions, forms, frames.

use std::{sync::Arc, time::Instant};

use carillon_broker::{Deliver, Lost, Shard};
use carillon_hub::Delivery;
use carillon_model::{ChannelName, ChannelRules, IdempotencyKey, Keeping, Publication};
use carillon_tasks::clock;
use carillon_telemetry::metric;
use tokio::sync::{Mutex, Notify};

use crate::{
    crowd::Change,
    interest::{Interest, WORKERS_MAX, WorkerSet},
    mailbox::{Delivered, Mailbox},
    recent::RecentKeys,
};

/// Deliveries that wait for one worker before the overflow rule applies.
const MAILBOX_LIMIT: usize = 16_384;

/// Takes what the broker brings to the workers that want it.
#[derive(Debug)]
pub struct Router {
    pub(crate) interest: Interest,
    pub(crate) mailboxes: Box<[Arc<Mailbox>]>,
    rules: ChannelRules,
    recent: RecentKeys,
    roomy: Arc<Notify>,
    /// Held by the first of the publishers who wait for room.
    turnstile: Mutex<()>,
    overflows: metrics::Counter,
    dropped: metrics::Counter,
}

impl Router {
    /// Makes a router for `workers` workers, at most 64.
    #[must_use]
    pub fn new(workers: usize, rules: ChannelRules) -> Self {
        let roomy = Arc::new(Notify::new());
        let workers = workers.clamp(1, WORKERS_MAX);
        Self {
            interest: Interest::default(),
            mailboxes: (0..workers)
                .map(|_| Arc::new(Mailbox::new(MAILBOX_LIMIT, Arc::clone(&roomy))))
                .collect(),
            rules,
            recent: RecentKeys::default(),
            roomy,
            turnstile: Mutex::new(()),
            overflows: metric::WORKER_QUEUE_OVERFLOWS.counter(&[]),
            dropped: metric::MESSAGES_DROPPED.counter(&[("reason", "queue_full")]),
        }
    }

    /// Returns the rules of channels.
    pub(crate) const fn rules(&self) -> &ChannelRules {
        &self.rules
    }

    /// Says whether a live message with this key was not handed on within the last minute.
    pub(crate) fn is_first(&self, channel: &ChannelName, key: &IdempotencyKey) -> bool {
        self.recent.is_first(channel, key, clock::now())
    }

    /// Waits until the workers keep up, so that nothing is accepted only to be dropped here. Those who wait pass in
    /// the order in which they came, and before those who come later.
    /// Returns `None` when the deadline passed first.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub(crate) async fn ready(&self, deadline: Instant) -> Option<()> {
        if !self.is_crowded() && self.turnstile.try_lock().is_ok() {
            return Some(());
        }
        let wait = async {
            let _my_turn = self.turnstile.lock().await;
            while self.is_crowded() {
                let roomy = self.roomy.notified();
                // The mailbox may have emptied between the look and the registration.
                if self.is_crowded() {
                    roomy.await;
                }
            }
        };
        tokio::time::timeout_at(deadline.into(), wait).await.ok()
    }

    fn is_crowded(&self) -> bool {
        self.mailboxes.iter().any(|mailbox| mailbox.is_crowded())
    }

    /// Returns how many deliveries wait for workers.
    pub(crate) fn waiting(&self) -> usize {
        self.mailboxes.iter().map(|mailbox| mailbox.len()).sum()
    }

    /// Tells the workers that have subscribers of a channel of a change among its members.
    pub(crate) fn change(&self, change: &Arc<Change>) {
        self.each(self.interest.of(&change.channel), |mailbox| {
            if mailbox.change(change) == Delivered::Dropped {
                self.overflows.increment(1);
            }
        });
    }

    fn each(&self, workers: WorkerSet, mut act: impl FnMut(&Mailbox)) {
        let mut left = workers;
        while left != 0 {
            if let Some(mailbox) = self.mailboxes.get(left.trailing_zeros() as usize) {
                act(mailbox);
            }
            left &= left - 1;
        }
    }
}

impl Deliver for Router {
    fn deliver(&self, publication: Arc<Publication>) {
        let message = &publication.message;
        let workers = self.interest.of(&message.channel);
        if workers == 0 {
            return;
        }
        if publication.position.is_none()
            && let Some(key) = &message.id
            && !self.is_first(&message.channel, key)
        {
            return;
        }
        let delivery = Arc::new(Delivery::new(publication, clock::now()));
        self.each(workers, |mailbox| {
            if mailbox.deliver(Arc::clone(&delivery)) == Delivered::Dropped {
                self.overflows.increment(1);
                if delivery.publication().position.is_none() {
                    self.dropped.increment(1);
                }
            }
        });
    }

    fn lost(&self, lost: &Lost) {
        let affected = |channel: &ChannelName| {
            !channel.is_reserved()
                && Shard::of(channel) == lost.shard
                && self.rules.keeping(channel) == Some(&Keeping::Durable(lost.class.clone()))
        };
        for (channel, workers) in self.interest.matching(affected) {
            self.each(workers, |mailbox| mailbox.gap(channel.clone(), Some(lost.position)));
        }
    }

    fn lost_live(&self, shards: &[Shard]) {
        // Users' own channels have no rule and are live.
        let is_live = |channel: &ChannelName| {
            channel.is_reserved() || self.rules.keeping(channel) == Some(&Keeping::Live)
        };
        let affected = |channel: &ChannelName| shards.contains(&Shard::of(channel)) && is_live(channel);
        for (channel, workers) in self.interest.matching(affected) {
            self.each(workers, |mailbox| mailbox.gap(channel.clone(), None));
        }
    }
}

#[cfg(test)]
mod tests;
