//! Reading what a client sends.
//!
//! **Lives here:** the client's events, and what is said of those that cannot be read.
//! **Called by:** [`crate::Pusher`].
//! **Must not know:** the state of the conversation, whether signatures are right.

use bytes::Bytes;
use carillon_model::{
    ChannelKind, ChannelName, ErrorCode, EventName, IdKind, Member, Refusal, Since, UserId,
    channel::NAME_MAX_BYTES,
    json::{self, Unsound},
};
use carillon_session::{Command, Outgoing, Proof, SignIn, Undecoded, Wanted};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::name;

/// A client's event. Members that are not known are ignored.
#[derive(Deserialize)]
struct Frame<'a> {
    event: String,
    channel: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Subscribe {
    channel: Option<String>,
    auth: Option<String>,
    channel_data: Option<String>,
}

#[derive(Default, Deserialize)]
struct SignInData {
    auth: Option<String>,
    user_data: Option<String>,
}

#[derive(Deserialize)]
struct ChannelData<'a> {
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct UserData<'a> {
    id: Option<String>,
    #[serde(borrow)]
    user_info: Option<&'a RawValue>,
    #[serde(default)]
    watchlist: Vec<String>,
}

/// Most of a parser's complaint that is told.
const FAULT_MAX_CHARS: usize = 120;

/// Reads one frame.
pub(crate) fn command(text: &str) -> Result<Command, Box<Undecoded>> {
    let frame: Frame<'_> = object(text).map_err(|fault| {
        let shown: String = fault.to_string().chars().take(FAULT_MAX_CHARS).collect();
        bad(format!(
            "Invalid message: it is one JSON object such as {{\"event\":\"pusher:ping\"}}; here: {shown}"
        ))
    })?;
    match frame.event.as_str() {
        "pusher:ping" => Ok(Command::Ping { reference: None }),
        "pusher:pong" => Ok(Command::Pong),
        "pusher:subscribe" => subscribe(&frame),
        "pusher:unsubscribe" => {
            let named: Subscribe = members(frame.data)?;
            let channel = channel(named.channel.or(frame.channel))?;
            Ok(Command::Unsubscribe { channels: vec![channel], reference: None })
        }
        "pusher:signin" => sign_in(&frame),
        event if event.starts_with("client-") => outgoing(&frame),
        event => {
            let shown: String = event.chars().take(40).collect();
            Err(undecoded(
                ErrorCode::UnknownType,
                format!("Unknown event '{shown}': events of clients begin with client-"),
                None,
            ))
        }
    }
}

fn subscribe(frame: &Frame<'_>) -> Result<Command, Box<Undecoded>> {
    let named: Subscribe = members(frame.data)?;
    let channel = channel(named.channel)?;
    let kind = ChannelKind::of(&channel);
    let member =
        match &named.channel_data {
            Some(data) if kind.presence => {
                let member = member(data);
                Some(member.map_err(|why| {
                    undecoded(ErrorCode::BadRequest, why, Some(channel.as_str().to_owned()))
                })?)
            }
            Some(_) | None => None,
        };
    let auth = named.auth.unwrap_or_default();
    // A channel that everybody may join needs no permission, whatever is sent with it.
    let proof = kind.guarded.then(|| Box::new(Proof { auth, data: named.channel_data, member }));
    // The last event of a cache channel comes with it.
    let since = if kind.cache { Since::Last(1) } else { Since::Now };
    let wanted = Wanted { channel, since, presence: kind.presence, proof };
    Ok(Command::Subscribe { channels: vec![wanted], reference: None })
}

/// Reads who joins a presence channel.
fn member(text: &str) -> Result<Member, String> {
    let wrong = |what: &str| {
        format!("Invalid channel_data: {what}; it is JSON such as {{\"user_id\":\"7\",\"user_info\":{{}}}}")
    };
    let data: ChannelData<'_> = object(text).map_err(|_fault| wrong("it is not a JSON object"))?;
    let id = data.user_id.map(RawValue::get).unwrap_or_default();
    let (id, kind) = match serde_json::from_str::<String>(id) {
        Ok(text) => (text, IdKind::Text),
        Err(_) if id.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => (id.to_owned(), IdKind::Number),
        Err(_) => return Err(wrong("user_id is missing, or is no string or number")),
    };
    let user = UserId::new(&id).map_err(|fault| wrong(&fault.to_string()))?;
    let info = info(data.user_info).map_err(|why| wrong(&format!("user_info {why}")))?;
    Ok(Member { user, kind, info })
}

