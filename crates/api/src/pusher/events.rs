//! Events that backends trigger.
//!
//! **Lives here:** reading one event or a batch of them, every rule about it, publishing all or nothing.
//! **Called by:** `pusher`.
//! **Must not know:** who has signed, how the answer is sent.

use std::{borrow::Cow, time::Instant};

use carillon_auth::read_socket_id;
use carillon_model::{
    App, ChannelName, DataKind, ErrorCode, EventName, Findings, IdempotencyKey, NewMessage, Refusal,
    UnixMillis, UserId,
};
use futures_util::future::join_all;
use hyper::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use super::{Answer, PusherRest, bad, channel_name, questions::Info};
use crate::{
    data::Data,
    intake::{hand_over, unix_now},
};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// What a user's channel is called here.
const OF_USER: &str = "#server-to-user-";

/// Names of events that only we send.
const OURS: [&str; 2] = ["pusher:", "pusher_internal:"];

/// An event as it was sent. Other members are not looked at.
#[derive(Deserialize)]
struct Sent<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    channel: Option<Text<'a>>,
    channels: Option<Vec<Text<'a>>>,
    socket_id: Option<Text<'a>>,
    info: Option<Text<'a>>,
}

/// A batch as it was sent. Its items are read when it is known that they are not too many.
#[derive(Deserialize)]
struct SentBatch<'a> {
    #[serde(borrow)]
    batch: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An event that was checked.
struct Event {
    /// The channels as the publisher calls them, with what is published to each.
    messages: Vec<(String, NewMessage)>,
    info: Info,
}

