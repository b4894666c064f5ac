//! Who received what: completeness, order and duplicates of every subscriber.
//!
//! **Lives here:** the verdict on each received counter, and the final count of faults.
//! **Called by:** `load`.
//! **Must not know:** sockets, time.

use std::collections::BTreeSet;

/// What one received counter was to its subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not seen before, in order or after a hole.
    New,
    /// Not seen before, but behind a later one.
    Late,
    /// Seen before.
    Again,
}

/// The faults of a run. All zero is the only good result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Faults {
    /// Published, never received: counted once per subscriber that misses it.
    pub lost: u64,
    /// Received more than once.
    pub duplicated: u64,
    /// Received after one that was published later.
    pub reordered: u64,
}

/// Counters start at 0 and rise by one; every subscriber must see each once, in order.
#[derive(Debug)]
pub struct Ledger {
    /// Per subscriber, the counter that comes next.
    next: Vec<u64>,
    /// What was skipped and has not come yet: (subscriber, counter). Empty in a good run.
    holes: BTreeSet<(usize, u64)>,
    faults: Faults,
}

impl Ledger {
    /// Starts a ledger for subscribers `0..subscribers`, who all must see counters from 0.
    #[must_use]
    pub fn new(subscribers: usize) -> Self {
        Self { next: vec![0; subscribers], holes: BTreeSet::new(), faults: Faults::default() }
    }

    /// Enters that `subscriber` received `counter`. A counter must have been published.
    pub fn receive(&mut self, subscriber: usize, counter: u64) -> Verdict {
        let next = &mut self.next[subscriber];
        if counter == *next {
            *next += 1;
            return Verdict::New;
        }
        if counter > *next {
            self.holes.extend((*next..counter).map(|hole| (subscriber, hole)));
            *next = counter + 1;
            return Verdict::New;
        }
        if self.holes.remove(&(subscriber, counter)) {
            self.faults.reordered += 1;
            Verdict::Late
        } else {
            self.faults.duplicated += 1;
            Verdict::Again
        }
    }

    /// Returns the faults, when counters below `published` were published and nothing more will come.
    #[must_use]
    pub fn close(self, published: u64) -> Faults {
        let tails: u64 = self.next.iter().map(|next| published.saturating_sub(*next)).sum();
        Faults { lost: self.holes.len() as u64 + tails, ..self.faults }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(received: &[u64], published: u64, lost: u64, duplicated: u64, reordered: u64) {
        let mut ledger = Ledger::new(2);
        for counter in received {
            ledger.receive(0, *counter);
        }
        (0..published).for_each(|counter| assert_eq!(ledger.receive(1, counter), Verdict::New));
        assert_eq!(ledger.close(published), Faults { lost, duplicated, reordered }, "{received:?}");
    }

    #[test]
    fn every_fault_is_named_once() {
        check(&[0, 1, 2, 3], 4, 0, 0, 0);
        check(&[0, 1, 3], 4, 1, 0, 0);
        check(&[0, 1], 4, 2, 0, 0);
        check(&[], 4, 4, 0, 0);
        check(&[0, 1, 1, 2, 3], 4, 0, 1, 0);
        check(&[0, 2, 1, 3], 4, 0, 0, 1);
        check(&[0, 2, 1, 1, 3], 4, 0, 1, 1);
        check(&[3, 0], 4, 2, 0, 1);
    }
}
