//! What backends ask about channels and users.
//!
//! **Lives here:** the parameters of questions, and the members of answers: those that were asked for, and no others.
//! **Called by:** `pusher`; `events` for what is told of the channels of an event.
//! **Must not know:** who has signed, how nodes ask each other.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_model::{App, ChannelKind, ChannelName, ErrorCode, Findings, Question, Refusal, UserId};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::{Answer, PusherRest, bad, channel_name};
use crate::{channels::Cached, form};

/// What is to be told of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Info {
    user_count: bool,
    subscription_count: bool,
    cache: bool,
}

impl Info {
    /// Reads a list with commas. What is not known is left out.
    pub(super) fn read(text: &str) -> Self {
        let mut info = Self::default();
        for word in text.split(',') {
            match word.trim() {
                "user_count" => info.user_count = true,
                "subscription_count" => info.subscription_count = true,
                "cache" => info.cache = true,
                _ => {}
            }
        }
        info
    }

    pub(super) fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// The parameters of a question.
#[derive(Default)]
struct Asked {
    info: Info,
    prefix: String,
}

impl Asked {
    fn read(query: &str) -> Result<Self, Refusal> {
        let (mut info, mut prefix) = (String::new(), String::new());
        for pair in form::pairs(query) {
            let (name, value) = pair?;
            // Some clients send a list as `info[0]=…&info[1]=…`.
            match name.split('[').next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "info" => info.extend([&value, ","]),
                "filter_by_prefix" => prefix = value.into_owned(),
                _ => {}
            }
        }
        Ok(Self { info: Info::read(&info), prefix })
    }
}

impl PusherRest {
    /// Lists the channels that have subscribers.
    pub(super) async fn list(&self, app: &App, query: &str, deadline: Instant) -> Result<Answer, Refusal> {
        let Asked { info, prefix } = Asked::read(query)?;
        if info.user_count && !prefix.starts_with("presence-") {
            return Err(bad(
                "user_count may only be requested for presence channels - please supply filter_by_prefix \
                 beginning with presence-",
            ));
        }
        if prefix.len() > app.limits.channel_name_bytes {
            return Err(bad("Invalid filter_by_prefix: it is longer than the name of a channel"));
        }
        let findings = self.channels.ask(Question::Counts { app: app.space.clone(), prefix }, deadline).await;
        let mut channels = Map::new();
        for (name, count) in &findings.channels {
            // Not one of ours, such as that of a user.
            if let Ok(channel) = ChannelName::new(name) {
                let attributes = self.told(&channel.within(&app.space), info, *count);
                channels.insert(name.clone(), attributes.into());
            }
        }
        Ok(answer(&findings, &json!({ "channels": channels })))
    }

    /// Tells of one channel.
    pub(super) async fn one(
        &self,
        app: &App,
        name: &str,
        query: &str,
        deadline: Instant,
    ) -> Result<Answer, Refusal> {
        let channel = in_path(app, name)?;
        let info = Asked::read(query)?.info;
        let kind = ChannelKind::of(&channel);
        if info.user_count && !kind.presence {
            return Err(bad("user_count may only be requested for presence channels"));
        }
        let findings = self.channels.ask(Question::Count(channel.clone()), deadline).await;
        let mut told = self.told(&channel, info, findings.total);
        told.insert("occupied".to_owned(), (findings.total > 0).into());
        if info.cache {
            let cached = if kind.cache { self.channels.cached(&channel, deadline).await? } else { None };
            told.insert("cache".to_owned(), cached.map_or(Value::Null, |cached| show(&cached)));
        }
        Ok(answer(&findings, &told.into()))
    }

    /// Lists the users in a presence channel.
    pub(super) fn users(&self, app: &App, name: &str) -> Result<Answer, Refusal> {
        let channel = in_path(app, name)?;
        if !ChannelKind::of(&channel).presence {
            return Err(bad("Users may only be requested for presence channels"));
        }
        let members = self.channels.members(&channel);
        let users: Vec<_> = members.iter().map(|member| json!({ "id": member.user.as_str() })).collect();
        Ok(json!({ "users": users }).to_string().into())
    }

    /// Closes every connection that is signed in as a user.
    pub(super) async fn terminate(
        &self,
        app: &App,
        user: &str,
        deadline: Instant,
    ) -> Result<Answer, Refusal> {
        let user = decoded(user)?;
        let user = UserId::new(&user).map_err(|why| bad(format!("Invalid user id: {why}")))?;
        let findings = self.channels.ask(Question::Terminate(app.space.clone(), user), deadline).await;
        let Findings { answered, of, .. } = *findings;
        if answered < of {
            let text = format!("{answered} of {of} nodes have closed the user's connections; try again");
            return Err(Refusal::new(ErrorCode::Unavailable, text).retry_after(Duration::from_secs(1)));
        }
        Ok("{}".to_owned().into())
    }

    /// Counts the connections of the application.
    pub(super) async fn connections(&self, app: &App, deadline: Instant) -> Answer {
        let findings = self.channels.ask(Question::Connections(app.space.clone()), deadline).await;
        answer(&findings, &json!({ "connections": findings.total }))
    }

    /// Returns the subscriptions of channels to which something was published, if they were asked for.
    pub(super) async fn counts(
        &self,
        app: &App,
        asked: impl Iterator<Item = (&ChannelName, Info)>,
        deadline: Instant,
    ) -> Option<Arc<Findings>> {
        let counted = asked.filter(|(_, info)| info.subscription_count);
        let channels: BTreeSet<_> = counted.map(|(channel, _)| channel.clone()).collect();
        if channels.is_empty() {
            return None;
        }
        let question = Question::Each(app.space.clone(), channels.into_iter().collect());
        Some(self.channels.ask(question, deadline).await)
    }

    /// Returns what is told of a channel to whom an event was published.
    pub(super) fn attributes(
        &self,
        channel: &ChannelName,
        info: Info,
        counts: Option<&Findings>,
    ) -> Map<String, Value> {
        let count = counts.and_then(|counts| counts.channels.get(channel.as_str())).copied();
        self.told(channel, info, count.unwrap_or_default())
    }

    fn told(&self, channel: &ChannelName, info: Info, subscriptions: u64) -> Map<String, Value> {
        let mut told = Map::new();
        if info.user_count && ChannelKind::of(channel).presence {
            told.insert("user_count".to_owned(), self.channels.members(channel).len().into());
        }
        if info.subscription_count {
            told.insert("subscription_count".to_owned(), subscriptions.into());
        }
        told
    }
}

fn answer(findings: &Findings, json: &Value) -> Answer {
    Answer { json: json.to_string(), nodes: Some((findings.answered, findings.of)) }
}

/// Shows what is kept as Pusher clients are sent it, always a string: a JSON string is the text that it stands for,
/// whoever published it, and anything else is its own text.
fn show(cached: &Cached) -> Value {
    let text: Option<String> = serde_json::from_slice(&cached.data).ok();
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(&cached.data).into_owned());
    json!({ "data": text, "ttl": cached.expires_in.as_secs() })
}

fn in_path(app: &App, name: &str) -> Result<ChannelName, Refusal> {
    channel_name(app, &decoded(name)?)
}

fn decoded(part: &str) -> Result<std::borrow::Cow<'_, str>, Refusal> {
    percent_decode_str(part).decode_utf8().map_err(|_e| bad("Invalid path: it is not UTF-8"))
}
