//! Events as webhooks have them, and the body of a request.
//!
//! **Lives here:** the JSON, as the Pusher protocol's page on webhooks has it.
//! **Called by:** `webhooks` writes a body for each event, `send` puts several into one.
//! **Must not know:** queues, HTTP.

use bytes::Bytes;
use carillon_model::{ChannelName, UnixMillis, WebhookEvent};
use serde::Serialize;

/// Something that an application is told about one of its channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The channel has its first subscriber.
    Occupied,
    /// The channel has lost its last subscriber.
    Vacated,
    /// A user has come to a presence channel, with the first of its connections.
    MemberAdded {
        /// The user.
        user_id: String,
    },
    /// A user has left a presence channel, with the last of its connections.
    MemberRemoved {
        /// The user.
        user_id: String,
    },
    /// A client has sent an event.
    Client {
        /// Its name.
        event: String,
        /// Its data: a string is itself, any other JSON value its text.
        data: String,
        /// Who sent it.
        socket_id: String,
        /// Which user that is, on presence channels.
        user_id: Option<String>,
    },
    /// Somebody joined a cache channel that was empty.
    CacheMiss,
    /// How many subscribers the channel has now.
    SubscriptionCount(u64),
}

/// The same as it is written.
#[derive(Serialize)]
struct Written<'a> {
    name: &'static str,
    channel: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    socket_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscription_count: Option<u64>,
}

const TIME: &str = "{\"time_ms\":";
const EVENTS: &str = ",\"events\":[";
const END: &str = "]}";

impl Event {
    /// Returns what a webhook asks for to be told of it.
    pub(crate) const fn kind(&self) -> WebhookEvent {
        match self {
            Self::Occupied | Self::Vacated => WebhookEvent::ChannelExistence,
            Self::MemberAdded { .. } | Self::MemberRemoved { .. } => WebhookEvent::Presence,
            Self::Client { .. } => WebhookEvent::ClientEvent,
            Self::CacheMiss => WebhookEvent::CacheChannels,
            Self::SubscriptionCount(_) => WebhookEvent::SubscriptionCount,
        }
    }

    /// Writes the body of a request that tells this alone.
    pub(crate) fn body(&self, channel: &ChannelName, now: UnixMillis) -> Bytes {
        let bare = Written {
            name: "",
            channel: channel.as_str(),
            event: None,
            data: None,
            socket_id: None,
            user_id: None,
            subscription_count: None,
        };
        let written = match self {
            Self::Occupied => Written { name: "channel_occupied", ..bare },
            Self::Vacated => Written { name: "channel_vacated", ..bare },
            Self::MemberAdded { user_id } => Written { name: "member_added", user_id: Some(user_id), ..bare },
            Self::MemberRemoved { user_id } => {
                Written { name: "member_removed", user_id: Some(user_id), ..bare }
            }
            Self::Client { event, data, socket_id, user_id } => Written {
                name: "client_event",
                event: Some(event),
                data: Some(data),
                socket_id: Some(socket_id),
                user_id: user_id.as_deref(),
                ..bare
            },
            Self::CacheMiss => Written { name: "cache_miss", ..bare },
            Self::SubscriptionCount(count) => {
                Written { name: "subscription_count", subscription_count: Some(*count), ..bare }
            }
        };
        let event = serde_json::to_string(&written).expect("strings and numbers are JSON");
        Bytes::from(format!("{TIME}{}{EVENTS}{event}{END}", now.get()))
    }
}

/// Puts the events of several bodies into one, which has the time of the first: the same bodies make the same bytes.
/// Returns when the last event happened, too. `None` when one is not what [`Event::body`] writes.
pub(crate) fn join(bodies: &[Bytes]) -> Option<(Bytes, UnixMillis)> {
    let (mut joined, mut last) = (String::new(), UnixMillis::new(0));
    for body in bodies {
        let body = std::str::from_utf8(body).ok()?;
        let (time, events) = body.strip_prefix(TIME)?.strip_suffix(END)?.split_once(EVENTS)?;
        last = last.max(UnixMillis::new(time.parse().ok()?));
        if joined.is_empty() {
            joined = format!("{TIME}{time}{EVENTS}{events}");
        } else {
            joined.push(',');
            joined.push_str(events);
        }
    }
    joined.push_str(END);
    Some((Bytes::from(joined), last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_written(event: &Event, expected: &str) {
        let channel = ChannelName::new("presence-\"a\"").unwrap();
        let body = event.body(&channel, UnixMillis::new(1_327_078_148_132));
        let expected =
            format!("{{\"time_ms\":1327078148132,\"events\":[{{{}}}]}}", expected.replace('\'', "\""));
        assert_eq!(body, expected);
    }

    #[test]
    fn events_have_the_members_of_the_protocol() {
        let user_id = "7".to_owned();
        let channel = r#"'channel':'presence-\"a\"'"#;
        assert_written(&Event::Occupied, &format!("'name':'channel_occupied',{channel}"));
        assert_written(&Event::Vacated, &format!("'name':'channel_vacated',{channel}"));
        let added = Event::MemberAdded { user_id: user_id.clone() };
        assert_written(&added, &format!("'name':'member_added',{channel},'user_id':'7'"));
        let removed = Event::MemberRemoved { user_id: user_id.clone() };
        assert_written(&removed, &format!("'name':'member_removed',{channel},'user_id':'7'"));
        let sent = |user_id| Event::Client {
            event: "client-x".to_owned(),
            data: "{\"a\":\n1}".to_owned(),
            socket_id: "1.2".to_owned(),
            user_id,
        };
        let fields = format!(
            r#"'name':'client_event',{channel},'event':'client-x','data':'{{\"a\":\n1}}','socket_id':'1.2'"#
        );
        assert_written(&sent(None), &fields);
        assert_written(&sent(Some(user_id)), &format!("{fields},'user_id':'7'"));
        assert_written(&Event::CacheMiss, &format!("'name':'cache_miss',{channel}"));
        let count = Event::SubscriptionCount(101);
        assert_written(&count, &format!("'name':'subscription_count',{channel},'subscription_count':101"));
    }

    #[test]
    fn several_events_go_into_one_body_in_their_order() {
        let channel = ChannelName::new("a").unwrap();
        let body = |event: &Event, at| event.body(&channel, UnixMillis::new(at));
        let alone = body(&Event::Occupied, 5);
        assert_eq!(join(std::slice::from_ref(&alone)), Some((alone.clone(), UnixMillis::new(5))));
        let joined = "{\"time_ms\":5,\"events\":[{\"name\":\"channel_occupied\",\"channel\":\"a\"},\
                      {\"name\":\"cache_miss\",\"channel\":\"a\"},{\"name\":\"channel_vacated\",\"channel\":\"a\"}]}";
        let bodies = [alone.clone(), body(&Event::CacheMiss, 9), body(&Event::Vacated, 7)];
        assert_eq!(join(&bodies), Some((Bytes::from(joined), UnixMillis::new(9))));
        for garbage in ["", "{}", "{\"time_ms\":x,\"events\":[]}", "{\"time_ms\":1,\"events\":[", "\u{e9}"] {
            assert_eq!(join(&[alone.clone(), Bytes::from(garbage)]), None, "{garbage}");
        }
    }
}
