//! All rosters, as the entries of all nodes make them.
//!
//! **Lives here:** who is in which channel and who is not any more, how many subscribe to it, what is held back.
//! **Called by:** `part` with each entry that comes or goes, `rosters` with questions and when time passes.
//! **Must not know:** words, sequences, which node is alive.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_model::{ChannelName, UserId};
use slab::Slab;

use crate::{
    Fact, Member, What,
    effect::{Effect, after},
    shard,
    spell::{Belief, Reconcile, Spell, Stamp},
    telling::Telling,
};

/// Up to so many subscribers each change of their number is told; above, one every [`COUNT_EVERY`].
const COUNT_EACH: u64 = 100;
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// A connection's membership: what its owner said of it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) member: Member,
    /// Who owns the entry, and which of its changes made it: no other entry has the same.
    pub(crate) stamp: Stamp,
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> Ordering {
        self.stamp.cmp(&other.stamp)
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Held {}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.stamp == other.stamp
    }
}

/// A user in one channel.
#[derive(Debug)]
struct Present {
    /// The entry that came first; when nobody is here, the last that there was.
    first: Arc<Held>,
    /// The others, the oldest of a node first. There can be very many of one user.
    more: BTreeSet<Arc<Held>>,
    /// Whether the roster shows the user.
    shown: bool,
    spell: Spell,
}

/// One channel.
#[derive(Debug)]
struct Roster {
    channel: ChannelName,
    hash: u64,
    /// Boxed, since a tree has room for eleven from the first on, and most channels have one.
    users: BTreeMap<UserId, Box<Present>>,
    /// How many users are shown.
    shown: usize,
    /// On all nodes.
    subscribers: u64,
    occupied: Spell,
    /// Whose subscriptions were the first, or the last.
    occupant: Option<Stamp>,
    /// The change that made the number what it is.
    counted: Option<Stamp>,
    /// When the number was said.
    said_at: Option<Instant>,
    /// When it will be.
    say_at: Option<Instant>,
}

/// What there is to do at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// Nobody subscribes any more.
    Vacate(usize),
    /// A user has left.
    Went(usize, UserId),
    /// The number of subscribers is to be said.
    Count(usize),
}

/// A change of one node's subscriptions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recount {
    pub(crate) old: u32,
    pub(crate) new: u32,
    /// By which change they had become more than none.
    pub(crate) since: Stamp,
    /// By which change they are what they are.
    pub(crate) change: Stamp,
}

/// All rosters.
#[derive(Debug)]
pub(crate) struct View {
    hold: Duration,
    names: HashMap<ChannelName, usize>,
    rosters: Slab<Roster>,
    /// At most one item for each user, and two for each channel.
    agenda: BTreeSet<(Instant, Item)>,
    pub(crate) telling: Telling,
    pub(crate) effects: VecDeque<Effect>,
}

impl View {
    pub(crate) fn new(hold: Duration, telling: Telling) -> Self {
        let (names, rosters, agenda) = (HashMap::new(), Slab::new(), BTreeSet::new());
        Self { hold, names, rosters, agenda, telling, effects: VecDeque::new() }
    }

    /// Returns the place of `channel`, which is its as long as somebody is in it. A place that was not used is to be
    /// given back by [`Self::close`].
    pub(crate) fn open(&mut self, channel: &ChannelName) -> (usize, u64) {
        if let Some((index, roster)) = self.names.get(channel).and_then(|i| Some((*i, self.rosters.get(*i)?)))
        {
            return (index, roster.hash);
        }
        let hash = shard::hash(channel);
        let roster = Roster {
            channel: channel.clone(),
            hash,
            users: BTreeMap::new(),
            shown: 0,
            subscribers: 0,
            occupied: Spell::default(),
            occupant: None,
            counted: None,
            said_at: None,
            say_at: None,
        };
        let index = self.rosters.insert(roster);
        self.names.insert(channel.clone(), index);
        (index, hash)
    }

    /// Gives a place back if nothing is in it.
    pub(crate) fn close(&mut self, index: usize) {
        let over = |roster: &Roster| {
            roster.users.is_empty()
                && roster.subscribers == 0
                && roster.occupied.is_over()
                && roster.say_at.is_none()
        };
        if self.rosters.get(index).is_some_and(over) {
            self.names.remove(&self.rosters.remove(index).channel);
        }
    }

    /// Returns the place of `channel` and its hash, if somebody is in it.
    pub(crate) fn find(&self, channel: &ChannelName) -> Option<(usize, u64)> {
        let index = *self.names.get(channel)?;
        Some((index, self.rosters.get(index)?.hash))
    }

    /// Returns the channel of a place.
    pub(crate) fn channel(&self, index: usize) -> Option<&ChannelName> {
        self.rosters.get(index).map(|roster| &roster.channel)
    }

