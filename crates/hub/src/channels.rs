//! The channels that sessions of one worker hold.
//!
//! **Lives here:** joining, leaving, and walking a channel's subscribers in parts.
//! **Called by:** one worker; there is no lock because there is no other.
//! **Must not know:** other workers, sessions' state.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
};

use carillon_model::{ChannelName, Position, Publication};
use slab::Slab;

use crate::Form;

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
    /// Where it joined: only what follows is for it. `None` on a channel without history.
    pub after: Option<Position>,
}

impl Subscriber {
    /// Says whether a publication follows the place where the subscriber joined.
    #[must_use]
    pub fn wants(&self, publication: &Publication) -> bool {
        match (self.after, publication.position) {
            // One of another epoch is from before a gap that the subscriber is about to be told of, or was.
            (Some(after), Some(at)) => at.epoch == after.epoch && at.offset > after.offset,
            (None, _) | (_, None) => true,
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

/// One worker's channels.
#[derive(Default)]
pub struct Channels(HashMap<ChannelName, Slab<Subscriber>>);

impl Channels {
    /// Adds a subscriber. The seat is needed to leave again.
    ///
    /// # Panics
    /// Past 2³² subscribers of one channel, which 2³² sessions cannot reach.
    pub fn join(&mut self, channel: &ChannelName, subscriber: Subscriber) -> (Seat, Joined) {
        let (subscribers, joined) = match self.0.entry(channel.clone()) {
            Entry::Occupied(known) => (known.into_mut(), Joined::Another),
            Entry::Vacant(fresh) => (fresh.insert(Slab::new()), Joined::First),
        };
        let seat = u32::try_from(subscribers.insert(subscriber));
        (Seat(seat.expect("a worker has fewer than 2³² sessions")), joined)
    }

    /// Removes the subscriber at `seat`.
    pub fn leave(&mut self, channel: &ChannelName, seat: Seat) -> Left {
        let Some(subscribers) = self.0.get_mut(channel) else { return Left::Others };
        subscribers.try_remove(seat.0 as usize);
        if subscribers.is_empty() {
            self.0.remove(channel);
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
        if let Some(subscriber) = self.0.get_mut(channel).and_then(|all| all.get_mut(seat.0 as usize)) {
            subscriber.after = Some(after);
        }
    }

    /// Moves the subscribers of a channel past a gap, and returns the sessions that it concerns: those who joined
    /// at or after `position` lost nothing.
    pub fn pass_gap(&mut self, channel: &ChannelName, position: Option<Position>) -> Vec<SessionKey> {
        let Some(subscribers) = self.0.get_mut(channel) else { return Vec::new() };
        let mut concerned = Vec::new();
        for (_, subscriber) in subscribers.iter_mut() {
            let joined_later = matches!(
                (subscriber.after, position),
                (Some(after), Some(gap)) if after.epoch == gap.epoch && after.offset >= gap.offset
            );
            if !joined_later {
                subscriber.after = position.or(subscriber.after);
                concerned.push(subscriber.session);
            }
        }
        concerned
    }

    /// Calls `each` for the subscribers in seats `from..from + at_most` and returns where to go on, if there are
    /// more. Seats do not move, so that sessions may join and leave between two parts.
    pub fn visit(
        &self,
        channel: &ChannelName,
        from: usize,
        at_most: usize,
        mut each: impl FnMut(&Subscriber),
    ) -> Option<usize> {
        let subscribers = self.0.get(channel)?;
        // Seats are reused before new ones are made, so the highest is below the capacity.
        let end = from.saturating_add(at_most).min(subscribers.capacity());
        for seat in from..end {
            if let Some(subscriber) = subscribers.get(seat) {
                each(subscriber);
            }
        }
        (end < subscribers.capacity()).then_some(end)
    }

    /// Returns how many channels have subscribers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether no channel has subscribers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("channels", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use carillon_model::{Epoch, Offset};

    use super::*;

    fn subscriber(key: usize) -> Subscriber {
        Subscriber { session: SessionKey::new(key).unwrap(), form: Form::NativeWebSocket, after: None }
    }

    fn walk(channels: &Channels, channel: &ChannelName, at_most: usize) -> Vec<usize> {
        let (mut seen, mut from) = (Vec::new(), Some(0));
        while let Some(start) = from {
            from = channels.visit(channel, start, at_most, |subscriber| seen.push(subscriber.session.get()));
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
        let (one, first) = channels.join(&channel, subscriber(1));
        let (two, second) = channels.join(&channel, subscriber(2));
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
            channels.join(&channel, Subscriber { after: Some(after), ..subscriber(key) });
        }
        let concerned = channels.pass_gap(&channel, Some(at(2, 5)));
        assert_eq!(concerned.iter().map(|key| key.get()).collect::<Vec<_>>(), [0, 1]);
        assert!(channels.pass_gap(&channel, Some(at(2, 5))).is_empty(), "told once");
    }
}
