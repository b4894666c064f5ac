//! What the application is told, and by which node.
//!
//! Every node computes the same facts; of the nodes that are ready, the one nearest to the channel's shard tells them.
//! Facts of the last seconds are remembered: a node that takes over from another tells them again, as nobody knows what
//! the other had told. Their keys are the same, so that the queue takes each once.
//!
//! A node that starts, or whose link was down, does not know what happened before. It listens first (`Settling`), until
//! it has heard from every node and has all their entries. If others are ready, they have told what there was to tell: it
//! takes that over and remembers facts (`Following`), until those that died before it came are found and their ends told,
//! before it tells any. If nobody is ready, the difference between what it told last and what is there now is told.
//!
//! What cannot be told is what only a node knew that died: an end that it held, or had told while others missed the word
//! that it was based on.
//!
//! **Lives here:** the stages, who tells, the memory of facts.
//! **Called by:** `view` with every fact, `rosters` when time passes or a node comes or goes.
//! **Must not know:** rosters.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    time::{Duration, Instant},
};

use carillon_model::{ChannelName, NodeId, UserId};

use crate::{Member, SHARDS, Shard, ShardSet, effect::Effect, shard, spell::Stamp};

/// How long facts are remembered: longer than it takes until a node that died is found, and its facts with it.
const REMEMBERED: Duration = Duration::from_secs(20);
/// Most facts that are remembered; the oldest are forgotten first.
const REMEMBERED_MAX: usize = 10_000;
/// Facts that are so young are told again when a node takes over from one that goes on: each may have thought that the
/// other tells them. More than a heartbeat, by which a node finds what it has missed.
pub(crate) const BETWEEN: Duration = Duration::from_secs(4);

/// Something that the application is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Where it happened.
    pub channel: ChannelName,
    /// What happened.
    pub what: What,
    /// Names the fact: the same whenever, and as far as possible wherever, it is told.
    pub key: String,
}

/// What happened to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// It has a subscriber; it had none.
    Occupied,
    /// It has no subscriber any more.
    Vacated,
    /// A user has become a member.
    Came(Member),
    /// A user is no member any more.
    Went(Member),
    /// It has so many subscribers.
    Counted(u64),
}

impl What {
    fn key(&self, stamp: Stamp, life: u32) -> String {
        let what = match self {
            Self::Occupied => "occupied",
            Self::Vacated => "vacated",
            Self::Came(_) => "came",
            Self::Went(_) => "went",
            Self::Counted(_) => "counted",
        };
        let Stamp { node, change } = stamp;
        let key = format!("{what}-{node}-{change}-{life}");
        if let Self::Counted(count) = self { format!("{key}-{count}") } else { key }
    }
}

/// How far a node has come on its way to tell facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It hears nobody.
    Deaf,
    /// It waits to have heard from everybody, and to know all that they know.
    Settling { until: Instant, latest: Instant },
    /// Others tell; it remembers what they do.
    Following { until: Instant },
    /// It tells what is its to tell.
    Ready,
}

impl Stage {
    /// Says whether it is known who is there, so that what changes is a fact.
    pub(crate) const fn knows(self) -> bool {
        matches!(self, Self::Following { .. } | Self::Ready)
    }

    pub(crate) const fn is_ready(self) -> bool {
        matches!(self, Self::Ready)
    }

    /// Returns when the stage ends, if time ends it.
    pub(crate) const fn until(self) -> Option<Instant> {
        match self {
            Self::Settling { until, .. } | Self::Following { until } => Some(until),
            Self::Deaf | Self::Ready => None,
        }
    }
}

/// Who tells, and what was to be told lately.
#[derive(Debug)]
pub(crate) struct Telling {
    me: NodeId,
    pub(crate) stage: Stage,
    /// Of each shard the node that tells; nobody while none is ready.
    tellers: [Option<NodeId>; SHARDS],
    /// Who told before, lately, and is still there. One that died may have done so long before it is found.
    former: BTreeSet<(Shard, NodeId, Instant)>,
    /// The shards that this node tells of.
    mine: ShardSet,
    /// When there came some to them.
    gained_at: Option<Instant>,
    /// How many times each node has begun to settle: one that was thought dead does, and what is told of its entries from
    /// then on has other keys than before. Those that are gone lately are among them.
    lives: BTreeMap<NodeId, u32>,
    remembered: VecDeque<(Instant, Shard, Fact)>,
}

impl Telling {
    pub(crate) fn new(me: NodeId, stage: Stage) -> Self {
        let (tellers, mine) = ([None; SHARDS], ShardSet::from_bits(0));
        let (former, lives, remembered) = (BTreeSet::new(), BTreeMap::new(), VecDeque::new());
        Self { me, stage, tellers, former, mine, gained_at: None, lives, remembered }
    }

    /// Returns who tells of `shard`.
    pub(crate) fn teller(&self, shard: Shard) -> Option<NodeId> {
        self.tellers.get(shard.index()).copied().flatten()
    }

    /// Returns how many times a node has begun to settle.
    pub(crate) fn life(&self, node: NodeId) -> u32 {
        self.lives.get(&node).copied().unwrap_or(0)
    }

    pub(crate) fn begin_life(&mut self, node: NodeId, life: u32) {
        self.lives.insert(node, life);
    }

    /// Forgets a node that is gone.
    pub(crate) fn end_life(&mut self, node: NodeId) {
        self.lives.remove(&node);
    }