    /// An entry has come.
    pub(crate) fn enter(&mut self, index: usize, held: Arc<Held>, now: Instant) {
        let Some(roster) = self.rosters.get_mut(index) else { return };
        let user = held.member.user.clone();
        let present = roster.users.entry(user.clone()).or_insert_with(|| {
            let first = Arc::clone(&held);
            Box::new(Present { first, more: BTreeSet::new(), shown: false, spell: Spell::default() })
        });
        if present.spell.here {
            present.more.insert(held);
            return;
        }
        present.first = held;
        present.spell.here = true;
        if let Some(until) = present.spell.until.take() {
            self.agenda.remove(&(until, Item::Went(index, user)));
        }
        if !self.telling.stage.knows() {
            present.spell.doubt();
        }
        let member = &present.first.member;
        if !present.shown {
            present.shown = true;
            roster.shown = roster.shown.saturating_add(1);
            self.effects.push_back(Effect::Added { channel: roster.channel.clone(), member: member.clone() });
        }
        if self.telling.stage.knows() && !roster.channel.is_reserved() {
            let (what, cause) = (What::Came(member.clone()), self.telling.cause(present.first.stamp));
            if mem::replace(&mut present.spell.told, Belief::Here) == Belief::Here {
                self.telling.stay(&roster.channel, what, cause, now, &mut self.effects);
            } else {
                self.telling.tell(&roster.channel, what, cause, now, &mut self.effects);
            }
        }
    }

    /// An entry has gone.
    pub(crate) fn exit(&mut self, index: usize, held: &Arc<Held>, now: Instant) {
        let Some(roster) = self.rosters.get_mut(index) else { return };
        let user = &held.member.user;
        let Some(present) = roster.users.get_mut(user) else { return };
        if !Arc::ptr_eq(&present.first, held) {
            present.more.remove(held);
            return;
        }
        if let Some(next) = present.more.pop_first() {
            present.first = next;
            return;
        }
        present.spell.here = false;
        present.spell.ended_in = self.telling.life(present.first.stamp.node);
        let is_held = roster.channel.online().is_some();
        if !is_held {
            self.effects.extend(roster.hide(user));
        }
        if is_held || !roster.channel.is_reserved() {
            let until = after(now, self.hold);
            if let Some(present) = roster.users.get_mut(user) {
                present.spell.until = Some(until);
            }
            self.agenda.insert((until, Item::Went(index, user.clone())));
        } else {
            roster.users.remove(user);
            self.close(index);
        }
    }

    /// The subscriptions of a node have become more or fewer.
    pub(crate) fn recount(&mut self, index: usize, recount: Recount, now: Instant) {
        let Recount { old, new, since: stamp, change } = recount;
        let Some(roster) = self.rosters.get_mut(index) else { return };
        let before = roster.subscribers;
        roster.subscribers = before.saturating_sub(u64::from(old)).saturating_add(u64::from(new));
        if roster.subscribers == before {
            return;
        }
        if before == 0 {
            roster.occupied.here = true;
            roster.occupant = Some(stamp);
            if let Some(until) = roster.occupied.until.take() {
                self.agenda.remove(&(until, Item::Vacate(index)));
            }
            if !self.telling.stage.knows() {
                roster.occupied.doubt();
            } else if !roster.channel.is_reserved() {
                let cause = self.telling.cause(stamp);
                if mem::replace(&mut roster.occupied.told, Belief::Here) == Belief::Here {
                    self.telling.stay(&roster.channel, What::Occupied, cause, now, &mut self.effects);
                } else {
                    self.telling.tell(&roster.channel, What::Occupied, cause, now, &mut self.effects);
                }
            }
        } else if roster.subscribers == 0 {
            roster.occupied.here = false;
            roster.occupied.ended_in = self.telling.life(stamp.node);
            roster.occupant = Some(stamp);
            if !roster.channel.is_reserved() {
                let until = after(now, self.hold);
                roster.occupied.until = Some(until);
                self.agenda.insert((until, Item::Vacate(index)));
            }
        }
        roster.counted = Some(change);
        let due = roster.said_at.map(|at| after(at, COUNT_EVERY)).filter(|due| *due > now);
        match due {
            Some(due) if roster.subscribers > COUNT_EACH => {
                if roster.say_at.is_none() {
                    roster.say_at = Some(due);
                    self.agenda.insert((due, Item::Count(index)));
                }
            }
            Some(_) | None => self.say_count(index, now),
        }
        self.close(index);
    }

    fn say_count(&mut self, index: usize, now: Instant) {
        let Some(roster) = self.rosters.get_mut(index) else { return };
        if let Some(due) = roster.say_at.take() {
            self.agenda.remove(&(due, Item::Count(index)));
        }
        roster.said_at = Some(now);
        let (channel, count) = (roster.channel.clone(), roster.subscribers);
        self.effects.push_back(Effect::Counted { channel, count });
        if let Some(stamp) = roster.counted
            && self.telling.stage.knows()
            && !roster.channel.is_reserved()
        {
            let cause = self.telling.cause(stamp);
            self.telling.tell(&roster.channel, What::Counted(count), cause, now, &mut self.effects);
        }
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while self.agenda.first().is_some_and(|(at, _)| *at <= now) {
            match self.agenda.pop_first() {
                Some((_, Item::Count(index))) => {
                    if let Some(roster) = self.rosters.get_mut(index) {
                        roster.say_at = None;
                    }
                    self.say_count(index, now);
                    self.close(index);
                }
                Some((_, Item::Vacate(index))) => {
                    if let Some(roster) = self.rosters.get_mut(index) {
                        roster.occupied.until = None;
                    }
                    self.end_channel(index, now);
                }
                Some((_, Item::Went(index, user))) => {
                    if let Some(roster) = self.rosters.get_mut(index) {
                        self.effects.extend(roster.hide(&user));
                        if let Some(present) = roster.users.get_mut(&user) {
                            present.spell.until = None;
                        }
                    }
                    self.end_user(index, &user, now);
                }
                None => return,
            }
        }
    }

