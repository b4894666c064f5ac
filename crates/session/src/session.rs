//! The state of one conversation.
//!
//! **Lives here:** subscriptions, identity, silence, the end.
//! **Called by:** `node`: `handle_*` with what happened and when, then `next_effect` until there is none, then
//! `next_deadline`.
//! **Must not know:** how effects are carried out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use carillon_model::{ChannelName, CloseReason, ConnectionId, ErrorCode, Refusal};

use crate::{Answer, Command, Effect, Identity, Manners, Push, Reference, Undecoded, Wanted};

/// What a session allows its client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Silence after which the peer is pinged.
    pub heartbeat: Duration,
    /// Silence after a ping before the peer counts as gone.
    pub pong_timeout: Duration,
    /// Largest frame of the client in bytes; told in the welcome, kept by the transport.
    pub frame_max_bytes: usize,
    /// Most channels at once.
    pub channels_max: usize,
}

/// Frames in a row that are no commands before the conversation ends: whoever sends more does not read the answers.
const NONSENSE_MAX: u8 = 100;

/// How a client notices that the server is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// By the transport's own ping, which pages do not see.
    Transport,
    /// By a frame beside it, for pages that watch for one.
    InBand,
    /// By the transport's ping, which this client's transport cannot answer: that it is gone is found by writing.
    OneWay,
}

/// One client's conversation.
#[derive(Debug)]
pub struct Session {
    id: ConnectionId,
    state: State,
    /// Sorted.
    channels: Vec<ChannelName>,
    identity: Option<Box<Identity>>,
    /// What it may say to others; nothing without.
    manners: Option<Box<Manners>>,
    last_heard: Instant,
    heartbeat: Heartbeat,
    /// A ping is out and was not answered yet.
    probing: bool,
    /// Frames in a row that were no commands.
    nonsense: u8,
    effects: VecDeque<Effect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// To be asked to move at this time.
    Leaving {
        at: Instant,
        reason: CloseReason,
        retry_after: Duration,
    },
    Closed,
}

impl Session {
    /// Begins a conversation and greets the client, who may have named channels in its first request.
    #[must_use]
    pub fn open(
        id: ConnectionId,
        identity: Option<Identity>,
        wanted: Vec<Wanted>,
        heartbeat: Heartbeat,
        limits: &Limits,
        now: Instant,
    ) -> Self {
        let mut session = Self {
            id,
            state: State::Open,
            channels: Vec::new(),
            identity: identity.map(Box::new),
            manners: None,
            last_heard: now,
            heartbeat,
            probing: false,
            nonsense: 0,
            effects: VecDeque::new(),
        };
        session.say(Push::Welcome {
            connection: id,
            ping: limits.heartbeat,
            frame_bytes: limits.frame_max_bytes,
            channels: limits.channels_max,
            expires: session.identity().and_then(|identity| identity.expiry).map(|expiry| expiry.time),
        });
        session.subscribe(wanted, None, limits);
        session
    }

    /// Sets what the client may say to others, and by when it must have shown who it is.
    pub fn set_manners(&mut self, manners: Manners) {
        self.manners = Some(Box::new(manners));
    }

    /// Returns this connection's id.
    #[must_use]
    pub const fn id(&self) -> ConnectionId {
        self.id
    }

