//! Joining channels and leaving them.
//!
//! **Lives here:** what a session's wish to join comes to: the rule, the seat, the node's interest, the position.
//! **Called by:** the worker, for a session's effects.
//! **Must not know:** deliveries, sockets.

use std::time::Instant;

use carillon_broker::AttachError;
use carillon_hub::{Joined, Left, SessionKey, Stand, Subscriber};
use carillon_model::{ChannelName, Keeping, Overflow, Position, ReplayLimits, Since, Unrecovered};
use carillon_session::{Answer, Recovered, Reference, Wanted, may_subscribe};

use crate::{
    connection::{Connection, Seated},
    shown,
    worker::Worker,
};

impl Worker {
    /// A client with a token also hears what is published to its user.
    pub(super) fn join_user(&self, key: SessionKey, connection: &mut Connection) {
        if let Some(user) = connection.session.identity().map(|identity| identity.user.clone())
            && let Ok(channel) = ChannelName::of_user(&user)
            && !connection.seats.iter().any(|seated| seated.channel == channel)
        {
            self.sit(key, connection, &channel, Stand::Live, Overflow::Close);
        }
    }

    pub(super) fn answer_join(
        &self,
        key: SessionKey,
        connection: &mut Connection,
        wanted: Wanted,
        reference: Option<Reference>,
        now: Instant,
    ) {
        let rule = self.node.router().rules().find(&wanted.channel);
        let rule = match may_subscribe(&wanted.channel, rule, connection.session.identity()) {
            Ok(rule) => rule,
            Err(refusal) => {
                shown::subscribed("denied");
                let answer = Answer::Refused { channel: wanted.channel, refusal, reference };
                return connection.session.handle_answer(answer);
            }
        };
        match &rule.keeping {
            Keeping::Live => {
                self.sit(key, connection, &wanted.channel, Stand::Live, rule.overflow);
                // Nothing is kept, whatever place in the past is named.
                let recovered = (wanted.since != Since::Now).then_some(Recovered::No(Unrecovered::Expired));
                self.joined(connection, wanted.channel, None, recovered, reference);
            }
            // A client that connects before the broker was reached is subscribed as soon as that can be done, without
            // having to ask again.
            Keeping::Durable(_) if !self.node.broker_was_reached() || !Self::has_reader_free(connection) => {
                connection.wishes.push((wanted, reference));
                self.waiting.set(true);
            }
            Keeping::Durable(class) => {
                let seated = self.sit(key, connection, &wanted.channel, Stand::Behind, rule.overflow);
                if wanted.since != Since::Now {
                    self.begin_reader(connection, &seated, class.clone(), rule.overflow, &wanted, reference);
                    return self.advance_readers(key, connection, now);
                }
                // Read after the node wants the channel: what follows is delivered here.
                let attached =
                    self.node.broker().attach(class, &wanted.channel, Since::Now, ReplayLimits::default());
                match attached {
                    Ok(attached) => {
                        let position = attached.position;
                        self.channels.borrow_mut().stand(&wanted.channel, seated.seat, position);
                        self.joined(connection, wanted.channel, Some(position), None, reference);
                    }
                    Err(AttachError::Unavailable) => {
                        self.leave(connection, &wanted.channel);
                        connection.wishes.push((wanted, reference));
                        self.waiting.set(true);
                    }
                }
            }
        }
    }

    fn joined(
        &self,
        connection: &mut Connection,
        channel: ChannelName,
        position: Option<Position>,
        recovered: Option<Recovered>,
        reference: Option<Reference>,
    ) {
        shown::subscribed("ok");
        connection.session.handle_answer(Answer::Joined { channel, position, recovered, reference });
    }

    /// Goes on with what had to wait: for the broker, for other pasts of the same client, for another try.
    pub(super) fn grant_wishes(&self, now: Instant) {
        if !self.waiting.get() || !self.node.broker_was_reached() {
            return;
        }
        self.waiting.set(false);
        let keys: Vec<_> = self.connections.borrow().iter().map(|(key, _)| key).collect();
        for key in keys.into_iter().filter_map(SessionKey::new) {
            {
                let mut connections = self.connections.borrow_mut();
                let Some(connection) = connections.get_mut(key.get()) else { continue };
                if connection.wishes.is_empty() && connection.readers.is_empty() {
                    continue;
                }
                self.advance_readers(key, connection, now);
                if connection.readers.iter().any(|reader| reader.again_at.is_some()) {
                    self.waiting.set(true);
                }
            }
            self.carry_out(key, now);
        }
    }

    /// Grants what waited for another past of the same client to be brought.
    pub(super) fn grant_next(&self, key: SessionKey, connection: &mut Connection, now: Instant) {
        let mut left = connection.wishes.len();
        while left > 0 && self.node.broker_was_reached() && Self::has_reader_free(connection) {
            left -= 1;
            let (wanted, reference) = connection.wishes.remove(0);
            // The client may have left the channel since, or asked for it twice.
            let held = connection.seats.iter().any(|seated| seated.channel == wanted.channel);
            if !held && connection.session.channels().binary_search(&wanted.channel).is_ok() {
                self.answer_join(key, connection, wanted, reference, now);
            }
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

    /// Seats a connection in a channel: deliveries that reach this worker from here on find it there.
    fn sit(
        &self,
        key: SessionKey,
        connection: &mut Connection,
        channel: &ChannelName,
        stand: Stand,
        overflow: Overflow,
    ) -> Seated {
        let subscriber = Subscriber { session: key, form: connection.link.form(), stand, overflow };
        let (seat, line, joined) = self.channels.borrow_mut().join(channel, subscriber);
        let seated = Seated { channel: channel.clone(), seat, line };
        connection.seats.reserve_exact(1);
        connection.seats.push(seated.clone());
        self.shown.subscriptions.increment(1);
        if joined == Joined::First {
            self.node.router().interest.add(channel, self.index);
        }
        seated
    }

    pub(super) fn leave(&self, connection: &mut Connection, channel: &ChannelName) {
        connection.wishes.retain(|(wanted, _)| wanted.channel != *channel);
        connection.readers.retain(|reader| reader.channel != *channel);
        let Some(place) = connection.seats.iter().position(|seated| seated.channel == *channel) else {
            return;
        };
        let seated = connection.seats.swap_remove(place);
        if !connection.outbox.is_empty() {
            connection.outbox.forget(seated.line);
        }
        self.unseat(&seated);
    }

    pub(super) fn unseat(&self, seated: &Seated) {
        self.shown.subscriptions.decrement(1);
        if self.channels.borrow_mut().leave(&seated.channel, seated.seat) == Left::Last {
            self.node.router().interest.remove(&seated.channel, self.index);
        }
    }
}
