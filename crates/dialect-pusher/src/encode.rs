//! Writing what a client is sent.
//!
//! **Lives here:** the server's events, and what a message of another dialect is in this one.
//! **Called by:** [`crate::Pusher`]; transports for what they say themselves.
//! **Must not know:** who reads them.

use std::fmt::Write as _;

use carillon_model::{
    ChannelName, ConnectionId, DataKind, ErrorCode, IdKind, Member, Publication, Refusal, UserId,
};
use carillon_session::Push;

use crate::{Pusher, close, name::spell};

/// The name of a message that was published without one.
const UNNAMED: &str = "message";

/// For how long a client hears nothing before it asks for a sign of life, in seconds. The server pings sooner, by
/// the WebSocket's own ping, which pages do not see.
const ACTIVITY_TIMEOUT_SECONDS: u32 = 120;

/// Writes a publication: the same bytes for every subscriber.
pub(crate) fn publication(publication: &Publication) -> String {
    let message = &publication.message;
    let mut out = String::with_capacity(message.data.len().saturating_add(200));
    out.push_str(r#"{"event":"#);
    string(&mut out, message.event.as_ref().map_or(UNNAMED, |event| event.as_str()));
    channel(&mut out, &message.channel);
    out.push_str(r#","data":"#);
    let data = String::from_utf8_lossy(&message.data);
    match message.kind {
        // A string is sent as it is, and any other value as its text.
        DataKind::Json if !data.starts_with('"') => string(&mut out, &data),
        DataKind::Json | DataKind::Text => out.push_str(&data),
    }
    if let Some(user) = &message.user {
        out.push_str(r#","user_id":"#);
        string(&mut out, user.as_str());
    }
    out.push('}');
    out
}

/// Writes what one client is told.
pub(crate) fn push(push: &Push, pusher: &Pusher) -> String {
    match push {
        Push::Welcome { connection, .. } => welcome(*connection),
        Push::Subscribed { channel, members, .. } => {
            let data = members.as_deref().map_or("{}".into(), presence);
            event("pusher_internal:subscription_succeeded", Some(channel), &data)
        }
        Push::Missed { channel } => {
            let mut out = String::from(r#"{"event":"pusher:cache_miss""#);
            self::channel(&mut out, channel);
            out.push('}');
            out
        }
        Push::Came { channel, member } => match channel.online() {
            Some(_) => watched(std::slice::from_ref(&member.user), &[]),
            None => {
                let mut data = String::from(r#"{"user_id":"#);
                user_id(&mut data, member);
                data.push_str(r#","user_info":"#);
                info(&mut data, member);
                data.push('}');
                event("pusher_internal:member_added", Some(channel), &data)
            }
        },
        Push::Went { channel, member } => match channel.online() {
            Some(_) => watched(&[], std::slice::from_ref(&member.user)),
            None => {
                let mut data = String::from(r#"{"user_id":"#);
                user_id(&mut data, member);
                data.push('}');
                event("pusher_internal:member_removed", Some(channel), &data)
            }
        },
        Push::Counted { channel, count } => {
            let data = format!(r#"{{"subscription_count":{count}}}"#);
            event("pusher_internal:subscription_count", Some(channel), &data)
        }
        Push::SignedIn { user_data } => {
            let mut data = String::from(r#"{"user_data":"#);
            string(&mut data, user_data);
            data.push('}');
            event("pusher:signin_success", None, &data)
        }
        Push::Watched { online, offline } => watched(online, offline),
        Push::Gap { channel, .. } => event("carillon:gap", Some(channel), "{}"),
        Push::Error { refusal, channel, .. } => refused(refusal, channel.as_deref(), pusher),
        Push::Unsubscribed { channel, refusal: Some(refusal), .. } => {
            refused(refusal, Some(channel.as_str()), pusher)
        }
        Push::Ping => event("pusher:ping", None, "{}"),
        Push::Pong { .. } => event("pusher:pong", None, "{}"),
        Push::Goodbye { reason, .. } if pusher.old => {
            let (code, message) = close(*reason);
            error(Some(code), message)
        }
        Push::Unsubscribed { refusal: None, .. }
        | Push::NotSubscribed { .. }
        | Push::Authenticated { .. }
        | Push::Members { .. }
        | Push::Goodbye { .. } => String::new(),
    }
}

/// Writes an error that is not about a channel: the one event whose `data` is an object.
#[must_use]
pub fn error(code: Option<u16>, message: &str) -> String {
    let mut out = String::from(r#"{"event":"pusher:error","data":{"code":"#);
    let _infallible = match code {
        Some(code) => write!(out, "{code}"),
        None => write!(out, "null"),
    };
    out.push_str(r#","message":"#);
    string(&mut out, message);
    out.push_str("}}");
    out
}

/// Wraps a text in a line of the HTTP fallback: an array of frames, each as a string.
#[must_use]
pub fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len().saturating_add(text.len() / 4).saturating_add(8));
    out.push_str("a[");
    string(&mut out, text);
    out.push_str("]\n");
    out
}

fn welcome(connection: ConnectionId) -> String {
    let (high, low) = connection.halves();
    let data = format!(r#"{{"socket_id":"{high}.{low}","activity_timeout":{ACTIVITY_TIMEOUT_SECONDS}}}"#);
    event("pusher:connection_established", None, &data)
}

fn presence(members: &[Member]) -> String {
    let mut out = String::from(r#"{"presence":{"ids":["#);
    for (place, member) in members.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        string(&mut out, member.user.as_str());
    }
    out.push_str(r#"],"hash":{"#);
    for (place, member) in members.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        string(&mut out, member.user.as_str());
        out.push(':');
        info(&mut out, member);
    }
    let _infallible = write!(out, r#"}},"count":{}}}}}"#, members.len());
    out
}

fn watched(online: &[UserId], offline: &[UserId]) -> String {
    let mut data = String::from(r#"{"events":["#);
    let mut first = true;
    for (name, users) in [("online", online), ("offline", offline)] {
        if users.is_empty() {
            continue;
        }
        if !std::mem::take(&mut first) {
            data.push(',');
        }
        let _infallible = write!(data, r#"{{"name":"{name}","user_ids":["#);
        for (place, user) in users.iter().enumerate() {
            if place > 0 {
                data.push(',');
            }
            string(&mut data, user.as_str());
        }
        data.push_str("]}");
    }
    data.push_str("]}");
    event("pusher_internal:watchlist_events", None, &data)
}

/// Writes a refusal: of a request, and, where it was a subscription and the application wants that, for the listeners of
/// the channel.
fn refused(refusal: &Refusal, channel: Option<&str>, pusher: &Pusher) -> String {
    let (code, status) = match (refusal.code, channel) {
        (ErrorCode::RateLimited | ErrorCode::TooLarge, None) => (Some(4301), 429),
        (ErrorCode::LimitExceeded, None) => (Some(4302), 400),
        (ErrorCode::Unauthorized, None) => (Some(4009), 401),
        (code, _) => (None, code.http_status()),
    };
    if let (ErrorCode::AlreadySubscribed, Some(channel)) = (refusal.code, channel) {
        return error(None, &format!("Existing subscription to channel {channel}"));
    }
    let mut out = error(code, &refusal.message);
    if let (Some(channel), true) = (channel, pusher.subscription_errors) {
        let kind = match refusal.code {
            ErrorCode::Unauthorized | ErrorCode::Forbidden => "AuthError",
            ErrorCode::LimitExceeded => "LimitReached",
            ErrorCode::BadRequest
            | ErrorCode::TokenExpired
            | ErrorCode::NotFound
            | ErrorCode::TooLarge
            | ErrorCode::UnknownType
            | ErrorCode::AlreadySubscribed
            | ErrorCode::NotEnabled
            | ErrorCode::UnsupportedMediaType
            | ErrorCode::MethodNotAllowed
            | ErrorCode::RateLimited
            | ErrorCode::Internal
            | ErrorCode::Unavailable => "SubscriptionError",
        };
        let mut data = format!(r#"{{"type":"{kind}","error":"#);
        string(&mut data, &refusal.message);
        let _infallible = write!(data, r#","status":{status}}}"#);
        out.push('\n');
        out.push_str(r#"{"event":"pusher:subscription_error","channel":"#);
        match ChannelName::any(channel) {
            Ok(name) => string(&mut out, &spell(&name)),
            Err(_bad) => string(&mut out, channel),
        }
        out.push_str(r#","data":"#);
        string(&mut out, &data);
        out.push('}');
    }
    out
}

fn event(name: &str, about: Option<&ChannelName>, data: &str) -> String {
    let mut out = String::with_capacity(data.len().saturating_add(120));
    let _infallible = write!(out, r#"{{"event":"{name}""#);
    if let Some(about) = about {
        channel(&mut out, about);
    }
    out.push_str(r#","data":"#);
    string(&mut out, data);
    out.push('}');
    out
}

fn channel(out: &mut String, channel: &ChannelName) {
    out.push_str(r#","channel":"#);
    string(out, &spell(channel));
}

/// Writes an id as the application does.
fn user_id(out: &mut String, member: &Member) {
    match member.kind {
        IdKind::Text => string(out, member.user.as_str()),
        IdKind::Number => out.push_str(member.user.as_str()),
    }
}

fn info(out: &mut String, member: &Member) {
    match &member.info {
        Some(info) => out.push_str(&String::from_utf8_lossy(info)),
        None => out.push_str("null"),
    }
}

/// Adds a JSON string.
fn string(out: &mut String, value: &str) {
    let quoted = serde_json::to_string(value).unwrap_or_default();
    out.push_str(&quoted);
}

#[cfg(test)]
mod tests;
