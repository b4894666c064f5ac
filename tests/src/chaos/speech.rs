//! What clients say and hear on each transport, as the native protocol has it.
//!
//! **Lives here:** one connection of a WebSocket, of a listener, of a poller.
//! **Called by:** `client`, again and again.
//! **Must not know:** what is done between two connections.

use std::time::Duration;

use serde_json::{Value, json, value::RawValue};
use tokio::time::sleep;

use crate::raw::{self, CLOSE, PING, PONG, TEXT};

use super::{
    client::{Client, End, Heard},
    plan::Transport,
    wire::{Over, Wire},
};

/// Once in so many messages a WebSocket leaves one of its channels, and joins it again.
const LEAVES: u64 = 500;

/// What a poll waits for a message, in seconds, and what a poller does between two polls.
const POLL_SECONDS: u32 = 2;
const BETWEEN_POLLS: Duration = Duration::from_millis(500);

/// Most messages of a poll: so few that some have more.
const POLL_LIMIT: u32 = 50;

impl From<Over> for End {
    fn from(over: Over) -> Self {
        match over {
            Over::Ended => Self::Abnormal,
            Over::Silence => Self::Silence,
        }
    }
}

impl Client {
    /// Connects and waits for the head of the answer, which must have `status`.
    async fn open(&self, request: &str, status: u16) -> Result<(Wire, super::wire::Head), End> {
        let address = self.address().ok_or(End::NotBegun)?;
        let ends = self.world.ends.subscribe();
        let mut wire = Wire::open(address, request.as_bytes(), ends).await.ok_or(End::NotBegun)?;
        let head = wire.head().await.map_err(|_over| End::NotBegun)?;
        if head.status == status {
            return Ok((wire, head));
        }
        Err(End::Refused(format!("{} {}", self.transport.name(), head.status), head.retry_after()))
    }

    /// Returns its channels, each with where it stands.
    fn wishes(&self, channels: &[u16]) -> Value {
        let wish = |channel: &u16| {
            let mut wish = json!({"channel": self.world.name(*channel)});
            if let Some(stand) = self.stands.get(channel) {
                wish["since"] = stand.to_string().into();
            }
            wish
        };
        channels.iter().map(wish).collect()
    }

    fn query(&self) -> String {
        let channels =
            self.story.channels.iter().map(|channel| format!("channel={}", self.world.name(*channel)));
        channels.collect::<Vec<_>>().join("&")
    }

    pub(super) async fn websocket(&mut self) -> End {
        let mut wire = match self.open(&raw::handshake("/v1/ws", ""), 101).await {
            Ok((wire, _)) => wire,
            Err(end) => return end,
        };
        self.begin();
        let subscribe = |wishes: Value| {
            raw::frame(TEXT, json!({"type": "subscribe", "channels": wishes, "ref": 1}).to_string())
        };
        let _closing = wire.send(&subscribe(self.wishes(&self.story.channels))).await;
        let (mut told, mut leaving) = (None, false);
        while !self.has_finished() {
            let (first, payload) = match wire.frame().await {
                Ok(Some(frame)) => frame,
                Ok(None) => continue,
                Err(over) => return over.into(),
            };
            let mut answer = match first {
                TEXT => match self.hear(&String::from_utf8_lossy(&payload)) {
                    Heard::Nothing => None,
                    Heard::Left(channel) => {
                        leaving = false;
                        Some(subscribe(self.wishes(&[channel])))
                    }
                    Heard::Goodbye(_, wait) => {
                        told = wait;
                        None
                    }
                    Heard::Refused(why, wait) => return End::Refused(why, wait),
                },
                PING => Some(raw::frame(PONG, &payload)),
                CLOSE => {
                    let _gone_already = wire.send(&raw::frame(CLOSE, &payload)).await;
                    let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    return End::Polite(code, told);
                }
                _ => None,
            };
            if answer.is_none() && !leaving && first == TEXT && self.dice.once_in(LEAVES) {
                let channel = self.dice.pick(&self.story.channels).copied().unwrap_or(0);
                let leave = json!({"type": "unsubscribe", "channel": self.world.name(channel)});
                answer = Some(raw::frame(TEXT, leave.to_string()));
                leaving = true;
            }
            if let Some(answer) = answer {
                // A close frame may wait to be read when nothing can be sent any more.
                let _closing = wire.send(&answer).await;
            }
        }
        let _gone_already = wire.send(&raw::frame(CLOSE, 1000_u16.to_be_bytes())).await;
        End::Finished
    }

