//! The applications that a node serves.
//!
//! **Lives here:** what the operator decides about an application: its keys, limits, switches, webhooks.
//! **Called by:** `config` makes them; `node`, dialects and the API ask them.
//! **Must not know:** how signatures are made.

use std::{fmt, sync::Arc, time::Duration};

use crate::BadText;

/// The part of an application's id that channel names carry: nothing for the first application.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct AppSpace(Option<Arc<str>>);

impl AppSpace {
    /// Takes the id of an application that is not the first: 1 to 32 characters of `[a-z0-9-]`.
    ///
    /// # Errors
    /// [`BadText`] when it is empty, too long, or holds another character.
    pub fn new(id: &str) -> Result<Self, BadText> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if id.is_empty() || id.len() > 32 || !id.bytes().all(legal) {
            let rule = "has 1 to 32 characters of a-z, 0-9 and `-`";
            return Err(BadText { what: "an application's id", rule });
        }
        Ok(Self(Some(Arc::from(id))))
    }

    /// Returns the id; empty for the first application.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for AppSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AppSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// One application.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, as operators write it")]
#[derive(Clone, Debug)]
pub struct App {
    /// What it is called in paths, API keys and the broker: 1 to 32 characters of `[a-z0-9-]`.
    pub id: String,
    /// What its channels carry.
    pub space: AppSpace,
    /// Its keys; none when it has no Pusher clients. The first signs webhooks.
    pub keys: Vec<AppKey>,
    /// Whether it is served.
    pub enabled: bool,
    /// Whether clients may send events to each other.
    pub client_events: bool,
    /// Whether subscribers are told how many they are.
    pub subscription_count: bool,
    /// Whether users are told which of their friends are online.
    pub watchlist: bool,
    /// Whether a refused subscription is told as a channel's event, too.
    pub subscription_errors: bool,
    /// Connections of one node at most. Without it: those of the node.
    pub connections_max: Option<usize>,
    /// In which time a connection must sign in or join a guarded channel. Without it, never.
    pub authorize_within: Option<Duration>,
    /// Its limits.
    pub limits: AppLimits,
    /// Where events about its channels are sent.
    pub webhooks: Vec<Webhook>,
}

/// A key of an application and the secret that belongs to it.
#[derive(Clone, PartialEq, Eq)]
pub struct AppKey {
    /// Public: clients name it.
    pub key: String,
    /// What clients and backends sign with.
    pub secret: String,
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppKey").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The limits of an application, as those of Pusher Channels by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppLimits {
    /// Bytes of an event's data.
    pub event_data_bytes: usize,
    /// Channels of one trigger.
    pub channels_per_event: usize,
    /// Events of one batch.
    pub events_per_batch: usize,
    /// Characters of a channel's name, its prefix included.
    pub channel_name_bytes: usize,
    /// Members of a presence channel.
    pub presence_members: usize,
    /// Bytes of what a member says of itself.
    pub presence_member_bytes: usize,
    /// Users that one watches.
    pub watchlist: usize,
    /// Client events of one connection in a second.
    pub client_events_per_second: u32,
    /// Seconds by which the clock of a backend may be wrong.
    pub clock_skew: Duration,
}

impl Default for AppLimits {
    fn default() -> Self {
        Self {
            event_data_bytes: 10 * 1024,
            channels_per_event: 100,
            events_per_batch: 10,
            channel_name_bytes: 164,
            presence_members: 100,
            presence_member_bytes: 1024,
            watchlist: 100,
            client_events_per_second: 10,
            clock_skew: Duration::from_secs(600),
        }
    }
}

/// Where an application is told about its channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Where to; `http://` or `https://`.
    pub url: String,
    /// What is told.
    pub events: Vec<WebhookEvent>,
    /// Whether several events may go in one request.
    pub batch: bool,
}

/// What an application can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WebhookEvent {
    /// A channel has its first subscriber, or has lost its last.
    ChannelExistence,
    /// A user has come to a presence channel, or has left it.
    Presence,
    /// A client has sent an event.
    ClientEvent,
    /// Somebody joined a cache channel that was empty.
    CacheChannels,
    /// A channel's number of subscribers has changed.
    SubscriptionCount,
}

impl WebhookEvent {
    /// Every kind, in the order of the reference.
    pub const ALL: [Self; 5] = [
        Self::ChannelExistence,
        Self::Presence,
        Self::ClientEvent,
        Self::CacheChannels,
        Self::SubscriptionCount,
    ];

    /// Returns the name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ChannelExistence => "channel_existence",
            Self::Presence => "presence",
            Self::ClientEvent => "client_events",
            Self::CacheChannels => "cache_channels",
            Self::SubscriptionCount => "subscription_count",
        }
    }
}

impl App {
    /// Makes an application that has an id and nothing else.
    #[must_use]
    pub fn bare(id: &str, space: AppSpace) -> Self {
        Self {
            id: id.to_owned(),
            space,
            keys: Vec::new(),
            enabled: true,
            client_events: false,
            subscription_count: false,
            watchlist: false,
            subscription_errors: true,
            connections_max: None,
            authorize_within: None,
            limits: AppLimits::default(),
            webhooks: Vec::new(),
        }
    }

    /// Returns the secret of one of its keys.
    #[must_use]
    pub fn secret_of(&self, key: &str) -> Option<&str> {
        self.keys.iter().find(|known| known.key == key).map(|known| known.secret.as_str())
    }

    /// Says whether a webhook of the application tells such an event.
    #[must_use]
    pub fn tells(&self, event: WebhookEvent) -> bool {
        self.webhooks.iter().any(|hook| hook.events.contains(&event))
    }

    /// Says whether all nodes must know how many subscribers a channel has.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.subscription_count
            || self.tells(WebhookEvent::ChannelExistence)
            || self.tells(WebhookEvent::SubscriptionCount)
    }
}

/// The applications of a node; never empty. Their ids differ, and their keys do.
#[derive(Clone, Debug)]
pub struct Apps(Arc<[Arc<App>]>);

impl Apps {
    /// The id of the only application of a configuration that names none.
    pub const ALONE: &str = "main";

    /// Takes applications, the first of which native clients belong to that name none. Without any there is one
    /// without keys.
    #[must_use]
    pub fn new(mut apps: Vec<App>) -> Self {
        if apps.is_empty() {
            apps.push(App::bare(Self::ALONE, AppSpace::default()));
        }
        Self(apps.into_iter().map(Arc::new).collect())
    }

    /// Returns the first.
    #[must_use]
    pub fn first(&self) -> &Arc<App> {
        let [first, ..] = &*self.0 else { unreachable!("there is always one") };
        first
    }

    /// Returns all in their order.
    #[must_use]
    pub fn all(&self) -> &[Arc<App>] {
        &self.0
    }

    /// Finds an application by its id.
    #[must_use]
    pub fn by_id(&self, id: &str) -> Option<&Arc<App>> {
        self.0.iter().find(|app| app.id == id)
    }

    /// Finds the application that a key belongs to.
    #[must_use]
    pub fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.0.iter().find(|app| app.secret_of(key).is_some())
    }

    /// Finds the application that a channel belongs to.
    #[must_use]
    pub fn of(&self, channel: &crate::ChannelName) -> Option<&Arc<App>> {
        self.0.iter().find(|app| app.space.as_str() == channel.app())
    }
}

impl Default for Apps {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}
