//! What a client is sent, as lines of text.
//!
//! **Lives here:** writing and reading them.
//! **Called by:** connections write, clients read.
//! **Must not know:** the native protocol, whose texts are tested elsewhere.

use bytes::Bytes;
use carillon_hub::Render;
use carillon_model::{ChannelName, Form, Position, Publication, Unrecovered};
use carillon_session::{Push, Recovered};

/// A line, as a client understands it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Message { channel: usize, position: Position, number: u64 },
    Subscribed { channel: usize, position: Position, recovered: Option<Recovered> },
    Gap { channel: usize, position: Position },
    Unsubscribed { channel: usize },
    Goodbye,
    Close,
    Other,
}

/// Writes publications.
#[derive(Debug)]
pub(super) struct Lines;

impl Render for Lines {
    fn frame(&self, _form: Form, publication: &Publication) -> Bytes {
        let position = publication.position.map(|position| position.to_string()).unwrap_or_default();
        let data = String::from_utf8_lossy(&publication.message.data);
        Bytes::from(format!("m {} {position} {data}\n", publication.message.channel))
    }
}

/// Returns the name of a channel by its number.
pub(super) fn name(channel: usize) -> ChannelName {
    ChannelName::new(&format!("c{channel}")).expect("it is a letter and digits")
}

/// Returns the number of a channel by its name.
pub(super) fn number(channel: &ChannelName) -> usize {
    number_of(channel.as_str())
}

fn number_of(text: &str) -> usize {
    text.get(1..).and_then(|digits| digits.parse().ok()).expect("channels here are a letter and digits")
}

/// Returns the data of a message: its number, and dots up to a length.
pub(super) fn data(number: u64, bytes: u64) -> Bytes {
    let dots = ".".repeat(usize::try_from(bytes).unwrap_or(0));
    Bytes::from(format!("{number} {dots}"))
}

/// Writes what a client is told.
pub(super) fn write(push: &Push) -> Bytes {
    let at = |position: &Option<Position>| position.map(|position| position.to_string()).unwrap_or_default();
    let text = match push {
        Push::Subscribed { channel, position, recovered, .. } => {
            let recovered = match recovered {
                None => "-".to_owned(),
                Some(Recovered::All { replayed }) => replayed.to_string(),
                Some(Recovered::No(reason)) => format!("{reason:?}"),
            };
            format!("s {channel} {} {recovered}\n", at(position))
        }
        Push::Gap { channel, position } => format!("g {channel} {}\n", at(position)),
        Push::Unsubscribed { channel, .. } => format!("u {channel}\n"),
        Push::Goodbye { .. } => "b\n".to_owned(),
        Push::Welcome { .. } => "w\n".to_owned(),
        Push::Authenticated { .. }
        | Push::NotSubscribed { .. }
        | Push::Came { .. }
        | Push::Went { .. }
        | Push::Members { .. }
        | Push::Counted { .. }
        | Push::Missed { .. }
        | Push::SignedIn { .. }
        | Push::Watched { .. }
        | Push::Error { .. }
        | Push::Ping
        | Push::Pong { .. } => {
            format!("? {push:?}\n")
        }
    };
    Bytes::from(text)
}

/// Returns the transport's own close.
pub(super) const fn close() -> Bytes {
    Bytes::from_static(b"x\n")
}

/// Reads a line; `None` when it is none that is ever written.
pub(super) fn read(line: &str) -> Option<Line> {
    let mut words = line.split(' ');
    let kind = words.next()?;
    if let Some(simple) = match kind {
        "b" => Some(Line::Goodbye),
        "x" => Some(Line::Close),
        "w" => Some(Line::Other),
        _ => None,
    } {
        return Some(simple);
    }
    if kind == "?" {
        return None;
    }
    let channel = number_of(words.next()?);
    if kind == "u" {
        return Some(Line::Unsubscribed { channel });
    }
    let position = words.next()?.parse().ok()?;
    match kind {
        "m" => Some(Line::Message { channel, position, number: words.next()?.parse().ok()? }),
        "g" => Some(Line::Gap { channel, position }),
        "s" => {
            let recovered = match words.next()? {
                "-" => None,
                "Epoch" => Some(Recovered::No(Unrecovered::Epoch)),
                "Expired" => Some(Recovered::No(Unrecovered::Expired)),
                "Limit" => Some(Recovered::No(Unrecovered::Limit)),
                "Unavailable" => Some(Recovered::No(Unrecovered::Unavailable)),
                count => Some(Recovered::All { replayed: count.parse().ok()? }),
            };
            Some(Line::Subscribed { channel, position, recovered })
        }
        _ => None,
    }
}
