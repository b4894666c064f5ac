//! The channels that sessions of one worker hold.
//!
//! **Lives here:** joining, leaving, and walking a channel's subscribers in parts.
//! **Called by:** one worker; there is no lock because there is no other.
//! **Must not know:** other workers, sessions' state.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
};

use carillon_model::{ChannelName, Form, Overflow, Position, Publication};
use slab::Slab;

/// A session's place in its worker's table of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionKey(u32);

impl SessionKey {
    /// Takes a slab's key. `None` past 2³² connections.
    #[must_use]
    pub fn new(key: usize) -> Option<Self> {
        u32::try_from(key).ok().map(Self)
    }

    /// Returns the slab's key.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

/// One session's subscription to one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Whose.
    pub session: SessionKey,
    /// Which frames it takes.
    pub form: Form,
    /// What of the channel is for it.
    pub stand: Stand,
    /// What happens to its frames when it reads too slowly.
    pub overflow: Overflow,
    /// Changes among the channel's members are for it that have greater numbers: [`UNTOLD`] where none is.
    pub told_after: u64,
}

/// What [`Subscriber::told_after`] is for those who are told of no changes.
pub const UNTOLD: u64 = u64::MAX;

/// What of a channel is for a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Everything: the channel has no history.
    Live,
    /// What follows this position.
    After(Position),
    /// Nothing yet: its past is on the way, and what is published meanwhile comes with it.
    Behind,
}

impl Subscriber {
    /// Says whether a publication is for the subscriber.
    #[must_use]
    pub fn wants(&self, publication: &Publication) -> bool {
        match (self.stand, publication.position) {
            // One of another epoch is from before a gap that the subscriber is about to be told of, or was.
            (Stand::After(after), Some(at)) => at.epoch == after.epoch && at.offset > after.offset,
            (Stand::Behind, _) => false,
            (Stand::Live, _) | (Stand::After(_), None) => true,
        }
    }
}

/// A subscription's place in its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat(u32);

/// Whether a join was the worker's first interest in the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The node must be told.
    First,
    /// Others were there.
    Another,
}

/// Whether a leave was the worker's last interest in the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The node must be told.
    Last,
    /// Others are still there.
    Others,
}

/// A channel's number on its worker: what frames that wait are recognised by. Given anew when the channel is joined
/// after nobody held it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line(u32);

/// One worker's channels.
#[derive(Default)]
pub struct Channels {
    channels: HashMap<ChannelName, Held>,
    lines: u32,
}

/// One channel that is held.
struct Held {
    line: Line,
    /// All up to here was offered to those who stand before it.
    reached: Option<Position>,
    subscribers: Slab<Subscriber>,
}

impl Channels {
    /// Adds a subscriber. The seat is needed to leave again.
    ///
    /// # Panics
    /// Past 2³² subscribers of one channel, which 2³² sessions cannot reach.
    pub fn join(&mut self, channel: &ChannelName, subscriber: Subscriber) -> (Seat, Line, Joined) {
        let (held, joined) = match self.channels.entry(channel.clone()) {
            Entry::Occupied(known) => (known.into_mut(), Joined::Another),
            Entry::Vacant(fresh) => {
                self.lines = self.lines.wrapping_add(1);
                let held = Held { line: Line(self.lines), reached: None, subscribers: Slab::new() };
                (fresh.insert(held), Joined::First)
            }
        };
        let seat = u32::try_from(held.subscribers.insert(subscriber));
        (Seat(seat.expect("a worker has fewer than 2³² sessions")), held.line, joined)
    }

    /// Removes the subscriber at `seat`.
    pub fn leave(&mut self, channel: &ChannelName, seat: Seat) -> Left {
        let Some(Held { subscribers, .. }) = self.channels.get_mut(channel) else { return Left::Others };
        subscribers.try_remove(seat.0 as usize);
        if subscribers.is_empty() {
            self.channels.remove(channel);
            return Left::Last;
        }
        let left = subscribers.len();
        if left.is_power_of_two() && left.saturating_mul(4) < subscribers.capacity() {
            // A channel that was large once is not walked as a large one for ever. Shrinking looks at every seat, so
            // it is done at few sizes only.
            subscribers.shrink_to_fit();
        }
        Left::Others
    }

    /// Sets where the subscriber at `seat` stands, once that is known.
    pub fn stand(&mut self, channel: &ChannelName, seat: Seat, after: Position) {
        let Some(held) = self.channels.get_mut(channel) else { return };
        if let Some(subscriber) = held.subscribers.get_mut(seat.0 as usize) {
            subscriber.stand = Stand::After(after);
            // Others may stand before it: one that another node brought further must not hide what they have yet to get.
            held.reached = match held.reached {
                Some(reached) if reached.epoch != after.epoch || reached.offset <= after.offset => {
                    Some(reached)
                }
                Some(_) | None => Some(after),
            };
        }
    }

    /// Has the subscriber at `seat` told of changes among the channel's members that follow `turn`.
    pub fn tell_after(&mut self, channel: &ChannelName, seat: Seat, turn: u64) {
        let subscriber =
            self.channels.get_mut(channel).and_then(|held| held.subscribers.get_mut(seat.0 as usize));
        if let Some(subscriber) = subscriber {
            subscriber.told_after = turn;
        }
    }

