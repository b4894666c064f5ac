//! What a client may say to others.
//!
//! **Lives here:** who may send events where and how often, and by when a client must have shown who it is.
//! **Called by:** the session.
//! **Must not know:** signatures, how events are spelled.

use std::time::{Duration, Instant};

use carillon_model::{ChannelKind, ChannelName, ErrorCode, Refusal, text_bytes};

use crate::Outgoing;

/// One client's leave to speak, and how much of it is used.
#[derive(Clone, Debug)]
pub struct Manners {
    client_events: bool,
    /// Bytes of an event's data.
    data_max_bytes: usize,
    per_second: u32,
    /// Events of the second that began at `since`.
    sent: u32,
    since: Instant,
    authorize_by: Option<Instant>,
    /// Guarded channels that the client was told it has; sorted.
    joined: Vec<ChannelName>,
}

impl Manners {
    /// Begins with what the application allows: whether clients may send events, how large and how many in a second;
    /// by when the client must have signed in or joined a guarded channel.
    #[must_use]
    pub const fn new(
        client_events: bool,
        data_max_bytes: usize,
        per_second: u32,
        authorize_by: Option<Instant>,
        now: Instant,
    ) -> Self {
        Self {
            client_events,
            data_max_bytes,
            per_second,
            sent: 0,
            since: now,
            authorize_by,
            joined: Vec::new(),
        }
    }

    /// Returns when the conversation ends unless the client has shown who it is.
    pub(crate) const fn authorize_by(&self) -> Option<Instant> {
        self.authorize_by
    }

    /// Learns that the client has signed in.
    pub(crate) const fn handle_signed_in(&mut self) {
        self.authorize_by = None;
    }

    /// Learns that the client has joined a channel.
    pub(crate) fn handle_joined(&mut self, channel: &ChannelName) {
        if ChannelKind::of(channel).guarded {
            self.authorize_by = None;
            if let Err(place) = self.joined.binary_search(channel) {
                self.joined.insert(place, channel.clone());
            }
        }
    }

    /// Learns that the client has left a channel.
    pub(crate) fn handle_left(&mut self, channel: &ChannelName) {
        if let Ok(place) = self.joined.binary_search(channel) {
            self.joined.remove(place);
        }
    }

    /// Returns what a client is told that may send no events at all.
    pub(crate) fn none() -> Refusal {
        Refusal::new(ErrorCode::NotEnabled, "clients cannot publish here; the application does, over its API")
    }

    /// Takes an event of the client's, if it may be sent. The texts are those that Pusher's clients show.
    pub(crate) fn handle_event(&mut self, outgoing: &Outgoing, now: Instant) -> Result<(), Refusal> {
        let refuse = |code, message: String| Err(Refusal::new(code, message));
        let kind = ChannelKind::of(&outgoing.channel);
        if !self.client_events {
            let message =
                "To send client events, you must enable this feature in the Settings page of your dashboard.";
            return refuse(ErrorCode::NotEnabled, message.to_owned());
        }
        if !kind.guarded || kind.encrypted {
            let message = "Client event rejected - only supported on private and presence channels";
            return refuse(ErrorCode::Forbidden, message.to_owned());
        }
        if self.joined.binary_search(&outgoing.channel).is_err() {
            let message =
                format!("Client event rejected - you must be subscribed to channel {}", outgoing.channel);
            return refuse(ErrorCode::Forbidden, message);
        }
        let bytes = text_bytes(&outgoing.data);
        if bytes > self.data_max_bytes {
            let message = format!(
                "Client event rejected - its data has {bytes} bytes, and at most {} are allowed",
                self.data_max_bytes
            );
            return refuse(ErrorCode::TooLarge, message);
        }
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.sent) = (now, 0);
        }
        if self.sent >= self.per_second {
            let message =
                format!("Client event rejected due to rate limit - at most {} a second", self.per_second);
            return refuse(ErrorCode::RateLimited, message);
        }
        self.sent = self.sent.saturating_add(1);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
