//! Writing what a client is sent.
//!
//! **Lives here:** the server's frames; members stand in the order of the protocol page.
//! **Called by:** [`crate::Native`].
//! **Must not know:** who reads them.

use std::{fmt::Write as _, time::Duration};

use carillon_model::{Publication, Refusal, Unrecovered};
use carillon_session::{Push, Recovered};

/// Writes the text M of a publication: the same bytes for every subscriber on every transport.
pub(crate) fn publication(publication: &Publication) -> String {
    let message = &publication.message;
    // Names, ids and punctuation around the data: 200 bytes are seldom passed, and passing them is no fault.
    let mut out = String::with_capacity(message.data.len().saturating_add(200));
    out.push_str(r#"{"type":"message","channel":"#);
    text(&mut out, message.channel.as_str());
    if let Some(position) = publication.position {
        member(&mut out, "id", format_args!("\"{position}\""));
    }
    if let Some(event) = &message.event {
        text_member(&mut out, "event", event.as_str());
    }
    out.push_str(r#","data":"#);
    out.push_str(&String::from_utf8_lossy(&message.data));
    member(&mut out, "time", message.time.get());
    if let Some(user) = &message.user {
        text_member(&mut out, "user", user.as_str());
    }
    out.push('}');
    out
}

/// Writes what one client is told.
pub(crate) fn push(push: &Push) -> String {
    let mut out = String::with_capacity(160);
    match push {
        Push::Welcome { connection, ping, frame_bytes, channels, expires } => {
            let _infallible = write!(
                out,
                r#"{{"type":"welcome","connection":"{connection}","protocol":1,"ping":{},"limits":{{"frame_bytes":{frame_bytes},"channels":{channels}}}"#,
                ping.as_secs()
            );
            expiry(&mut out, *expires);
        }
        Push::Subscribed { channel, position, recovered, reference } => {
            out.push_str(r#"{"type":"subscribed","channel":"#);
            text(&mut out, channel.as_str());
            if let Some(position) = position {
                member(&mut out, "position", format_args!("\"{position}\""));
            }
            recovery(&mut out, *recovered);
            number(&mut out, "ref", *reference);
        }
        Push::Unsubscribed { channel, refusal, reference } => {
            out.push_str(r#"{"type":"unsubscribed","channel":"#);
            text(&mut out, channel.as_str());
            if let Some(refusal) = refusal {
                why(&mut out, refusal);
            }
            number(&mut out, "ref", *reference);
        }
        Push::Authenticated { expires, reference } => {
            out.push_str(r#"{"type":"authenticated""#);
            expiry(&mut out, *expires);
            number(&mut out, "ref", *reference);
        }
        Push::Gap { channel, position } => {
            out.push_str(r#"{"type":"gap","channel":"#);
            text(&mut out, channel.as_str());
            if let Some(position) = position {
                member(&mut out, "position", format_args!("\"{position}\""));
            }
        }
        Push::Error { refusal, channel, reference } => {
            out.push_str(r#"{"type":"error""#);
            number(&mut out, "ref", *reference);
            if let Some(channel) = channel {
                text_member(&mut out, "channel", channel);
            }
            why(&mut out, refusal);
        }
        Push::Ping => out.push_str(r#"{"type":"ping""#),
        Push::Pong { reference } => {
            out.push_str(r#"{"type":"pong""#);
            number(&mut out, "ref", *reference);
        }
        Push::Goodbye { reason, retry_after } => {
            out.push_str(r#"{"type":"goodbye""#);
            member(&mut out, "code", reason.code());
            text_member(&mut out, "error", reason.name());
            wait(&mut out, *retry_after);
        }
    }
    out.push('}');
    out
}

fn recovery(out: &mut String, recovered: Option<Recovered>) {
    match recovered {
        None => {}
        Some(Recovered::All { replayed }) => {
            member(out, "recovered", true);
            member(out, "replayed", replayed);
        }
        Some(Recovered::No(reason)) => {
            member(out, "recovered", false);
            let reason = match reason {
                Unrecovered::Epoch => "epoch",
                Unrecovered::Expired => "expired",
                Unrecovered::Limit => "limit",
                Unrecovered::Unavailable => "unavailable",
            };
            text_member(out, "reason", reason);
        }
    }
}

fn why(out: &mut String, refusal: &Refusal) {
    member(out, "code", refusal.code.number());
    text_member(out, "error", refusal.code.name());
    text_member(out, "message", &refusal.message);
    wait(out, refusal.retry_after);
}

fn wait(out: &mut String, retry_after: Option<Duration>) {
    if let Some(wait) = retry_after {
        member(out, "retry_after_ms", wait.as_millis());
    }
}

fn expiry(out: &mut String, expires: Option<carillon_model::UnixMillis>) {
    if let Some(expires) = expires {
        member(out, "expires", expires.get() / 1000);
    }
}

fn number(out: &mut String, name: &str, value: Option<i64>) {
    if let Some(value) = value {
        member(out, name, value);
    }
}

/// Adds a member whose value is written as it stands.
fn member(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _infallible = write!(out, ",\"{name}\":{value}");
}

fn text_member(out: &mut String, name: &str, value: &str) {
    let _infallible = write!(out, ",\"{name}\":");
    text(out, value);
}

/// Adds a JSON string.
fn text(out: &mut String, value: &str) {
    let quoted = serde_json::to_string(value).unwrap_or_default();
    out.push_str(&quoted);
}

#[cfg(test)]
mod tests;
