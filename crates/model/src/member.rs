//! Who is in a presence channel.
//!
//! **Lives here:** a member as the application describes it.
//! **Called by:** dialects read members and write them; `presence` keeps them.
//! **Must not know:** connections, nodes.

use bytes::Bytes;

use crate::UserId;

/// A user in a presence channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Who. Two with the same id are one member.
    pub user: UserId,
    /// How the application writes the id.
    pub kind: IdKind,
    /// What it says of the user: one JSON text without line breaks.
    pub info: Option<Bytes>,
}

/// How an application writes a user's id in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdKind {
    /// As a string.
    Text,
    /// As a number: it is written as the id stands.
    Number,
}
