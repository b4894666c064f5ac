//! How channels, shards and streams are spelled on NATS.
//!
//! A channel is exactly one token: letters, digits, `_` and `-` stand for themselves, every other byte is `=XX`.
//! Raw names are dangerous there: a no-break space disconnects whoever receives it, `*` and `>` are stored.
//!
//! **Lives here:** subjects, names of streams, the escaping and its reverse.
//! **Called by:** everything in this crate that names something to NATS.
//! **Must not know:** connections.

use std::fmt::Write as _;

use carillon_broker::Shard;
use carillon_model::{ChannelName, ClassName};

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

    /// What the subjects of our channels begin with where they are stored.
    pub(crate) fn stored_start(&self, class: &ClassName, shard: Shard) -> String {
        format!("{}.h.{class}.{}.{}.", self.prefix, shard.index(), self.app)
    }

    /// What the subjects of our channels begin with where they are republished.
    pub(crate) fn feed_start(&self, class: &ClassName, shard: Shard) -> String {
        format!("{}.l.{class}.{}.{}.", self.prefix, shard.index(), self.app)
    }

    /// Where a durable channel's messages are stored.
    pub(crate) fn stored(&self, class: &ClassName, shard: Shard, token: &str) -> String {
        format!("{}{token}", self.stored_start(class, shard))
    }

    /// Where a live channel's messages go.
    pub(crate) fn live(&self, shard: Shard, token: &str) -> String {
        format!("{}.e.{}.{}.{token}", self.prefix, shard.index(), self.app)
    }

    /// All live channels of our application.
    pub(crate) fn live_all(&self) -> String {
        format!("{}.e.*.{}.*", self.prefix, self.app)
    }

    /// A subject to which nobody listens: the answer that says so has made the whole way.
    pub(crate) fn barrier(&self) -> String {
        format!("{}.ctl.barrier", self.prefix)
    }
}

/// Returns what follows prefix, kind, class and shard in a stored or republished subject.
pub(crate) fn tail(subject: &str) -> &str {
    subject.splitn(5, '.').nth(4).unwrap_or(subject)
}

/// Spells a channel as one token.
pub(crate) fn encode(channel: &ChannelName) -> String {
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
pub(crate) fn decode(token: &str) -> Option<ChannelName> {
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
