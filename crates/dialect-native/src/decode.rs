//! Reading what a client sends.
//!
//! **Lives here:** the client's frames, and what is said of those that cannot be read.
//! **Called by:** [`crate::Native`], and transports for `since` in a URL and for channels in a body.
//! **Must not know:** the state of the conversation.

use carillon_model::{ChannelName, ErrorCode, Refusal, Since, UnixMillis};
use carillon_session::{Command, Reference, Undecoded, Wanted};
use serde::Deserialize;

use crate::cursor::Cursor;

/// A client's frame. Members that are not known are ignored.
#[derive(Deserialize)]
struct Frame {
    r#type: String,
    r#ref: Option<Reference>,
    channel: Option<String>,
    channels: Option<Vec<Item>>,
    since: Option<String>,
    token: Option<String>,
    #[serde(default)]
    presence: bool,
}

/// One of several channels: its name, or its name with a `since` of its own.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = r#"an item of `channels` is a name, or {"channel":"…","since":"…"} with `since` as a text"#
)]
enum Item {
    Name(String),
    Since { channel: String, since: Option<String> },
}

/// Most of a parser's complaint that is told.
const FAULT_MAX_CHARS: usize = 120;

/// What can be echoed of a frame that has another fault.
#[derive(Deserialize)]
struct OnlyReference {
    r#ref: Option<Reference>,
}

/// Reads one frame.
pub(crate) fn command(text: &str) -> Result<Command, Box<Undecoded>> {
    let frame: Frame = object(text).map_err(|fault| {
        let reference = serde_json::from_str::<OnlyReference>(text).ok().and_then(|only| only.r#ref);
        // The parser quotes what it did not expect, which may be all of the frame.
        let shown: String = fault.to_string().chars().take(FAULT_MAX_CHARS).collect();
        let message = format!(
            "a frame is one JSON object such as {{\"type\":\"subscribe\",\"channel\":\"news\"}}; here: {shown}"
        );
        undecoded(ErrorCode::BadRequest, message, None, reference)
    })?;
    let reference = frame.r#ref;
    match frame.r#type.as_str() {
        "subscribe" => {
            let presence = frame.presence;
            let mut channels = wanted(frame)?;
            channels.iter_mut().for_each(|wanted| wanted.presence = presence);
            Ok(Command::Subscribe { channels, reference })
        }
        "presence" => match wanted(frame)?.as_slice() {
            [Wanted { channel, .. }] => Ok(Command::Members { channel: channel.clone(), reference }),
            _ => Err(undecoded(
                ErrorCode::BadRequest,
                "`presence` asks about one `channel`".into(),
                None,
                reference,
            )),
        },
        "unsubscribe" => {
            let channels = wanted(frame)?.into_iter().map(|wanted| wanted.channel).collect();
            Ok(Command::Unsubscribe { channels, reference })
        }
        "authenticate" => match frame.token {
            Some(token) => Ok(Command::Authenticate { token, reference }),
            None => {
                Err(undecoded(ErrorCode::BadRequest, "`authenticate` needs `token`".into(), None, reference))
            }
        },
        "ping" => Ok(Command::Ping { reference }),
        kind @ ("publish" | "history" | "call") => {
            let message = format!("`{kind}` is not available to clients of this server");
            Err(undecoded(ErrorCode::NotEnabled, message, frame.channel, reference))
        }
        unknown => {
            let shown: String = unknown.chars().take(40).collect();
            let message = format!(
                "`{shown}` is not a type of frame; known are subscribe, unsubscribe, presence, authenticate and ping"
            );
            Err(undecoded(ErrorCode::UnknownType, message, None, reference))
        }
    }
}

/// Where a client says that it left off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The same for every channel.
    Since(Since),
    /// One for each channel.
    Cursor(Cursor),
}

impl Place {
    /// Reads `since` as the native protocol spells it: a cursor, an id, `0`, `$`, `-N` or `@<unix ms>`.
    ///
    /// # Errors
    /// A sentence for the client.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        const GRAMMAR: &str =
            "`since` is the `id` of a message, a cursor as it was sent, `0`, `$`, `-N` or `@<unix ms>`";
        let since = match text.as_bytes() {
            b"$" => Some(Since::Now),
            b"0" => Some(Since::Oldest),
            [b'-', ..] => number(text).map(Since::Last),
            [b'@', ..] => number(text).map(UnixMillis::new).map(Since::Time),
            _ if Cursor::is_meant(text) => return Cursor::read(text).map(Self::Cursor).ok_or(GRAMMAR),
            _ => text.parse().map(Since::After).ok(),
        };
        since.map(Self::Since).ok_or(GRAMMAR)
    }

    /// Returns the place in one channel; a cursor does not name every channel.
    #[must_use]
    pub fn of(&self, channel: &ChannelName) -> Option<Since> {
        match self {
            Self::Since(since) => Some(*since),
            Self::Cursor(cursor) => cursor.of(channel),
        }
    }
}

