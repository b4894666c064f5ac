//! What is true: which message was stored where, in which of its stream's lives.
//!
//! **Lives here:** the lives, what follows what in each, which epochs were claimed by more than one of them.
//! **Called by:** the world notes what happens, clients compare it with what they are sent.
//! **Must not know:** nodes.

use std::collections::BTreeMap;

use carillon_model::Epoch;

/// Claims an epoch that is over.
const NOBODY: usize = usize::MAX;

/// All that was stored.
#[derive(Debug, Default)]
pub(super) struct Truth {
    lives: Vec<Life>,
    /// Which lives have claimed an epoch.
    claims: BTreeMap<Epoch, Vec<usize>>,
    /// Where each message was stored, by its number: more than once when its key was forgotten meanwhile.
    places: BTreeMap<u64, Vec<Place>>,
}

/// Where a message was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) life: usize,
    pub(super) offset: u64,
    pub(super) channel: usize,
}

#[derive(Debug)]
struct Life {
    /// It goes on from another life, up to a place there.
    parent: Option<(usize, u64)>,
    /// What was stored in it: place and channel, in order.
    own: Vec<(u64, usize)>,
}

impl Truth {
    /// Begins a life and returns its number.
    pub(super) fn begin(&mut self, parent: Option<(usize, u64)>) -> usize {
        self.lives.push(Life { parent, own: Vec::new() });
        self.lives.len() - 1
    }

    /// Notes that a life is now known by this epoch.
    pub(super) fn claim(&mut self, epoch: Epoch, life: usize) {
        let claims = self.claims.entry(epoch).or_default();
        if !claims.contains(&life) {
            claims.push(life);
        }
    }

    /// Notes that a life is over: what comes of its epoch from now on may be another's, until everybody is told.
    pub(super) fn end(&mut self, epoch: Epoch) {
        self.claim(epoch, NOBODY);
    }

    pub(super) fn store(&mut self, message: u64, place: Place) {
        self.lives[place.life].own.push((place.offset, place.channel));
        self.places.entry(message).or_default().push(place);
    }

    /// Returns where a message is that is said to stand at `offset` in a life of `epoch`.
    pub(super) fn place(&self, message: u64, channel: usize, offset: u64, epoch: Epoch) -> Option<Place> {
        let places = || {
            let places = self.places.get(&message).into_iter().flatten().copied();
            places.filter(|place| place.offset == offset && place.channel == channel)
        };
        let life = self.life_of(epoch);
        places().find(|place| Some(place.life) == life).or_else(|| places().next())
    }

    /// Returns the one life that an epoch means; `None` when it is nobody's, or more than one life claimed it.
    pub(super) fn life_of(&self, epoch: Epoch) -> Option<usize> {
        match self.claims.get(&epoch)?.as_slice() {
            [life] => Some(*life),
            _ => None,
        }
    }

    pub(super) fn is_known(&self, epoch: Epoch) -> bool {
        self.claims.contains_key(&epoch)
    }

    /// Returns the last message of a channel in a life that stands after `after` and before `end`.
    pub(super) fn between(&self, life: usize, channel: usize, after: u64, end: u64) -> Option<u64> {
        let (mut life, mut end) = (life, end);
        loop {
            let Life { parent, own } = &self.lives[life];
            let from = own.partition_point(|(offset, _)| *offset < end);
            let found = own[..from].iter().rev().take_while(|(offset, _)| *offset > after);
            if let Some((offset, _)) = found.into_iter().find(|(_, of)| *of == channel) {
                return Some(*offset);
            }
            let (next, cut) = (*parent)?;
            life = next;
            end = end.min(cut + 1);
            if end <= after {
                return None;
            }
        }
    }
}
