//! What waits for a node's worker, with the rule of `node::mailbox`: what does not fit is dropped, and word of it stands
//! in its place.
//!
//! **Lives here:** the bounded queue.
//! **Called by:** shards put in, the worker takes out.
//! **Must not know:** what a worker does with it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use carillon_model::{ChannelName, Position, Publication};

/// One thing for the worker to do.
#[derive(Clone, Debug)]
pub(super) enum Mail {
    Deliver(Arc<Publication>),
    Missed(ChannelName, Position, Missed),
}

/// Why messages do not stand where they should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Missed {
    Dropped,
    Lost,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    mail: VecDeque<Mail>,
    taken: u64,
    deliveries: usize,
    gaps: BTreeMap<ChannelName, u64>,
}

impl Mailbox {
    /// Puts a publication in, or word that it found no room.
    pub(super) fn deliver(&mut self, publication: Arc<Publication>, limit: usize, silent: bool) {
        let channel = &publication.message.channel;
        if self.deliveries < limit {
            self.gaps.remove(channel);
            self.mail.push_back(Mail::Deliver(publication));
            self.deliveries += 1;
        } else if let Some(position) = publication.position.filter(|_| !silent) {
            self.note_gap(channel.clone(), position, Missed::Dropped);
        }
    }

    pub(super) fn note_gap(&mut self, channel: ChannelName, position: Position, missed: Missed) {
        let next = self.taken + self.mail.len() as u64;
        let number = self.gaps.get(&channel).copied().filter(|number| *number >= self.taken).unwrap_or(next);
        self.gaps.insert(channel.clone(), number);
        let place = usize::try_from(number - self.taken).unwrap_or(usize::MAX);
        if let Some(Mail::Missed(_, upto, cause)) = self.mail.get_mut(place) {
            *upto = position;
            *cause = missed.max(*cause);
        } else {
            self.mail.push_back(Mail::Missed(channel, position, missed));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mail.is_empty()
    }

    pub(super) fn take(&mut self, budget: usize) -> Vec<Mail> {
        let taken: Vec<_> = self.mail.drain(..self.mail.len().min(budget)).collect();
        self.taken += taken.len() as u64;
        self.deliveries -= taken.iter().filter(|mail| matches!(mail, Mail::Deliver(_))).count();
        if self.mail.is_empty() {
            self.gaps.clear();
        }
        taken
    }
}
