//! Joining channels and leaving them.
//!
//! **Lives here:** what a session's wish to join comes to: the rule, the seat, the node's interest, the position.
//! **Called by:** the worker, for a session's effects.
//! **Must not know:** deliveries, sockets.

use std::time::Instant;

use carillon_broker::AttachError;
use carillon_hub::{Joined, Left, Seat, SessionKey, Subscriber};
use carillon_model::{ChannelName, Keeping, Position};
use carillon_session::{Answer, Reference, Wanted, may_subscribe};

use crate::{connection::Connection, shown, worker::Worker};

impl Worker {
    /// A client with a token also hears what is published to its user.
    pub(super) fn join_user(&self, key: SessionKey, connection: &mut Connection) {
        if let Some(user) = connection.session.identity().map(|identity| identity.user.clone())
            && let Ok(channel) = ChannelName::of_user(&user)
            && !connection.seats.iter().any(|(held, _)| *held == channel)
        {
            let joined = self.join(key, connection, &channel, &Keeping::Live);
            debug_assert!(joined.is_ok(), "joining a live channel asks nobody");
        }
    }

    pub(super) fn answer_join(
        &self,
        key: SessionKey,
        connection: &mut Connection,
        wanted: Wanted,
        reference: Option<Reference>,
    ) {
        let rule = self.node.router().rules().find(&wanted.channel);
        let allowed = may_subscribe(&wanted.channel, rule, connection.session.identity());
        let joined = allowed.map(|rule| self.join(key, connection, &wanted.channel, &rule.keeping));
        let answer = match joined {
            Ok(Ok(position)) => {
                shown::subscribed("ok");
                Answer::Joined { wanted, position, reference }
            }
            Ok(Err(_not_yet)) => {
                // Kept until the broker was reached for the first time: a client that connects while it is away is
                // subscribed as soon as that can be done, without having to ask again.
                connection.wishes.push((wanted, reference));
                return self.wishes.set(true);
            }
            Err(refusal) => {
                shown::subscribed("denied");
                Answer::Refused { channel: wanted.channel, refusal, reference }
            }
        };
        connection.session.handle_answer(answer);
    }

    /// Grants what had to wait for the broker.
    pub(super) fn grant_wishes(&self, now: Instant) {
        if !self.wishes.get() || !self.node.broker_was_reached() {
            return;
        }
        self.wishes.set(false);
        let keys: Vec<_> = self.connections.borrow().iter().map(|(key, _)| key).collect();
        for key in keys.into_iter().filter_map(SessionKey::new) {
            {
                let mut connections = self.connections.borrow_mut();
                let Some(connection) = connections.get_mut(key.get()) else { continue };
                for (wanted, reference) in std::mem::take(&mut connection.wishes) {
                    // The client may have left the channel since, or asked for it twice.
                    let held = connection.seats.iter().any(|(channel, _)| *channel == wanted.channel);
                    if !held && connection.session.channels().binary_search(&wanted.channel).is_ok() {
                        self.answer_join(key, connection, wanted, reference);
                    }
                }
            }
            self.carry_out(key, now);
        }
    }

    /// Takes away the channels that the client's present token does not cover.
    pub(super) fn revoke(&self, connection: &mut Connection) {
        let refused = |channel: &ChannelName| {
            let rule = self.node.router().rules().find(channel);
            may_subscribe(channel, rule, connection.session.identity()).err()
        };
        let revoked: Vec<_> = connection
            .session
            .channels()
            .iter()
            .filter_map(|channel| refused(channel).map(|refusal| (channel.clone(), refusal)))
            .collect();
        for (channel, refusal) in revoked {
            connection.session.handle_revoked(channel, refusal);
        }
    }

    /// Seats a connection in a channel. Deliveries that reach this worker from here on find it there; it takes
    /// those that follow the position that the broker names, which is read after the node wants the channel.
    fn join(
        &self,
        key: SessionKey,
        connection: &mut Connection,
        channel: &ChannelName,
        keeping: &Keeping,
    ) -> Result<Option<Position>, AttachError> {
        let subscriber = Subscriber { session: key, form: connection.link.form(), after: None };
        let (seat, joined) = self.channels.borrow_mut().join(channel, subscriber);
        connection.seats.reserve_exact(1);
        connection.seats.push((channel.clone(), seat));
        self.shown.subscriptions.increment(1);
        if joined == Joined::First {
            self.node.router().interest.add(channel, self.index);
        }
        let Keeping::Durable(class) = keeping else { return Ok(None) };
        let attached = self.node.broker().attach(class, channel);
        match &attached {
            Ok(position) => self.channels.borrow_mut().stand(channel, seat, *position),
            Err(_not_yet) => self.leave(connection, channel),
        }
        attached.map(Some)
    }

    pub(super) fn leave(&self, connection: &mut Connection, channel: &ChannelName) {
        connection.wishes.retain(|(wanted, _)| wanted.channel != *channel);
        let Some(place) = connection.seats.iter().position(|(held, _)| held == channel) else { return };
        let (channel, seat) = connection.seats.swap_remove(place);
        self.unseat(&channel, seat);
    }

    pub(super) fn unseat(&self, channel: &ChannelName, seat: Seat) {
        self.shown.subscriptions.decrement(1);
        if self.channels.borrow_mut().leave(channel, seat) == Left::Last {
            self.node.router().interest.remove(channel, self.index);
        }
    }
}
