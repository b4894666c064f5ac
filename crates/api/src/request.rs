//! One validated publish, whatever it was written in.
//!
//! **Lives here:** the members of a publish and every rule about them.
//! **Called by:** `json`, `form`, `http` and `grpc` collect [`Members`]; `intake` publishes a [`Publish`]; `questions`
//! reads names.
//! **Must not know:** HTTP, gRPC, the broker.

use std::borrow::Cow;

use carillon_model::{
    AppSpace, BadChannel, BadText, ChannelName, ConnectionId, ErrorCode, EventName, IdempotencyKey,
    NewMessage, Refusal, UnixMillis, UserId,
};

use crate::{config::LIST_MAX, data::Data};

/// The names of the members, as HTTP spells them.
pub(crate) const MEMBERS: [&str; 7] = ["channel", "channels", "user", "event", "data", "id", "exclude"];

/// A member that is part of the design and not of this version.
pub(crate) const NOT_YET: &str = "tags";

/// What a publish may say, before it is checked.
#[derive(Debug, Default)]
pub(crate) struct Members<'a> {
    pub(crate) channel: Option<Cow<'a, str>>,
    pub(crate) channels: Option<Vec<Cow<'a, str>>>,
    pub(crate) user: Option<Cow<'a, str>>,
    pub(crate) event: Option<Cow<'a, str>>,
    pub(crate) data: Option<Data>,
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) exclude: Option<Vec<Cow<'a, str>>>,
}

/// How many channels one request may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// One channel or one user: there is one result for each item.
    One,
    /// Up to 100 channels.
    Many,
}

/// A publish that was checked: what it says can be published.
#[derive(Clone, Debug)]
pub(crate) struct Publish {
    /// At least one, none twice.
    pub(crate) channels: Vec<ChannelName>,
    event: Option<EventName>,
    data: Data,
    id: Option<IdempotencyKey>,
    exclude: Box<[ConnectionId]>,
}

impl Publish {
    /// Checks `members`.
    pub(crate) fn new(members: Members<'_>, reach: Reach) -> Result<Self, Refusal> {
        let channels = targets(members.channel, members.channels, members.user, reach)?;
        let data = members.data.ok_or_else(|| {
            bad("`data` is missing; send `\"data\": null` for a message without data (in PHP, json_encode gives false \
                 for text that is not UTF-8)")
        })?;
        Ok(Self {
            channels,
            event: members.event.map(|text| EventName::new(&text)).transpose().map_err(in_member("event"))?,
            data,
            id: members.id.map(|text| IdempotencyKey::new(&text)).transpose().map_err(in_member("id"))?,
            exclude: members.exclude.map(excluded).transpose()?.unwrap_or_default(),
        })
    }

    /// Moves the channels into the application `space`.
    pub(crate) fn within(mut self, space: &AppSpace) -> Self {
        self.channels.iter_mut().for_each(|channel| *channel = channel.within(space));
        self
    }

    /// Returns the message for `channel`, stamped with `time`.
    pub(crate) fn message(&self, channel: ChannelName, time: UnixMillis) -> NewMessage {
        NewMessage {
            channel,
            event: self.event.clone(),
            data: self.data.0.clone(),
            kind: carillon_model::DataKind::Json,
            time,
            user: None,
            exclude: self.exclude.clone(),
            id: self.id.clone(),
        }
    }
}

fn targets(
    channel: Option<Cow<'_, str>>,
    channels: Option<Vec<Cow<'_, str>>>,
    user: Option<Cow<'_, str>>,
    reach: Reach,
) -> Result<Vec<ChannelName>, Refusal> {
    match (channel, channels, user) {
        (Some(name), None, None) => Ok(vec![channel_name(&name)?]),
        (None, None, Some(user)) => {
            let user = UserId::new(&user).map_err(in_member("user"))?;
            Ok(vec![ChannelName::of_user(&user).map_err(|e| bad(format!("`user`: {e}")))?])
        }
        (None, Some(_), None) if reach == Reach::One => {
            Err(bad("an item has one `channel` or one `user`; repeat the item for each of the `channels`"))
        }
        (None, Some(names), None) => many(&names),
        (None, None, None) => Err(bad("name where to publish: `channel`, `channels` or `user`")),
        _ => Err(bad("`channel`, `channels` and `user` exclude each other; send one of them")),
    }
}

fn many(names: &[Cow<'_, str>]) -> Result<Vec<ChannelName>, Refusal> {
    if names.is_empty() {
        return Err(bad("`channels` is empty; name at least one"));
    }
    let mut channels: Vec<ChannelName> = Vec::with_capacity(names.len().min(LIST_MAX));
    for name in names {
        let name = channel_name(name)?;
        if !channels.contains(&name) {
            channels.push(name);
        }
        if channels.len() > LIST_MAX {
            return Err(Refusal::new(
                ErrorCode::LimitExceeded,
                format!("a request names at most {LIST_MAX} channels; send several requests"),
            ));
        }
    }
    Ok(channels)
}

/// Reads the name of a channel.
pub(crate) fn channel_name(text: &str) -> Result<ChannelName, Refusal> {
    ChannelName::new(text).map_err(|why| match why {
        BadChannel::Reserved => bad(format!("`{text}`: {why}; to reach a user, send `user`")),
        BadChannel::Empty | BadChannel::TooLong { .. } | BadChannel::Character { .. } => bad(why.to_string()),
    })
}

fn excluded(ids: Vec<Cow<'_, str>>) -> Result<Box<[ConnectionId]>, Refusal> {
    if ids.len() > LIST_MAX {
        return Err(Refusal::new(
            ErrorCode::LimitExceeded,
            format!("`exclude` has at most {LIST_MAX} connection ids"),
        ));
    }
    ids.iter().map(|id| id.parse().map_err(in_member("exclude"))).collect()
}

fn in_member(name: &'static str) -> impl Fn(BadText) -> Refusal {
    move |why| bad(format!("`{name}`: {why}"))
}

/// Says that the request has the wrong shape.
pub(crate) fn bad(detail: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, detail)
}

/// Says that `name` is no member, and which are.
pub(crate) fn unknown_member(name: &str) -> Refusal {
    if name == NOT_YET {
        return Refusal::new(
            ErrorCode::NotEnabled,
            "`tags` is not supported by this version; leave it out, nothing was published",
        );
    }
    let shown: String = name.chars().take(64).collect();
    bad(format!("`{shown}` is not a member of a publish; known are `{}`", MEMBERS.join("`, `")))
}
