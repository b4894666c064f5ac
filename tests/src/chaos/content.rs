//! What a publication says of itself.
//!
//! **Lives here:** writing and reading the data of publications, and the text that carries them to clients.
//! **Called by:** publishers and clients.
//! **Must not know:** sockets.

use std::hash::{DefaultHasher, Hasher as _};

use carillon_model::Position;

use crate::checker::{Name, Seen};

use super::world::World;

/// Writes the data of a publication, with so many bytes more than it needs.
pub(super) fn data(world: &World, what: Name, more: usize) -> String {
    let (Name { publisher, counter, .. }, channel) = (what, world.name(what.channel));
    let fill = "é~\\n".chars().cycle().take(more).collect::<String>();
    // A backslash is followed by a letter.
    let fill = fill.trim_end_matches('\\');
    format!(r#"{{"publisher":{publisher},"counter":{counter},"channel":"{channel}","fill":"{fill}"}}"#)
}

/// Returns what verbatim data is recognised by.
pub(super) fn hash(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish()
}

/// Reads a text that may be a message; `None` when it is something else.
pub(super) fn message(world: &World, text: &str) -> Option<Seen> {
    let rest = text.strip_prefix(r#"{"type":"message","channel":""#)?;
    let read = || {
        let (channel, rest) = rest.split_once(r#"","id":""#)?;
        let (id, rest) = rest.split_once(r#"","data":"#)?;
        let (data, rest) = rest.rsplit_once(r#","time":"#)?;
        let time = rest.strip_suffix('}')?;
        let _milliseconds: u64 = time.parse().ok()?;
        let position: Position = id.parse().ok()?;
        let (publisher, rest) = data.strip_prefix(r#"{"publisher":"#)?.split_once(r#","counter":"#)?;
        let (counter, rest) = rest.split_once(r#","channel":""#)?;
        let (inner, _) = rest.split_once('"')?;
        let channel = (channel == inner).then(|| world.numbers.get(channel).copied())??;
        let what = Name { channel, publisher: publisher.parse().ok()?, counter: counter.parse().ok()? };
        Some(Seen::Message { what, position, content: hash(data.as_bytes()) })
    };
    Some(read().unwrap_or(Seen::Nonsense))
}

/// Says whether a message stands after the place that a gap of its channel names, or in another epoch than before.
pub(super) fn is_after(world: &World, message: Option<&Seen>, gap: &serde_json::Value) -> bool {
    let Some(Seen::Message { what, position, .. }) = message else { return false };
    let place = gap["position"].as_str().and_then(|text| text.parse::<Position>().ok());
    gap["channel"] == world.name(what.channel)
        && place.is_none_or(|place| place.epoch == position.epoch && place.offset < position.offset)
}