fn sign_in(frame: &Frame<'_>) -> Result<Command, Box<Undecoded>> {
    let named: SignInData = members(frame.data)?;
    let (Some(auth), Some(user_data)) = (named.auth, named.user_data) else {
        return Err(unsigned("Missing parameter: data.auth and data.user_data are needed to sign in"));
    };
    let wrong = |_| unsigned("Invalid user_data: it is JSON such as {\"id\":\"7\"}");
    let user: UserData<'_> = object(&user_data).map_err(wrong)?;
    let id = user.id.as_deref().and_then(|id| UserId::new(id).ok());
    let id = id.ok_or_else(|| {
        unsigned("Invalid user_data: id is a string of 1 to 128 characters, without spaces")
    })?;
    let info =
        info(user.user_info).map_err(|why| unsigned(&format!("Invalid user_data: user_info {why}")))?;
    let watchlist = user.watchlist.iter().filter_map(|id| UserId::new(id).ok()).collect();
    Ok(Command::SignIn(Box::new(SignIn { auth, user: id, info, watchlist, user_data })))
}

fn outgoing(frame: &Frame<'_>) -> Result<Command, Box<Undecoded>> {
    let channel = channel(frame.channel.clone())?;
    let event = EventName::new(&frame.event)
        .map_err(|_fault| bad("Invalid event name: it has at most 200 characters".to_owned()))?;
    let data = json::one_line(frame.data.map_or("null", RawValue::get))
        .map_err(|why| bad(format!("Client event rejected - its data {why}")))?;
    Ok(Command::Publish(Box::new(Outgoing { channel, event, data, reference: None })))
}

/// Takes a user's description; `null` is none.
fn info(raw: Option<&RawValue>) -> Result<Option<Bytes>, Unsound> {
    raw.filter(|raw| raw.get() != "null").map(|raw| json::one_line(raw.get())).transpose()
}

/// Reads the members of `data`: an object, or a string that holds one.
fn members<T: for<'a> Deserialize<'a> + Default>(data: Option<&RawValue>) -> Result<T, Box<Undecoded>> {
    let Some(data) = data else { return Ok(T::default()) };
    let wrong = |_| bad("Invalid message: data is a JSON object".to_owned());
    if data.get().starts_with('"') {
        let text: String = serde_json::from_str(data.get()).map_err(wrong)?;
        return object(&text).map_err(wrong);
    }
    object(data.get()).map_err(wrong)
}

fn channel(name: Option<String>) -> Result<ChannelName, Box<Undecoded>> {
    let Some(name) = name else { return Err(bad("Missing parameter: data.channel".to_owned())) };
    name::channel(&name, NAME_MAX_BYTES).map_err(|fault| {
        let shown = name.chars().take(NAME_MAX_BYTES).collect();
        undecoded(ErrorCode::BadRequest, fault.to_string(), Some(shown))
    })
}

/// Reads an object. Left alone, serde would also take an array with the members in their order.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> serde_json::Result<T> {
    if text.trim_start().starts_with('[') {
        return Err(serde::de::Error::custom("an array"));
    }
    serde_json::from_str(text)
}

fn bad(message: String) -> Box<Undecoded> {
    undecoded(ErrorCode::BadRequest, message, None)
}

/// Refuses a sign-in.
fn unsigned(message: &str) -> Box<Undecoded> {
    undecoded(ErrorCode::Unauthorized, message.to_owned(), None)
}

fn undecoded(code: ErrorCode, message: String, channel: Option<String>) -> Box<Undecoded> {
    Box::new(Undecoded { refusal: Refusal::new(code, message), channel, reference: None })
}

#[cfg(test)]
mod tests;
