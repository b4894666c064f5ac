//! Joining channels and leaving them.
//!
//! **Lives here:** what a session's wish to join comes to: the rule, the seat, the node's interest, the position.
//! **Called by:** the worker, for a session's effects.
//! **Must not know:** deliveries, sockets.

use std::time::Instant;

use carillon_broker::AttachError;
use carillon_hub::{Joined, Left, SessionKey, Stand, Subscriber, UNTOLD};
use carillon_model::{
    ChannelKind, ChannelName, ErrorCode, Keeping, Overflow, Position, Refusal, ReplayLimits, Since,
    Unrecovered,
};
use carillon_session::{Answer, Push, Recovered, Reference, Wanted, may_subscribe};

use crate::{
    connection::{Connection, Seated},
    crowd::View,
    shown,
    tell::Told,
    worker::Worker,
};

impl Worker {
    /// A client with a token also hears what is published to its user.
    pub(super) fn join_user(&self, key: SessionKey, connection: &mut Connection) {
        if let Some(user) = connection.session.identity().map(|identity| identity.user.clone())
            && let Ok(channel) =
                ChannelName::of_user(&user).map(|channel| channel.within(&connection.app.space))
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
        let permit = match self.permit(connection, &wanted) {
            Ok(permit) => permit,
            Err(refusal) => return Self::refuse_join(connection, wanted.channel, refusal, reference),
        };
        // A client that connects before the broker was reached is subscribed as soon as that can be done, without
        // having to ask again.
        let waits = matches!(permit.keeping, Keeping::Durable(_))
            && (!self.node.broker_was_reached() || !Self::has_reader_free(connection));
        if waits {
            connection.wishes.push((wanted, reference));
            return self.waiting.set(true);
        }
        if let Some(member) = permit.member {
            let (id, most) = (connection.session.id(), connection.app.limits.presence_members);
            if self.crowd().join(&wanted.channel, id, member, most).is_err() {
                let message = format!("Presence channel {} has its {most} members already", wanted.channel);
                let refusal = Refusal::new(ErrorCode::LimitExceeded, message);
                return Self::refuse_join(connection, wanted.channel, refusal, reference);
            }
        }
        let overflow = permit.overflow;
        match permit.keeping {
            Keeping::Live => {
                self.sit(key, connection, &wanted.channel, Stand::Live, overflow);
                // Nothing is kept, whatever place in the past is named.
                let recovered = (wanted.since != Since::Now).then_some(Recovered::No(Unrecovered::Expired));
                shown::subscribed("ok");
                self.joined(connection, wanted.channel, None, recovered, reference);
            }
            Keeping::Durable(class) => {
                let seated = self.sit(key, connection, &wanted.channel, Stand::Behind, overflow);
                if wanted.since != Since::Now {
                    self.begin_reader(connection, &seated, class, overflow, &wanted, reference);
                    return self.advance_readers(key, connection, now);
                }
                // Read after the node wants the channel: what follows is delivered here.
                let attached =
                    self.node.broker().attach(&class, &wanted.channel, Since::Now, ReplayLimits::default());
                match attached {
                    Ok(attached) => {
                        let position = attached.position;
                        self.channels.borrow_mut().stand(&wanted.channel, seated.seat, position);
                        shown::subscribed("ok");
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

    fn refuse_join(
        connection: &mut Connection,
        channel: ChannelName,
        refusal: Refusal,
        reference: Option<Reference>,
    ) {
        shown::subscribed(if refusal.code == ErrorCode::LimitExceeded { "limit" } else { "denied" });
        connection.session.handle_answer(Answer::Refused { channel, refusal, reference });
    }

    /// Answers a wish to join, with who is there and how many, and has the client told of what changes from here on.
    pub(super) fn joined(
        &self,
        connection: &mut Connection,
        channel: ChannelName,
        position: Option<Position>,
        recovered: Option<Recovered>,
        reference: Option<Reference>,
    ) {
        let is_pusher = connection.link.form().is_pusher();
        let is_member = ChannelKind::of(&channel).presence
            && self.crowd().member(&channel, connection.session.id()).is_some();
        let members = is_member.then(|| {
            let view = self.crowd().members(&channel);
            self.hear_changes(connection, &channel, view.turn);
            view.what
        });
        let missed = matches!(recovered, Some(Recovered::All { replayed: 0 } | Recovered::No(_)));
        // What is told next is put before what was: the answer, the count, that the cache is empty.
        if is_pusher && missed && ChannelKind::of(&channel).cache {
            self.crowd().tell(&channel, Told::Missed);
            connection.session.handle_told_next(Push::Missed { channel: channel.clone() });
        }
        if !is_member && is_pusher && connection.app.subscription_count && !channel.is_reserved() {
            let View { what: count, turn } = self.crowd().count(&channel);
            self.hear_changes(connection, &channel, turn);
            connection.session.handle_told_next(Push::Counted { channel: channel.clone(), count });
        }
        connection.session.handle_answer(Answer::Joined { channel, position, recovered, members, reference });
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
        let mut left = if connection.session.is_closed() { 0 } else { connection.wishes.len() };
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
    pub(super) fn sit(
        &self,
        key: SessionKey,
        connection: &mut Connection,
        channel: &ChannelName,
        stand: Stand,
        overflow: Overflow,
    ) -> Seated {
        let form = connection.link.form();
        let subscriber = Subscriber { session: key, form, stand, overflow, told_after: UNTOLD };
        let (seat, line, joined) = self.channels.borrow_mut().join(channel, subscriber);
        let seated = Seated { channel: channel.clone(), seat, line };
        connection.seats.reserve_exact(1);
        connection.seats.push(seated.clone());
        self.shown.subscriptions.increment(1);
        if joined == Joined::First {
            self.node.router().interest.add(channel, self.index);
        }
        if is_counted(connection, channel) {
            self.crowd().count_in(channel);
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
        self.unseat(connection, &seated);
    }

    pub(super) fn unseat(&self, connection: &Connection, seated: &Seated) {
        self.shown.subscriptions.decrement(1);
        if ChannelKind::of(&seated.channel).presence {
            self.crowd().leave(&seated.channel, connection.session.id());
        }
        if is_counted(connection, &seated.channel) {
            self.crowd().count_out(&seated.channel);
        }
        if self.channels.borrow_mut().leave(&seated.channel, seated.seat) == Left::Last {
            self.node.router().interest.remove(&seated.channel, self.index);
        }
    }
}

/// Says whether all nodes must know how many subscribers a channel has.
fn is_counted(connection: &Connection, channel: &ChannelName) -> bool {
    !channel.is_reserved() && connection.app.counts()
}
