//! The Pusher Channels protocol, versions 5 to 7, as pusher-js and its sisters read and write it.
//!
//! **Lives here:** the spelling of commands, pushes, publications, connection ids and close codes.
//! **Called by:** transports, through `session`'s `Dialect`; the API for names and ids.
//! **Must not know:** sockets, framing, signatures, what commands lead to.
//!
//! Sources: the protocol's documentation at pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol,
//! and what the official clients read. One rule surprises everybody: `data` is a string in all that a server sends,
//! except in `pusher:error`, where it is an object.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod close;
mod decode;
mod encode;
mod name;

use carillon_model::Publication;
use carillon_session::{Command, Dialect, Push, Undecoded};

pub use close::{Protocol, Refused, close, refused, unknown_app};
pub use encode::{error, line};
pub use name::{BadName, channel, spell};

/// The dialect, as one kind of client and one application want it.
#[derive(Clone, Copy, Debug)]
pub struct Pusher {
    /// An end is told in a frame before the close: clients of protocol 5 and older read no close codes.
    pub old: bool,
    /// A refused subscription is told as an event of the channel, too.
    pub subscription_errors: bool,
}

impl Pusher {
    /// Returns the dialect for a client.
    #[must_use]
    pub const fn of(protocol: Protocol, subscription_errors: bool) -> &'static Self {
        match (protocol, subscription_errors) {
            (Protocol::Old, true) => &Self { old: true, subscription_errors: true },
            (Protocol::Old, false) => &Self { old: true, subscription_errors: false },
            (Protocol::Present, true) => &Self { old: false, subscription_errors: true },
            (Protocol::Present, false) => &Self { old: false, subscription_errors: false },
        }
    }
}

impl Dialect for Pusher {
    fn decode(&self, frame: &str) -> Result<Command, Box<Undecoded>> {
        decode::command(frame)
    }

    fn push(&self, push: &Push) -> String {
        encode::push(push, self)
    }

    fn publication(&self, publication: &Publication) -> String {
        encode::publication(publication)
    }
}
