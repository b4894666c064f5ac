//! What clients say to each other and of themselves.
//!
//! **Lives here:** signing in, the users that one watches, events of clients on their way to the broker.
//! **Called by:** the worker, for a session's effects.
//! **Must not know:** how events are spelled, who receives them.

use std::{rc::Rc, time::Duration};

use carillon_auth::{socket_id, user_text};
use carillon_hub::{SessionKey, Stand};
use carillon_model::{
    ChannelKind, ChannelName, ConnectionId, DataKind, ErrorCode, IdKind, Member, NewMessage, Overflow,
    Refusal, UnixMillis, UserId,
};
use carillon_session::{Answer, Identity, Outgoing, Push, SignIn};
use carillon_tasks::clock;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::{connection::Connection, tell::Told, worker::Worker};

/// In which time an event of a client's is with the broker, or is refused.
const TIME_TO_SEND: Duration = Duration::from_secs(2);

/// Events of one client that wait to be sent. Past that it is told that it is too fast.
const WAITING_MAX: usize = 64;

impl Worker {
    /// Checks a sign-in, and tells the client who of those that it watches is there.
    pub(super) fn sign_in(&self, key: SessionKey, connection: &mut Connection, sign_in: SignIn) {
        let id = connection.session.id();
        let signed = user_text(&socket_id(id), &sign_in.user_data);
        if let Err(refusal) = self.node.check_signature(&connection.app, &sign_in.auth, &signed) {
            let answer = Answer::Rejected { refusal, reference: None };
            return connection.session.handle_answer(answer);
        }
        let SignIn { user, info, user_data, watchlist, .. } = sign_in;
        let most = connection.app.limits.presence_member_bytes;
        if info.as_ref().is_some_and(|info| info.len() > most) {
            let message = format!("Invalid user_data: user_info has more than {most} bytes");
            let refusal = Refusal::new(ErrorCode::Unauthorized, message);
            return connection.session.handle_answer(Answer::Rejected { refusal, reference: None });
        }
        let known = connection.session.identity().is_some();
        let identity =
            Identity { user: user.clone(), info, grants: std::iter::empty().collect(), expiry: None };
        connection.session.handle_answer(Answer::SignedIn { identity, user_data });
        let is_this = connection.session.identity().is_some_and(|identity| identity.user == user);
        if !connection.app.watchlist || !is_this {
            return;
        }
        if !known && let Some(channel) = online(connection, &user) {
            let member = Member { user, kind: IdKind::Text, info: None };
            let _always_room = self.crowd().join(&channel, id, member, usize::MAX).is_ok();
        }
        self.watch(key, connection, &watchlist);
    }

    fn watch(&self, key: SessionKey, connection: &mut Connection, watchlist: &[UserId]) {
        let most = connection.app.limits.watchlist;
        let (mut there, mut away) = (Vec::new(), Vec::new());
        for user in watchlist.iter().take(most) {
            let Some(channel) = online(connection, user) else { continue };
            if !connection.seats.iter().any(|seated| seated.channel == channel) {
                self.sit(key, connection, &channel, Stand::Live, Overflow::Close);
            }
            let here = self.crowd().is_here(&channel, user);
            self.hear_changes(connection, &channel, here.turn);
            if here.what { &mut there } else { &mut away }.push(user.clone());
        }
        if !there.is_empty() || !away.is_empty() {
            connection.session.handle_told(Push::Watched { online: there, offline: away });
        }
        if watchlist.len() > most {
            let message = format!("Watchlist limit exceeded: the first {most} users are watched");
            let refusal = Refusal::new(ErrorCode::LimitExceeded, message);
            connection.session.handle_told(Push::Error { refusal, channel: None, reference: None });
        }
    }

    /// Takes a connection off the list of those who are signed in.
    pub(super) fn sign_out(&self, connection: &Connection) {
        if connection.app.watchlist
            && let Some(identity) = connection.session.identity()
            && let Some(channel) = online(connection, &identity.user)
        {
            self.crowd().leave(&channel, connection.session.id());
        }
    }

