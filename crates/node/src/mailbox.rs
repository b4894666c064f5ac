//! What waits for a worker.
//!
//! **Lives here:** the one bounded queue between the node and each worker, and its overflow rule: a delivery that
//! does not fit is dropped, and the worker finds word of it in its place.
//! **Called by:** the router and the acceptor put in, the worker takes out.
//! **Must not know:** what a worker does with it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use carillon_hub::Delivery;
use carillon_model::{ChannelName, Position, Question};
use tokio::sync::{Notify, mpsc};

use crate::{
    crowd::{Change, Changed},
    node::Place,
    survey::Part,
};

/// One thing for a worker to do.
#[derive(Debug)]
pub(crate) enum Mail {
    /// Fan out a publication.
    Deliver(Arc<Delivery>),
    /// Messages of a channel that should stand here do not, up to the position.
    Missed(ChannelName, Option<Position>, Missed),
    /// Tell those who listen of a change among a channel's members.
    Changed(Arc<Change>),
    /// Tell those who listen of how many subscribers a channel has by now. Becomes a [`Self::Changed`] when it is taken.
    Counted(ChannelName),
    /// Changes among a channel's members had no room.
    Overlooked(ChannelName),
    /// Answer a question of the node's.
    Asked(Arc<Question>, mpsc::Sender<Part>),
    /// Serve a connection that was accepted.
    Accepted(TcpStream, Place),
    /// Ask every client to move, spread over this time.
    Drain(Duration),
    /// Close what is left.
    Cut,
}

/// Why messages do not stand where they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Missed {
    /// The queue was full: the broker's memory may have them.
    Dropped,
    /// The broker lost them.
    Lost,
}

/// The queue of one worker.
#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    /// Deliveries that wait, readable without the lock.
    waiting: AtomicUsize,
    /// Somebody waits for the queue to fall below the high-water mark.
    crowded: AtomicBool,
    limit: usize,
    arrived: Notify,
    roomy: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Queue {
    mail: VecDeque<Mail>,
    /// How many pieces were taken before: the number of the first in the queue.
    taken: u64,
    /// How many of those in the queue are deliveries.
    deliveries: usize,
    /// How many are changes among members.
    changes: usize,
    /// The last count of each channel of which one waits to be told. Those before it need not be known.
    counts: HashMap<ChannelName, Arc<Change>>,
    /// Channels of which changes had no room; a notice of each waits.
    overlooked: HashSet<ChannelName>,
    /// The number of the notice of a gap behind which nothing of the channel was queued. Those below `taken` are past.
    gaps: HashMap<ChannelName, u64>,
}

impl Queue {
    /// One notice for each channel until something of it is queued behind, so that notices are bounded by the
    /// worker's channels. It tells of the last loss, which also concerns those who joined after the first.
    fn note_gap(&mut self, channel: ChannelName, position: Option<Position>, missed: Missed) {
        let next = self.taken + self.mail.len() as u64;
        let number = *self
            .gaps
            .entry(channel.clone())
            .and_modify(|n| *n = if *n < self.taken { next } else { *n })
            .or_insert(next);
        match usize::try_from(number - self.taken).ok().and_then(|place| self.mail.get_mut(place)) {
            Some(Mail::Missed(_, upto, cause)) => {
                *upto = position;
                *cause = missed.max(*cause);
            }
            Some(_) | None => self.mail.push_back(Mail::Missed(channel, position, missed)),
        }
    }
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// It waits for the worker.
    Queued,
    /// It was dropped, and its subscribers will be told.
    Dropped,
}

impl Mailbox {
    /// Makes an empty mailbox for at most `limit` deliveries. `roomy` is told whenever it has room again.
    pub(crate) fn new(limit: usize, roomy: Arc<Notify>) -> Self {
        Self {
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            limit,
            arrived: Notify::new(),
            roomy,
        }
    }

