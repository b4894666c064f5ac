//! The shard tracker: makes an ordered stream without gaps out of a feed that may lose, repeat and reorder.
//!
//! The stream counts its messages without a hole, so one number finds every loss. What follows a loss is held
//! until the missing range was fetched; what cannot be fetched any more is said to be lost.
//!
//! The numbers alone do not tell when storage was lost and the same numbers were given again. What was delivered is
//! therefore remembered by its fingerprint, and whatever comes at a place that is known must be the same. After an
//! interruption nothing is delivered before the stream has shown that it goes on from what was delivered.
//!
//! What cannot be proven: that the stream was not rolled back to before messages that it then dropped, all of those
//! that are remembered (`witness`) included, by age or by count; and while the feed is not interrupted, a rollback
//! all of whose new messages up to the position the feed failed to bring.
//!
//! **Lives here:** the rules of one shard of one class: what is delivered, held, fetched, lost.
//! **Called by:** a broker's task for the shard, which owns the feed, the fetches and the polls of the tail.
//! **Must not know:** NATS, tasks, clocks.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_model::{Epoch, Offset, Position, Publication};

use self::witness::Witnesses;

mod witness;
mod words;

pub use witness::Fingerprint;
pub use words::{Effect, HeldLimits, Stored, Tail, Tally};

/// For how long a tail that is ahead of the feed may be just ahead, before its messages are fetched.
const TAIL_GRACE: Duration = Duration::from_millis(500);
/// How long to wait after a fetch that failed.
const FETCH_RETRY: Duration = Duration::from_millis(500);
/// Most messages that one fetch asks for.
const FETCH_MAX: u64 = 1000;
/// Most messages that are repaired at a time. When more are missing they are given up: fetching them would take
/// longer than clients wait, and history answers those who come back.
const REPAIR_MAX: u64 = 100_000;

/// How many former lives of the stream are remembered.
const LEFT_MAX: usize = 16;

/// What a held message costs besides its data.
const OVERHEAD_BYTES: usize = 256;

/// Whether all that was stored before the link came up was brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settled {
    /// The tail must be asked first.
    AskTail,
    /// All up to here must have been brought.
    Reach(Offset),
    /// Yes.
    Yes,
}

/// Follows one shard of one class.
#[derive(Debug)]
pub struct ShardTracker {
    limits: HeldLimits,
    /// `None` until the tail was found for the first time.
    position: Option<Position>,
    held: BTreeMap<Offset, Stored>,
    held_bytes: usize,
    witnesses: Witnesses,
    /// The last message that is known to have been stored, brought or not.
    highest: Offset,
    /// All up to here is known to be missing from the feed and wants to be fetched, unless it is held.
    target: Offset,
    /// What the last tail said of the oldest message.
    first: Offset,
    fetching: Option<(Offset, Offset)>,
    fetch_again_at: Option<Instant>,
    /// A tail that was ahead of the feed, and when the feed must have caught up with it.
    behind: Option<(Offset, Instant)>,
    /// What was known to be stored when the tail was asked for: an answer from before it would be a step back.
    asked_at: Offset,
    /// The last tail was before what had been stored. One could be a new leader that is not ready yet.
    suspect: bool,
    /// Another message was found at a known place: this life is over, whatever the stream says.
    over: bool,
    /// The last lives before this one: an old copy may say that it is one of them.
    left: VecDeque<Epoch>,
    settled: Settled,
    repairing: bool,
    tally: Tally,
    effects: VecDeque<Effect>,
}

impl ShardTracker {
    /// Makes a tracker that knows nothing yet: it holds what it receives until the tail was polled.
    #[must_use]
    pub fn new(limits: HeldLimits) -> Self {
        Self {
            limits,
            position: None,
            held: BTreeMap::new(),
            held_bytes: 0,
            witnesses: Witnesses::default(),
            highest: Offset::ZERO,
            target: Offset::ZERO,
            first: Offset::ZERO,
            fetching: None,
            fetch_again_at: None,
            behind: None,
            asked_at: Offset::ZERO,
            suspect: false,
            over: false,
            left: VecDeque::new(),
            settled: Settled::AskTail,
            repairing: false,
            tally: Tally { gaps: 0, repaired: 0, duplicates: 0, lost: 0 },
            effects: VecDeque::new(),
        }
    }

