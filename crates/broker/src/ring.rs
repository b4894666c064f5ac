//! The last minutes of a shard, in memory.
//!
//! Who comes back after a moment is brought what it missed from here, and who missed nothing is told so, without a
//! question to where history is kept. Each message knows where its channel's message before it was, so an answer costs
//! what the client missed, not what the shard was sent.
//!
//! **Lives here:** which part of a channel is in memory, and the proof that it is all of that part.
//! **Called by:** a broker's task for the shard, which puts in what it delivers; whoever attaches to a channel.
//! **Must not know:** NATS, clocks, who asks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use carillon_model::{ChannelName, Offset, Position, Publication, ReplayLimits, Since, Unrecovered};

use crate::{Attached, Past};

/// For how long a message is kept in memory.
const AGE_MAX: Duration = Duration::from_mins(2);

/// What a message costs besides its data and the frames made of it: its indexes and the allocations' own words.
const ENTRY_BYTES: usize = 768;

/// What it costs to know where a channel's last message is.
const CHANNEL_BYTES: usize = 192;

/// What the rings of a process may take together.
#[derive(Debug)]
pub struct RingBudget {
    limit_bytes: usize,
    rings: AtomicUsize,
    used_bytes: AtomicUsize,
}

impl RingBudget {
    /// Makes a budget of `limit_bytes` for all rings together. They pass it by what fits into a moment at most.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { limit_bytes, rings: AtomicUsize::new(0), used_bytes: AtomicUsize::new(0) })
    }

    /// Returns how much is used.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Says whether a ring that holds `own_bytes` must give some back: all together hold too much, and it holds more
    /// than its share.
    fn is_over(&self, own_bytes: usize) -> bool {
        let share = self.limit_bytes / self.rings.load(Ordering::Relaxed).max(1);
        self.used_bytes() > self.limit_bytes && own_bytes > share
    }
}

/// One shard's last messages.
#[derive(Debug)]
pub struct Ring {
    budget: Arc<RingBudget>,
    position: Option<Position>,
    /// Of a channel that is not in `channels`, no message follows this offset.
    known: Offset,
    entries: VecDeque<Entry>,
    /// The number of the first entry: entries are numbered in the order in which they came.
    first: u64,
    channels: HashMap<ChannelName, Last>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    publication: Arc<Publication>,
    came: Instant,
    /// No message of the channel lies between this offset and the entry's.
    after: Offset,
    /// The number of the channel's entry before, if there was one.
    before: Option<u64>,
}

/// A channel's last message.
#[derive(Clone, Copy, Debug)]
struct Last {
    offset: Offset,
    number: u64,
}

impl Ring {
    /// Makes a ring that knows nothing yet.
    #[must_use]
    pub fn new(budget: Arc<RingBudget>) -> Self {
        budget.rings.fetch_add(1, Ordering::Relaxed);
        Self {
            budget,
            position: None,
            known: Offset::ZERO,
            entries: VecDeque::new(),
            first: 0,
            channels: HashMap::new(),
            bytes: 0,
        }
    }

    /// Returns the budget that it shares.
    #[must_use]
    pub fn budget(&self) -> &RingBudget {
        &self.budget
    }

    /// Returns where the shard stands; `None` before anything is known.
    #[must_use]
    pub const fn position(&self) -> Option<Position> {
        self.position
    }

    /// Takes the next message of the shard. One of another epoch begins anew: nothing before it is known.
    ///
    /// `publication` has a position, after that of the one before.
    pub fn push(&mut self, publication: Arc<Publication>, now: Instant) {
        let Some(position) = publication.position else { return };
        if self.position.is_none_or(|here| here.epoch != position.epoch) {
            let before = Offset::new(position.offset.get().saturating_sub(1));
            self.forget(Position { offset: before, ..position });
        }
        self.position = Some(position);
        let channel = publication.message.channel.clone();
        let number = self.first + self.entries.len() as u64;
        let last = Last { offset: position.offset, number };
        let earlier = self.channels.insert(channel, last);
        self.add(cost(&publication));
        if earlier.is_none() {
            self.add(CHANNEL_BYTES);
        }
        self.entries.push_back(Entry {
            publication,
            came: now,
            after: earlier.map_or(self.known, |last| last.offset),
            before: earlier.map(|last| last.number),
        });
        self.trim(now);
    }

    /// Learns that the shard stands at `position` and that nothing lies between that can be delivered. In another
    /// epoch, nothing before it is known.
    pub fn advance(&mut self, position: Position) {
        match self.position {
            Some(here) if here.epoch == position.epoch => {
                self.position = Some(Position { offset: here.offset.max(position.offset), ..here });
            }
            Some(_) | None => self.forget(position),
        }
    }

