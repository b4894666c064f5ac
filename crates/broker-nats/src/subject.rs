//! How channels, shards and streams are spelled on NATS.
//!
//! A channel is exactly one token: letters, digits, `_` and `-` stand for themselves, every other byte is `=XX`.
//! Raw names are dangerous there: a no-break space disconnects whoever receives it, `*` and `>` are stored.
//!
//! **Lives here:** subjects, names of streams, the escaping and its reverse.
//! **Called by:** everything in this crate that names something to NATS.
//! **Must not know:** connections.

use std::fmt::Write as _;

use carillon_broker::{Lane, Shard};
use carillon_model::{AppSpace, ChannelName, ClassName, NodeId};

use crate::config::Config;

/// The fixed parts of every subject.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
    app: String,
}

impl Names {
    pub(crate) fn new(config: &Config) -> Self {
        Self { prefix: config.prefix.clone(), app: config.app.clone() }
    }

    /// Names the stream of one shard of one class.
    pub(crate) fn stream(&self, class: &ClassName, shard: Shard) -> String {
        format!("{}_{class}_{}", self.prefix, shard.index())
    }

    /// What a stream stores, all applications' channels.
    pub(crate) fn stored_all(&self, class: &ClassName, shard: Shard) -> String {
        format!("{}.h.{class}.{}.>", self.prefix, shard.index())
    }

    /// Where a stream republishes what it stored.
    pub(crate) fn feed_all(&self, class: &ClassName, shard: Shard) -> String {
        format!("{}.l.{class}.{}.>", self.prefix, shard.index())
    }

    /// What the subjects of channels begin with where they are stored.
    pub(crate) fn stored_start(&self, class: &ClassName, shard: Shard) -> String {
        format!("{}.h.{class}.{}.", self.prefix, shard.index())
    }

    /// What the subjects of channels begin with where they are republished.
    pub(crate) fn feed_start(&self, class: &ClassName, shard: Shard) -> String {
        format!("{}.l.{class}.{}.", self.prefix, shard.index())
    }

    /// Where a durable channel's messages are stored.
    pub(crate) fn stored(&self, class: &ClassName, shard: Shard, place: &str) -> String {
        format!("{}{place}", self.stored_start(class, shard))
    }

    /// Where a live channel's messages go.
    pub(crate) fn live(&self, shard: Shard, place: &str) -> String {
        format!("{}.e.{}.{place}", self.prefix, shard.index())
    }

    /// All live channels of all applications.
    pub(crate) fn live_all(&self) -> String {
        format!("{}.e.*.*.*", self.prefix)
    }

    /// Names the stream of the work queue.
    pub(crate) fn work_stream(&self) -> String {
        format!("{}_work", self.prefix)
    }

    /// What the work queue keeps, all lanes.
    pub(crate) fn work_all(&self) -> String {
        format!("{}.w.*", self.prefix)
    }

    /// Where the work of one lane is put.
    pub(crate) fn work(&self, lane: Lane) -> String {
        format!("{}.w.{lane}", self.prefix)
    }

    /// What nodes say to all others.
    pub(crate) fn words(&self) -> String {
        format!("{}.ctl.words", self.prefix)
    }

    /// What others say to one node.
    pub(crate) fn words_to(&self, node: NodeId) -> String {
        format!("{}.node.{node}", self.prefix)
    }

    /// Spells a channel as its application and one token.
    pub(crate) fn place(&self, channel: &ChannelName) -> String {
        let app = if channel.app().is_empty() { &self.app } else { channel.app() };
        format!("{app}.{}", encode(channel))
    }

    /// A place that no channel has.
    pub(crate) fn probe(&self) -> String {
        format!("{}.=", self.app)
    }

    /// Reads a place back; `None` when it is not what [`Self::place`] writes.
    pub(crate) fn channel(&self, place: &str) -> Option<ChannelName> {
        let (app, token) = place.split_once('.')?;
        let channel = decode(token)?;
        if app == self.app { Some(channel) } else { Some(channel.within(&AppSpace::new(app).ok()?)) }
    }

    /// A subject to which nobody listens: the answer that says so has made the whole way.
    pub(crate) fn barrier(&self) -> String {
        format!("{}.ctl.barrier", self.prefix)
    }
}

/// Returns what follows prefix, kind, class and shard in a stored or republished subject: the channel's place.
pub(crate) fn tail(subject: &str) -> &str {
    subject.splitn(5, '.').nth(4).unwrap_or(subject)
}

/// Spells a channel's name as one token.
fn encode(channel: &ChannelName) -> String {
    let mut token = String::with_capacity(channel.as_str().len() + 16);
    for byte in channel.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
            token.push(char::from(byte));
        } else {
            write!(token, "={byte:02X}").expect("writing to a string does not fail");
        }
    }
    token
}

/// Reads a token back; `None` when it is not what [`encode`] writes.
fn decode(token: &str) -> Option<ChannelName> {
    let mut name = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'=' => {
                let byte = hex(bytes.next()?)? << 4 | hex(bytes.next()?)?;
                if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
                    return None;
                }
                name.push(byte);
            }
            _ if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') => name.push(byte),
            _ => return None,
        }
    }
    ChannelName::any(std::str::from_utf8(&name).ok()?).ok()
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
