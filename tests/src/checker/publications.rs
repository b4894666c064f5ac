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
    /// Acknowledgements that name the epoch before.
    pub(super) stale: u64,
}

/// What clients saw: where each publication stands, and when an epoch was first seen on a channel.
#[derive(Default)]
struct Sightings<'a> {
    places: BTreeMap<(u16, Epoch), BTreeMap<u64, &'a Published>>,
    of: BTreeMap<Name, BTreeSet<(Epoch, u64)>>,
    epochs: BTreeMap<(u16, Epoch), u32>,
}

impl<'a> Sightings<'a> {
    /// Notes where a publication stands, and returns another one that stands there already.
    fn put(&mut self, one: &'a Published, position: Position) -> Option<&'a Published> {
        let places = self.places.entry((one.what.channel, position.epoch)).or_default();
        let there = *places.entry(position.offset.get()).or_insert(one);
        (there.what != one.what).then_some(there)
    }

    /// Says how an acknowledgement is contradicted by what clients saw: nobody saw the publication there, but
    /// somewhere else, and not in a later copy of it either, as a retry after a deletion makes one.
    fn contradict(&self, one: &Published, at: Position) -> Option<Contradiction> {
        let seen = self.of.get(&one.what)?;
        let began = |epoch| self.epochs.get(&(one.what.channel, epoch));
        let is_later =
            |epoch| began(at.epoch).zip(began(epoch)).is_some_and(|(before, after)| before < after);
        if seen.contains(&(at.epoch, at.offset.get())) {
            return None;
        }
        if seen.iter().any(|(epoch, _)| *epoch == at.epoch) {
            return Some(Contradiction::Offset);
        }
        seen.iter().any(|(epoch, _)| is_later(*epoch)).then_some(Contradiction::Epoch)
    }
}

/// What is wrong with an acknowledged position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contradiction {
    /// The publication stands elsewhere in the same epoch.
    Offset,
    /// It stands in a later epoch, or another publication stands there.
    Epoch,
}

impl<'a> Publications<'a> {
    /// Gathers them, and reports what contradicts itself.
    pub(super) fn gather(run: &'a Run, violations: &mut dyn FnMut(Violation)) -> Self {
        let by_name: BTreeMap<_, _> = run.publications.iter().map(|one| (one.what, one)).collect();
        let mut sightings = Sightings::default();
        for (client, story) in run.clients.iter().enumerate() {
            for (number, event) in story.events.iter().enumerate() {
                let Seen::Message { what, position, content } = event.seen else { continue };
                let first = sightings.epochs.entry((what.channel, position.epoch)).or_insert(event.at_ms);
                *first = event.at_ms.min(*first);
                let Some(one) = by_name.get(&what).filter(|one| one.content == content) else { continue };
                if one.outcome == Outcome::Refused {
                    continue;
                }
                sightings.of.entry(what).or_default().insert((position.epoch, position.offset.get()));
                if let Some(other) = sightings.put(one, position) {
                    let text = format!("{position} is both {:?} and {:?}", one.what, other.what);
                    let place = Some((client, number));
                    violations(Violation { fault: Fault::Disagreement, place, channel: what.channel, text });
                }
            }
        }
        let mut stale = 0;
        for one in &run.publications {
            let Outcome::Stored(at) = one.outcome else { continue };
            let contradiction = match sightings.contradict(one, at) {
                None => sightings.put(one, at).map(|_other| Contradiction::Epoch),
                some => some,
            };
            let may_lose =
                run.channels.get(usize::from(one.what.channel)).is_some_and(|channel| channel.may_lose);
            if contradiction == Some(Contradiction::Epoch) && may_lose {
                stale += 1;
            } else if contradiction.is_some() {
                let seen = sightings.of.get(&one.what).into_iter().flatten();
                let seen: Vec<_> = seen.map(|(epoch, offset)| format!("{epoch}-{offset}")).collect();
                let text = format!("{:?} was acknowledged at {at} and stands at {seen:?}", one.what);
                violations(Violation {
                    fault: Fault::FalseAnswer,
                    place: None,
                    channel: one.what.channel,
                    text,
                });
            }
        }
        let orders =
            sightings.places.into_iter().map(|(key, places)| (key, places.into_iter().collect())).collect();
        let publications = Self { by_name, orders, stale };
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
