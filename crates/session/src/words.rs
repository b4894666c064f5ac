//! What a client can ask, what it can be told, and what a session asks of its node.
//!
//! **Lives here:** the words between dialects, sessions and the node.
//! **Called by:** dialects decode commands and encode pushes; `node` carries out effects and answers them.
//! **Must not know:** how any of it is spelled on a wire.

use std::time::Duration;

use carillon_model::{
    ChannelName, CloseReason, ConnectionId, Position, Refusal, Since, UnixMillis, Unrecovered,
};

use crate::Identity;

/// A number that the client chose to recognise the answer by.
pub type Reference = i64;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Join channels.
    Subscribe {
        /// Which, in the order they were named.
        channels: Vec<Wanted>,
        /// Echoed in every answer.
        reference: Option<Reference>,
    },
    /// Leave channels.
    Unsubscribe {
        /// Which.
        channels: Vec<ChannelName>,
        /// Echoed in every answer.
        reference: Option<Reference>,
    },
    /// Show a token.
    Authenticate {
        /// The token as it was sent.
        token: String,
        /// Echoed in the answer.
        reference: Option<Reference>,
    },
    /// Ask for a sign of life.
    Ping {
        /// Echoed in the answer.
        reference: Option<Reference>,
    },
}

/// One channel that a client wants to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub channel: ChannelName,
    /// From where on.
    pub since: Since,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// The conversation begins.
    Welcome {
        /// This connection.
        connection: ConnectionId,
        /// Silence after which the client is pinged.
        ping: Duration,
        /// Largest frame that the client may send, in bytes.
        frame_bytes: usize,
        /// Most channels that the connection may hold.
        channels: usize,
        /// When the token ends.
        expires: Option<UnixMillis>,
    },
    /// A channel was joined: what follows its position is sent.
    Subscribed {
        /// Which.
        channel: ChannelName,
        /// Where the client stands before anything that is replayed; `None` on a channel without history.
        position: Option<Position>,
        /// Whether what was missed comes, when the client asked for that.
        recovered: Option<Recovered>,
        /// Echo.
        reference: Option<Reference>,
    },
    /// A channel was left.
    Unsubscribed {
        /// Which.
        channel: ChannelName,
        /// Why, when the client did not ask for it.
        refusal: Option<Refusal>,
        /// Echo.
        reference: Option<Reference>,
    },
    /// A token was accepted.
    Authenticated {
        /// When it ends.
        expires: Option<UnixMillis>,
        /// Echo.
        reference: Option<Reference>,
    },
    /// A channel lost messages that cannot be brought back.
    Gap {
        /// Which.
        channel: ChannelName,
        /// Where it goes on; `None` on a channel without history.
        position: Option<Position>,
    },
    /// A request was refused.
    Error {
        /// Why.
        refusal: Refusal,
        /// The channel that it was about, as the client spelled it.
        channel: Option<String>,
        /// Echo.
        reference: Option<Reference>,
    },
    /// A sign of life, for pages that cannot see protocol pings.
    Ping,
    /// The answer to a ping of the client's.
    Pong {
        /// Echo.
        reference: Option<Reference>,
    },
    /// The conversation ends; a close follows.
    Goodbye {
        /// Why.
        reason: CloseReason,
        /// When to come back, if at all.
        retry_after: Option<Duration>,
    },
}

/// What became of a client's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// Everything that was missed follows: exactly this many messages, before any other of the channel.
    All {
        /// How many.
        replayed: u32,
    },
    /// It cannot be brought; the application reloads its state.
    No(Unrecovered),
}

/// What a session asks of its node.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Tell the client.
    Say(Push),
    /// Attach this connection to a channel, then answer [`Answer::Joined`] or [`Answer::Refused`].
    Join {
        /// Which.
        wanted: Wanted,
        /// For the answer.
        reference: Option<Reference>,
    },
    /// Detach this connection from a channel.
    Leave(ChannelName),
    /// Check a token, then answer [`Answer::Verified`] or [`Answer::Rejected`].
    Verify {
        /// The token as it was sent.
        token: String,
        /// For the answer.
        reference: Option<Reference>,
    },
    /// Send the transport's own ping.
    ProbePeer,
    /// Send what is queued, then close.
    Close(CloseReason),
}

/// What the node answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The connection is attached.
    Joined {
        /// To what.
        channel: ChannelName,
        /// Where it stands before anything that is replayed; `None` on a channel without history.
        position: Option<Position>,
        /// Whether what was missed comes, when that was wanted.
        recovered: Option<Recovered>,
        /// From the question.
        reference: Option<Reference>,
    },
    /// The connection was not attached.
    Refused {
        /// To what.
        channel: ChannelName,
        /// Why.
        refusal: Refusal,
        /// From the question.
        reference: Option<Reference>,
    },
    /// The token is good.
    Verified {
        /// What it says.
        identity: Identity,
        /// From the question.
        reference: Option<Reference>,
    },
    /// The token is not good.
    Rejected {
        /// Why.
        refusal: Refusal,
        /// From the question.
        reference: Option<Reference>,
    },
}