    /// Learns that messages before `position` were lost: nothing before it is known.
    pub fn lost(&mut self, position: Position) {
        self.forget(position);
    }

    /// Gives back what is too old or too much.
    pub fn trim(&mut self, now: Instant) {
        while let Some(oldest) = self.entries.front() {
            let old = now.saturating_duration_since(oldest.came) > AGE_MAX;
            if !old && !self.budget.is_over(self.bytes) {
                return;
            }
            if let Some(entry) = self.entries.pop_front() {
                self.first += 1;
                self.take(cost(&entry.publication));
            }
        }
        if self.budget.is_over(self.bytes) {
            self.forget_quiet();
        }
    }

    /// Returns where the shard stands and what is known of a channel after `since`; `None` before anything is known.
    #[must_use]
    pub fn attach(&self, channel: &ChannelName, since: Since, limits: ReplayLimits) -> Option<Attached> {
        let position = self.position?;
        let past = match since {
            Since::Now | Since::Last(0) => Past::Complete(Vec::new()),
            Since::After(after) if after.epoch != position.epoch => Past::Gone(Unrecovered::Epoch),
            Since::After(after) if after.offset > position.offset => Past::Ahead,
            Since::After(after) => self.after(channel, after.offset, limits),
            Since::Last(count) => self.last(channel, count, limits),
            // What is kept elsewhere is more than what is kept here.
            Since::Oldest | Since::Time(_) => Past::Older,
        };
        Some(Attached { position, past })
    }

    fn after(&self, channel: &ChannelName, after: Offset, limits: ReplayLimits) -> Past {
        let Some(last) = self.channels.get(channel) else {
            return if after >= self.known { Past::Complete(Vec::new()) } else { Past::Older };
        };
        if after >= last.offset {
            return Past::Complete(Vec::new());
        }
        // Back from the last message. The way is complete when nothing can lie between the place that was asked for and
        // the message that was reached.
        let mut found = Found::new(limits);
        let mut next = Some(last.number);
        while let Some(entry) = next.and_then(|number| self.entry(number)) {
            if !found.take(entry) {
                return Past::Gone(Unrecovered::Limit);
            }
            if entry.after <= after {
                return found.complete();
            }
            next = entry.before;
        }
        Past::Older
    }

    fn last(&self, channel: &ChannelName, count: u32, limits: ReplayLimits) -> Past {
        let mut found = Found::new(limits);
        let mut next = self.channels.get(channel).map(|last| last.number);
        for _ in 0..count {
            let Some(entry) = next.and_then(|number| self.entry(number)) else { return Past::Older };
            if !found.take(entry) {
                return Past::Gone(Unrecovered::Limit);
            }
            next = entry.before;
        }
        found.complete()
    }

    fn entry(&self, number: u64) -> Option<&Entry> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get(place)
    }

    fn forget(&mut self, position: Position) {
        self.position = Some(position);
        self.known = position.offset;
        self.first += self.entries.len() as u64;
        self.entries = VecDeque::new();
        self.channels = HashMap::new();
        self.take(self.bytes);
    }

    /// Forgets half of the channels, those whose last message is the oldest.
    #[expect(clippy::disallowed_methods, reason = "the values are sorted")]
    fn forget_quiet(&mut self) {
        let mut offsets: Vec<_> = self.channels.values().map(|last| last.offset).collect();
        offsets.sort_unstable();
        let Some(border) = offsets.get(offsets.len() / 2) else { return };
        let before = self.channels.len();
        self.channels.retain(|_, last| last.offset > *border);
        self.channels.shrink_to_fit();
        self.known = self.known.max(*border);
        self.take((before - self.channels.len()) * CHANNEL_BYTES);
    }

    fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.budget.used_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn take(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.budget.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.rings.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a way back has found, newest first.
struct Found {
    list: Vec<Arc<Publication>>,
    left: ReplayLimits,
}

impl Found {
    const fn new(limits: ReplayLimits) -> Self {
        Self { list: Vec::new(), left: limits }
    }

    /// Takes an entry, unless that is more than is allowed.
    fn take(&mut self, entry: &Entry) -> bool {
        let bytes = entry.publication.message.data.len();
        let (Some(messages), Some(bytes)) =
            (self.left.messages.checked_sub(1), self.left.bytes.checked_sub(bytes))
        else {
            return false;
        };
        self.left = ReplayLimits { messages, bytes };
        self.list.push(Arc::clone(&entry.publication));
        true
    }

    fn complete(mut self) -> Past {
        self.list.reverse();
        Past::Complete(self.list)
    }
}

/// The data is there once more for each form that somebody wanted: few channels are heard in more than three.
fn cost(publication: &Publication) -> usize {
    ENTRY_BYTES + 4 * publication.message.data.len()
}

#[cfg(test)]
mod tests;