    /// Returns who is to be told of a channel's change number `turn`.
    #[must_use]
    pub fn told_of(&self, channel: &ChannelName, turn: u64) -> Vec<SessionKey> {
        let Some(held) = self.channels.get(channel) else { return Vec::new() };
        let told = held.subscribers.iter().filter(|(_, subscriber)| subscriber.told_after < turn);
        told.map(|(_, subscriber)| subscriber.session).collect()
    }

    /// Returns how many subscribers a channel has.
    #[must_use]
    pub fn count(&self, channel: &ChannelName) -> usize {
        self.channels.get(channel).map_or(0, |held| held.subscribers.len())
    }

    /// Returns the channels that are wanted, with how many subscribers each has, in no order.
    #[expect(clippy::disallowed_methods, reason = "whoever asks puts them in order")]
    pub fn counts(&self, wanted: impl Fn(&ChannelName) -> bool) -> Vec<(ChannelName, usize)> {
        let held = self.channels.iter().filter(|(channel, _)| wanted(channel));
        held.map(|(channel, held)| (channel.clone(), held.subscribers.len())).collect()
    }

    /// Returns up to where everything was offered to those who stood before it; `None` when nobody stands yet.
    #[must_use]
    pub fn reached(&self, channel: &ChannelName) -> Option<Position> {
        self.channels.get(channel)?.reached
    }

    /// Notes that deliveries at these positions are about to be offered, and returns how many of the first were
    /// offered before: they came again after a part that was missed was made up for.
    pub fn reach(
        &mut self,
        channel: &ChannelName,
        positions: impl Iterator<Item = Option<Position>>,
    ) -> usize {
        let Some(held) = self.channels.get_mut(channel) else { return 0 };
        let mut before = 0;
        for position in positions {
            let Some(position) = position else { return 0 };
            match held.reached {
                Some(reached) if reached.epoch == position.epoch && position.offset <= reached.offset => {
                    before += 1;
                }
                Some(_) | None => held.reached = Some(position),
            }
        }
        before
    }

    /// Moves the subscribers of a channel past a gap, and returns the sessions that it concerns: those who joined
    /// at or after `position` lost nothing. `present` is where the channel stands by now: word of a gap may be older
    /// than that epoch, and concerns nobody who stands in another.
    pub fn pass_gap(
        &mut self,
        channel: &ChannelName,
        position: Option<Position>,
        present: Option<Position>,
    ) -> Vec<SessionKey> {
        let Some(held) = self.channels.get_mut(channel) else { return Vec::new() };
        let mut concerned = Vec::new();
        for (_, subscriber) in held.subscribers.iter_mut() {
            let unconcerned = match (subscriber.stand, position) {
                (Stand::After(after), Some(gap)) if after.epoch == gap.epoch => after.offset >= gap.offset,
                // Who stands in another epoch is told of the present one alone: word of it is on its way.
                (Stand::After(_), Some(gap)) => present.is_some_and(|present| present.epoch != gap.epoch),
                // What it is brought begins before the gap or after it, and the broker knows which.
                (Stand::Behind, _) => true,
                (Stand::Live, _) | (Stand::After(_), None) => false,
            };
            if !unconcerned {
                if let (Stand::After(_), Some(position)) = (subscriber.stand, position) {
                    subscriber.stand = Stand::After(position);
                }
                concerned.push(subscriber.session);
            }
        }
        held.reached = match (held.reached, position) {
            (Some(reached), Some(gap)) if reached.epoch == gap.epoch && reached.offset > gap.offset => {
                Some(reached)
            }
            (reached, gap) => gap.or(reached),
        };
        concerned
    }

    /// Calls `each` for the subscribers in seats `from..from + at_most` and returns where to go on, if there are
    /// more. Seats do not move, so that sessions may join and leave between two parts.
    pub fn visit(
        &self,
        channel: &ChannelName,
        from: usize,
        at_most: usize,
        mut each: impl FnMut(&Subscriber, Line),
    ) -> Option<usize> {
        let Held { subscribers, line, .. } = self.channels.get(channel)?;
        // Seats are reused before new ones are made, so the highest is below the capacity.
        let end = from.saturating_add(at_most).min(subscribers.capacity());
        for seat in from..end {
            if let Some(subscriber) = subscribers.get(seat) {
                each(subscriber, *line);
            }
        }
        (end < subscribers.capacity()).then_some(end)
    }

    /// Returns how many channels have subscribers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Says whether no channel has subscribers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("channels", &self.channels.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use carillon_model::{Epoch, Offset};

    use super::*;

    fn subscriber(key: usize) -> Subscriber {
        Subscriber {
            session: SessionKey::new(key).unwrap(),
            form: Form::NativeWebSocket,
            stand: Stand::Live,
            overflow: Overflow::Close,
            told_after: UNTOLD,
        }
    }

