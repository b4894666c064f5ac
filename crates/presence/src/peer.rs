//! What is known of another node, and how it is made complete.
//!
//! Each heartbeat is compared with what is known. The shards that differ are asked for, one after the other, each piece by
//! piece. Changes that are heard meanwhile take effect at once, and once more on top of the answer, which may be older
//! than they are.
//!
//! **Lives here:** the open question, the pieces of the answer, which changes an answer has in it already.
//! **Called by:** `rosters` with each word of the node.
//! **Must not know:** other nodes.

use std::time::{Duration, Instant};

use carillon_model::NodeId;

use crate::{
    Change, Digests, Entry, Place, SHARDS, Shard, ShardSet, Standing,
    answers::Wanted,
    effect::after,
    part::{ENTRIES_MAX, Part},
    state::{AsOf, State},
    view::View,
};

/// After how long without an answer a question is repeated.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Most changes that are remembered while a shard is asked for, besides as many as there are entries in the answer so far.
/// Past that the shard is asked for anew.
const HEARD_MAX: usize = 4096;

/// Another node.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) heard_at: Instant,
    /// What it said last of itself.
    pub(crate) standing: Standing,
    pub(crate) part: Part,
    /// Of each shard the changes that an answer had in it.
    as_of: [AsOf; SHARDS],
    asking: Option<Asking>,
}

/// An open question.
#[derive(Debug)]
struct Asking {
    /// The piece that was asked for.
    wanted: Wanted,
    again_at: Instant,
    /// The pieces that have come.
    state: State,
    /// Changes in the shard, since it was asked for.
    heard: Vec<(u64, Change)>,
    /// The shards that come afterwards.
    later: ShardSet,
}

/// A piece of an answer.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) wanted: Wanted,
    pub(crate) as_of: u64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) next: Option<Place>,
}

/// What to ask the node.
pub(crate) type Question = Option<Wanted>;

impl Peer {
    pub(crate) fn new(id: NodeId, now: Instant) -> Self {
        let as_of = [AsOf::default(); SHARDS];
        Self { heard_at: now, standing: Standing::New, part: Part::new(id), as_of, asking: None }
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

    fn as_of(&self, shard: Shard) -> AsOf {
        self.as_of.get(shard.index()).copied().unwrap_or_default()
    }

    /// Compares what the node says of its shards with what is known of them.
    pub(crate) fn compare(&mut self, sequence: u64, digests: &Digests, ask: u64, now: Instant) -> Question {
        let mut differ = ShardSet::default();
        for ((shard, said), known) in Shard::all().zip(digests).zip(self.part.digests()) {
            // An answer overtook the heartbeat: it says more.
            if *said != known && sequence >= self.as_of(shard).upto {
                differ.insert(shard);
            }
        }
        if self.asking.is_some() { None } else { self.ask(differ, ask, now) }
    }

    /// Asks for the first of some shards, if there are any.
    fn ask(&mut self, mut shards: ShardSet, ask: u64, now: Instant) -> Question {
        let shard = shards.first()?;
        shards.remove(shard);
        let wanted = Wanted { ask, shard, after: None };
        let (again_at, state, heard) = (after(now, ASK_AGAIN), State::default(), Vec::new());
        self.asking = Some(Asking { wanted, again_at, state, heard, later: shards });
        Some(wanted)
    }

    /// Repeats a question that nobody answers.
    pub(crate) fn ask_again(&mut self, now: Instant) -> Question {
        let asking = self.asking.as_mut().filter(|asking| asking.again_at <= now)?;
        asking.again_at = after(now, ASK_AGAIN);
        Some(asking.wanted)
    }

    /// Takes changes. Returns a question when too many came while one was open: its shard begins anew.
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
            if sequence <= self.as_of(shard).from {
                continue;
            }
            self.part.apply(&change, sequence, view, now);
            if let Some(asking) = self.asking.as_mut().filter(|asking| asking.wanted.shard == shard) {
                asking.heard.push((sequence, change));
            }
        }
        let is_too_much =
            |asking: &mut Asking| asking.heard.len() > HEARD_MAX.saturating_add(asking.state.len());
        let Asking { wanted, mut later, .. } = self.asking.take_if(is_too_much)?;
        later.insert(wanted.shard);
        self.ask(later, ask, now)
    }

    /// Takes a piece of an answer. Returns what to ask for next.
    pub(crate) fn answer(&mut self, piece: Piece, view: &mut View, now: Instant) -> Question {
        let Piece { wanted, as_of, entries, next } = piece;
        let asking = self.asking.as_mut().filter(|asking| asking.wanted == wanted)?;
        // A piece with nothing in it is the last.
        let next = next.filter(|_| !entries.is_empty() && asking.state.len() < ENTRIES_MAX);
        asking.state.take(entries, as_of, ENTRIES_MAX);
        if next.is_some() {
            asking.again_at = after(now, ASK_AGAIN);
            asking.wanted.after = next;
            return Some(asking.wanted);
        }
        let Asking { mut state, heard, later, .. } = self.asking.take()?;
        for (sequence, change) in heard {
            state.change(change, sequence);
        }
        if let Some(slot) = self.as_of.get_mut(wanted.shard.index()) {
            *slot = state.as_of.unwrap_or_default();
        }
        self.part.replace(wanted.shard, state, view, now);
        self.ask(later, wanted.ask, now)
    }
}
