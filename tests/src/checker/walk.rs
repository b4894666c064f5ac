//! One client's way along one channel.
//!
//! **Lives here:** where it stands, what it must see next, what it has missed.
//! **Called by:** `audit`, with the client's events in order.
//! **Must not know:** other clients.

use std::{collections::BTreeMap, ops::Range};

use carillon_model::{Epoch, Position};

use super::{Fault, Name, Outcome, Past, Seen, publications::Publications};

/// Reports what is wrong, with the place of the event.
type Wrong<'f> = dyn FnMut(usize, (Fault, String)) + 'f;

#[derive(Debug)]
pub(super) struct Walk<'a> {
    publications: &'a Publications<'a>,
    channel: u16,
    subscribed: bool,
    /// Everything after it is still to come. `None` before the first `subscribed`, and after a gap to somewhere.
    stand: Option<Position>,
    /// Whether the client has been subscribed at all.
    began: bool,
    /// Which of an epoch's publications were seen.
    seen: BTreeMap<Epoch, Vec<bool>>,
    /// Places of an epoch's order that were passed over, and the event that did.
    holes: Vec<(Epoch, Range<usize>, usize)>,
    /// Messages of the past that were announced and have not come.
    owed: u32,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(publications: &'a Publications<'a>, channel: u16) -> Self {
        Self {
            publications,
            channel,
            subscribed: false,
            stand: None,
            began: false,
            seen: BTreeMap::new(),
            holes: Vec::new(),
            owed: 0,
        }
    }

    pub(super) fn step(&mut self, place: usize, seen: &Seen, wrong: &mut Wrong<'_>) {
        match *seen {
            Seen::Subscribed { position, past, .. } => self.subscribe(place, position, past, wrong),
            Seen::Message { what, position, content } => {
                self.message(place, what, position, content, wrong);
            }
            // What lies between was told to be lost.
            Seen::Gap { position, .. } => self.stand = position.map(|position| self.not_before(position)),
            Seen::Unsubscribed { .. } | Seen::Disconnected => {
                self.subscribed = false;
                self.owed = 0;
            }
            Seen::Connected | Seen::Nonsense => {}
        }
    }

    fn subscribe(&mut self, place: usize, position: Position, past: Past, wrong: &mut Wrong<'_>) {
        self.subscribed = true;
        self.began = true;
        self.owed = 0;
        let Past::Recovered(replayed) = past else {
            self.stand = Some(position);
            return;
        };
        self.owed = replayed;
        if let Some(stand) = self.stand {
            if stand.epoch != position.epoch {
                wrong(place, (Fault::ForeignEpoch, format!("recovered from {stand} to {position}")));
            } else {
                self.pass_over(stand, position.offset.get().saturating_add(1), place);
            }
        }
        self.stand = Some(self.not_before(position));
    }

    fn message(&mut self, place: usize, what: Name, position: Position, content: u64, wrong: &mut Wrong<'_>) {
        if !self.subscribed {
            wrong(place, (Fault::NotSubscribed, format!("{position} came without a subscription")));
        }
        self.owed = self.owed.saturating_sub(1);
        if let Some((fault, why)) = self.is_false(what, content) {
            return wrong(place, (fault, format!("{position} is {what:?}: {why}")));
        }
        if let Some(stand) = self.stand.filter(|stand| stand.epoch != position.epoch) {
            wrong(place, (Fault::ForeignEpoch, format!("{position} came after {stand}")));
            self.stand = None;
        }
        let order = self.publications.order(self.channel, position.epoch);
        let index = order.partition_point(|(offset, _)| *offset < position.offset.get());
        let seen = self.seen.entry(position.epoch).or_insert_with(|| vec![false; order.len()]);
        let Some(seen) = seen.get_mut(index) else { return };
        let again = std::mem::replace(seen, true);
        match self.stand {
            _ if again => wrong(place, (Fault::Duplicate, format!("{position} came again"))),
            Some(stand) if position.offset <= stand.offset => {
                wrong(place, (Fault::Reordered, format!("{position} came after {stand}")));
            }
            Some(stand) => {
                self.pass_over(stand, position.offset.get(), place);
                self.stand = Some(position);
            }
            None => self.stand = Some(position),
        }
    }

    /// Says what is wrong with a message, wherever it stands.
    fn is_false(&self, what: Name, content: u64) -> Option<(Fault, &'static str)> {
        let Some(one) = self.publications.named(what) else {
            return Some((Fault::Phantom, "nobody published it"));
        };
        match one.outcome {
            _ if one.content != content => Some((Fault::WrongContent, "it was not published like this")),
            Outcome::Refused => Some((Fault::Phantom, "it was refused")),
            Outcome::Stored(_) | Outcome::Unknown => None,
        }
    }

    /// Never back: what is there was seen.
    fn not_before(&self, position: Position) -> Position {
        let ahead = |stand: &Position| stand.epoch == position.epoch && stand.offset > position.offset;
        self.stand.filter(ahead).unwrap_or(position)
    }

    /// Notes what stands after `stand` and before the offset `end`. It may still come, out of order.
    fn pass_over(&mut self, stand: Position, end: u64, place: usize) {
        let order = self.publications.order(self.channel, stand.epoch);
        let from = order.partition_point(|(offset, _)| *offset <= stand.offset.get());
        let to = order.partition_point(|(offset, _)| *offset < end);
        if from < to {
            self.holes.push((stand.epoch, from..to, place));
        }
    }

    /// Ends the walk, which must have come to `last`.
    pub(super) fn end(mut self, last: Option<Position>, place: usize, wrong: &mut Wrong<'_>) {
        if self.subscribed && self.owed > 0 {
            let text = format!("{} messages of the past were announced and did not come", self.owed);
            wrong(place, (Fault::FalseAnswer, text));
        }
        match (self.stand, last) {
            (Some(stand), Some(last)) if stand.epoch == last.epoch => {
                self.pass_over(stand, last.offset.get().saturating_add(1), place);
            }
            (Some(stand), Some(last)) => {
                wrong(place, (Fault::SilentGap, format!("stays at {stand}, the channel ends at {last}")));
            }
            (None, Some(last)) => {
                let how = if self.began { "was told of a gap" } else { "never was subscribed" };
                wrong(place, (Fault::SilentGap, format!("{how}, the channel ends at {last}")));
            }
            (_, None) => {}
        }
        for (epoch, hole, place) in &self.holes {
            self.judge(*epoch, hole.clone(), *place, wrong);
        }
    }

    fn judge(&self, epoch: Epoch, hole: Range<usize>, place: usize, wrong: &mut Wrong<'_>) {
        let seen = self.seen.get(&epoch);
        let was_seen = |index: usize| seen.is_some_and(|seen| seen.get(index) == Some(&true));
        let order = self.publications.order(self.channel, epoch);
        let missing = || hole.clone().filter(|index| !was_seen(*index)).filter_map(|index| order.get(index));
        let Some((first, one)) = missing().next() else { return };
        let text = format!("{} missing from {epoch}-{first} on, {:?}", missing().count(), one.what);
        wrong(place, (Fault::SilentGap, text));
        for (offset, one) in missing().filter(|(_, one)| matches!(one.outcome, Outcome::Stored(_))) {
            wrong(place, (Fault::AckedLost, format!("{epoch}-{offset}, {:?}", one.what)));
        }
    }
}