    fn walk(channels: &Channels, channel: &ChannelName, at_most: usize) -> Vec<usize> {
        let (mut seen, mut from) = (Vec::new(), Some(0));
        while let Some(start) = from {
            from =
                channels.visit(channel, start, at_most, |subscriber, _| seen.push(subscriber.session.get()));
        }
        seen
    }

    #[test]
    fn every_subscriber_is_visited_once_however_the_walk_is_cut() {
        let channel = ChannelName::new("news").unwrap();
        let mut channels = Channels::default();
        let seats: Vec<_> = (0..100).map(|key| channels.join(&channel, subscriber(key)).0).collect();
        for (key, seat) in seats.iter().enumerate().filter(|(key, _)| key % 3 == 0) {
            assert_eq!(channels.leave(&channel, *seat), Left::Others, "{key}");
        }
        let expected: Vec<_> = (0..100).filter(|key| key % 3 != 0).collect();
        for at_most in [1, 7, 64, 100, 1000] {
            assert_eq!(walk(&channels, &channel, at_most), expected, "in parts of {at_most}");
        }
    }

    #[test]
    fn first_and_last_are_told() {
        let channel = ChannelName::new("news").unwrap();
        let mut channels = Channels::default();
        let (one, line, first) = channels.join(&channel, subscriber(1));
        let (two, same, second) = channels.join(&channel, subscriber(2));
        assert_eq!(line, same);
        assert_eq!((first, second), (Joined::First, Joined::Another));
        assert_eq!(channels.leave(&channel, one), Left::Others);
        assert_eq!(channels.leave(&channel, two), Left::Last);
        assert!(channels.is_empty());
    }

    #[test]
    fn a_gap_concerns_those_who_were_there() {
        let channel = ChannelName::new("news").unwrap();
        let at = |epoch, offset| Position { epoch: Epoch::from_bits(epoch), offset: Offset::new(offset) };
        let mut channels = Channels::default();
        for (key, after) in [(0, at(1, 900)), (1, at(2, 4)), (2, at(2, 5)), (3, at(2, 9))] {
            channels.join(&channel, Subscriber { stand: Stand::After(after), ..subscriber(key) });
        }
        let concerned = channels.pass_gap(&channel, Some(at(2, 5)), Some(at(2, 9)));
        assert_eq!(concerned.iter().map(|key| key.get()).collect::<Vec<_>>(), [0, 1]);
        assert!(channels.pass_gap(&channel, Some(at(2, 5)), Some(at(2, 9))).is_empty(), "told once");
        channels.join(&channel, Subscriber { stand: Stand::Behind, ..subscriber(4) });
        assert!(
            channels.pass_gap(&channel, Some(at(2, 5)), Some(at(2, 9))).is_empty(),
            "who is behind is brought it, or told"
        );
    }

    #[test]
    fn word_of_an_old_gap_moves_nobody_who_joined_in_a_newer_epoch() {
        let channel = ChannelName::new("news").unwrap();
        let at = |epoch, offset| Position { epoch: Epoch::from_bits(epoch), offset: Offset::new(offset) };
        let mut channels = Channels::default();
        channels.join(&channel, Subscriber { stand: Stand::After(at(2, 30)), ..subscriber(1) });
        assert!(channels.pass_gap(&channel, Some(at(1, 13)), Some(at(2, 31))).is_empty());
        assert_eq!(channels.pass_gap(&channel, Some(at(2, 31)), Some(at(2, 31))).len(), 1);
    }

    #[test]
    fn what_was_made_up_for_is_not_offered_again() {
        let channel = ChannelName::new("news").unwrap();
        let at =
            |epoch, offset| Some(Position { epoch: Epoch::from_bits(epoch), offset: Offset::new(offset) });
        let mut channels = Channels::default();
        let (seat, ..) = channels.join(&channel, Subscriber { stand: Stand::Behind, ..subscriber(1) });
        assert_eq!(channels.reached(&channel), None);
        channels.stand(&channel, seat, at(1, 4).unwrap());
        assert_eq!(channels.reach(&channel, [at(1, 7), at(1, 9)].into_iter()), 0);
        assert_eq!(channels.reach(&channel, [at(1, 8), at(1, 9), at(1, 12)].into_iter()), 2);
        channels.pass_gap(&channel, at(1, 11), at(1, 12));
        assert_eq!(channels.reached(&channel), at(1, 12));
        channels.pass_gap(&channel, at(2, 3), at(2, 3));
        assert_eq!(channels.reach(&channel, [at(2, 3), at(2, 4)].into_iter()), 1);
        assert_eq!(channels.reach(&channel, [None, None].into_iter()), 0);
    }

    #[test]
    fn who_was_brought_further_elsewhere_hides_nothing_from_others() {
        let channel = ChannelName::new("news").unwrap();
        let at = |offset| Position { epoch: Epoch::from_bits(1), offset: Offset::new(offset) };
        let mut channels = Channels::default();
        for (key, offset) in [(1, 900), (2, 890)] {
            let (seat, ..) = channels.join(&channel, Subscriber { stand: Stand::Behind, ..subscriber(key) });
            channels.stand(&channel, seat, at(offset));
        }
        assert_eq!(channels.reach(&channel, [Some(at(895))].into_iter()), 0);
    }
}