    /// Returns who the client is, once it showed a token.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_deref()
    }

    /// Returns the channels that are joined, sorted.
    #[must_use]
    pub fn channels(&self) -> &[ChannelName] {
        &self.channels
    }

    /// Says whether the conversation is over.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Takes one frame of the client.
    pub fn handle_command(
        &mut self,
        command: Result<Command, Box<Undecoded>>,
        limits: &Limits,
        now: Instant,
    ) {
        self.handle_heard(now);
        if self.is_closed() {
            return;
        }
        self.nonsense = if command.is_ok() { 0 } else { self.nonsense.saturating_add(1) };
        match command {
            Ok(Command::Subscribe { channels, reference }) => self.subscribe(channels, reference, limits),
            Ok(Command::Unsubscribe { channels, reference }) => self.unsubscribe(channels, reference),
            Ok(Command::Authenticate { token, reference }) => {
                self.effects.push_back(Effect::Verify { token, reference });
            }
            Ok(Command::SignIn(sign_in)) => self.effects.push_back(Effect::SignIn(sign_in)),
            Ok(Command::Publish(outgoing)) => {
                let allowed = match &mut self.manners {
                    Some(manners) => manners.handle_event(&outgoing, now),
                    None => Err(Manners::none()),
                };
                match allowed {
                    Ok(()) => self.effects.push_back(Effect::Publish(outgoing)),
                    Err(refusal) => {
                        self.say(Push::Error { refusal, channel: None, reference: outgoing.reference });
                    }
                }
            }
            Ok(Command::Members { channel, reference }) => self.members(channel, reference),
            Ok(Command::Ping { reference }) => self.say(Push::Pong { reference }),
            Ok(Command::Pong) => {}
            Err(undecoded) => {
                let Undecoded { refusal, channel, reference } = *undecoded;
                self.say(Push::Error { refusal, channel, reference });
                if self.nonsense >= NONSENSE_MAX {
                    self.end(CloseReason::ProtocolError, None);
                }
            }
        }
    }

    /// Learns that the peer is alive: a frame, a pong, any byte.
    pub const fn handle_heard(&mut self, now: Instant) {
        self.last_heard = now;
        self.probing = false;
    }

    /// Takes the node's answer to an effect.
    pub fn handle_answer(&mut self, answer: Answer) {
        if self.is_closed() {
            return;
        }
        match answer {
            // The client may have left while its past was read.
            Answer::Joined { channel, .. } if self.channels.binary_search(&channel).is_err() => {}
            Answer::Joined { channel, position, recovered, members, reference } => {
                if let Some(manners) = &mut self.manners {
                    manners.handle_joined(&channel);
                }
                self.say_next(Push::Subscribed { channel, position, recovered, members, reference });
            }
            Answer::Refused { channel, refusal, reference } => {
                if let Ok(place) = self.channels.binary_search(&channel) {
                    self.channels.remove(place);
                }
                self.say_next(Push::Error { refusal, channel: Some(channel.to_string()), reference });
            }
            Answer::Verified { identity, reference } => {
                if self.identity().is_some_and(|known| known.user != identity.user) {
                    let message = "the token is another user's; open a connection of its own for it";
                    let refusal = Refusal::new(ErrorCode::Forbidden, message);
                    return self.say(Push::Error { refusal, channel: None, reference });
                }
                let expires = identity.expiry.map(|expiry| expiry.time);
                self.say(Push::Authenticated { expires, reference });
                self.identity = Some(Box::new(identity));
            }
            Answer::SignedIn { identity, user_data } => {
                if self.identity().is_some_and(|known| known.user != identity.user) {
                    let refusal = Refusal::new(
                        ErrorCode::Unauthorized,
                        "Connection is signed in as another user already; open a connection of its own for this one",
                    );
                    return self.say(Push::Error { refusal, channel: None, reference: None });
                }
                if let Some(manners) = &mut self.manners {
                    manners.handle_signed_in();
                }
                self.identity = Some(Box::new(identity));
                self.say_next(Push::SignedIn { user_data });
            }
            Answer::Rejected { refusal, reference } => {
                self.say(Push::Error { refusal, channel: None, reference });
            }
        }
    }

    /// Acts on a deadline that passed.
    pub fn handle_timeout(&mut self, limits: &Limits, now: Instant) {
        if self.is_closed() {
            return;
        }
        if let State::Leaving { at, reason, retry_after } = self.state
            && at <= now
        {
            return self.end(reason, Some(retry_after));
        }
        if self.expires_at().is_some_and(|at| at <= now) {
            return self.end(CloseReason::TokenExpired, Some(Duration::from_secs(1)));
        }
        if self.authorize_by().is_some_and(|by| by <= now) {
            return self.end(CloseReason::NotAuthorized, None);
        }
        let silence = now.saturating_duration_since(self.last_heard);
        let answers = self.heartbeat != Heartbeat::OneWay;
        if answers && silence >= limits.heartbeat.saturating_add(limits.pong_timeout) {
            return self.end(CloseReason::IdleTimeout, None);
        }
        if silence >= limits.heartbeat && !self.probing {
            self.probing = true;
            self.effects.push_back(Effect::ProbePeer);
            match self.heartbeat {
                Heartbeat::Transport => {}
                Heartbeat::InBand => self.say(Push::Ping),
                Heartbeat::OneWay => self.handle_heard(now),
            }
        }
    }

    /// Tells the client that a channel of its first request cannot be had.
    pub fn handle_unusable(&mut self, channel: String, refusal: Refusal) {
        if !self.is_closed() {
            self.say(Push::Error { refusal, channel: Some(channel), reference: None });
        }
    }

    /// Tells the client something that the node knows.
    pub fn handle_told(&mut self, push: Push) {
        if !self.is_closed() {
            self.say(push);
        }
    }

    /// Tells the client something right after the answer that comes next.
    pub fn handle_told_next(&mut self, push: Push) {
        if !self.is_closed() {
            self.say_next(push);
        }
    }

    /// Takes a channel from the client that its present token does not cover.
    pub fn handle_revoked(&mut self, channel: ChannelName, refusal: Refusal) {
        if let Ok(place) = self.channels.binary_search(&channel)
            && !self.is_closed()
        {
            self.channels.remove(place);
            self.effects.push_back(Effect::Leave(channel.clone()));
            self.say(Push::Unsubscribed { channel, refusal: Some(refusal), reference: None });
        }
    }

    /// Learns that the client must be asked to move at `at`, and to come back after `retry_after`. Whatever it learns
    /// later, it does not ask later.
    pub fn handle_leave(&mut self, reason: CloseReason, at: Instant, retry_after: Duration) {
        let sooner = match self.state {
            State::Open => true,
            State::Leaving { at: known, .. } => at < known,
            State::Closed => false,
        };
        if sooner {
            self.state = State::Leaving { at, reason, retry_after };
        }
    }

    /// Ends the conversation for a reason that the session itself cannot see.
    pub fn handle_close(&mut self, reason: CloseReason, retry_after: Option<Duration>) {
        if !self.is_closed() {
            self.end(reason, retry_after);
        }
    }

    /// Returns how much is to be done.
    #[must_use]
    pub fn decided(&self) -> usize {
        self.effects.len()
    }

    /// Returns what to do next.
    pub fn next_effect(&mut self) -> Option<Effect> {
        let effect = self.effects.pop_front();
        if self.effects.is_empty() && self.effects.capacity() > 0 {
            // An idle session keeps no queue.
            self.effects = VecDeque::new();
        }
        effect
    }

    /// Returns when to call [`Self::handle_timeout`] next.
    #[must_use]
    pub fn next_deadline(&self, limits: &Limits) -> Option<Instant> {
        let silence = if self.probing {
            limits.heartbeat.saturating_add(limits.pong_timeout)
        } else {
            limits.heartbeat
        };
        let leave = match self.state {
            State::Open => None,
            State::Leaving { at, .. } => Some(at),
            State::Closed => return None,
        };
        let quiet = self.last_heard.checked_add(silence);
        [quiet, leave, self.expires_at(), self.authorize_by()].into_iter().flatten().min()
    }

    fn expires_at(&self) -> Option<Instant> {
        Some(self.identity()?.expiry?.at)
    }

    fn authorize_by(&self) -> Option<Instant> {
        self.manners.as_ref()?.authorize_by()
    }

    fn members(&mut self, channel: ChannelName, reference: Option<Reference>) {
        if self.channels.binary_search(&channel).is_ok() {
            return self.effects.push_back(Effect::Members { channel, reference });
        }
        let refusal = Refusal::new(ErrorCode::Forbidden, "subscribe to the channel with `presence` first");
        self.say(Push::Error { refusal, channel: Some(channel.to_string()), reference });
    }

    fn subscribe(&mut self, wanted: Vec<Wanted>, reference: Option<Reference>, limits: &Limits) {
        for wanted in wanted {
            let refusal = match self.channels.binary_search(&wanted.channel) {
                Ok(_) => {
                    Refusal::new(ErrorCode::AlreadySubscribed, "this connection has the channel already")
                }
                Err(_) if self.channels.len() >= limits.channels_max => {
                    let message = format!(
                        "a connection has at most {} channels; unsubscribe from one first",
                        limits.channels_max
                    );
                    Refusal::new(ErrorCode::LimitExceeded, message)
                }
                Err(place) => {
                    self.channels.reserve_exact(1);
                    self.channels.insert(place, wanted.channel.clone());
                    self.effects.push_back(Effect::Join { wanted, reference });
                    continue;
                }
            };
            self.say(Push::Error { refusal, channel: Some(wanted.channel.to_string()), reference });
        }
    }

    fn unsubscribe(&mut self, channels: Vec<ChannelName>, reference: Option<Reference>) {
        for channel in channels {
            if let Ok(place) = self.channels.binary_search(&channel) {
                self.channels.remove(place);
                if let Some(manners) = &mut self.manners {
                    manners.handle_left(&channel);
                }
                self.effects.push_back(Effect::Leave(channel.clone()));
                self.say(Push::Unsubscribed { channel, refusal: None, reference });
            } else {
                self.say(Push::NotSubscribed { channel, reference });
            }
        }
    }

    fn say(&mut self, push: Push) {
        self.effects.push_back(Effect::Say(push));
    }

    /// Says something in the place of the question that was just carried out: answers stand in the order of what
    /// the client named.
    fn say_next(&mut self, push: Push) {
        self.effects.push_front(Effect::Say(push));
    }

    fn end(&mut self, reason: CloseReason, retry_after: Option<Duration>) {
        self.say(Push::Goodbye { reason, retry_after });
        self.effects.push_back(Effect::Close(reason));
        self.state = State::Closed;
    }
}

#[cfg(test)]
mod tests;