    /// Takes a message from the feed.
    pub fn handle_live(&mut self, stored: Stored) {
        if self.over {
            return;
        }
        if self.is_contradicted(stored.offset, stored.print) {
            match self.position {
                Some(position) => self.end_life(position.epoch),
                // Of which life is not known yet.
                None => self.forget(),
            }
            return;
        }
        self.highest = self.highest.max(stored.offset);
        match self.position {
            Some(position) if stored.offset <= position.offset => self.tally.duplicates += 1,
            Some(position) if stored.offset == position.offset.next() && self.is_proven() => {
                self.pass(stored);
                self.go_on();
            }
            Some(_) | None => {
                self.hold(stored);
                self.go_on();
            }
        }
    }

    /// Notes that the tail is being asked for. At most one question may be open.
    pub const fn handle_asked(&mut self) {
        self.asked_at = self.highest;
    }

    /// Returns the places of messages that the stream should be asked for together with its tail: the first of them
    /// that it still keeps proves, or disproves, that it goes on from what was delivered.
    pub fn witnesses(&self) -> impl Iterator<Item = Offset> {
        self.witnesses.places()
    }

    /// Takes the answer to the question about the tail.
    pub fn handle_tail(&mut self, tail: Tail, now: Instant) {
        match self.position {
            None => self.begin(tail),
            Some(_) if self.left.contains(&tail.epoch) => return self.end_life(tail.epoch),
            Some(position) if position.epoch != tail.epoch => self.begin_again(tail, position.epoch),
            Some(_) if self.over || tail.kept.is_some_and(|(at, print)| self.is_contradicted(at, print)) => {
                return self.end_life(tail.epoch);
            }
            Some(_) if tail.last < self.asked_at => {
                if self.suspect {
                    self.effects.push_back(Effect::WentBack(tail.epoch));
                }
                self.suspect = true;
                return;
            }
            Some(_) => self.compare(tail, now),
        }
        self.suspect = false;
        self.go_on();
    }

    /// Takes what a fetch brought: every message that there is from the fetch's `from` up to `upto`. What is
    /// missing in between is gone for ever.
    pub fn handle_fetched(&mut self, upto: Offset, messages: Vec<Stored>) {
        let (Some((from, to)), Some(position)) = (self.fetching.take(), self.position) else { return };
        if !self.is_proven() {
            return;
        }
        let upto = upto.min(to);
        for stored in messages {
            if self.is_contradicted(stored.offset, stored.print) {
                return self.end_life(position.epoch);
            }
            if stored.offset > position.offset
                && stored.offset <= upto
                && !self.held.contains_key(&stored.offset)
            {
                self.tally.repaired += 1;
                self.insert(stored);
            }
        }
        // From the end: the last hole decides, all before it is given up with it. Whoever is told of a loss must
        // not be told in the middle of what came after it.
        let mut offset = upto.get();
        while offset >= from.get() && self.held.contains_key(&Offset::new(offset)) {
            offset -= 1;
        }
        if offset >= from.get() && offset > position.offset.get() {
            self.give_up(Offset::new(offset));
        }
        self.go_on();
    }

    /// Learns that a fetch brought nothing; it is repeated after half a second.
    pub fn handle_fetch_failed(&mut self, now: Instant) {
        if self.fetching.take().is_some() {
            self.fetch_again_at = Some(now + FETCH_RETRY);
        }
    }

    /// Learns that the feed was interrupted: nothing is delivered until the tail was asked for, and nothing is
    /// settled until it was reached. What is held is fetched again, as it may be lost there.
    pub fn handle_interrupted(&mut self) {
        self.forget_held();
        self.settled = Settled::AskTail;
        self.behind = None;
    }

