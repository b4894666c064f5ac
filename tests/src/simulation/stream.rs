//! A stream as JetStream keeps one: counted without a hole, bounded, and not always what it was.
//!
//! **Lives here:** storing, limits, what is read of it, what becomes of it when it is purged, made anew, or restored
//! from an older copy.
//! **Called by:** the world, for what is published and what nodes ask.
//! **Must not know:** nodes, clients.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use carillon_broker::{Fingerprint, RecoverError, Recovery, Stored, Tail};
use carillon_model::{
    Epoch, NewMessage, Offset, Position, Publication, ReplayLimits, Since, UnixMillis, Unrecovered,
};

use super::agenda::MS;

/// For how long the key of a message is remembered.
const WINDOW: u64 = 5000 * MS;

/// A message that is kept.
#[derive(Clone, Debug)]
struct Kept {
    channel: usize,
    message: NewMessage,
    at: u64,
}

/// What is on the disk.
#[derive(Clone, Debug)]
struct State {
    created: u64,
    generation: u64,
    last: u64,
    kept: BTreeMap<u64, Kept>,
    /// The last message of each channel that was dropped, and when it was accepted.
    dropped: BTreeMap<usize, (u64, UnixMillis)>,
    keys: VecDeque<(u64, u64, u64)>,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    number: u64,
    state: State,
    copies: Vec<(usize, State)>,
    /// Which of its lives in truth, whatever it says.
    pub(super) life: usize,
    pub(super) leader: u32,
    /// It was restored, and has no other epoch yet.
    pub(super) restored: bool,
    keep_messages: usize,
    keep_for: u64,
}

impl Stream {
    pub(super) const fn new(number: u64, life: usize, keep_messages: usize, keep_for: u64) -> Self {
        let state = State {
            created: 1,
            generation: 0,
            last: 0,
            kept: BTreeMap::new(),
            dropped: BTreeMap::new(),
            keys: VecDeque::new(),
        };
        Self { number, state, copies: Vec::new(), life, leader: 1, restored: false, keep_messages, keep_for }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch_of(&self.state)
    }

    fn epoch_of(&self, state: &State) -> Epoch {
        Epoch::from_bits(hash(&format!("{}/{}/{}", self.number, state.created, state.generation)))
    }

    pub(super) const fn last(&self) -> u64 {
        self.state.last
    }

    fn first(&self) -> u64 {
        self.state.kept.first_key_value().map_or(self.state.last + 1, |(first, _)| *first)
    }

    /// Stores a message and returns its place; the first one's when its key is known.
    pub(super) fn publish(
        &mut self,
        channel: usize,
        key: u64,
        message: NewMessage,
        now: u64,
    ) -> (u64, Option<Stored>) {
        let state = &mut self.state;
        while state.keys.front().is_some_and(|(_, _, at)| at + WINDOW < now) {
            state.keys.pop_front();
        }
        if let Some((_, known, _)) = state.keys.iter().find(|(known, ..)| *known == key) {
            return (*known, None);
        }
        state.last += 1;
        let place = state.last;
        state.keys.push_back((key, place, now));
        let stored = stored(place, &message);
        state.kept.insert(place, Kept { channel, message, at: now });
        self.trim(now);
        (place, Some(stored))
    }

    /// Drops what the limits say. Not while the stream is restored and nobody noticed: what is dropped then takes
    /// with it all that could be noticed.
    pub(super) fn trim(&mut self, now: u64) {
        if self.restored {
            return;
        }
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        let mut old: Vec<u64> = Vec::new();
        for (place, kept) in self.state.kept.iter().rev() {
            let count = counts.entry(kept.channel).or_default();
            *count += 1;
            if *count > self.keep_messages || kept.at + self.keep_for < now {
                old.push(*place);
            }
        }
        old.sort_unstable();
        for place in old {
            self.drop_at(place);
        }
    }

    fn drop_at(&mut self, place: u64) {
        if let Some(kept) = self.state.kept.remove(&place) {
            let dropped = self.state.dropped.entry(kept.channel).or_insert((0, UnixMillis::new(0)));
            *dropped = (dropped.0.max(place), dropped.1.max(kept.message.time));
        }
    }

    pub(super) fn purge(&mut self) {
        for place in self.state.kept.keys().copied().collect::<Vec<_>>() {
            self.drop_at(place);
        }
    }

    pub(super) fn recreate(&mut self, created: u64, life: usize) {
        self.state = State {
            created,
            generation: 0,
            last: 0,
            kept: BTreeMap::new(),
            dropped: BTreeMap::new(),
            keys: VecDeque::new(),
        };
        self.life = life;
        self.restored = false;
    }

    /// Keeps a copy of what is on the disk.
    pub(super) fn copy(&mut self) {
        self.copies.push((self.life, self.state.clone()));
        if self.copies.len() > 4 {
            self.copies.remove(0);
        }
    }

    /// Returns up to where a copy goes, and its life.
    pub(super) fn copy_at(&self, which: usize) -> Option<(usize, u64)> {
        self.copies.get(which).map(|(life, state)| (*life, state.last))
    }

