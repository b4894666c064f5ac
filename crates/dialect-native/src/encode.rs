//! Writing what a client is sent.
//!
//! **Lives here:** the server's frames; members stand in the order of the protocol page.
//! **Called by:** [`crate::Native`].
//! **Must not know:** who reads them.

use std::{fmt::Write as _, time::Duration};

use carillon_model::{ChannelName, ErrorCode, Member, Position, Publication, Refusal, Unrecovered};
use carillon_session::{Push, Recovered, Reference};

use crate::text::{self, text};

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
    text::data(&mut out, message);
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
        Push::Subscribed { channel, position, recovered, members, reference } => {
            about(&mut out, "subscribed", channel, *position);
            recovery(&mut out, *recovered);
            if let Some(members) = members {
                out.push_str(r#","members":"#);
                list(&mut out, members);
            }
            number(&mut out, "ref", *reference);
        }
        Push::Came { channel, member } => moved(&mut out, "joined", channel, member),
        Push::Went { channel, member } => moved(&mut out, "left", channel, member),
        Push::Members { channel, members, reference } => {
            out.push_str(r#"{"type":"reply""#);
            number(&mut out, "ref", *reference);
            text_member(&mut out, "channel", channel.as_str());
            out.push_str(r#","data":{"members":"#);
            list(&mut out, members);
            out.push('}');
        }
        Push::NotSubscribed { channel, reference } => {
            let refusal = Refusal::new(ErrorCode::NotFound, "this connection does not have the channel");
            error(&mut out, &refusal, Some(channel.as_str()), *reference);
        }
        // Words that this dialect does not have: only clients of others ask for what they are about.
        Push::Counted { .. } | Push::Missed { .. } | Push::SignedIn { .. } | Push::Watched { .. } => {
            return String::new();
        }
        Push::Unsubscribed { channel, refusal, reference } => {
            about(&mut out, "unsubscribed", channel, None);
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
            about(&mut out, "gap", channel, *position);
        }
        Push::Error { refusal, channel, reference } => {
            error(&mut out, refusal, channel.as_deref(), *reference);
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

/// Begins a frame about a channel.
fn about(out: &mut String, kind: &str, channel: &ChannelName, position: Option<Position>) {
    let _infallible = write!(out, r#"{{"type":"{kind}""#);
    text_member(out, "channel", channel.as_str());
    if let Some(position) = position {
        member(out, "position", format_args!("\"{position}\""));
    }
}

fn error(out: &mut String, refusal: &Refusal, channel: Option<&str>, reference: Option<Reference>) {
    out.push_str(r#"{"type":"error""#);
    number(out, "ref", reference);
    if let Some(channel) = channel {
        text_member(out, "channel", channel);
    }
    why(out, refusal);
}

/// Writes that a user has come to a channel, or has left it.
fn moved(out: &mut String, kind: &str, channel: &ChannelName, who: &Member) {
    about(out, kind, channel, None);
    out.push(',');
    described(out, who);
}

fn list(out: &mut String, members: &[Member]) {
    out.push('[');
    for (place, one) in members.iter().enumerate() {
        out.push_str(if place > 0 { ",{" } else { "{" });
        described(out, one);
        out.push('}');
    }
    out.push(']');
}

fn described(out: &mut String, who: &Member) {
    out.push_str(r#""user":"#);
    text(out, who.user.as_str());
    if let Some(info) = &who.info {
        member(out, "info", String::from_utf8_lossy(info));
    }
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

#[cfg(test)]
mod tests;
