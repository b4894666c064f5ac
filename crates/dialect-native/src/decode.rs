//! Reading what a client sends.
//!
//! **Lives here:** the client's frames, and what is said of those that cannot be read.
//! **Called by:** [`crate::Native`], and transports for `since` in a URL.
//! **Must not know:** the state of the conversation.

use carillon_model::{ChannelName, ErrorCode, Refusal, Since, UnixMillis};
use carillon_session::{Command, Reference, Undecoded, Wanted};
use serde::Deserialize;

/// A client's frame. Members that are not known are ignored.
#[derive(Deserialize)]
struct Frame {
    r#type: String,
    r#ref: Option<Reference>,
    channel: Option<String>,
    channels: Option<Vec<Item>>,
    since: Option<String>,
    token: Option<String>,
}

/// One of several channels: its name, or its name with a `since` of its own.
#[derive(Deserialize)]
#[serde(untagged)]
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
        "subscribe" => Ok(Command::Subscribe { channels: wanted(frame)?, reference }),
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
        kind @ ("publish" | "history" | "presence" | "call") => {
            let message = format!("`{kind}` is not available to clients of this server");
            Err(undecoded(ErrorCode::NotEnabled, message, frame.channel, reference))
        }
        unknown => {
            let shown: String = unknown.chars().take(40).collect();
            let message = format!(
                "`{shown}` is not a type of frame; known are subscribe, unsubscribe, authenticate and ping"
            );
            Err(undecoded(ErrorCode::UnknownType, message, None, reference))
        }
    }
}

/// Reads `since` as the native protocol spells it: an id, `0`, `$`, `-N` or `@<unix ms>`.
///
/// # Errors
/// A sentence for the client.
pub fn since(text: &str) -> Result<Since, &'static str> {
    const GRAMMAR: &str = "`since` is the `id` of a message, `0`, `$`, `-N` or `@<unix ms>`";
    match text.as_bytes() {
        b"$" => Ok(Since::Now),
        b"0" => Ok(Since::Oldest),
        [b'-', ..] => number(text).map(Since::Last).ok_or(GRAMMAR),
        [b'@', ..] => number(text).map(UnixMillis::new).map(Since::Time).ok_or(GRAMMAR),
        _ => text.parse().map(Since::After).map_err(|_bad| GRAMMAR),
    }
}

/// Reads the digits after the first character.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.get(1..).filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// Reads an object. Left alone, serde would also take an array with the members in their order.
fn object(text: &str) -> serde_json::Result<Frame> {
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
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let (name, own) = match item {
            Item::Name(name) => (name, None),
            Item::Since { channel, since } => (channel, since),
        };
        let bad = |message: String, name: &str| {
            let shown = name.chars().take(64).collect();
            undecoded(ErrorCode::BadRequest, message, Some(shown), reference)
        };
        let since = own
            .as_deref()
            .or(common.as_deref())
            .map_or(Ok(Since::Now), since)
            .map_err(|message| bad(message.into(), &name))?;
        let channel = ChannelName::new(&name).map_err(|fault| bad(fault.to_string(), &name))?;
        all.push(Wanted { channel, since });
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
