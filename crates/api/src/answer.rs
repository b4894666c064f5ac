//! What a publisher is told of each message.
//!
//! **Lives here:** outcomes, and their JSON, written into one buffer.
//! **Called by:** `intake` makes outcomes, `http` and `grpc` tell them.
//! **Must not know:** how they came about.

use std::fmt::Write as _;

use carillon_model::{ChannelName, Refusal};

use crate::{problem, publisher::Receipt};

/// Reserved channels of users begin like this; publishers see the user.
const USER_PREFIX: &str = "$user:";

/// What became of one message on one channel.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// Unknown when the message could not be read.
    pub(crate) channel: Option<ChannelName>,
    pub(crate) result: Result<Receipt, Refusal>,
}

/// What the publisher called the target.
pub(crate) enum Target<'a> {
    Channel(&'a str),
    User(&'a str),
    Unread,
}

impl Outcome {
    pub(crate) fn target(&self) -> Target<'_> {
        match self.channel.as_ref().map(ChannelName::as_str) {
            Some(name) => name.strip_prefix(USER_PREFIX).map_or(Target::Channel(name), Target::User),
            None => Target::Unread,
        }
    }
}

/// Returns `{"results":[…]}`.
pub(crate) fn json(outcomes: &[Outcome]) -> String {
    let mut out = String::with_capacity(outcomes.len().saturating_mul(112).saturating_add(16));
    out.push_str(r#"{"results":["#);
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        write(&mut out, outcome);
    }
    out.push_str("]}");
    out
}

fn write(out: &mut String, outcome: &Outcome) {
    out.push('{');
    match outcome.target() {
        Target::Channel(name) => member(out, "channel", name),
        Target::User(name) => member(out, "user", name),
        Target::Unread => {}
    }
    match &outcome.result {
        Ok(receipt) => {
            if let Some(position) = receipt.position {
                write!(out, r#""id":"{position}","#).expect("a String takes every write");
            }
            let stored = receipt.position.is_some();
            write!(out, r#""stored":{stored},"duplicate":{}"#, receipt.duplicate)
                .expect("a String takes every write");
        }
        Err(refusal) => {
            out.push_str(r#""error":"#);
            problem::write(out, refusal);
        }
    }
    out.push('}');
}

/// Appends `"name":"text",`. Names of channels and users hold no control characters, so two escapes are enough.
fn member(out: &mut String, name: &str, text: &str) {
    out.push('"');
    out.push_str(name);
    out.push_str("\":\"");
    for part in text.split_inclusive(['"', '\\']) {
        match part.strip_suffix(['"', '\\']) {
            Some(plain) => {
                out.push_str(plain);
                out.push('\\');
                out.push_str(part.get(plain.len()..).unwrap_or_default());
            }
            None => out.push_str(part),
        }
    }
    out.push_str("\",");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use carillon_model::{Epoch, ErrorCode, Offset, Position, UserId};

    use super::*;

    #[test]
    fn results_are_json_of_the_documented_shape() {
        let position = Position { epoch: Epoch::from_bits(1), offset: Offset::new(42) };
        let stored = Receipt { position: Some(position), duplicate: false };
        let live = Receipt { position: None, duplicate: false };
        let refusal =
            Refusal::new(ErrorCode::Unavailable, "try \"again\"\n").retry_after(Duration::from_millis(5));
        let channel = |name| Some(ChannelName::new(name).unwrap());
        let user = Some(ChannelName::of_user(&UserId::new("42").unwrap()).unwrap());
        let outcomes = [
            Outcome { channel: channel("orders.7"), result: Ok(stored) },
            Outcome { channel: channel(r#"a"\\b""#), result: Ok(live) },
            Outcome { channel: user, result: Ok(Receipt { duplicate: true, ..stored }) },
            Outcome { channel: None, result: Err(refusal) },
        ];
        let text = json(&outcomes);
        assert!(
            text.starts_with(
                r#"{"results":[{"channel":"orders.7","id":"000001-42","stored":true,"duplicate":false},"#
            ),
            "{text}"
        );
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({"results":[
            {"channel":"orders.7","id":"000001-42","stored":true,"duplicate":false},
            {"channel":"a\"\\\\b\"","stored":false,"duplicate":false},
            {"user":"42","id":"000001-42","stored":true,"duplicate":true},
            {"error":{"type":"urn:carillon:error:unavailable","title":"Unavailable","status":503,
                "detail":"try \"again\"\n","code":4353,"error":"unavailable","retryable":true,
                "retry_after_ms":5}},
        ]});
        assert_eq!(value, expected);
    }
}
