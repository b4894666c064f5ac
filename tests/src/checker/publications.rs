//! What was published and where it stands, by all that publishers and clients know of it.
//!
//! **Lives here:** the order of each channel, and what contradicts itself in it.
//! **Called by:** `audit`.
//! **Must not know:** what one client may have missed.

use std::collections::{BTreeMap, BTreeSet};

use carillon_model::{Epoch, Position};

use super::{Fault, Name, Outcome, Published, Run, Seen, Violation};

/// Every publication that is known to stand somewhere.
#[derive(Debug)]
pub(super) struct Publications<'a> {
    by_name: BTreeMap<Name, &'a Published>,
    /// By channel and epoch: offset and publication, in the order of offsets.
    orders: BTreeMap<(u16, Epoch), Vec<(u64, &'a Published)>>,
}

impl<'a> Publications<'a> {
    /// Gathers them, and reports what contradicts itself.
    pub(super) fn gather(run: &'a Run, violations: &mut dyn FnMut(Violation)) -> Self {
        let by_name: BTreeMap<_, _> = run.publications.iter().map(|one| (one.what, one)).collect();
        let mut places: BTreeMap<(u16, Epoch), BTreeMap<u64, &Published>> = BTreeMap::new();
        let mut put = |position: Position, one: &'a Published| {
            let order = places.entry((one.what.channel, position.epoch)).or_default();
            let there = *order.entry(position.offset.get()).or_insert(one);
            (there.what != one.what).then_some(there)
        };
        let mut disagree = |position: Position, one: &Published, other: &Published, place| {
            let text = format!("{position} is both {:?} and {:?}", one.what, other.what);
            violations(Violation { fault: Fault::Disagreement, place, channel: one.what.channel, text });
        };
        for one in &run.publications {
            if let Outcome::Stored(position) = one.outcome
                && let Some(other) = put(position, one)
            {
                disagree(position, one, other, None);
            }
        }
        for (client, story) in run.clients.iter().enumerate() {
            for (number, event) in story.events.iter().enumerate() {
                if let Seen::Message { what, position, content } = event.seen
                    && let Some(one) = by_name.get(&what).filter(|one| one.content == content)
                    && one.outcome != Outcome::Refused
                    && let Some(other) = put(position, one)
                {
                    disagree(position, one, other, Some((client, number)));
                }
            }
        }
        let orders = places.into_iter().map(|(key, order)| (key, order.into_iter().collect())).collect();
        let publications = Self { by_name, orders };
        publications.check(violations);
        publications
    }

    pub(super) fn named(&self, name: Name) -> Option<&'a Published> {
        self.by_name.get(&name).copied()
    }

    /// Returns the channel's order in one epoch.
    pub(super) fn order(&self, channel: u16, epoch: Epoch) -> &[(u64, &'a Published)] {
        self.orders.get(&(channel, epoch)).map_or(&[], Vec::as_slice)
    }

    /// Within one epoch each stands once, and those of one publisher in the order in which they were acknowledged.
    fn check(&self, violations: &mut dyn FnMut(Violation)) {
        for ((channel, epoch), order) in &self.orders {
            let mut there = BTreeSet::new();
            let mut last: BTreeMap<u16, u32> = BTreeMap::new();
            for (offset, one) in order {
                let mut wrong = |fault, why: &str| {
                    let text = format!("{:?} at {epoch}-{offset} {why}", one.what);
                    violations(Violation { fault, place: None, channel: *channel, text });
                };
                if !there.insert(one.what) {
                    wrong(Fault::StoredTwice, "stands at two places");
                } else if matches!(one.outcome, Outcome::Stored(_)) {
                    let before = last.insert(one.what.publisher, one.what.counter);
                    if before.is_some_and(|before| before > one.what.counter) {
                        wrong(Fault::OutOfTurn, "was acknowledged before one that stands before it");
                    }
                }
            }
        }
    }
}