    /// Returns which epoch a copy claims.
    pub(super) fn copy_epoch(&self, which: usize) -> Option<Epoch> {
        self.copies.get(which).map(|(_, state)| self.epoch_of(state))
    }

    pub(super) fn restore(&mut self, which: usize, life: usize) {
        if let Some((_, state)) = self.copies.get(which) {
            self.state = state.clone();
            self.life = life;
            self.restored = true;
        }
    }

    /// Gives the stream another generation, unless it has one already.
    pub(super) fn renew(&mut self, seen: Epoch, now: u64) -> bool {
        if self.epoch() != seen {
            return false;
        }
        self.state.generation = (self.state.generation + 1).max(now);
        self.restored = false;
        true
    }

    /// Says what the tail is, with the first of the witnesses that is kept. A leader that is not ready yet is `behind`.
    pub(super) fn tail(&self, witnesses: &[Offset], proven: bool, behind: u64) -> Tail {
        let last = Offset::new(self.state.last.saturating_sub(behind));
        let own = [last];
        let places = if witnesses.is_empty() { &own } else { witnesses };
        let kept = places.iter().filter(|at| **at <= last && !proven).find_map(|at| {
            let kept = self.state.kept.get(&at.get())?;
            Some((*at, stored(at.get(), &kept.message).print))
        });
        Tail { epoch: self.epoch(), first: Offset::new(self.first()).min(last.next()), last, kept }
    }

    /// Fetches a range from a replica that has all up to `has`, and says up to where that is all there is.
    pub(super) fn fetch(&self, from: u64, to: u64, has: u64) -> Option<(Offset, Vec<Stored>)> {
        let range =
            |to: u64| self.state.kept.range(from..=to.max(from)).filter(move |(place, _)| **place <= to);
        let messages: Vec<_> =
            range(to.min(has)).map(|(place, kept)| stored(*place, &kept.message)).collect();
        let upto = if has >= to || range(to).count() == messages.len() {
            Offset::new(to)
        } else {
            messages.last()?.offset
        };
        Some((upto, messages))
    }

    /// Reads a channel's past with the proof that it is all.
    pub(super) fn read(
        &self,
        channel: usize,
        since: Since,
        head: Position,
        limits: ReplayLimits,
    ) -> Result<Recovery, RecoverError> {
        let epoch = self.epoch();
        if head.epoch != epoch {
            return Err(RecoverError::Unavailable);
        }
        let of_channel = || self.state.kept.iter().filter(move |(_, kept)| kept.channel == channel);
        let last = of_channel().next_back().map_or(0, |(place, _)| *place);
        let (dropped, dropped_time) =
            self.state.dropped.get(&channel).copied().unwrap_or((0, UnixMillis::new(0)));
        let named = if let Since::After(after) = since { after.offset.get() } else { 0 };
        let vouched = if named <= self.state.last { named } else { 0 };
        let upto = head.offset.get().max(last).max(vouched);
        let gone = |reason| Err(RecoverError::Gone(reason));
        let count = of_channel().count();
        let skip = match since {
            Since::Now => count,
            Since::After(after) if after.epoch != epoch || named > upto => return gone(Unrecovered::Epoch),
            Since::After(_) if named < dropped => return gone(Unrecovered::Expired),
            Since::After(_) => of_channel().filter(|(place, _)| **place <= named).count(),
            Since::Oldest => 0,
            Since::Last(last) => count.saturating_sub(usize::try_from(last).unwrap_or(usize::MAX)),
            Since::Time(time) if dropped > 0 && dropped_time >= time => return gone(Unrecovered::Expired),
            Since::Time(time) => of_channel().take_while(|(_, kept)| kept.message.time < time).count(),
        };
        let position = |place| Position { epoch, offset: Offset::new(place) };
        let publications: Vec<_> = of_channel()
            .skip(skip)
            .map(|(place, kept)| Arc::new(Publication::new(kept.message.clone(), Some(position(*place)))))
            .collect();
        let bytes: usize = publications.iter().map(|publication| publication.message.data.len()).sum();
        if publications.len() > limits.messages || bytes > limits.bytes {
            return gone(Unrecovered::Limit);
        }
        Ok(Recovery { publications, upto: position(upto) })
    }

    /// Counts what is kept of a channel in places of which `wanted` says yes.
    pub(super) fn count(&self, channel: usize, wanted: impl Fn(u64, UnixMillis) -> bool) -> usize {
        let counts =
            |(place, kept): &(&u64, &Kept)| kept.channel == channel && wanted(**place, kept.message.time);
        self.state.kept.iter().filter(counts).count()
    }
}

fn hash(name: &str) -> u64 {
    // Any hash will do, and this one is its own.
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn stored(place: u64, message: &NewMessage) -> Stored {
    let print = Fingerprint::of(message.channel.as_str(), &message.data);
    Stored { offset: Offset::new(place), print, message: Some(message.clone()) }
}