impl PusherRest {
    /// Publishes one event to one channel or several.
    pub(super) async fn event(
        &self,
        app: &App,
        headers: &HeaderMap,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Answer, Refusal> {
        let sent: Sent<'_> = serde_json::from_slice(body).map_err(|why| unreadable(&why))?;
        let event = Event::check(app, sent, key(headers, "")?, unix_now())?;
        self.publish_all(event.messages.iter().map(|(_, message)| message.clone()), deadline).await?;
        if event.info.is_empty() {
            return Ok("{}".to_owned().into());
        }
        let asked = event.messages.iter().map(|(_, message)| (&message.channel, event.info));
        let counts = self.counts(app, asked, deadline).await;
        let told = |(name, message): &(String, NewMessage)| {
            (name.clone(), self.attributes(&message.channel, event.info, counts.as_deref()).into())
        };
        let channels: Map<_, _> = event.messages.iter().map(told).collect();
        Ok(answer(&Map::from_iter([("channels".to_owned(), channels.into())]), counts.as_deref()))
    }

    /// Publishes a batch of events, each to one channel.
    pub(super) async fn batch(
        &self,
        app: &App,
        headers: &HeaderMap,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Answer, Refusal> {
        let sent: SentBatch<'_> = serde_json::from_slice(body).map_err(|why| unreadable(&why))?;
        let items = sent.batch.ok_or_else(|| missing("batch"))?;
        let most = app.limits.events_per_batch;
        if items.len() > most {
            return Err(bad(format!("Batch too large (> {most})")));
        }
        let time = unix_now();
        let mut events = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let sent: Sent<'_> = serde_json::from_str(item.get()).map_err(|why| unreadable(&why))?;
            if sent.channels.is_some() {
                return Err(bad("Invalid parameter: channels; an event of a batch has one channel"));
            }
            events.push(Event::check(app, sent, key(headers, &format!(":{index}"))?, time)?);
        }
        let messages = events.iter().flat_map(|event| &event.messages);
        self.publish_all(messages.map(|(_, message)| message.clone()), deadline).await?;
        if events.iter().all(|event| event.info.is_empty()) {
            return Ok("{}".to_owned().into());
        }
        let channel = |event: &Event| event.messages.first().map(|(_, message)| message.channel.clone());
        let channels: Vec<_> = events.iter().map(|event| (channel(event), event.info)).collect();
        let asked = channels.iter().filter_map(|(channel, info)| Some((channel.as_ref()?, *info)));
        let counts = self.counts(app, asked, deadline).await;
        let told = |(channel, info): &(Option<ChannelName>, Info)| match channel {
            Some(channel) => self.attributes(channel, *info, counts.as_deref()).into(),
            None => Value::from(Map::new()),
        };
        let told: Vec<Value> = channels.iter().map(told).collect();
        Ok(answer(&Map::from_iter([("batch".to_owned(), told.into())]), counts.as_deref()))
    }

    /// Publishes in order. Nothing is published unless every channel's rule takes what is for it.
    async fn publish_all(
        &self,
        messages: impl Iterator<Item = NewMessage>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let messages: Vec<_> = messages.collect();
        messages.iter().try_for_each(|message| self.publisher.check(message))?;
        let handed = messages.into_iter().map(|message| hand_over(&*self.publisher, message, deadline));
        let outcomes = join_all(handed).await;
        outcomes.iter().for_each(|outcome| self.meters.message(outcome));
        match outcomes.into_iter().find_map(Result::err) {
            None => Ok(()),
            Some(refusal) => Err(halfway(refusal)),
        }
    }
}

/// Answers with what was asked for; says how many nodes know where some were silent.
fn answer(told: &Map<String, Value>, counts: Option<&Findings>) -> Answer {
    Answer {
        json: Value::from(told.clone()).to_string(),
        nodes: counts.map(|counts| (counts.answered, counts.of)),
    }
}

impl Event {
    /// Checks all that can be known without the broker.
    fn check(
        app: &App,
        sent: Sent<'_>,
        id: Option<IdempotencyKey>,
        time: UnixMillis,
    ) -> Result<Self, Refusal> {
        let event = event_name(&sent.name.ok_or_else(|| missing("name"))?.0)?;
        let data = Data::from_raw_as_text(sent.data.ok_or_else(|| missing("data"))?)?;
        let exclude = match sent.socket_id.map(|id| read_socket_id(&id.0)).transpose() {
            Ok(connection) => connection.flatten().into_iter().collect(),
            Err(why) => return Err(bad(format!("Invalid socket_id: {why}"))),
        };
        let mut message = None;
        let mut messages = Vec::new();
        for (name, channel) in channels(app, sent.channel, sent.channels.unwrap_or_default())? {
            let message = message.get_or_insert_with(|| NewMessage {
                channel: channel.clone(),
                event: Some(event.clone()),
                data: data.0.clone(),
                kind: DataKind::Text,
                time,
                user: None,
                exclude: Clone::clone(&exclude),
                id: id.clone(),
            });
            messages.push((name, NewMessage { channel, ..message.clone() }));
        }
        if let Some((_, message)) = messages.first() {
            let most = app.limits.event_data_bytes;
            if message.data_bytes() > most {
                let text =
                    format!("The data content of this event exceeds the allowed maximum ({most} bytes)");
                return Err(Refusal::new(ErrorCode::TooLarge, text));
            }
        }
        let info = sent.info.map(|info| Info::read(&info.0)).unwrap_or_default();
        Ok(Self { messages, info })
    }
}

fn event_name(text: &str) -> Result<EventName, Refusal> {
    if OURS.iter().any(|prefix| text.starts_with(prefix)) {
        return Err(bad(
            "Invalid event name: names that begin with pusher: or pusher_internal: are reserved",
        ));
    }
    EventName::new(text).map_err(|why| bad(format!("Invalid event name: {why}")))
}

/// Returns each channel once, with the name that it was given.
fn channels(
    app: &App,
    one: Option<Text<'_>>,
    many: Vec<Text<'_>>,
) -> Result<Vec<(String, ChannelName)>, Refusal> {
    let most = app.limits.channels_per_event;
    let too_many = || bad(format!("Too many channels: an event has at most {most}"));
    // Ten times the limit: names that repeat are counted once.
    if many.len() / 10 > most {
        return Err(too_many());
    }
    let mut channels: Vec<(String, ChannelName)> = Vec::with_capacity(many.len().max(1));
    for Text(name) in one.into_iter().chain(many) {
        if channels.iter().any(|(known, _)| *known == name) {
            continue;
        }
        if channels.len() == most {
            return Err(too_many());
        }
        let channel = target(app, &name)?;
        channels.push((name.into_owned(), channel));
    }
    if channels.is_empty() {
        return Err(missing("channel"));
    }
    Ok(channels)
}

/// Reads the name of a channel, or of all connections of one user.
fn target(app: &App, name: &str) -> Result<ChannelName, Refusal> {
    let Some(user) = name.strip_prefix(OF_USER) else { return channel_name(app, name) };
    let user = UserId::new(user).map_err(|why| bad(format!("Invalid channel name: {why}")))?;
    let channel = ChannelName::of_user(&user).map_err(|why| bad(format!("Invalid channel name: {why}")))?;
    Ok(channel.within(&app.space))
}

/// Reads the idempotency key, which is another for each item of a batch.
fn key(headers: &HeaderMap, item: &str) -> Result<Option<IdempotencyKey>, Refusal> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let key = IdempotencyKey::new(&format!("{text}{item}"));
    key.map(Some).map_err(|why| bad(format!("Invalid Idempotency-Key: {why}")))
}

fn missing(name: &'static str) -> Refusal {
    bad(format!("Missing required parameter: {name}"))
}

fn unreadable(why: &serde_json::Error) -> Refusal {
    bad(format!("Invalid JSON: {why}"))
}

/// Says what to do when the broker did not take everything.
fn halfway(refusal: Refusal) -> Refusal {
    if !refusal.code.is_retryable() {
        return refusal;
    }
    let message = format!(
        "{}; some of it may have been published: nothing is published twice if every attempt carries the same \
         Idempotency-Key header",
        refusal.message
    );
    Refusal { message: message.into(), ..refusal }
}
