//! What another node says it has in a shard, while it comes together.
//!
//! It comes in pieces, and changes go on meanwhile. An entry is as of the piece that it came in; a change that is younger
//! than that, or about what no piece had, is laid over it.
//!
//! **Lives here:** the entries of the pieces, and the changes on top of them.
//! **Called by:** `peer` with each piece, `part` to take it over.
//! **Must not know:** what was known before, who asked.

use std::collections::BTreeMap;

use carillon_model::{ChannelName, ConnectionId};

use crate::{Change, Entry, Member};

/// What the owner has in a shard.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) members: BTreeMap<(ChannelName, ConnectionId), Membership>,
    pub(crate) counts: BTreeMap<ChannelName, Subscribers>,
    /// The owner's last change before the first piece and before the last one; none without a piece.
    pub(crate) as_of: Option<AsOf>,
}

/// Which of the owner's changes something has in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AsOf {
    /// All up to this one.
    pub(crate) from: u64,
    /// None past this one.
    pub(crate) upto: u64,
}

/// A connection that is a member.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) member: Member,
    pub(crate) born: u64,
    as_of: u64,
}

/// The owner's subscriptions of a channel.
#[derive(Debug)]
pub(crate) struct Subscribers {
    pub(crate) count: u32,
    pub(crate) since: u64,
    as_of: u64,
}

impl State {
    pub(crate) fn len(&self) -> usize {
        self.members.len().saturating_add(self.counts.len())
    }

    /// Takes a piece, without entries past `max`.
    pub(crate) fn take(&mut self, entries: Vec<Entry>, as_of: u64, max: usize) {
        let from = self.as_of.map_or(as_of, |before| before.from);
        self.as_of = Some(AsOf { from, upto: as_of });
        let room = max.saturating_sub(self.len());
        for entry in entries.into_iter().take(room) {
            match entry {
                Entry::Member { channel, connection, member, born } => {
                    self.members.insert((channel, connection), Membership { member, born, as_of });
                }
                Entry::Count { channel, subscribers: count, since } => {
                    self.counts.insert(channel, Subscribers { count, since, as_of });
                }
            }
        }
    }

    /// Lays a change over the entries, unless they have it in them.
    pub(crate) fn change(&mut self, change: Change, sequence: u64) {
        if self.as_of.is_some_and(|as_of| sequence <= as_of.from) {
            return;
        }
        match change {
            Change::Join { channel, connection, member } => {
                let key = (channel, connection);
                if self.members.get(&key).is_none_or(|known| known.as_of < sequence) {
                    self.members.insert(key, Membership { member, born: sequence, as_of: sequence });
                }
            }
            Change::Leave { channel, connection } => {
                let key = (channel, connection);
                if self.members.get(&key).is_some_and(|known| known.as_of < sequence) {
                    self.members.remove(&key);
                }
            }
            Change::Count { channel, subscribers: count } => {
                let known = self.counts.get(&channel);
                if known.is_some_and(|known| known.as_of >= sequence) {
                    return;
                }
                let since = known.map_or(sequence, |known| known.since);
                if count == 0 {
                    self.counts.remove(&channel);
                } else {
                    self.counts.insert(channel, Subscribers { count, since, as_of: sequence });
                }
            }
        }
    }
}
