//! What is known of another node, and how it is made complete.
//!
//! Each heartbeat is compared with what is known. The shards that differ are asked for, all in one question, and one
//! question at a time. Changes that are heard meanwhile take effect at once, and once more on top of the answer, which
//! may be older than they are.
//!
//! **Lives here:** the open question, the parts of answers, which changes an answer has in it already.
//! **Called by:** `rosters` with each word of the node.
//! **Must not know:** other nodes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use carillon_model::NodeId;

use crate::{
    Change, Digests, Entry, SHARDS, Shard, ShardSet, Standing,
    effect::after,
    part::{ENTRIES_MAX, Part},
    view::View,
};

/// After how long without a part of the answer a question is repeated.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Most changes that are remembered while a question is open. Past that the question begins anew.
const HEARD_MAX: usize = 4096;

/// Another node.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) heard_at: Instant,
    /// What it said last of itself.
    pub(crate) standing: Standing,
    pub(crate) part: Part,
    /// Of each shard the last change that an answer had in it.
    as_of: [u64; SHARDS],
    asking: Option<Asking>,
}

/// An open question.
#[derive(Debug)]
struct Asking {
    ask: u64,
    /// The shards without an answer.
    shards: ShardSet,
    again_at: Instant,
    /// Changes in those shards, since it was asked.
    heard: Vec<(u64, Change)>,
    /// Answers that are not complete.
    answers: BTreeMap<Shard, Answer>,
}

/// The parts of an answer that have come.
#[derive(Debug)]
struct Answer {
    as_of: u64,
    parts: u32,
    next: u32,
    entries: Vec<Entry>,
}

/// A part of an answer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) ask: u64,
    pub(crate) shard: Shard,
    pub(crate) as_of: u64,
    pub(crate) part: u32,
    pub(crate) parts: u32,
    pub(crate) entries: Vec<Entry>,
}

/// What to ask the node.
pub(crate) type Question = Option<(u64, ShardSet)>;

impl Peer {
    pub(crate) fn new(id: NodeId, now: Instant) -> Self {
        Self { heard_at: now, standing: Standing::New, part: Part::new(id), as_of: [0; SHARDS], asking: None }
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.standing == Standing::Ready
    }

    /// Says whether all that was asked was answered.
    pub(crate) const fn is_complete(&self) -> bool {
        self.asking.is_none()
    }

    /// Returns when a question is to be repeated.
    pub(crate) fn again_at(&self) -> Option<Instant> {
        self.asking.as_ref().map(|asking| asking.again_at)
    }

    fn as_of(&self, shard: Shard) -> u64 {
        self.as_of.get(shard.index()).copied().unwrap_or_default()
    }

    /// Compares what the node says of its shards with what is known of them.
    pub(crate) fn compare(&mut self, sequence: u64, digests: &Digests, ask: u64, now: Instant) -> Question {
        let mut differ = ShardSet::default();
        for ((shard, said), known) in Shard::all().zip(digests).zip(self.part.digests()) {
            // An answer overtook the heartbeat: it says more.
            if *said != known && sequence >= self.as_of(shard) {
                differ.insert(shard);
            }
        }
        self.ask(differ, ask, now)
    }

    /// Asks for some shards, unless a question is open.
    pub(crate) fn ask(&mut self, shards: ShardSet, ask: u64, now: Instant) -> Question {
        if shards.is_empty() || self.asking.is_some() {
            return None;
        }
        let (again_at, heard, answers) = (after(now, ASK_AGAIN), Vec::new(), BTreeMap::new());
        self.asking = Some(Asking { ask, shards, again_at, heard, answers });
        Some((ask, shards))
    }

    /// Repeats a question that nobody answers.
    pub(crate) fn ask_again(&mut self, now: Instant) -> Question {
        let asking = self.asking.as_mut().filter(|asking| asking.again_at <= now)?;
        asking.again_at = after(now, ASK_AGAIN);
        asking.answers.clear();
        Some((asking.ask, asking.shards))
    }

    /// Takes changes. Returns a question when too many came while one was open: it begins anew.
    pub(crate) fn change(
        &mut self,
        first: u64,
        changes: Vec<Change>,
        ask: u64,
        view: &mut View,
        now: Instant,
    ) -> Question {
        for (sequence, change) in (first..).zip(changes) {
            let shard = Shard::of(change.channel());
            if sequence <= self.as_of(shard) {
                continue;
            }
            self.part.apply(&change, sequence, view, now);
            if let Some(asking) = self.asking.as_mut().filter(|asking| asking.shards.has(shard)) {
                asking.heard.push((sequence, change));
            }
        }
        let overflowed = self.asking.take_if(|asking| asking.heard.len() > HEARD_MAX)?;
        self.ask(overflowed.shards, ask, now)
    }

    /// Takes a part of an answer.
    pub(crate) fn answer(&mut self, piece: Piece, view: &mut View, now: Instant) {
        let Piece { ask, shard, as_of, part, parts, entries } = piece;
        let Some(asking) =
            self.asking.as_mut().filter(|asking| asking.ask == ask && asking.shards.has(shard))
        else {
            return;
        };
        asking.again_at = after(now, ASK_AGAIN);
        if part == 0 {
            asking.answers.insert(shard, Answer { as_of, parts, next: 0, entries: Vec::new() });
        }
        let Some(answer) = asking.answers.get_mut(&shard) else { return };
        if (answer.as_of, answer.parts, answer.next) != (as_of, parts, part) {
            // A part was lost; the question is repeated when no more come.
            asking.answers.remove(&shard);
            return;
        }
        answer.next = answer.next.saturating_add(1);
        let room = ENTRIES_MAX.saturating_sub(answer.entries.len());
        answer.entries.extend(entries.into_iter().take(room));
        if answer.next < parts {
            return;
        }
        let Some(answer) = asking.answers.remove(&shard) else { return };
        asking.shards.remove(shard);
        let heard = asking.heard.iter().filter(|(_, change)| Shard::of(change.channel()) == shard);
        self.part.replace(shard, as_of, answer.entries, heard, view, now);
        if let Some(slot) = self.as_of.get_mut(shard.index()) {
            *slot = as_of;
        }
        if asking.shards.is_empty() {
            self.asking = None;
        }
    }
}
