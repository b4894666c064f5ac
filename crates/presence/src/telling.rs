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
//! Two tellers may have seen a moment otherwise: for one somebody was away too long, for the other not. Where one takes
//! over from the other, facts may therefore be told twice, by other keys, so that the last is what all nodes agree upon.
//!
//! What cannot be told is what only a node knew that died, or was cut off at that time: an end that it held, or had told
//! while others missed the word that it was based on.
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

use crate::{
    Member, SHARDS, Shard, ShardSet,
    effect::Effect,
    shard,
    spell::{Cause, Stamp},
};

use lately::{Lately, is_between};

mod lately;

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
    fn key(&self, Cause { stamp: Stamp { node, change }, life }: Cause) -> String {
        let what = match self {
            Self::Occupied => "occupied",
            Self::Vacated => "vacated",
            Self::Came(_) => "came",
            Self::Went(_) => "went",
            Self::Counted(_) => "counted",
        };
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
    remembered: VecDeque<Remembered>,
    /// How many times facts were told again.
    again: u64,
    /// What was told by a key of this node's own: what follows needs such keys, too, as another teller may have told it
    /// before.
    own: Lately<Topic>,
    /// Whose end this node told, before it ceased to tell of them at that time: if they come back, the next teller may have
    /// told so before this one told the end.
    ended: Lately<Topic>,
}

impl Telling {
    pub(crate) fn new(me: NodeId, stage: Stage) -> Self {
        let (tellers, mine) = ([None; SHARDS], ShardSet::default());
        let (former, lives, remembered) = (BTreeSet::new(), BTreeMap::new(), VecDeque::new());
        let (gained_at, again, own, ended) = (None, 0, Lately::new(), Lately::new());
        Self { me, stage, tellers, former, mine, gained_at, lives, remembered, again, own, ended }
    }

    /// Returns how many times a node has begun to settle.
    pub(crate) fn life(&self, node: NodeId) -> u32 {
        self.lives.get(&node).copied().unwrap_or(0)
    }

    /// Returns what a change is the cause of if it happens now.
    pub(crate) fn cause(&self, stamp: Stamp) -> Cause {
        stamp.within(self.life(stamp.node))
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
        cause: Cause,
        now: Instant,
        effects: &mut VecDeque<Effect>,
    ) {
        let fact = Fact { key: what.key(cause), channel: channel.clone(), what };
        if self.mine.has(Shard::of(channel)) {
            let own = self.own.has(|| fact.topic(), now).then(|| self.own(fact.clone(), now));
            effects.push_back(Effect::Told(own.unwrap_or_else(|| fact.clone())));
        } else if !fact.is_end() && self.ended.has(|| fact.topic(), now) {
            let own = self.own(fact.clone(), now);
            effects.push_back(Effect::Told(own));
        }
        self.remember(fact, Key::Shared, now);
    }

    /// Remembers a beginning that is not told, as somebody was away for a moment only. It is told all the same where another
    /// teller may have seen the moment longer, and told the end.
    pub(crate) fn stay(
        &mut self,
        channel: &ChannelName,
        what: What,
        cause: Cause,
        now: Instant,
        effects: &mut VecDeque<Effect>,
    ) {
        let fact = Fact { key: what.key(cause), channel: channel.clone(), what };
        let is_mine = self.mine.has(Shard::of(channel));
        if is_mine && self.gained_at.is_some_and(|at| is_between(at, now)) {
            let own = self.own(fact.clone(), now);
            effects.push_back(Effect::Told(own));
        }
        self.remember(fact, Key::Own, now);
    }

    /// Gives a fact a key of this node's own, so that the queue takes it whatever it took before. Whenever facts are told
    /// again it is another: what comes before it may be news to the queue then, and must not be the last that it takes.
    fn own(&mut self, mut fact: Fact, now: Instant) -> Fact {
        fact.key = format!("{}-{}-{}", fact.key, self.me, self.again);
        self.own.insert(fact.topic(), now);
        fact
    }

