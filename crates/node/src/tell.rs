//! What the application may be told of.
//!
//! **Lives here:** the seam to webhooks.
//! **Called by:** the crowd and the workers; implemented by `gateway`.
//! **Must not know:** HTTP, who wants to be told what.

use std::fmt;

use bytes::Bytes;
use carillon_model::{ChannelName, ConnectionId, EventName, Member, UserId};

/// Takes word of what happens on channels.
pub trait Tell: Send + Sync + fmt::Debug {
    /// Takes one. Must return without waiting. Words with the same key are the same word, whichever node says it.
    fn tell(&self, channel: &ChannelName, told: Told, key: Option<String>);
}

/// What happened on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has its first subscriber.
    Occupied,
    /// It has lost its last.
    Vacated,
    /// A user has come.
    Came(Member),
    /// A user has left.
    Went(Member),
    /// Its number of subscribers has changed.
    Counted(u64),
    /// A client has sent an event.
    Sent {
        /// Which.
        event: EventName,
        /// One JSON text.
        data: Bytes,
        /// From where.
        connection: ConnectionId,
        /// Who, on a presence channel.
        user: Option<UserId>,
    },
    /// Somebody joined it, and its cache was empty.
    Missed,
}
