//! What was published to one channel within one turn.
//!
//! **Lives here:** gathering deliveries by channel, and one buffer for all frames of a burst: a subscriber then costs
//! one plain write, however many messages there are.
//! **Called by:** the turn.
//! **Must not know:** flushing, metrics.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use carillon_hub::{Delivery, Line, Offered, Origin, Render, Subscriber};
use carillon_model::{ChannelName, Form, Frames, Overflow};

use crate::connection::{Connection, origin};

/// Deliveries of one channel, in their order; never empty.
#[derive(Debug)]
pub(super) struct Burst {
    pub(super) deliveries: Vec<Arc<Delivery>>,
    /// Somebody must not receive one of them.
    excludes: bool,
    merged: Frames,
}

/// When what a burst offers leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaves {
    /// At once: the turn has no other burst behind it.
    AtOnce,
    /// With what later bursts of the turn offer to the same client.
    Together,
}

/// The bursts of a turn, each channel's in the order in which it came first.
#[derive(Debug, Default)]
pub(super) struct Bursts {
    bursts: Vec<Burst>,
    bytes: usize,
}

impl Bursts {
    /// Adds a delivery and returns the bytes of data that are gathered now.
    pub(super) fn add(&mut self, delivery: Arc<Delivery>) -> usize {
        let message = &delivery.publication().message;
        self.bytes += message.data.len();
        let excludes = !message.exclude.is_empty();
        // A turn has few channels or few messages of each: the last burst is the one as a rule.
        match self.bursts.iter_mut().rev().take(LOOK_BACK).find(|burst| *burst.channel() == message.channel) {
            Some(burst) => {
                burst.deliveries.push(delivery);
                burst.excludes |= excludes;
            }
            None => {
                let merged = Frames::default();
                self.bursts.push(Burst { deliveries: vec![delivery], excludes, merged });
            }
        }
        self.bytes
    }

    /// Returns what was gathered and begins anew.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Burst> + use<'_> {
        self.bytes = 0;
        self.bursts.drain(..)
    }
}

/// Bursts that are searched for a channel. A channel that is not found begins another burst behind: its order holds.
const LOOK_BACK: usize = 16;

impl Burst {
    pub(super) fn channel(&self) -> &ChannelName {
        let [first, ..] = self.deliveries.as_slice() else { unreachable!("a burst begins with a delivery") };
        &first.publication().message.channel
    }

    /// Leaves out the first `count` deliveries, and says whether any is left.
    pub(super) fn skip(&mut self, count: usize) -> bool {
        self.deliveries.drain(..count.min(self.deliveries.len()));
        !self.deliveries.is_empty()
    }

    /// Offers what the subscriber wants of the burst, and returns how many messages it took; `None` when its
    /// outbox is full. What leaves at once may be written already.
    pub(super) fn offer(
        &self,
        subscriber: &Subscriber,
        line: Line,
        connection: &mut Connection,
        leaves: Leaves,
        render: &dyn Render,
        limit_bytes: usize,
    ) -> Option<usize> {
        let origin = match self.deliveries.as_slice() {
            [only] => Some(origin(subscriber.overflow, line, only.publication())),
            // The other rules drop one message and keep the next.
            _ => (subscriber.overflow == Overflow::Close).then_some(Origin::Kept),
        };
        if let Some(origin) = origin
            && !self.excludes
            && !subscriber.form.is_led()
            && self.deliveries.iter().all(|delivery| subscriber.wants(delivery.publication()))
        {
            let frame = self.merged.get_or_make(subscriber.form, || self.merge(subscriber.form, render));
            let offered = match leaves {
                Leaves::AtOnce => connection.pass(frame, origin, limit_bytes),
                Leaves::Together => connection.offer(frame.clone(), origin, limit_bytes),
            };
            return (offered == Offered::Queued).then_some(self.deliveries.len());
        }
        let mut taken = 0;
        for delivery in &self.deliveries {
            let publication = delivery.publication();
            if !subscriber.wants(publication)
                || self.excludes && publication.message.exclude.contains(&connection.session.id())
            {
                continue;
            }
            let frame = delivery.frame(subscriber.form, render).clone();
            match connection.offer_publication(frame, publication, line, subscriber.overflow, limit_bytes) {
                Some(Offered::Queued) => taken += 1,
                Some(Offered::Full) => return None,
                // It has enough: it is not slow.
                None => return Some(taken),
            }
        }
        Some(taken)
    }

    fn merge(&self, form: Form, render: &dyn Render) -> Bytes {
        if let [only] = self.deliveries.as_slice() {
            return only.frame(form, render).clone();
        }
        let frames = || self.deliveries.iter().map(|delivery| delivery.frame(form, render));
        let mut merged = BytesMut::with_capacity(frames().map(Bytes::len).sum());
        frames().for_each(|frame| merged.extend_from_slice(frame));
        merged.freeze()
    }
}
