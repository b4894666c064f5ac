//! What the node tells as webhooks have it.
//!
//! **Lives here:** one kind of word turned into the other.
//! **Called by:** `wiring`.
//! **Must not know:** who is told, HTTP.

use std::sync::Arc;

use carillon_auth::socket_id;
use carillon_backend::{Event, Webhooks};
use carillon_model::{ChannelName, UnixMillis};
use carillon_node::{Tell, Told};
use carillon_tasks::clock;

/// Tells applications.
#[derive(Debug)]
pub(crate) struct Telling(pub(crate) Arc<Webhooks>);

impl Tell for Telling {
    fn tell(&self, channel: &ChannelName, told: Told, key: Option<String>) {
        let event = match told {
            Told::Occupied => Event::Occupied,
            Told::Vacated => Event::Vacated,
            Told::Came(member) => Event::MemberAdded { user_id: member.user.to_string() },
            Told::Went(member) => Event::MemberRemoved { user_id: member.user.to_string() },
            Told::Counted(count) => Event::SubscriptionCount(count),
            Told::Sent { event, data, connection, user } => Event::Client {
                event: event.as_str().to_owned(),
                data: text_of(&data),
                socket_id: socket_id(connection),
                user_id: user.map(|user| user.to_string()),
            },
            Told::Missed => Event::CacheMiss,
        };
        let now = UnixMillis::new(u64::try_from(clock::since_1970().as_millis()).unwrap_or(u64::MAX));
        self.0.tell(channel, &event, key.as_deref(), now);
    }
}

/// Returns a client event's data as a string: a JSON string is itself, any other value its text.
fn text_of(data: &[u8]) -> String {
    serde_json::from_slice(data).unwrap_or_else(|_no_string| String::from_utf8_lossy(data).into_owned())
}
