//! A client that only listens, on a plain socket: server-sent events, lines of JSON, one answer after another.
//!
//! **Lives here:** requests as text, reading a response that does not end, cutting it into events or lines.
//! **Called by:** tests of streams and polls.
//! **Must not know:** which events are right.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    gateway::PATIENCE,
    http::{self, Answer},
};

/// One socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpStream,
    /// What was read and not taken yet.
    buffer: Vec<u8>,
}

/// One block of an event stream (HTML standard, §9.2.6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `event`; a message has none.
    pub event: Option<String>,
    /// `id`.
    pub id: Option<String>,
    /// `data`, its lines joined.
    pub data: Option<String>,
    /// `retry`.
    pub retry: Option<u64>,
    /// Lines that begin with a colon.
    pub comments: Vec<String>,
}

impl Event {
    /// Returns the data as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        let data = self.data.as_deref().unwrap_or_else(|| panic!("no data: {self:?}"));
        serde_json::from_str(data).unwrap_or_else(|fault| panic!("{fault}: {data}"))
    }

    fn read(block: &str) -> Self {
        let mut event = Self::default();
        for line in block.lines() {
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match field {
                "" => event.comments.push(value),
                "event" => event.event = Some(value),
                "id" => event.id = Some(value),
                "retry" => event.retry = value.parse().ok(),
                "data" => {
                    event.data = Some(match event.data.take() {
                        Some(before) => format!("{before}\n{value}"),
                        None => value,
                    });
                }
                other => panic!("a field `{other}` in {block}"),
            }
        }
        event
    }
}

/// Returns a GET request that keeps the connection, with more header lines.
#[must_use]
pub fn get(path: &str, headers: &[(&str, &str)]) -> String {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n")
}

impl Listener {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let connected = timeout(PATIENCE, TcpStream::connect(address)).await.expect("the backlog has room");
        Self { socket: connected.expect("the listener is there"), buffer: Vec::new() }
    }

    /// Connects with room for so few bytes in the system that what is not read waits in the gateway.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect_narrowly(address: SocketAddr, bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("the system has sockets");
        socket.set_recv_buffer_size(bytes).expect("a buffer may be small");
        let connected = timeout(PATIENCE, socket.connect(address)).await.expect("the backlog has room");
        Self { socket: connected.expect("the listener is there"), buffer: Vec::new() }
    }

    /// Connects, asks, and takes the head of the answer, which must be 200.
    ///
    /// # Panics
    /// When it is not.
    pub async fn open(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut listener = Self::connect(address).await;
        listener.send(get(path, headers)).await;
        let head = listener.head().await;
        assert_eq!(head.status, 200, "{head:?}");
        listener
    }

    /// Sends bytes as they stand.
    ///
    /// # Panics
    /// When the socket is broken, or full for longer than [`PATIENCE`].
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes).await, "the gateway has closed the socket");
    }

    /// Sends bytes and says whether the socket took them.
    ///
    /// # Panics
    /// When the socket is full for longer than [`PATIENCE`].
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let written = timeout(PATIENCE, self.socket.write_all(bytes.as_ref())).await;
        written.expect("the gateway goes on reading").is_ok()
    }

    /// Takes the head of an answer.
    ///
    /// # Panics
    /// When the connection ends before.
    pub async fn head(&mut self) -> Answer {
        let head = self.until("\r\n\r\n").await.expect("an answer comes");
        http::read(format!("{head}\r\n\r\n").as_bytes())
    }

    /// Takes an answer that says how long it is.
    ///
    /// # Panics
    /// When the connection ends before it does.
    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        let length = answer.header("content-length").map_or(0, |text| text.parse().expect("a number"));
        while self.buffer.len() < length {
            assert!(self.more().await, "the answer is cut: {answer:?}");
        }
        let body: Vec<u8> = self.buffer.drain(..length).collect();
        answer.body = String::from_utf8(body).expect("answers are UTF-8");
        answer
    }

    /// Asks on this connection and takes the answer.
    pub async fn ask(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(get(path, headers)).await;
        self.answer().await
    }

    /// Takes the next block of an event stream.
    ///
    /// # Panics
    /// When the stream ends instead.
    pub async fn event(&mut self) -> Event {
        self.event_or_end().await.expect("an event, not the end")
    }

    /// Takes the next block of an event stream; `None` at its end. A block that is cut is none (HTML standard, §9.2.6).
    pub async fn event_or_end(&mut self) -> Option<Event> {
        self.until("\n\n").await.map(|block| Event::read(&block))
    }

    /// Takes the next control object, past comments.
    ///
    /// # Panics
    /// When a message comes, or the end, or nothing but comments.
    pub async fn control(&mut self) -> (Value, Option<String>) {
        let event = self.next(|event| event.data.is_some()).await;
        assert_eq!(event.event.as_deref(), Some("control"), "{event:?}");
        (event.json(), event.id)
    }

    /// Takes the next message, past comments and control objects.
    ///
    /// # Panics
    /// When none comes.
    pub async fn message(&mut self) -> Event {
        self.next(|event| event.data.is_some() && event.event.as_deref() != Some("control")).await
    }

    async fn next(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let mut passed = Vec::new();
        let reading = async {
            loop {
                let event = self.event().await;
                if wanted(&event) {
                    return event;
                }
                passed.push(event);
            }
        };
        // Comments come for ever.
        let read = timeout(PATIENCE, reading).await;
        read.unwrap_or_else(|_late| panic!("it does not come; what came: {passed:?}"))
    }

    /// Takes the next line of JSON.
    ///
    /// # Panics
    /// When the stream ends instead.
    pub async fn line(&mut self) -> Value {
        let line = self.until("\n").await.expect("a line, not the end");
        serde_json::from_str(&line).unwrap_or_else(|fault| panic!("{fault}: {line}"))
    }

    /// Reads to the end of the connection.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn rest(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    /// Takes what comes before `end`, and that with it; `None` at the end of the connection.
    ///
    /// # Panics
    /// When neither comes.
    pub async fn until(&mut self, end: &str) -> Option<String> {
        let mut looked = 0;
        loop {
            let fresh = self.buffer.get(looked..).unwrap_or_default();
            if let Some(at) = fresh.windows(end.len()).position(|part| part == end.as_bytes()) {
                let bytes: Vec<u8> = self.buffer.drain(..looked + at + end.len()).collect();
                let text = String::from_utf8(bytes).expect("streams are UTF-8");
                return Some(text.trim_end_matches(end).to_owned());
            }
            looked = self.buffer.len().saturating_sub(end.len());
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads more, and says whether there was any.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await;
        read.unwrap_or_else(|_late| {
            panic!("nothing comes; so far {:?}", String::from_utf8_lossy(&self.buffer))
        })
        .is_ok_and(|count| count > 0)
    }
}
