//! A client of the Pusher protocol that may break every rule.
//!
//! **Lives here:** connecting, subscribing, signing in; every frame that comes is held against the shape of frames.
//! **Called by:** tests of the Pusher dialect.
//! **Must not know:** which answers are right, beyond their shape.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::App;
use crate::{
    gateway::PATIENCE,
    raw::{CLOSE, PING, PONG, Raw, TEXT, frame},
};

/// One connection.
#[derive(Debug)]
pub struct Socket {
    /// The bytes below.
    pub raw: Raw,
    app: App,
    id: String,
}

/// A frame of the server. Its `data` is a text, but for errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// What happened.
    pub event: String,
    /// Where.
    pub channel: Option<String>,
    /// What it brings.
    pub data: Option<String>,
    /// Which member of a presence channel sent it.
    pub user_id: Option<String>,
    /// Code and message of a `pusher:error`.
    pub error: Option<(Option<i64>, String)>,
}

/// Returns the path at which a client with a key connects.
#[must_use]
pub fn path(key: &str) -> String {
    format!("/app/{key}?protocol=7&client=js&version=8.6.0&flash=false")
}

impl Frame {
    /// Reads a frame, and holds it against the rules for every frame (PUSHER §1.2).
    fn read(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|fault| panic!("{fault}: {text}"));
        let Value::Object(mut members) = value else { panic!("not an object: {text}") };
        let mut string = |name: &str| match members.remove(name) {
            Some(Value::String(text)) => Some(text),
            None => None,
            Some(other) => panic!("`{name}` is no string but {other}: {text}"),
        };
        let event = string("event").unwrap_or_else(|| panic!("no event: {text}"));
        let (channel, user_id) = (string("channel"), string("user_id"));
        let (data, error) = if event == "pusher:error" {
            (None, Some(Self::read_error(members.remove("data"), text)))
        } else {
            (string("data"), None)
        };
        assert!(members.is_empty(), "unknown members {members:?}: {text}");
        Self { event, channel, data, user_id, error }
    }

    fn read_error(data: Option<Value>, text: &str) -> (Option<i64>, String) {
        let Some(Value::Object(data)) = data else { panic!("an error's data is an object: {text}") };
        let code = match data.get("code") {
            Some(Value::Null) => None,
            Some(Value::Number(code)) => code.as_i64(),
            other => panic!("an error's code is a number or null, not {other:?}: {text}"),
        };
        let message = data.get("message").and_then(Value::as_str);
        (code, message.unwrap_or_else(|| panic!("an error has a message: {text}")).to_owned())
    }

    /// Returns the data as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("no data: {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }

    /// Says whether it is this event of this channel.
    #[must_use]
    pub fn is(&self, event: &str, channel: &str) -> bool {
        self.event == event && self.channel.as_deref() == Some(channel)
    }

    /// Returns event and data of a frame of `channel`.
    ///
    /// # Panics
    /// When it is of another channel.
    #[must_use]
    pub fn on(self, channel: &str) -> (String, String) {
        assert_eq!(self.channel.as_deref(), Some(channel), "{self:?}");
        (self.event, self.data.unwrap_or_default())
    }
}

impl Socket {
    /// Connects as a client of an application, and takes the greeting.
    pub async fn open(address: SocketAddr, app: &App) -> Self {
        Self::greeted(address, app, &path(app.key)).await
    }

    /// Connects at a path, and takes the greeting.
    ///
    /// # Panics
    /// When the first frame is another.
    pub async fn greeted(address: SocketAddr, app: &App, path: &str) -> Self {
        let mut socket = Self::connect(address, app, path).await;
        let greeting = socket.next().await;
        assert_eq!(greeting.event, "pusher:connection_established", "{greeting:?}");
        let id = greeting.json()["socket_id"].as_str().map(str::to_owned);
        socket.id = id.unwrap_or_else(|| panic!("no socket id: {greeting:?}"));
        socket
    }

    /// Shakes hands, and takes nothing.
    pub async fn connect(address: SocketAddr, app: &App, path: &str) -> Self {
        Self { raw: Raw::open(address, path).await, app: *app, id: String::new() }
    }

    /// Returns the socket's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sends an event.
    pub async fn say(&mut self, event: &str, data: &Value) {
        self.raw.say(&json!({"event": event, "data": data})).await;
    }

    /// Sends a text.
    pub async fn say_text(&mut self, text: impl AsRef<[u8]>) {
        self.raw.send(frame(TEXT, text)).await;
    }

