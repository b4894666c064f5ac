//! The wire format: what a publication is as the payload of a NATS message.
//!
//! Protobuf, so that fields can be added: readers ignore those that they do not know.
//!
//! **Lives here:** the fields and their numbers, and what a payload must be to be believed.
//! **Called by:** `publish` writes, `receive` and `history` read.
//! **Must not know:** subjects, sequences.

use bytes::Bytes;
use carillon_model::{
    ChannelName, ConnectionId, DataKind, EventName, IdempotencyKey, NewMessage, UnixMillis, UserId,
};
use prost::Message as _;

/// Numbers are a contract between versions that run side by side: never reused.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    /// The event's name; none when empty.
    #[prost(string, tag = "1")]
    event: String,
    /// One JSON text without line breaks.
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
    /// When it was accepted, in milliseconds since 1970.
    #[prost(uint64, tag = "3")]
    time_ms: u64,
    /// The publishing user; none when empty.
    #[prost(string, tag = "4")]
    user: String,
    /// Connections that must not receive it.
    #[prost(fixed64, repeated, tag = "5")]
    exclude: Vec<u64>,
    /// The publisher's idempotency key; none when empty.
    #[prost(string, tag = "6")]
    id: String,
    /// Which process published it; none when 0.
    #[prost(fixed64, tag = "7")]
    publisher: u64,
    /// How many live messages that process has published to the channel's shard, this one included.
    #[prost(uint64, tag = "8")]
    count: u64,
    /// The data is a JSON string that stands for the text in it.
    #[prost(bool, tag = "9")]
    text: bool,
}

/// Which of a publisher's live messages one is: they are counted for each shard, so that whoever listens to a shard
/// sees when one is missing. Messages that are stored have none; their place in the stream says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// A process, by a number that it has drawn; not 0.
    pub(crate) publisher: u64,
    /// From 1.
    pub(crate) count: u64,
}

/// A payload that is not a publication: written by somebody else, or damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Garbage {
    #[error("it is not a protobuf message")]
    Protobuf,
    #[error("its data is not one JSON text on one line, or not the kind of JSON that it says")]
    Data,
    #[error("its event, user or id breaks the rules")]
    Text,
    #[error("its subject is not one of ours")]
    Subject,
}

/// Writes a message as a payload.
pub(crate) fn encode(message: &NewMessage, stamp: Option<Stamp>) -> Bytes {
    let envelope = Envelope {
        event: message.event.as_ref().map_or_else(String::new, |event| event.as_str().to_owned()),
        data: message.data.clone(),
        time_ms: message.time.get(),
        user: message.user.as_ref().map_or_else(String::new, |user| user.as_str().to_owned()),
        exclude: message.exclude.iter().map(|id| id.bits()).collect(),
        id: message.id.as_ref().map_or_else(String::new, |id| id.as_str().to_owned()),
        publisher: stamp.map_or(0, |stamp| stamp.publisher),
        count: stamp.map_or(0, |stamp| stamp.count),
        text: message.kind == DataKind::Text,
    };
    Bytes::from(envelope.encode_to_vec())
}

/// Reads a payload back. The data is copied, so that it does not keep a whole read buffer alive.
pub(crate) fn decode(channel: ChannelName, payload: &[u8]) -> Result<(NewMessage, Option<Stamp>), Garbage> {
    let envelope = Envelope::decode(payload).map_err(|_e| Garbage::Protobuf)?;
    let kind = if envelope.text { DataKind::Text } else { DataKind::Json };
    if !is_json_line(&envelope.data) || kind == DataKind::Text && !is_literal(&envelope.data) {
        return Err(Garbage::Data);
    }
    let text = |_e| Garbage::Text;
    let some = |text: String| (!text.is_empty()).then_some(text);
    let Envelope { publisher, count, .. } = envelope;
    let stamp = (publisher != 0 && count != 0).then_some(Stamp { publisher, count });
    let message = NewMessage {
        channel,
        event: some(envelope.event).map(|text| EventName::new(&text)).transpose().map_err(text)?,
        data: envelope.data,
        kind,
        time: UnixMillis::new(envelope.time_ms),
        user: some(envelope.user).map(|text| UserId::new(&text)).transpose().map_err(text)?,
        exclude: envelope.exclude.into_iter().map(ConnectionId::from_bits).collect(),
        id: some(envelope.id).map(|text| IdempotencyKey::new(&text)).transpose().map_err(text)?,
    };
    Ok((message, stamp))
}

/// The data is put into frames as it is: what is not JSON would break every subscriber's frame.
fn is_json_line(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    !text.bytes().any(|b| matches!(b, b'\n' | b'\r'))
        && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// Says whether a JSON text is a string, and nothing but the string.
fn is_literal(json: &[u8]) -> bool {
    matches!(json, [b'"', .., b'"'])
}

#[cfg(test)]
mod tests;
