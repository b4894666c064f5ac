//! The entries that one node owns.
//!
//! **Lives here:** how they change, and what stands for them in a heartbeat.
//! **Called by:** `rosters` for this node's own, `peer` for those of others.
//! **Must not know:** whether a node is alive, how changes come.

use std::{collections::BTreeMap, mem, ops::Bound, sync::Arc, time::Instant};

use carillon_model::{ChannelName, ConnectionId, NodeId};

use crate::{
    Change, Digests, Entry, Member, Place, SHARDS, Shard, shard,
    spell::Stamp,
    state::{Membership, State, Subscribers},
    view::{Held, Recount, View},
};

/// Most entries of one node. What it says past that is not taken.
pub(crate) const ENTRIES_MAX: usize = 4_000_000;

/// The entries of one node.
///
/// Measured with 100,000 entries whose user ids have 8 bytes and whose infos have 40: a member takes about 410 bytes on
/// every node, its place in the roster included, and 850 where the channel has no other; a count takes 250 where nothing
/// else is known of the channel.
#[derive(Debug)]
pub(crate) struct Part {
    owner: NodeId,
    shelves: [Shelf; SHARDS],
    entries: usize,
}

/// Those in one shard.
#[derive(Debug, Default)]
struct Shelf {
    digest: u64,
    members: BTreeMap<(usize, ConnectionId), Arc<Held>>,
    counts: BTreeMap<usize, Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    subscribers: u32,
    since: u64,
}