    /// Tells a fact if it is this node's to tell, and remembers it.
    pub(crate) fn tell(
        &mut self,
        channel: &ChannelName,
        what: What,
        stamp: Stamp,
        now: Instant,
        effects: &mut VecDeque<Effect>,
    ) {
        if self.mine.has(Shard::of(channel)) {
            effects.push_back(Effect::Told(self.fact(channel, what.clone(), stamp)));
        }
        self.remember(channel, what, stamp, now);
    }

    fn fact(&self, channel: &ChannelName, what: What, stamp: Stamp) -> Fact {
        Fact { key: what.key(stamp, self.life(stamp.node)), channel: channel.clone(), what }
    }

    /// Remembers a beginning that is not told, as somebody was away for a moment only. It is told all the same where another
    /// teller may have seen the moment longer, and told the end.
    pub(crate) fn stay(
        &mut self,
        channel: &ChannelName,
        what: What,
        stamp: Stamp,
        now: Instant,
        effects: &mut VecDeque<Effect>,
    ) {
        if self.gained_at.is_some_and(|at| now.saturating_duration_since(at) <= BETWEEN) {
            self.tell(channel, what, stamp, now, effects);
        } else {
            self.remember(channel, what, stamp, now);
        }
    }

    fn remember(&mut self, channel: &ChannelName, what: What, stamp: Stamp, now: Instant) {
        let (shard, fact) = (Shard::of(channel), self.fact(channel, what, stamp));
        self.forget(now);
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back((now, shard, fact));
    }

    /// Forgets all facts, and returns those of late, fit to be told again: what is older is not known to the queue any more
    /// and would be told twice.
    pub(crate) fn take_remembered(&mut self, now: Instant) -> Vec<Fact> {
        self.forget(now);
        again(self.remembered.drain(..).map(|(_, _, fact)| fact).collect(), self.me)
    }

    fn forget(&mut self, now: Instant) {
        let old = |(at, ..): &(Instant, Shard, Fact)| now.saturating_duration_since(*at) > REMEMBERED;
        while self.remembered.front().is_some_and(old) {
            self.remembered.pop_front();
        }
    }

    /// Learns that a node stops in order: it has told what was its to tell.
    pub(crate) fn farewell(&mut self, node: NodeId) {
        self.former.retain(|(_, former, _)| *former != node);
        for teller in self.tellers.iter_mut().filter(|teller| **teller == Some(node)) {
            *teller = None;
        }
    }

    /// Learns which nodes are ready, this one included when it is. Returns the facts to tell again.
    pub(crate) fn elect(&mut self, ready: &[NodeId], now: Instant) -> Vec<Fact> {
        let is_gone = |id: NodeId| !ready.contains(&id);
        let mut gone = ShardSet::default();
        self.former.retain(|(shard, id, until)| {
            let is_late = now.saturating_duration_since(*until) > REMEMBERED;
            if !is_late && is_gone(*id) {
                gone.insert(*shard);
            }
            !is_late && !is_gone(*id)
        });
        let mut since: [Option<Duration>; SHARDS] = [None; SHARDS];
        self.mine = ShardSet::default();
        for ((shard, teller), since) in Shard::all().zip(&mut self.tellers).zip(&mut since) {
            let nearest = ready.iter().copied().max_by_key(|id| (shard::nearness(*id, shard), *id));
            let before = mem::replace(teller, nearest);
            let is_mine = *teller == Some(self.me);
            if is_mine && before != *teller {
                self.gained_at = Some(now);
            }
            if is_mine {
                self.mine.insert(shard);
            }
            if before != *teller && !before.is_some_and(is_gone) {
                self.former.extend(before.map(|before| (shard, before, now)));
            }
            if gone.has(shard) || before.is_some_and(is_gone) {
                *since = is_mine.then_some(REMEMBERED);
            } else if is_mine && before != *teller {
                *since = Some(BETWEEN);
            }
        }
        let is_due = |(at, shard, _): &&(Instant, Shard, Fact)| {
            let since = since.get(shard.index()).copied().flatten();
            since.is_some_and(|since| now.saturating_duration_since(*at) <= since)
        };
        let due = self.remembered.iter().filter(is_due).map(|(_, _, fact)| fact.clone());
        again(due.collect(), self.me)
    }
}

/// Makes facts fit to be told again. Of several about the same, the queue might take an old one that it knows by another
/// key, and drop the last: that one gets a key of its own, so that it is the last that the application hears.
fn again(mut facts: Vec<Fact>, me: NodeId) -> Vec<Fact> {
    let mut last: BTreeMap<Topic, (usize, Count)> = BTreeMap::new();
    for (index, fact) in facts.iter().enumerate() {
        last.entry(fact.topic())
            .and_modify(|seen| *seen = (index, Count::Several))
            .or_insert((index, Count::One));
    }
    for (index, _) in last.into_values().filter(|(_, count)| *count == Count::Several) {
        if let Some(fact) = facts.get_mut(index) {
            fact.key = format!("{}-{me}", fact.key);
        }
    }
    facts
}

#[derive(PartialEq)]
enum Count {
    One,
    Several,
}

/// What a fact is about.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Subscribers(ChannelName),
    Number(ChannelName),
    Member(ChannelName, UserId),
}

impl Fact {
    fn topic(&self) -> Topic {
        let channel = self.channel.clone();
        match &self.what {
            What::Occupied | What::Vacated => Topic::Subscribers(channel),
            What::Counted(_) => Topic::Number(channel),
            What::Came(member) | What::Went(member) => Topic::Member(channel, member.user.clone()),
        }
    }
}
