//! What travels: a message before and after the broker has it.
//!
//! **Lives here:** the shapes and how long a channel keeps them.
//! **Called by:** `api` makes messages, brokers make publications, dialects write them.
//! **Must not know:** encodings.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    BadText, ChannelName, ConnectionId, EventName, Frames, IdempotencyKey, Position, UnixMillis, UserId,
};

/// A message that was accepted and is on its way to the broker.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Where to.
    pub channel: ChannelName,
    /// The event's name, if the publisher gave one.
    pub event: Option<EventName>,
    /// One JSON text without line breaks.
    pub data: Bytes,
    /// What the data stands for.
    pub kind: DataKind,
    /// When it was accepted.
    pub time: UnixMillis,
    /// The publishing user, when a client published it.
    pub user: Option<UserId>,
    /// Connections that must not receive it.
    pub exclude: Box<[ConnectionId]>,
    /// The publisher's idempotency key.
    pub id: Option<IdempotencyKey>,
}

impl NewMessage {
    /// Returns how many bytes the publisher's data has: of a text, those of the text itself.
    #[must_use]
    pub fn data_bytes(&self) -> usize {
        match self.kind {
            DataKind::Json => self.data.len(),
            DataKind::Text => text_bytes(&self.data),
        }
    }
}

/// Counts the bytes of what a JSON text is as plain text: of a string, those of the text that it stands for.
#[must_use]
pub fn text_bytes(json: &[u8]) -> usize {
    let [b'"', text @ .., b'"'] = json else { return json.len() };
    let mut rest = text;
    let mut bytes = 0_usize;
    while let [first, after @ ..] = rest {
        let (taken, stands_for) = match (first, after) {
            // One of a surrogate pair stands for half of four bytes; other characters for what UTF-8 gives them.
            (b'\\', [b'u', digits @ ..]) => (6, unicode_bytes(digits.get(..4).unwrap_or_default())),
            (b'\\', _) => (2, 1),
            _ => (1, 1),
        };
        bytes = bytes.saturating_add(stands_for);
        rest = rest.get(taken..).unwrap_or_default();
    }
    bytes
}

fn unicode_bytes(digits: &[u8]) -> usize {
    let code = std::str::from_utf8(digits).ok().and_then(|digits| u16::from_str_radix(digits, 16).ok());
    match code.unwrap_or_default() {
        0..=0x7f => 1,
        0x80..=0x7ff | 0xd800..=0xdfff => 2,
        _ => 3,
    }
}

/// What the data of a message stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DataKind {
    /// Itself: a JSON value.
    #[default]
    Json,
    /// The text that is written as this JSON string, byte for byte. The text is often JSON itself: publishers of the
    /// Pusher protocol send all data so.
    Text,
}

/// One immutable message of a channel.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The message as it was accepted.
    pub message: NewMessage,
    /// Its place in the channel's stream; `None` on a channel without history.
    pub position: Option<Position>,
    /// Its frames, as far as somebody wanted them: whoever comes back later is sent the same bytes.
    pub frames: Frames,
}

impl Publication {
    /// Makes a publication whose frames nobody wanted yet.
    #[must_use]
    pub fn new(message: NewMessage, position: Option<Position>) -> Self {
        Self { message, position, frames: Frames::default() }
    }
}

/// How long the broker keeps a channel's publications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Not at all: handed to those who listen, at most once.
    Live,
    /// As the named class says, and recoverable while it does.
    Durable(ClassName),
}

/// The name of a retention class: 1 to 32 characters of `[a-z0-9-]`. Part of stream names on the broker.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClassName(Arc<str>);

impl ClassName {
    /// Checks `text` and takes it as a class's name.
    ///
    /// # Errors
    /// [`BadText`] when it is empty, too long, or holds another character.
    pub fn new(text: &str) -> Result<Self, BadText> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 32 || !text.bytes().all(legal) {
            return Err(BadText {
                what: "a history class",
                rule: "has 1 to 32 characters of a-z, 0-9 and `-`",
            });
        }
        Ok(Self(Arc::from(text)))
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// How long and how many: a class of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionClass {
    /// What channel rules call it.
    pub name: ClassName,
    /// Publications older than this are dropped.
    pub max_age: Duration,
    /// At most this many publications are kept of a channel.
    pub max_messages: u32,
    /// At most this many bytes are kept of one shard.
    pub max_bytes: u64,
}