impl Part {
    pub(crate) fn new(owner: NodeId) -> Self {
        Self { owner, shelves: Default::default(), entries: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.entries
    }

    /// Says whether no further entry is taken.
    pub(crate) const fn is_full(&self) -> bool {
        self.entries >= ENTRIES_MAX
    }

    const fn stamp(&self, change: u64) -> Stamp {
        Stamp { node: self.owner, change }
    }

    pub(crate) fn digests(&self) -> Digests {
        self.shelves.each_ref().map(|shelf| shelf.digest)
    }

    /// Says whether a connection is a member of `channel`.
    pub(crate) fn has(&self, view: &View, channel: &ChannelName, connection: ConnectionId) -> bool {
        let place = view.find(channel).and_then(|(index, hash)| Some((index, self.shelf(hash)?)));
        place.is_some_and(|(index, shelf)| shelf.members.contains_key(&(index, connection)))
    }

    /// Returns what a connection is in `channel`.
    pub(crate) fn member<'a>(
        &'a self,
        view: &View,
        channel: &ChannelName,
        connection: ConnectionId,
    ) -> Option<&'a Member> {
        let (index, hash) = view.find(channel)?;
        Some(&self.shelf(hash)?.members.get(&(index, connection))?.member)
    }

    /// Returns the owner's subscriptions of `channel`.
    pub(crate) fn count(&self, view: &View, channel: &ChannelName) -> u32 {
        let count = view.find(channel).and_then(|(index, hash)| self.shelf(hash)?.counts.get(&index));
        count.map_or(0, |count| count.subscribers)
    }

    fn shelf(&self, hash: u64) -> Option<&Shelf> {
        self.shelves.get(Shard::of_hash(hash).index())
    }

    /// Takes the change of that number.
    pub(crate) fn apply(&mut self, change: &Change, sequence: u64, view: &mut View, now: Instant) {
        match change {
            Change::Join { channel, connection, member } => {
                self.join(channel, *connection, member.clone(), sequence, view, now);
            }
            Change::Leave { channel, connection } => self.leave(channel, *connection, sequence, view, now),
            Change::Count { channel, subscribers } => {
                self.recount(channel, *subscribers, None, sequence, view, now);
            }
        }
    }

    fn join(
        &mut self,
        channel: &ChannelName,
        connection: ConnectionId,
        member: Member,
        born: u64,
        view: &mut View,
        now: Instant,
    ) {
        let (is_full, stamp, (index, hash)) = (self.is_full(), self.stamp(born), view.open(channel));
        let Some(shelf) = self.shelves.get_mut(Shard::of_hash(hash).index()) else { return };
        let key = (index, connection);
        match shelf.members.get(&key) {
            // A piece of an answer has overtaken the change.
            Some(known) if known.stamp.change >= born => return,
            None if is_full => return view.close(index),
            Some(_) | None => {}
        }
        let held = Arc::new(Held { member, stamp });
        shelf.digest ^= shard::of_entry(hash, connection, born);
        let replaced = shelf.members.insert(key, Arc::clone(&held));
        view.enter(index, held, now);
        match replaced {
            Some(old) => {
                shelf.digest ^= shard::of_entry(hash, connection, old.stamp.change);
                view.exit(index, &old, now);
            }
            None => self.entries = self.entries.saturating_add(1),
        }
    }

    fn leave(
        &mut self,
        channel: &ChannelName,
        connection: ConnectionId,
        left: u64,
        view: &mut View,
        now: Instant,
    ) {
        let Some((index, hash)) = view.find(channel) else { return };
        let Some(shelf) = self.shelves.get_mut(Shard::of_hash(hash).index()) else { return };
        let key = (index, connection);
        if shelf.members.get(&key).is_none_or(|known| known.stamp.change >= left) {
            return;
        }
        if let Some(old) = shelf.members.remove(&key) {
            shelf.digest ^= shard::of_entry(hash, connection, old.stamp.change);
            self.entries = self.entries.saturating_sub(1);
            view.exit(index, &old, now);
        }
    }

    /// Takes a number of subscriptions. Those that have become more than none by this very change need not say since
    /// when.
    fn recount(
        &mut self,
        channel: &ChannelName,
        new: u32,
        since: Option<u64>,
        change: u64,
        view: &mut View,
        now: Instant,
    ) {
        let (is_full, (index, hash)) = (self.is_full(), view.open(channel));
        let Some(shelf) = self.shelves.get_mut(Shard::of_hash(hash).index()) else { return };
        let before = shelf.counts.get(&index).copied();
        if before.is_none() && (new == 0 || is_full) {
            return view.close(index);
        }
        let since = since.or(before.map(|before| before.since)).unwrap_or(change);
        if let Some(Count { subscribers, since }) = before {
            shelf.counts.remove(&index);
            shelf.digest ^= shard::of_count(hash, subscribers, since);
            self.entries = self.entries.saturating_sub(1);
        }
        if new > 0 {
            shelf.counts.insert(index, Count { subscribers: new, since });
            shelf.digest ^= shard::of_count(hash, new, since);
            self.entries = self.entries.saturating_add(1);
        }
        let old = before.map_or(0, |before| before.subscribers);
        let (since, change) = (self.stamp(since), self.stamp(change));
        view.recount(index, Recount { old, new, since, change }, now);
    }

    /// Takes all that the owner has in `shard`. The view sees the difference: who is in both was never away.
    pub(crate) fn replace(&mut self, shard: Shard, state: State, view: &mut View, now: Instant) {
        let as_of = state.as_of.unwrap_or_default().upto;
        let Some(shelf) = self.shelves.get_mut(shard.index()) else { return };
        let mut gone = mem::take(shelf);
        self.entries = self.entries.saturating_sub(gone.len());
        // Those who stay keep their place. Those who have come enter before those who are gone leave, so that a user who
        // changed the connection stays on the roster.
        let mut came = Vec::new();
        for ((channel, connection), Membership { member, born, .. }) in state.members {
            let (index, hash) = view.open(&channel);
            match gone.members.remove(&(index, connection)) {
                Some(held) if held.stamp.change == born => {
                    self.keep(shard, index, hash, connection, held);
                }
                other => came.push((channel, connection, member, born, other.map(|old| (index, old)))),
            }
        }
        let mut replaced = Vec::new();
        for (channel, connection, member, born, old) in came {
            self.join(&channel, connection, member, born, view, now);
            replaced.extend(old);
        }
        for (index, old) in replaced.into_iter().chain(gone.members.into_iter().map(|((i, _), old)| (i, old)))
        {
            view.exit(index, &old, now);
        }
        self.replace_counts(shard, as_of, gone.counts, state.counts, view, now);
    }

    fn replace_counts(
        &mut self,
        shard: Shard,
        as_of: u64,
        mut old: BTreeMap<usize, Count>,
        new: BTreeMap<ChannelName, Subscribers>,
        view: &mut View,
        now: Instant,
    ) {
        for (channel, Subscribers { count: subscribers, since, .. }) in new {
            // The old count goes back to its place first, so that the view sees one step.
            let (index, hash) = view.open(&channel);
            if let (Some(count), Some(shelf)) = (old.remove(&index), self.shelves.get_mut(shard.index())) {
                shelf.digest ^= shard::of_count(hash, count.subscribers, count.since);
                shelf.counts.insert(index, count);
                self.entries = self.entries.saturating_add(1);
            }
            self.recount(&channel, subscribers, Some(since), as_of, view, now);
        }
        for (index, Count { subscribers, since }) in old {
            let (since, change) = (self.stamp(since), self.stamp(as_of));
            view.recount(index, Recount { old: subscribers, new: 0, since, change }, now);
        }
    }

    fn keep(&mut self, shard: Shard, index: usize, hash: u64, connection: ConnectionId, held: Arc<Held>) {
        let Some(shelf) = self.shelves.get_mut(shard.index()) else { return };
        shelf.digest ^= shard::of_entry(hash, connection, held.stamp.change);
        shelf.members.insert((index, connection), held);
        self.entries = self.entries.saturating_add(1);
    }

    /// Takes all entries out of the view: their owner is gone.
    pub(crate) fn clear(self, view: &mut View, now: Instant) {
        let stamp = |change| Stamp { node: self.owner, change };
        for shelf in self.shelves {
            for ((index, _), held) in shelf.members {
                view.exit(index, &held, now);
            }
            for (index, Count { subscribers, since }) in shelf.counts {
                let since = stamp(since);
                view.recount(index, Recount { old: subscribers, new: 0, since, change: since }, now);
            }
        }
    }

    /// Returns the entries of one shard, each with its place, from the first on or after a place. Those that are neither
    /// new nor gone keep their order.
    pub(crate) fn entries<'a>(
        &'a self,
        shard: Shard,
        after: Option<Place>,
        view: &'a View,
    ) -> impl Iterator<Item = (Place, Entry)> + 'a {
        let place = after.map(|at| (usize::try_from(at.channel).unwrap_or(usize::MAX), at.connection));
        let (members, counts) = match place {
            None => (Some(Bound::Unbounded), Bound::Unbounded),
            Some((index, Some(connection))) => (Some(Bound::Excluded((index, connection))), Bound::Unbounded),
            Some((index, None)) => (None, Bound::Excluded(index)),
        };
        let shelf = self.shelves.get(shard.index());
        let members = shelf.zip(members).into_iter();
        let members = members.flat_map(|(shelf, from)| shelf.members.range((from, Bound::Unbounded)));
        let members = members.filter_map(|((index, connection), held)| {
            let (channel, member) = (view.channel(*index)?.clone(), held.member.clone());
            let place = Place { channel: u64::try_from(*index).ok()?, connection: Some(*connection) };
            Some((place, Entry::Member { channel, connection: *connection, member, born: held.stamp.change }))
        });
        let counts = shelf.into_iter().flat_map(move |shelf| shelf.counts.range((counts, Bound::Unbounded)));
        members.chain(counts.filter_map(|(index, Count { subscribers, since })| {
            let channel = view.channel(*index)?.clone();
            let place = Place { channel: u64::try_from(*index).ok()?, connection: None };
            Some((place, Entry::Count { channel, subscribers: *subscribers, since: *since }))
        }))
    }
}

impl Shelf {
    fn len(&self) -> usize {
        self.members.len().saturating_add(self.counts.len())
    }
}