    /// Puts a delivery in, or a notice of its loss.
    pub(crate) fn deliver(&self, delivery: Arc<Delivery>) -> Delivered {
        let mut queue = self.lock();
        let message = &delivery.publication().message;
        if queue.deliveries < self.limit {
            if !queue.gaps.is_empty() {
                queue.gaps.remove(&message.channel);
            }
            queue.mail.push_back(Mail::Deliver(delivery));
            queue.deliveries += 1;
            self.waiting.store(queue.deliveries, Ordering::Relaxed);
            drop(queue);
            self.arrived.notify_one();
            return Delivered::Queued;
        }
        let (channel, position) = (message.channel.clone(), delivery.publication().position);
        queue.note_gap(channel, position, Missed::Dropped);
        Delivered::Dropped
    }

    /// Puts in that the broker lost messages of a channel.
    pub(crate) fn gap(&self, channel: ChannelName, position: Option<Position>) {
        self.lock().note_gap(channel, position, Missed::Lost);
        self.arrived.notify_one();
    }

    /// Puts in a change among a channel's members, or one notice that there was no room for it. Nobody waits for room
    /// here: what changes on other nodes cannot be held up.
    pub(crate) fn change(&self, change: &Arc<Change>) -> Delivered {
        let mut queue = self.lock();
        let is_count = matches!(change.what, Changed::Counted(_));
        let fits = is_count || queue.changes < self.limit;
        if is_count {
            if queue.counts.insert(change.channel.clone(), Arc::clone(change)).is_none() {
                queue.mail.push_back(Mail::Counted(change.channel.clone()));
            }
        } else if fits {
            queue.mail.push_back(Mail::Changed(Arc::clone(change)));
            queue.changes += 1;
        } else if queue.overlooked.insert(change.channel.clone()) {
            queue.mail.push_back(Mail::Overlooked(change.channel.clone()));
        }
        drop(queue);
        self.arrived.notify_one();
        if fits { Delivered::Queued } else { Delivered::Dropped }
    }

    /// Puts in something that is not bounded here: its sender bounds it.
    pub(crate) fn put(&self, mail: Mail) {
        self.lock().mail.push_back(mail);
        self.arrived.notify_one();
    }

    /// Says whether publishers should wait: the queue is more than half full.
    pub(crate) fn is_crowded(&self) -> bool {
        let crowded = self.waiting.load(Ordering::Relaxed) > self.limit / 2;
        if crowded {
            self.crowded.store(true, Ordering::Relaxed);
        }
        crowded
    }

    /// Returns how many deliveries wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for mail.
    ///
    /// # Cancel safety
    /// Safe: what arrived stays.
    pub(crate) async fn wait(&self) {
        while self.lock().mail.is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Moves at most `budget` pieces of mail to `into`.
    pub(crate) fn take(&self, into: &mut Vec<Mail>, budget: usize) {
        let mut queue = self.lock();
        let count = queue.mail.len().min(budget);
        let before = into.len();
        into.extend(queue.mail.drain(..count));
        queue.taken += count as u64;
        for mail in into.iter_mut().skip(before) {
            if let Mail::Counted(channel) = mail
                && let Some(count) = queue.counts.remove(channel)
            {
                *mail = Mail::Changed(count);
                continue;
            }
            match mail {
                Mail::Deliver(_) => queue.deliveries -= 1,
                Mail::Changed(_) => queue.changes -= 1,
                Mail::Overlooked(channel) => drop(queue.overlooked.take(channel)),
                Mail::Missed(..)
                | Mail::Counted(_)
                | Mail::Asked(..)
                | Mail::Accepted(..)
                | Mail::Drain(_)
                | Mail::Cut => {}
            }
        }
        if queue.mail.is_empty() {
            queue.gaps.clear();
        }
        let left = queue.deliveries;
        drop(queue);
        self.waiting.store(left, Ordering::Relaxed);
        if left <= self.limit / 2 && self.crowded.swap(false, Ordering::Relaxed) {
            self.roomy.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