/// What the body of a first request names.
#[derive(Debug, Deserialize)]
struct Body {
    channels: Option<Vec<Item>>,
    since: Option<String>,
    token: Option<String>,
}

/// Channels and token of a first request that has them in its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The channels, each with its own place where it has one.
    pub channels: Vec<(ChannelName, Option<Since>)>,
    /// The token.
    pub token: Option<String>,
}

/// Reads the body of a first request: `{"channels":["a",{"channel":"b","since":"…"}],"since":"…","token":"…"}`.
///
/// # Errors
/// What is wrong with it: then nothing of it counts.
pub fn named(text: &str) -> Result<Named, Refusal> {
    let body: Body = object(text).map_err(|fault| {
        let shown: String = fault.to_string().chars().take(FAULT_MAX_CHARS).collect();
        let message =
            format!("the body is one JSON object such as {{\"channels\":[\"news\"]}}; here: {shown}");
        Refusal::new(ErrorCode::BadRequest, message)
    })?;
    let channels = places(body.channels.unwrap_or_default(), body.since.as_deref())
        .map_err(|(name, message)| Refusal::new(ErrorCode::BadRequest, format!("`{name}`: {message}")))?;
    Ok(Named { channels, token: body.token })
}

/// Reads the digits after the first character.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.get(1..).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// Reads an object. Left alone, serde would also take an array with the members in their order.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    if text.trim_start().starts_with('[') {
        return Err(serde::de::Error::custom("an array"));
    }
    serde_json::from_str(text)
}

fn wanted(frame: Frame) -> Result<Vec<Wanted>, Box<Undecoded>> {
    let reference = frame.r#ref;
    let common = frame.since;
    let items = match (frame.channel, frame.channels) {
        (Some(channel), None) => vec![Item::Name(channel)],
        (None, Some(items)) if !items.is_empty() => items,
        (Some(_), Some(_)) => {
            let message = "a frame names `channel` or `channels`, not both";
            return Err(undecoded(ErrorCode::BadRequest, message.into(), None, reference));
        }
        (None, _) => {
            let message = "name a `channel`, or several `channels`";
            return Err(undecoded(ErrorCode::BadRequest, message.into(), None, reference));
        }
    };
    let places = places(items, common.as_deref())
        .map_err(|(name, message)| undecoded(ErrorCode::BadRequest, message, Some(name), reference))?;
    let wanted = |(channel, since): (_, Option<_>)| Wanted::new(channel, since.unwrap_or(Since::Now));
    Ok(places.into_iter().map(wanted).collect())
}

/// Checks names, and finds each one's place: its own, or the common one. A fault comes with the name, cut short.
fn places(
    items: Vec<Item>,
    common: Option<&str>,
) -> Result<Vec<(ChannelName, Option<Since>)>, (String, String)> {
    // Read once: a cursor is long.
    let common = common.map(Place::read).transpose();
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let (name, own) = match item {
            Item::Name(name) => (name, None),
            Item::Since { channel, since } => (channel, since),
        };
        let bad = |message: String| (name.chars().take(64).collect(), message);
        let channel = ChannelName::new(&name).map_err(|fault| bad(fault.to_string()))?;
        let own = own.as_deref().map(Place::read).transpose().map_err(|message| bad(message.into()))?;
        let common = common.as_ref().map_err(|message| bad((*message).into()))?.as_ref();
        let since = own.as_ref().or(common).and_then(|place| place.of(&channel));
        all.push((channel, since));
    }
    Ok(all)
}

fn undecoded(
    code: ErrorCode,
    message: String,
    channel: Option<String>,
    reference: Option<Reference>,
) -> Box<Undecoded> {
    Box::new(Undecoded { refusal: Refusal::new(code, message), channel, reference })
}

#[cfg(test)]
mod tests;
