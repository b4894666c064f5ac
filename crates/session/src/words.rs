//! What a client can ask, what it can be told, and what a session asks of its node.
//!
//! **Lives here:** the words between dialects, sessions and the node.
//! **Called by:** dialects decode commands and encode pushes; `node` carries out effects and answers them.
//! **Must not know:** how any of it is spelled on a wire.

use std::time::Duration;

use bytes::Bytes;
use carillon_model::{
    AppSpace, ChannelName, CloseReason, ConnectionId, EventName, Member, Position, Refusal, Since,
    UnixMillis, Unrecovered, UserId,
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
    /// Sign in as a user, with the application's signature.
    SignIn(Box<SignIn>),
    /// Send an event to the others on a channel.
    Publish(Box<Outgoing>),
    /// Ask who is in a presence channel.
    Members {
        /// Which.
        channel: ChannelName,
        /// Echoed in the answer.
        reference: Option<Reference>,
    },
    /// Ask for a sign of life.
    Ping {
        /// Echoed in the answer.
        reference: Option<Reference>,
    },
    /// Give one.
    Pong,
}

impl Command {
    /// Moves the channels that are named into the application `space`.
    #[must_use]
    pub fn within(mut self, space: &AppSpace) -> Self {
        if space.as_str().is_empty() {
            return self;
        }
        match &mut self {
            Self::Subscribe { channels, .. } => {
                channels.iter_mut().for_each(|wanted| wanted.channel = wanted.channel.within(space));
            }
            Self::Unsubscribe { channels, .. } => {
                channels.iter_mut().for_each(|channel| *channel = channel.within(space));
            }
            Self::Publish(outgoing) => outgoing.channel = outgoing.channel.within(space),
            Self::Members { channel, .. } => *channel = channel.within(space),
            Self::Authenticate { .. } | Self::SignIn(_) | Self::Ping { .. } | Self::Pong => {}
        }
        self
    }
}

/// What a client signs in with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// The application's signature.
    pub auth: String,
    /// What it was made over, as it was sent.
    pub user_data: String,
    /// Who, as that says.
    pub user: UserId,
    /// What it says of the user: one JSON text.
    pub info: Option<Bytes>,
    /// Whom the user watches.
    pub watchlist: Vec<UserId>,
}

/// An event of a client's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Where to.
    pub channel: ChannelName,
    /// The event's name.
    pub event: EventName,
    /// One JSON text without line breaks.
    pub data: Bytes,
    /// Echoed in the answer.
    pub reference: Option<Reference>,
}

/// One channel that a client wants to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub channel: ChannelName,
    /// From where on.
    pub since: Since,
    /// Whether the client wants to be among the channel's members.
    pub presence: bool,
    /// The application's permission, where the client brought one.
    pub proof: Option<Box<Proof>>,
}

impl Wanted {
    /// Wants a channel as most do: from `since` on, without being a member, without a permission of its own.
    #[must_use]
    pub const fn new(channel: ChannelName, since: Since) -> Self {
        Self { channel, since, presence: false, proof: None }
    }
}

/// An application's permission to join one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The signature.
    pub auth: String,
    /// What it was made over beside the connection and the channel, as it was sent.
    pub data: Option<String>,
    /// Who joins, as that says.
    pub member: Option<Member>,
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
        /// Who is there, the client among them, when it wanted to be a member.
        members: Option<Vec<Member>>,
        /// Echo.
        reference: Option<Reference>,
    },
    /// A user has come to a presence channel.
    Came {
        /// Which.
        channel: ChannelName,
        /// Who.
        member: Member,
    },
    /// A user has left a presence channel.
    Went {
        /// Which.
        channel: ChannelName,
        /// Who.
        member: Member,
    },
    /// The answer to a question for the members.
    Members {
        /// Of which channel.
        channel: ChannelName,
        /// Who is there.
        members: Vec<Member>,
        /// Echo.
        reference: Option<Reference>,
    },
    /// A channel's number of subscribers has changed.
    Counted {
        /// Which.
        channel: ChannelName,
        /// How many there are.
        count: u64,
    },
    /// The cache of a channel is empty.
    Missed {
        /// Which.
        channel: ChannelName,
    },
    /// The client is signed in.
    SignedIn {
        /// What it signed in with, as it was sent.
        user_data: String,
    },
    /// Users whom the client watches are online now, or no longer.
    Watched {
        /// Who is.
        online: Vec<UserId>,
        /// Who is not.
        offline: Vec<UserId>,
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
    /// A channel that the client wanted to leave is not one of its.
    NotSubscribed {
        /// Which.
        channel: ChannelName,
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
    /// Check a sign-in, then answer [`Answer::SignedIn`] or [`Answer::Rejected`].
    SignIn(Box<SignIn>),
    /// Publish an event of the client's.
    Publish(Box<Outgoing>),
    /// Tell the client who is in a channel that it has.
    Members {
        /// Which.
        channel: ChannelName,
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
        /// Who is there, when it joined as a member.
        members: Option<Vec<Member>>,
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
    /// The sign-in is good.
    SignedIn {
        /// Who it is.
        identity: Identity,
        /// From the question.
        user_data: String,
    },
    /// The token or the sign-in is not good.
    Rejected {
        /// Why.
        refusal: Refusal,
        /// From the question.
        reference: Option<Reference>,
    },
}
