//! A client of the Pusher protocol without WebSockets, request by request.
//!
//! **Lives here:** names for sessions, the three requests of one, reading lines.
//! **Called by:** tests of the HTTP fallback.
//! **Must not know:** which node has the session.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::{Value, json};

use super::App;
use crate::{
    http::{self, Answer},
    listener::Listener,
};

/// A session, as its client knows it.
#[derive(Clone, Debug)]
pub struct Xhr {
    app: App,
    /// Both parts of its name.
    pub name: String,
}

/// A line of the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// The session begins.
    Open,
    /// Frames.
    Frames(Vec<Value>),
    /// A sign of life.
    Alive,
    /// The session ends.
    Closed(u64, String),
}

impl Line {
    /// Reads a line, without its end.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn read(line: &str) -> Self {
        let json = || serde_json::from_str(line.get(1..).unwrap_or_default());
        match line.get(..1) {
            Some("o") if line == "o" => Self::Open,
            Some("h") if line == "h" => Self::Alive,
            Some("a") => {
                let texts: Vec<String> = json().unwrap_or_else(|fault| panic!("{fault}: {line}"));
                let frame = |text: &String| serde_json::from_str(text);
                let frames: Result<_, _> = texts.iter().map(frame).collect();
                Self::Frames(frames.unwrap_or_else(|fault| panic!("{fault}: {line}")))
            }
            Some("c") => {
                let (code, reason) =
                    serde_json::from_str(&line[1..]).unwrap_or_else(|fault| panic!("{fault}: {line}"));
                Self::Closed(code, reason)
            }
            _ => panic!("no line: {line:?}"),
        }
    }
}

impl Xhr {
    /// Names a session.
    #[must_use]
    pub fn new(app: &App) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}/{:05x}{number:04x}", number % 1000, std::process::id() & 0xf_ffff);
        Self { app: *app, name }
    }

    /// Returns the path of a request.
    #[must_use]
    pub fn path(&self, purpose: &str) -> String {
        let query = "protocol=7&client=js&version=8.6.0&t=1700000000000&n=1";
        format!("/pusher/app/{}/{}/{purpose}?{query}", self.app.key, self.name)
    }

    /// Returns a request that keeps the connection.
    #[must_use]
    pub fn request(&self, purpose: &str) -> String {
        let path = self.path(purpose);
        format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n"
        )
    }

    /// Opens a stream.
    ///
    /// # Panics
    /// When it is no stream.
    pub async fn stream(&self, at: SocketAddr) -> Listener {
        let mut stream = Listener::connect(at).await;
        stream.send(self.request("xhr_streaming")).await;
        let head = stream.head().await;
        assert_eq!(head.status, 200, "{head:?}");
        stream
    }

    /// Polls once.
    pub async fn poll(&self, at: SocketAddr) -> Vec<Line> {
        lines(&http::post(at, &self.path("xhr"), &[], "").await)
    }

    /// Begins the session by a poll, and returns its socket's id.
    ///
    /// # Panics
    /// When it does not begin.
    pub async fn begin(&self, at: SocketAddr) -> String {
        let mut lines = self.poll(at).await;
        assert_eq!(lines.remove(0), Line::Open);
        while lines.is_empty() {
            lines = self.poll(at).await;
        }
        socket_id(&lines.remove(0))
    }

    /// Sends a body.
    pub async fn send_body(&self, at: SocketAddr, body: impl AsRef<[u8]>) -> Answer {
        http::post(at, &self.path("xhr_send"), &[("Content-Type", "application/json")], body).await
    }

    /// Sends events, which must be taken.
    ///
    /// # Panics
    /// When they are not.
    pub async fn say(&self, at: SocketAddr, events: &[Value]) {
        let texts: Vec<String> = events.iter().map(Value::to_string).collect();
        let answer = self.send_body(at, json!(texts).to_string()).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// Subscribes to a public channel; the answer comes as a line.
    pub async fn subscribe(&self, at: SocketAddr, channel: &str) {
        self.say(at, &[json!({"event": "pusher:subscribe", "data": {"channel": channel}})]).await;
    }

    /// Asks for a presence channel as a user.
    pub async fn join(&self, at: SocketAddr, socket: &str, channel: &str, user: &str) {
        let member = json!({"user_id": user}).to_string();
        let auth = self.app.auth(socket, channel, Some(&member));
        let data = json!({"channel": channel, "auth": auth, "channel_data": member});
        self.say(at, &[json!({"event": "pusher:subscribe", "data": data})]).await;
    }
}

/// Returns the lines of a poll's answer.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn lines(answer: &Answer) -> Vec<Line> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.ends_with('\n'), "{answer:?}");
    answer.body.lines().map(Line::read).collect()
}

/// Returns the id in the greeting.
///
/// # Panics
/// When this is not the greeting.
#[must_use]
pub fn socket_id(line: &Line) -> String {
    let Line::Frames(frames) = line else { panic!("{line:?}") };
    assert_eq!(frames[0]["event"], "pusher:connection_established", "{line:?}");
    let data: Value = serde_json::from_str(frames[0]["data"].as_str().expect("a text")).expect("it is JSON");
    data["socket_id"].as_str().expect("a text").to_owned()
}

impl Listener {
    /// Takes the next line of a stream; `None` at its end.
    pub async fn line_of_fallback(&mut self) -> Option<Line> {
        self.until("\n").await.map(|line| Line::read(&line))
    }

    /// Takes the next frame of a stream.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn frame_of_fallback(&mut self) -> Value {
        loop {
            match self.line_of_fallback().await {
                Some(Line::Frames(mut frames)) if frames.len() == 1 => return frames.remove(0),
                Some(Line::Alive) => {}
                other => panic!("one frame was awaited, not {other:?}"),
            }
        }
    }
}
