//! What a shard delivered last, by fingerprint.
//!
//! **Lives here:** the fingerprint, how many are remembered, which of them a stream is asked for.
//! **Called by:** the shard tracker; whoever brings it messages makes their fingerprints.
//! **Must not know:** what follows from two that differ.

use std::collections::VecDeque;

use carillon_model::Offset;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How many messages are remembered: 16 KiB a shard.
const REMEMBERED: usize = 1024;

/// What tells a message from another: a hash of where it was published and of all that it says. Two messages of the
/// same fingerprint say the same, its time included, so that no reader would miss the one that it did not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Fingerprint {
    /// Takes the fingerprint of a message: its subject, without what differs between where it is stored and where it
    /// is heard, and its payload.
    #[must_use]
    pub fn of(subject: &str, payload: &[u8]) -> Self {
        Self(xxh3_64_with_seed(payload, xxh3_64_with_seed(subject.as_bytes(), 0)))
    }
}

/// The last messages, in the order of their places.
#[derive(Debug, Default)]
pub(super) struct Witnesses(VecDeque<(Offset, Fingerprint)>);

impl Witnesses {
    /// Remembers a message behind all others.
    pub(super) fn note(&mut self, offset: Offset, print: Fingerprint) {
        if self.0.back().is_some_and(|(last, _)| *last >= offset) {
            return;
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back((offset, print));
    }

    /// Returns what stood at this place, if that is remembered.
    pub(super) fn at(&self, offset: Offset) -> Option<Fingerprint> {
        let found = self.0.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        self.0.get(found).map(|(_, print)| *print)
    }

    /// Returns the last place, and some before it in growing steps.
    pub(super) fn places(&self) -> impl Iterator<Item = Offset> {
        let back = std::iter::successors(Some(1_usize), |back| back.checked_mul(2));
        back.map_while(|back| Some(self.0.get(self.0.len().checked_sub(back)?)?.0))
    }
}
