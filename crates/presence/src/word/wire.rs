//! The words as bytes.
//!
//! Protobuf, so that fields can be added: readers ignore those that they do not know.
//!
//! **Lives here:** the fields and their numbers, and what bytes must be to be believed.
//! **Called by:** [`Word::encode`] and [`Word::decode`].
//! **Must not know:** what carries the bytes.

use bytes::Bytes;
use carillon_model::{AppSpace, ChannelName, ConnectionId, UserId};
use prost::Message as _;

use super::{Change, Entry, Place, Standing, Word};
use crate::{Digests, INFO_MAX_BYTES, IdKind, Member, Shard};

/// Longest word in bytes. Those that are written have at most 256 KiB, and one change more.
pub const WORD_MAX_BYTES: usize = 512 * 1024;

/// Numbers are a contract between versions that run side by side: never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Said {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Heartbeat(Heartbeat),
    #[prost(message, tag = "2")]
    Delta(Delta),
    #[prost(message, tag = "3")]
    Ask(Ask),
    #[prost(message, tag = "4")]
    State(State),
    #[prost(message, tag = "5")]
    Bye(Bye),
    #[prost(message, tag = "6")]
    Doubt(Doubt),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Heartbeat {
    #[prost(uint64, tag = "1")]
    sequence: u64,
    /// One for each shard.
    #[prost(fixed64, repeated, tag = "2")]
    digests: Vec<u64>,
    /// 0 is new, 1 has told, 2 is ready.
    #[prost(uint32, tag = "3")]
    standing: u32,
    #[prost(uint32, tag = "4")]
    life: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Delta {
    #[prost(uint64, tag = "1")]
    first: u64,
    #[prost(message, repeated, tag = "2")]
    changes: Vec<Item>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(uint64, tag = "1")]
    ask: u64,
    #[prost(uint32, tag = "2")]
    shard: u32,
    #[prost(message, optional, tag = "3")]
    after: Option<Position>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct State {
    #[prost(uint64, tag = "1")]
    ask: u64,
    #[prost(uint32, tag = "2")]
    shard: u32,
    #[prost(message, optional, tag = "3")]
    after: Option<Position>,
    #[prost(uint64, tag = "4")]
    as_of: u64,
    #[prost(message, repeated, tag = "5")]
    entries: Vec<Item>,
    #[prost(message, optional, tag = "6")]
    next: Option<Position>,
}

/// A [`Place`].
#[derive(Clone, PartialEq, prost::Message)]
struct Position {
    #[prost(uint64, tag = "1")]
    channel: u64,
    #[prost(fixed64, optional, tag = "2")]
    connection: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Doubt {
    #[prost(uint32, tag = "1")]
    life: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Bye {}

/// A change or an entry.
#[derive(Clone, PartialEq, prost::Message)]
struct Item {
    #[prost(enumeration = "What", tag = "1")]
    what: i32,
    /// The channel's application; empty for the first.
    #[prost(string, tag = "2")]
    app: String,
    #[prost(string, tag = "3")]
    channel: String,
    #[prost(fixed64, tag = "4")]
    connection: u64,
    #[prost(string, tag = "5")]
    user: String,
    /// Whether the application wrote the user's id as a number.
    #[prost(bool, tag = "6")]
    numeric: bool,
    /// One JSON text without line breaks.
    #[prost(bytes = "bytes", optional, tag = "7")]
    info: Option<Bytes>,
    #[prost(uint32, tag = "8")]
    subscribers: u32,
    /// Of an entry: the change that made it.
    #[prost(uint64, tag = "9")]
    born: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
enum What {
    None = 0,
    /// A join, or a member.
    Member = 1,
    Leave = 2,
    Count = 3,
}

/// Bytes that are not a word: said by somebody else, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Garbage {
    /// It is too long.
    #[error("it has more than {WORD_MAX_BYTES} bytes")]
    Long,
    /// It is not protobuf, or none of the words.
    #[error("it is not a word")]
    Protobuf,
    /// A number is out of its range.
    #[error("a number in it is out of range")]
    Number,
    /// A name breaks the rules.
    #[error("a channel, application or user in it breaks the rules")]
    Text,
    /// What is said about a member is not JSON.
    #[error("what it says about a member is not one JSON text on one line")]
    Info,
}

pub(super) fn encode(word: &Word) -> Bytes {
    let kind = match word {
        Word::Heartbeat { sequence, digests, standing, life } => Kind::Heartbeat(Heartbeat {
            sequence: *sequence,
            digests: digests.to_vec(),
            standing: match standing {
                Standing::New => 0,
                Standing::Told => 1,
                Standing::Ready => 2,
            },
            life: *life,
        }),
        Word::Delta { first, changes } => {
            Kind::Delta(Delta { first: *first, changes: changes.iter().map(of_change).collect() })
        }
        Word::Ask { ask, shard, after } => {
            Kind::Ask(Ask { ask: *ask, shard: shard.number(), after: after.map(of_place) })
        }
        Word::State { ask, shard, after, as_of, entries, next } => Kind::State(State {
            ask: *ask,
            shard: shard.number(),
            after: after.map(of_place),
            as_of: *as_of,
            entries: entries.iter().map(of_entry).collect(),
            next: next.map(of_place),
        }),
        Word::Bye => Kind::Bye(Bye {}),
        Word::Doubt { life } => Kind::Doubt(Doubt { life: *life }),
    };
    Bytes::from(Said { kind: Some(kind) }.encode_to_vec())
}

fn of_place(place: Place) -> Position {
    Position { channel: place.channel, connection: place.connection.map(ConnectionId::bits) }
}

fn place(position: Position) -> Place {
    Place { channel: position.channel, connection: position.connection.map(ConnectionId::from_bits) }
}

fn item(what: What, channel: &ChannelName) -> Item {
    let (app, channel) = (channel.app().to_owned(), channel.as_str().to_owned());
    Item { what: what.into(), app, channel, ..Item::default() }
}

fn of_member(channel: &ChannelName, connection: ConnectionId, member: &Member, born: u64) -> Item {
    Item {
        connection: connection.bits(),
        user: member.user.as_str().to_owned(),
        numeric: member.kind == IdKind::Number,
        info: member.info.clone(),
        born,
        ..item(What::Member, channel)
    }
}

fn of_change(change: &Change) -> Item {
    match change {
        Change::Join { channel, connection, member } => of_member(channel, *connection, member, 0),
        Change::Leave { channel, connection } => {
            Item { connection: connection.bits(), ..item(What::Leave, channel) }
        }
        Change::Count { channel, subscribers } => {
            Item { subscribers: *subscribers, ..item(What::Count, channel) }
        }
    }
}

fn of_entry(entry: &Entry) -> Item {
    match entry {
        Entry::Member { channel, connection, member, born } => of_member(channel, *connection, member, *born),
        Entry::Count { channel, subscribers, since } => {
            Item { subscribers: *subscribers, born: *since, ..item(What::Count, channel) }
        }
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Word, Garbage> {
    if bytes.len() > WORD_MAX_BYTES {
        return Err(Garbage::Long);
    }
    let said = Said::decode(bytes).map_err(|_e| Garbage::Protobuf)?;
    Ok(match said.kind.ok_or(Garbage::Protobuf)? {
        Kind::Heartbeat(Heartbeat { sequence, digests, standing, life }) => {
            let digests = Digests::try_from(digests).map_err(|_e| Garbage::Number)?;
            let standing = match standing {
                0 => Standing::New,
                1 => Standing::Told,
                2 => Standing::Ready,
                _ => return Err(Garbage::Number),
            };
            Word::Heartbeat { sequence, digests: Box::new(digests), standing, life }
        }
        Kind::Delta(Delta { first, changes }) => {
            let count = u64::try_from(changes.len()).unwrap_or(u64::MAX);
            if first == 0 || first.checked_add(count).is_none() {
                return Err(Garbage::Number);
            }
            Word::Delta { first, changes: changes.into_iter().map(change).collect::<Result<_, _>>()? }
        }
        Kind::Ask(Ask { ask, shard, after }) => {
            let shard = Shard::new(shard).ok_or(Garbage::Number)?;
            Word::Ask { ask, shard, after: after.map(place) }
        }
        Kind::State(State { ask, shard, after, as_of, entries, next }) => {
            let shard = Shard::new(shard).ok_or(Garbage::Number)?;
            let entries = entries.into_iter().map(|item| entry(item, shard)).collect::<Result<_, _>>()?;
            Word::State { ask, shard, after: after.map(place), as_of, entries, next: next.map(place) }
        }
        Kind::Bye(Bye {}) => Word::Bye,
        Kind::Doubt(Doubt { life }) => Word::Doubt { life },
    })
}

fn channel(item: &Item) -> Result<ChannelName, Garbage> {
    let channel = ChannelName::any(&item.channel).map_err(|_e| Garbage::Text)?;
    if item.app.is_empty() {
        return Ok(channel);
    }
    Ok(channel.within(&AppSpace::new(&item.app).map_err(|_e| Garbage::Text)?))
}

fn member(item: Item) -> Result<Member, Garbage> {
    let user = UserId::new(&item.user).map_err(|_e| Garbage::Text)?;
    let kind = if item.numeric { IdKind::Number } else { IdKind::Text };
    if item.info.as_ref().is_some_and(|info| !is_json_line(info)) {
        return Err(Garbage::Info);
    }
    Ok(Member { user, kind, info: item.info })
}

/// What is said about members is put into frames as it is: what is not JSON would break every subscriber's frame.
pub(crate) fn is_json_line(info: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(info) else { return false };
    info.len() <= INFO_MAX_BYTES
        && !info.iter().any(|b| matches!(b, b'\n' | b'\r'))
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

fn change(item: Item) -> Result<Change, Garbage> {
    let channel = channel(&item)?;
    let connection = ConnectionId::from_bits(item.connection);
    match item.what() {
        What::None => Err(Garbage::Number),
        What::Member => Ok(Change::Join { channel, connection, member: member(item)? }),
        What::Leave => Ok(Change::Leave { channel, connection }),
        What::Count => Ok(Change::Count { channel, subscribers: item.subscribers }),
    }
}

fn entry(item: Item, shard: Shard) -> Result<Entry, Garbage> {
    let channel = channel(&item)?;
    if Shard::of(&channel) != shard {
        return Err(Garbage::Number);
    }
    let (connection, born) = (ConnectionId::from_bits(item.connection), item.born);
    match item.what() {
        What::Member => Ok(Entry::Member { channel, connection, member: member(item)?, born }),
        What::Count if item.subscribers > 0 => {
            Ok(Entry::Count { channel, subscribers: item.subscribers, since: born })
        }
        What::None | What::Leave | What::Count => Err(Garbage::Number),
    }
}