    fn remember(&mut self, fact: Fact, key: Key, now: Instant) {
        self.forget(now);
        if self.remembered.len() == REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.remembered.push_back(Remembered { at: now, shard: Shard::of(&fact.channel), fact, key });
    }

    /// Forgets all facts, and returns those of late, fit to be told again: what is older is not known to the queue any more
    /// and would be told twice.
    pub(crate) fn take_remembered(&mut self, now: Instant) -> Vec<Fact> {
        self.forget(now);
        let facts = self.remembered.drain(..).map(|known| (known.fact, known.key)).collect();
        self.again(facts, now)
    }

    fn forget(&mut self, now: Instant) {
        let old = |known: &Remembered| now.saturating_duration_since(known.at) > REMEMBERED;
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
            // Nobody takes over yet: who does is to see that this one has gone.
            let is_missed = !ready.is_empty() && is_gone(*id);
            if !is_late && is_missed {
                gone.insert(*shard);
            }
            !is_late && !is_missed
        });
        let mut since: [Option<Duration>; SHARDS] = [None; SHARDS];
        let before = mem::take(&mut self.mine);
        for ((shard, teller), since) in Shard::all().zip(&mut self.tellers).zip(&mut since) {
            let nearest = ready.iter().copied().max_by_key(|id| (shard::nearness(*id, shard), *id));
            if nearest.is_none() && *teller != Some(self.me) {
                continue;
            }
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
        let lost = before.without(self.mine);
        for Remembered { at, shard, fact, .. } in &self.remembered {
            if lost.has(*shard) && fact.is_end() && is_between(*at, now) {
                self.ended.insert(fact.topic(), now);
            }
        }
        let is_due = |known: &&Remembered| {
            let since = since.get(known.shard.index()).copied().flatten();
            since.is_some_and(|since| now.saturating_duration_since(known.at) <= since)
        };
        let due = self.remembered.iter().filter(is_due).map(|known| (known.fact.clone(), known.key));
        let due = due.collect();
        self.again(due, now)
    }

    /// Makes facts fit to be told again. The last about something must be the last that the application hears, whatever
    /// the former teller saw otherwise and told: of several, the queue might take an old one that it knows by another
    /// key, and drop the last; and a beginning that is not one here it may know from before an end.
    fn again(&mut self, mut facts: Vec<(Fact, Key)>, now: Instant) -> Vec<Fact> {
        self.again = self.again.saturating_add(u64::from(!facts.is_empty()));
        let mut last: BTreeMap<Topic, (usize, Key)> = BTreeMap::new();
        for (index, (fact, key)) in facts.iter().enumerate() {
            last.entry(fact.topic()).and_modify(|seen| *seen = (index, Key::Own)).or_insert((index, *key));
        }
        for (index, _) in last.into_values().filter(|(_, key)| *key == Key::Own) {
            if let Some((fact, _)) = facts.get_mut(index) {
                *fact = self.own(fact.clone(), now);
            }
        }
        facts.into_iter().map(|(fact, _)| fact).collect()
    }
}

/// A fact of late.
#[derive(Debug)]
struct Remembered {
    at: Instant,
    shard: Shard,
    fact: Fact,
    key: Key,
}

/// By which key a fact is told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// The one that it has on every node.
    Shared,
    /// One of this node's own.
    Own,
}

/// What a fact is about.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Topic {
    Subscribers(ChannelName),
    Number(ChannelName),
    Member(ChannelName, UserId),
}

impl Fact {
    const fn is_end(&self) -> bool {
        matches!(self.what, What::Vacated | What::Went(_))
    }

    fn topic(&self) -> Topic {
        let channel = self.channel.clone();
        match &self.what {
            What::Occupied | What::Vacated => Topic::Subscribers(channel),
            What::Counted(_) => Topic::Number(channel),
            What::Came(member) | What::Went(member) => Topic::Member(channel, member.user.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