    /// Listens to server-sent events or lines.
    pub(super) async fn listen(&mut self) -> End {
        let request = if self.transport == Transport::Sse {
            let id = self.cursor.as_ref().map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
            format!(
                "GET /v1/sse?{} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n{id}\r\n",
                self.query()
            )
        } else {
            let body = json!({"channels": self.wishes(&self.story.channels)}).to_string();
            format!(
                "POST /v1/stream HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: \
                 {}\r\n\r\n{body}",
                body.len()
            )
        };
        let mut wire = match self.open(&request, 200).await {
            Ok((wire, _)) => wire,
            Err(end) => return end,
        };
        self.begin();
        let mut goodbye = None;
        let (mut id, mut data) = (None, None);
        while !self.has_finished() {
            let line = match wire.line().await {
                Ok(Some(line)) => line,
                Ok(None) => continue,
                Err(over) => return goodbye.unwrap_or_else(|| over.into()),
            };
            let line = String::from_utf8_lossy(&line);
            let text = match self.transport {
                Transport::Sse => match line.split_once(": ") {
                    Some(("data", text)) => {
                        data = Some(text.to_owned());
                        None
                    }
                    Some(("id", new)) => {
                        id = Some(new.to_owned());
                        None
                    }
                    Some(("retry", retry)) => {
                        self.retry = retry.parse().map_or(self.retry, Duration::from_millis);
                        None
                    }
                    // The end of a block, with which it holds.
                    _ if line.is_empty() => {
                        self.cursor = id.take().or_else(|| self.cursor.take());
                        data.take()
                    }
                    _ => None,
                },
                Transport::WebSocket | Transport::Lines | Transport::Poll => Some(line.into_owned()),
            };
            match text.map_or(Heard::Nothing, |text| self.hear(&text)) {
                Heard::Nothing | Heard::Left(_) => {}
                Heard::Goodbye(code, wait) => goodbye = Some(End::Polite(code, wait)),
                Heard::Refused(why, wait) => return End::Refused(why, wait),
            }
        }
        End::Finished
    }

    /// Polls on one connection.
    pub(super) async fn poll(&mut self) -> End {
        let mut open = None;
        loop {
            let since = self.cursor.as_ref().map(|cursor| format!("&since={cursor}")).unwrap_or_default();
            let request = format!(
                "GET /v1/poll?{}&timeout={POLL_SECONDS}&limit={POLL_LIMIT}{since} HTTP/1.1\r\nHost: test\r\n\r\n",
                self.query()
            );
            let (mut wire, head) = match self.ask(open.take(), &request).await {
                Ok(answered) => answered,
                Err(end) => return end,
            };
            let length = head.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let body = match wire.exactly(length).await {
                Ok(body) => body,
                Err(over) => return over.into(),
            };
            let more = match self.take(&String::from_utf8_lossy(&body)) {
                Ok(more) => more,
                Err(end) => return end,
            };
            if self.has_finished() {
                return End::Finished;
            }
            if head.header("connection").is_none_or(|value| value != "close") {
                open = Some(wire);
            }
            if !more {
                sleep(BETWEEN_POLLS).await;
            }
        }
    }

    /// Asks on the connection that is open, or on another one.
    async fn ask(&mut self, open: Option<Wire>, request: &str) -> Result<(Wire, super::wire::Head), End> {
        let Some(mut wire) = open else {
            let answered = self.open(request, 200).await?;
            self.begin();
            return Ok(answered);
        };
        if !wire.send(request.as_bytes()).await {
            return Err(End::Abnormal);
        }
        let head = wire.head().await?;
        match head.status {
            200 => Ok((wire, head)),
            status => Err(End::Refused(format!("poll {status}"), head.retry_after())),
        }
    }

    /// Takes the answer of a poll, and says whether there is more.
    fn take(&mut self, body: &str) -> Result<bool, End> {
        let nonsense = |client: &mut Self| {
            let _seen = client.hear("");
            End::Abnormal
        };
        let members: std::collections::BTreeMap<&str, &RawValue> =
            serde_json::from_str(body).map_err(|_fault| nonsense(self))?;
        let list = |name| {
            let text = members.get(name).map_or("", |list| list.get());
            serde_json::from_str::<Vec<&RawValue>>(text)
        };
        let (Ok(messages), Ok(control)) = (list("messages"), list("control")) else {
            return Err(nonsense(self));
        };
        let Some(Ok(cursor)) = members.get("cursor").map(|text| serde_json::from_str::<String>(text.get()))
        else {
            return Err(nonsense(self));
        };
        // What is told of a channel stands before its messages, but for a gap, whose position says where it is.
        let is_gap = |text: &&&RawValue| text.get().starts_with(r#"{"type":"gap""#);
        let mut gaps: Vec<Value> = control
            .iter()
            .filter(is_gap)
            .map(|text| serde_json::from_str(text.get()).unwrap_or_default())
            .collect();
        let mut end = None;
        for text in control.iter().filter(|text| !is_gap(text)) {
            match self.hear(text.get()) {
                Heard::Nothing | Heard::Left(_) => {}
                Heard::Goodbye(code, wait) => end = Some(End::Polite(code, wait)),
                Heard::Refused(why, wait) => return Err(End::Refused(why, wait)),
            }
        }
        for text in messages {
            let message = super::content::message(&self.world, text.get());
            gaps.retain(|gap| {
                let is_passed = super::content::is_after(&self.world, message.as_ref(), gap);
                if is_passed {
                    let _told = self.hear(&gap.to_string());
                }
                !is_passed
            });
            let _message = self.hear(text.get());
        }
        for gap in gaps {
            let _told = self.hear(&gap.to_string());
        }
        self.cursor = Some(cursor);
        match end {
            Some(end) if !self.has_finished() => Err(end),
            _ => Ok(members.get("more").is_some_and(|more| more.get() == "true")),
        }
    }
}