    /// Tells that nobody subscribes any more, unless that is not to be told, or not yet.
    fn end_channel(&mut self, index: usize, now: Instant) {
        let stage = self.telling.stage;
        let Some(roster) = self.rosters.get_mut(index) else { return };
        if let Some(stamp) = roster.occupant.filter(|_| roster.occupied.told != Belief::Away && stage.knows())
        {
            roster.occupied.told = Belief::Away;
            let cause = stamp.within(roster.occupied.ended_in);
            self.telling.tell(&roster.channel, What::Vacated, cause, now, &mut self.effects);
        }
        self.close(index);
    }

    /// Tells that a user is not in a channel any more, unless that is not to be told, or not yet.
    fn end_user(&mut self, index: usize, user: &UserId, now: Instant) {
        let stage = self.telling.stage;
        let Some(roster) = self.rosters.get_mut(index) else { return };
        let Some(present) = roster.users.get_mut(user) else { return };
        let is_told = present.spell.told != Belief::Away;
        if !is_told || stage.knows() {
            if is_told {
                let what = What::Went(present.first.member.clone());
                let cause = present.first.stamp.within(present.spell.ended_in);
                self.telling.tell(&roster.channel, what, cause, now, &mut self.effects);
            }
            roster.users.remove(user);
        }
        self.close(index);
    }

    /// Brings up to date what the application believes, after a time in which nothing was told.
    pub(crate) fn reconcile(&mut self, how: Reconcile, now: Instant) {
        let Self { rosters, telling, effects, .. } = self;
        for (_, roster) in rosters.iter_mut().filter(|(_, roster)| !roster.channel.is_reserved()) {
            let news = roster.occupied.reconcile(how);
            if let (Some(here), Some(stamp)) = (news, roster.occupant) {
                let (what, cause) = if here {
                    (What::Occupied, telling.cause(stamp))
                } else {
                    (What::Vacated, stamp.within(roster.occupied.ended_in))
                };
                telling.tell(&roster.channel, what, cause, now, effects);
            }
            roster.users.retain(|_, present| {
                if let Some(here) = present.spell.reconcile(how) {
                    let member = present.first.member.clone();
                    let (what, cause) = if here {
                        (What::Came(member), telling.cause(present.oldest()))
                    } else {
                        (What::Went(member), present.oldest().within(present.spell.ended_in))
                    };
                    telling.tell(&roster.channel, what, cause, now, effects);
                }
                !present.spell.is_over()
            });
        }
        let places: Vec<usize> = self.rosters.iter().map(|(index, _)| index).collect();
        for index in places {
            self.close(index);
        }
    }

    /// Returns when there is something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.agenda.first().map(|(at, _)| *at)
    }

    fn roster(&self, channel: &ChannelName) -> Option<&Roster> {
        self.rosters.get(*self.names.get(channel)?)
    }

    pub(crate) fn members(&self, channel: &ChannelName) -> Vec<&Member> {
        let users = self.roster(channel).map(|roster| roster.users.values()).into_iter().flatten();
        users.filter(|present| present.shown).map(|present| &present.first.member).collect()
    }

    pub(crate) fn users(&self, channel: &ChannelName) -> usize {
        self.roster(channel).map_or(0, |roster| roster.shown)
    }

    pub(crate) fn is_here(&self, channel: &ChannelName, user: &UserId) -> bool {
        self.roster(channel).and_then(|roster| roster.users.get(user)).is_some_and(|present| present.shown)
    }

    /// Says whether a fact that is told again is not overtaken.
    pub(crate) fn is_news(&self, fact: &Fact) -> bool {
        match fact.what {
            What::Counted(count) => count == self.subscribers(&fact.channel),
            What::Occupied | What::Vacated | What::Came(_) | What::Went(_) => true,
        }
    }

    pub(crate) fn subscribers(&self, channel: &ChannelName) -> u64 {
        self.roster(channel).map_or(0, |roster| roster.subscribers)
    }
}

impl Roster {
    /// Takes a user off the roster, if it shows them.
    fn hide(&mut self, user: &UserId) -> Option<Effect> {
        let present = self.users.get_mut(user).filter(|present| present.shown)?;
        present.shown = false;
        self.shown = self.shown.saturating_sub(1);
        Some(Effect::Removed { channel: self.channel.clone(), member: present.first.member.clone() })
    }
}

impl Present {
    /// Returns the same on every node, whichever entry came there first.
    fn oldest(&self) -> Stamp {
        self.more.first().map_or(self.first.stamp, |held| held.stamp.min(self.first.stamp))
    }
}