    /// Does what the deadline was set for.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.fetch_again_at.is_some_and(|at| at <= now) {
            self.fetch_again_at = None;
        }
        if let Some((tail, at)) = self.behind
            && at <= now
        {
            self.behind = None;
            self.target = self.target.max(tail);
        }
        self.go_on();
    }

    /// Returns the next thing to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let behind = self.behind.map(|(_, at)| at);
        [behind, self.fetch_again_at].into_iter().flatten().min()
    }

    /// Returns where the stream stands: all up to here was delivered, or lost. `None` before the first tail.
    #[must_use]
    pub const fn position(&self) -> Option<Position> {
        self.position
    }

    /// Says whether all that was stored before the feed began, or began again, was brought.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled == Settled::Yes && self.is_proven()
    }

    /// Returns what happened since the last call.
    pub const fn take_tally(&mut self) -> Tally {
        std::mem::replace(&mut self.tally, Tally { gaps: 0, repaired: 0, duplicates: 0, lost: 0 })
    }

    fn offset(&self) -> Offset {
        self.position.map_or(Offset::ZERO, |position| position.offset)
    }

    /// Says whether the stream is known to go on from the position.
    fn is_proven(&self) -> bool {
        self.settled != Settled::AskTail && !self.suspect && !self.over
    }

    /// Says whether another message is known at this place.
    fn is_contradicted(&self, offset: Offset, print: Fingerprint) -> bool {
        let held = self.held.get(&offset).map(|held| held.print);
        held.or_else(|| self.witnesses.at(offset)).is_some_and(|known| known != print)
    }

    /// Ends the life that the stream claims to be in.
    fn end_life(&mut self, claimed: Epoch) {
        self.over = true;
        self.forget_held();
        self.effects.push_back(Effect::WentBack(claimed));
    }

    fn begin(&mut self, tail: Tail) {
        self.effects.push_back(Effect::Epoch(tail.epoch));
        self.position = Some(Position { epoch: tail.epoch, offset: tail.last });
        self.highest = self.highest.max(tail.last);
        self.remember_kept(tail);
        self.first = tail.first;
        self.settled = Settled::Yes;
        self.release();
    }

    fn begin_again(&mut self, tail: Tail, left: Epoch) {
        if self.left.len() == LEFT_MAX {
            self.left.pop_front();
        }
        self.left.push_back(left);
        self.forget();
        self.witnesses = Witnesses::default();
        self.over = false;
        self.target = Offset::ZERO;
        self.fetching = None;
        self.fetch_again_at = None;
        self.behind = None;
        self.begin(tail);
        let position = Position { epoch: tail.epoch, offset: tail.last };
        self.effects.push_back(Effect::Lost { position });
    }

    /// Forgets what came after the position.
    fn forget(&mut self) {
        self.forget_held();
        self.highest = Offset::ZERO;
    }

    fn forget_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }

    /// Compares a tail of the same life with what was brought.
    fn compare(&mut self, tail: Tail, now: Instant) {
        self.first = tail.first;
        self.highest = self.highest.max(tail.last);
        self.remember_kept(tail);
        match self.settled {
            Settled::AskTail => {
                self.target = self.target.max(tail.last);
                self.settled = Settled::Reach(tail.last);
            }
            Settled::Reach(_) => {}
            // The feed is on its way and usually a moment behind.
            Settled::Yes if tail.last > self.offset() && self.behind.is_none() => {
                self.behind = Some((tail.last, now + TAIL_GRACE));
            }
            Settled::Yes => {}
        }
    }

    /// Remembers what stands at the position when it was not brought: it was there at the start, or is lost.
    fn remember_kept(&mut self, tail: Tail) {
        if let Some((offset, print)) = tail.kept.filter(|(offset, _)| *offset == self.offset()) {
            self.witnesses.note(offset, print);
        }
    }

    /// Delivers the message at the next place.
    fn pass(&mut self, stored: Stored) {
        let Some(position) = &mut self.position else { return };
        position.offset = stored.offset;
        self.witnesses.note(stored.offset, stored.print);
        if let Some(message) = stored.message {
            let position = Some(*position);
            self.effects.push_back(Effect::Deliver(Arc::new(Publication::new(message, position))));
        }
    }

    fn insert(&mut self, stored: Stored) {
        self.held_bytes += cost(&stored);
        if let Some(replaced) = self.held.insert(stored.offset, stored) {
            self.held_bytes -= cost(&replaced);
        }
    }

    /// Holds a message that cannot be delivered yet.
    fn hold(&mut self, stored: Stored) {
        let offset = stored.offset;
        if self.held.contains_key(&offset) {
            self.tally.duplicates += 1;
            return;
        }
        self.insert(stored);
        if self.held.len() > self.limits.messages || self.held_bytes > self.limits.bytes {
            // What is dropped here is fetched like what never came.
            let last = self.held.last_key_value().map_or(offset, |(last, _)| *last);
            self.target = self.target.max(last);
            self.held.clear();
            self.held_bytes = 0;
        }
    }

    fn unhold(&mut self) -> Option<Stored> {
        let (_, stored) = self.held.pop_first()?;
        self.held_bytes -= cost(&stored);
        Some(stored)
    }

    /// Delivers what is held and follows without a gap.
    fn release(&mut self) {
        while let Some((&offset, _)) = self.held.first_key_value() {
            let here = self.offset();
            if offset > here.next() {
                break;
            }
            match self.unhold() {
                Some(stored) if offset == here.next() => self.pass(stored),
                Some(_) | None => self.tally.duplicates += 1,
            }
        }
    }

    /// Says that all up to `offset` that was not delivered is lost.
    fn give_up(&mut self, offset: Offset) {
        let Some(position) = &mut self.position else { return };
        self.tally.lost += offset.get().saturating_sub(position.offset.get());
        position.offset = offset;
        self.effects.push_back(Effect::Lost { position: *position });
        while self.held.first_key_value().is_some_and(|(held, _)| *held <= offset) {
            self.unhold();
        }
    }

    /// Delivers what can be delivered, and asks for what is missing.
    fn go_on(&mut self) {
        if self.position.is_none() || !self.is_proven() {
            return;
        }
        self.release();
        if let Some(goal) = self.goal().filter(|goal| goal.get() - self.offset().get() > REPAIR_MAX) {
            self.give_up(goal);
            self.release();
        }
        if let Some(goal) = self.goal()
            && self.first > self.offset().next()
        {
            // What is older than the oldest that is kept cannot be fetched.
            self.give_up(Offset::new(self.first.get() - 1).min(goal));
            self.release();
        }
        match self.goal() {
            Some(goal) => self.fetch(goal),
            None => {
                self.repairing = false;
                self.fetch_again_at = None;
            }
        }
        if let Settled::Reach(last) = self.settled
            && self.offset() >= last
        {
            self.settled = Settled::Yes;
        }
        self.behind = self.behind.filter(|(tail, _)| *tail > self.offset());
    }

    /// Returns the last message of the first range that is missing, if one is.
    fn goal(&self) -> Option<Offset> {
        let goal = match self.held.first_key_value() {
            Some((held, _)) => Offset::new(held.get() - 1),
            None => self.target,
        };
        (goal > self.offset()).then_some(goal)
    }

    fn fetch(&mut self, goal: Offset) {
        if !self.repairing {
            self.repairing = true;
            self.tally.gaps += 1;
        }
        if self.fetching.is_some() || self.fetch_again_at.is_some() {
            return;
        }
        let from = self.offset().next();
        let to = goal.min(Offset::new(from.get().saturating_add(FETCH_MAX - 1)));
        self.fetching = Some((from, to));
        self.effects.push_back(Effect::Fetch { from, to });
    }
}

fn cost(stored: &Stored) -> usize {
    OVERHEAD_BYTES + stored.message.as_ref().map_or(0, |message| message.data.len())
}

#[cfg(test)]
mod tests;