    /// Waits for the next text; pings of the server are answered and not shown.
    ///
    /// # Panics
    /// When something else comes, or nothing in [`PATIENCE`]: pings come for ever.
    pub async fn text(&mut self) -> String {
        let reading = async {
            loop {
                let next = self.raw.frame().await.expect("a frame, not the end");
                match next.first {
                    TEXT => return String::from_utf8(next.payload).expect("texts are UTF-8"),
                    PING => self.raw.send(frame(PONG, next.payload)).await,
                    PONG => {}
                    CLOSE => panic!("a text was awaited, not the close {:?}", next.close()),
                    _ => panic!("a text was awaited, not {next:?}"),
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("a text comes in time")
    }

    /// Waits for the next frame.
    pub async fn next(&mut self) -> Frame {
        Frame::read(&self.text().await)
    }

    /// Waits for the next frame, which must be this one.
    ///
    /// # Panics
    /// When it is another.
    pub async fn hears(&mut self, channel: &str, event: &str, data: &str) {
        let next = self.next().await;
        assert_eq!((next.channel.as_deref(), next.event.as_str()), (Some(channel), event), "{next:?}");
        assert_eq!((next.data.as_deref(), next.user_id.as_deref()), (Some(data), None), "{next:?}");
    }

    /// Waits for an event of a channel, past all other frames.
    pub async fn until(&mut self, event: &str, channel: &str) -> Frame {
        loop {
            let next = self.next().await;
            if next.is(event, channel) {
                return next;
            }
        }
    }

    /// Makes sure that everything that was sent is answered and nothing else has come.
    ///
    /// # Panics
    /// When something has.
    pub async fn quiet(&mut self) {
        self.say("pusher:ping", &json!({})).await;
        let next = self.next().await;
        assert_eq!(next.event, "pusher:pong", "{next:?}");
    }

    /// Asks for a channel. What needs a signature is signed.
    pub async fn ask(&mut self, channel: &str) {
        let auth = match channel.starts_with("private-") {
            true => self.app.auth(&self.id, channel, None),
            false => String::new(),
        };
        self.say("pusher:subscribe", &json!({"channel": channel, "auth": auth})).await;
    }

    /// Subscribes to a channel that has no members.
    pub async fn subscribe(&mut self, channel: &str) {
        self.ask(channel).await;
        self.subscribed(channel).await;
    }

    /// Waits for the acknowledgement of a subscription.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn subscribed(&mut self, channel: &str) {
        self.hears(channel, "pusher_internal:subscription_succeeded", "{}").await;
    }

    /// Gives a channel up.
    pub async fn unsubscribe(&mut self, channel: &str) {
        self.say("pusher:unsubscribe", &json!({"channel": channel})).await;
    }

    /// Asks for a presence channel as a member, whose description is signed as it stands.
    pub async fn ask_as(&mut self, channel: &str, member: &str) {
        let auth = self.app.auth(&self.id, channel, Some(member));
        let data = json!({"channel": channel, "auth": auth, "channel_data": member});
        self.say("pusher:subscribe", &data).await;
    }

    /// Joins a presence channel as a user, and returns whom the answer names: the member `presence` of its data.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn join(&mut self, channel: &str, user: &str) -> Value {
        let member = json!({"user_id": user, "user_info": {"name": format!("User {user}")}});
        self.ask_as(channel, &member.to_string()).await;
        self.joined(channel).await
    }

    /// Waits for the answer to joining a presence channel.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn joined(&mut self, channel: &str) -> Value {
        let next = self.next().await;
        assert!(next.is("pusher_internal:subscription_succeeded", channel), "{next:?}");
        next.json()["presence"].take()
    }

    /// Sends a client event.
    pub async fn whisper(&mut self, channel: &str, event: &str, data: &Value) {
        self.raw.say(&json!({"event": event, "channel": channel, "data": data})).await;
    }

    /// Sends a sign-in with a description of the user, signed as it stands.
    pub async fn ask_sign_in(&mut self, user_data: &str) {
        let auth = self.app.user_auth(&self.id, user_data);
        self.say("pusher:signin", &json!({"auth": auth, "user_data": user_data})).await;
    }

    /// Signs in as a user.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn sign_in(&mut self, user: &str) {
        let user_data = json!({"id": user}).to_string();
        self.ask_sign_in(&user_data).await;
        let next = self.next().await;
        assert_eq!(next.event, "pusher:signin_success", "{next:?}");
        assert_eq!(next.json(), json!({"user_data": user_data}));
    }

    /// Waits for the next frame, which must be an error.
    ///
    /// # Panics
    /// When it is something else.
    pub async fn error(&mut self) -> (Option<i64>, String) {
        let next = self.next().await;
        next.error.clone().unwrap_or_else(|| panic!("an error was awaited, not {next:?}"))
    }

    /// Waits for the refusal of a subscription: the error, and the channel's own event after it.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn refused(&mut self, channel: &str) -> (Option<i64>, String) {
        let error = self.error().await;
        let next = self.next().await;
        assert!(next.is("pusher:subscription_error", channel), "{next:?}");
        let data = next.json();
        assert!(data["type"].is_string() && data["error"].is_string() && data["status"].is_u64(), "{next:?}");
        error
    }

    /// Waits for an error and makes sure that nothing follows it but, perhaps, the channel's own event.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn turned_down(&mut self) -> (Option<i64>, String) {
        let error = self.error().await;
        self.say("pusher:ping", &json!({})).await;
        let mut next = self.next().await;
        if next.event == "pusher:subscription_error" {
            next = self.next().await;
        }
        assert_eq!(next.event, "pusher:pong", "{next:?}");
        error
    }

    /// Waits for the close, past all frames.
    ///
    /// # Panics
    /// When it does not come in time: pings come for ever.
    pub async fn close_frame(&mut self) -> (u16, String) {
        let closed = timeout(PATIENCE * 2, self.raw.closed()).await;
        closed.expect("a close comes in time")
    }

    /// Waits for the close, past all frames, and finishes it.
    ///
    /// # Panics
    /// When the code is one that clients do not know, it does not come in time, or the connection goes on.
    pub async fn closed(&mut self) -> (u16, String) {
        let (code, reason) = self.close_frame().await;
        assert!(code < 4300, "pusher-js never comes back after {code}: {reason}");
        // Ours ends the closing handshake. The other side may have seen the end already.
        let _gone_already = self.raw.try_send(frame(CLOSE, code.to_be_bytes())).await;
        assert_eq!(self.raw.rest().await, [], "nothing follows a close");
        (code, reason)
    }

    /// Leaves as a browser does, with a closing handshake.
    ///
    /// # Panics
    /// When the server does not answer it.
    pub async fn leave(mut self) {
        self.raw.send(frame(CLOSE, 1000_u16.to_be_bytes())).await;
        assert_eq!(self.close_frame().await.0, 1000);
    }
}
