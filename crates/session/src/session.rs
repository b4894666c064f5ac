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

use crate::{Answer, Command, Effect, Identity, Push, Reference, Undecoded, Wanted};

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
            expires: session.identity().map(|identity| identity.expires),
        });
        session.subscribe(wanted, None, limits);
        session
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
            Ok(Command::Ping { reference }) => self.say(Push::Pong { reference }),
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
            Answer::Joined { channel, position, recovered, reference } => {
                self.say_next(Push::Subscribed { channel, position, recovered, reference });
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
                self.say(Push::Authenticated { expires: Some(identity.expires), reference });
                self.identity = Some(Box::new(identity));
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
        if self.identity().is_some_and(|identity| identity.expires_at <= now) {
            return self.end(CloseReason::TokenExpired, Some(Duration::from_secs(1)));
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
        let expiry = self.identity().map(|identity| identity.expires_at);
        let quiet = self.last_heard.checked_add(silence);
        [quiet, leave, expiry].into_iter().flatten().min()
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
                self.effects.push_back(Effect::Leave(channel.clone()));
                self.say(Push::Unsubscribed { channel, refusal: None, reference });
            } else {
                let refusal = Refusal::new(ErrorCode::NotFound, "this connection does not have the channel");
                self.say(Push::Error { refusal, channel: Some(channel.to_string()), reference });
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