    /// Queues an event of a client's for the others.
    pub(super) fn send(&self, key: SessionKey, connection: &mut Connection, outgoing: Outgoing) {
        let id = connection.session.id();
        if connection.speech.as_ref().is_some_and(|speech| speech.waiting.len() >= WAITING_MAX) {
            let message = "Client event rejected - events are sent faster than they can be passed on";
            let refusal = Refusal::new(ErrorCode::RateLimited, message);
            let reference = outgoing.reference;
            return connection.session.handle_told(Push::Error { refusal, channel: None, reference });
        }
        let presence = ChannelKind::of(&outgoing.channel).presence;
        let user = if presence { self.crowd().member(&outgoing.channel, id) } else { None };
        if presence && user.is_none() {
            let message = format!("Client event rejected - you are not a member of {}", outgoing.channel);
            let refusal = Refusal::new(ErrorCode::Forbidden, message);
            let reference = outgoing.reference;
            return connection.session.handle_told(Push::Error { refusal, channel: None, reference });
        }
        let message = NewMessage {
            channel: outgoing.channel,
            event: Some(outgoing.event),
            data: outgoing.data,
            kind: DataKind::Json,
            time: UnixMillis::new(u64::try_from(clock::since_1970().as_millis()).unwrap_or(u64::MAX)),
            user: user.map(|member| member.user),
            exclude: Box::new([id]),
            id: None,
        };
        let is_first = connection.speech.is_none();
        connection.speech.get_or_insert_default().waiting.push_back(message);
        if is_first {
            self.speakers.borrow_mut().push((key, id));
            self.spoken.notify_one();
        }
    }

    /// Sends what clients say, for as long as the worker lives: the events of one client in their order.
    pub(super) async fn speeches(self: Rc<Self>) {
        let mut open = FuturesUnordered::new();
        loop {
            for (key, id) in self.speakers.take() {
                open.push(Rc::clone(&self).send_all(key, id));
            }
            tokio::select! {
                () = self.spoken.notified() => {}
                Some(()) = open.next() => {}
            }
        }
    }

    /// Hands a client's events to the broker, one after the other.
    async fn send_all(self: Rc<Self>, key: SessionKey, id: ConnectionId) {
        loop {
            let message = {
                let mut connections = self.connections.borrow_mut();
                let connection = connections.get_mut(key.get()).filter(|one| one.session.id() == id);
                let Some(connection) = connection else { return };
                let Some(message) = connection.speech.as_mut().and_then(|speech| speech.waiting.pop_front())
                else {
                    connection.speech = None;
                    return;
                };
                message
            };
            let now = clock::now();
            let deadline = now.checked_add(TIME_TO_SEND).unwrap_or(now);
            let told = message.event.clone().map(|event| Told::Sent {
                event,
                data: message.data.clone(),
                connection: id,
                user: message.user.clone(),
            });
            let channel = message.channel.clone();
            match self.node.publish_of_client(message, deadline).await {
                Ok(_receipt) => {
                    if let Some(told) = told {
                        self.crowd().tell(&channel, told);
                    }
                }
                Err(refusal) => self.refuse_event(key, id, refusal),
            }
        }
    }

    fn refuse_event(&self, key: SessionKey, id: ConnectionId, refusal: Refusal) {
        {
            let mut connections = self.connections.borrow_mut();
            let connection = connections.get_mut(key.get()).filter(|one| one.session.id() == id);
            let Some(connection) = connection else { return };
            connection.session.handle_told(Push::Error { refusal, channel: None, reference: None });
        }
        self.carry_out(key, clock::now());
    }
}

/// Names the channel that tells whether a user is online.
fn online(connection: &Connection, user: &UserId) -> Option<ChannelName> {
    ChannelName::of_online(user).ok().map(|channel| channel.within(&connection.app.space))
}
