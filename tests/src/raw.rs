//! A WebSocket client that may break every rule: bytes on a socket.
//!
//! **Lives here:** connecting, handshakes as text, client frames from their parts, reading server frames.
//! **Called by:** tests that attack a gateway, and tests that compare bytes.
//! **Must not know:** which answers are right.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::gateway::PATIENCE;

/// How long a connection may go on without what is waited for, whatever else it says.
const LONG: Duration = PATIENCE.saturating_mul(4);

/// First byte of a whole text message.
pub const TEXT: u8 = 0x81;
/// First byte of a whole binary message.
pub const BINARY: u8 = 0x82;
/// First byte of a close.
pub const CLOSE: u8 = 0x88;
/// First byte of a ping.
pub const PING: u8 = 0x89;
/// First byte of a pong.
pub const PONG: u8 = 0x8a;

/// One socket.
#[derive(Debug)]
pub struct Raw {
    socket: TcpStream,
    /// What was read and not taken yet.
    buffer: Vec<u8>,
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFrame {
    /// The first byte: FIN, reserved bits, opcode.
    pub first: u8,
    /// The payload.
    pub payload: Vec<u8>,
    /// The frame as it came, header included.
    pub bytes: Vec<u8>,
}

impl ServerFrame {
    /// Returns the payload as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }

    /// Returns code and reason of a close frame; 1005 where it has no code (RFC 6455 §7.1.5).
    #[must_use]
    pub fn close(&self) -> (u16, String) {
        match self.payload.as_slice() {
            [high, low, reason @ ..] => {
                (u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(reason).into_owned())
            }
            [] | [_] => (1005, String::new()),
        }
    }
}

/// Returns a good handshake for `path`, with more header lines, each with its line break.
#[must_use]
pub fn handshake(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// Returns a client's frame: masked, with the length in its shortest form (RFC 6455 §5.2).
#[must_use]
pub fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let payload = payload.as_ref();
    let mut bytes = header(first, payload.len() as u64, 0x80);
    bytes.extend(KEY);
    bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// Returns the start of a frame that declares `length` bytes, with `mask` as the mask bit: 0x80 or 0.
#[must_use]
pub fn header(first: u8, length: u64, mask: u8) -> Vec<u8> {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => vec![first, mask | short],
        (_, Ok(medium)) => {
            let [high, low] = medium.to_be_bytes();
            vec![first, mask | 126, high, low]
        }
        _ => [[first, mask | 127].as_slice(), &length.to_be_bytes()].concat(),
    }
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let connected = timeout(PATIENCE, TcpStream::connect(address)).await.expect("the backlog has room");
        Self { socket: connected.expect("the listener is there"), buffer: Vec::new() }
    }

    /// Connects with a receive buffer of about `bytes`, so that little fits between server and client.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect_narrow(address: SocketAddr, bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().expect("the system has sockets");
        socket.set_recv_buffer_size(bytes).expect("a buffer may be small");
        let connected = timeout(PATIENCE, socket.connect(address)).await.expect("the backlog has room");
        Self { socket: connected.expect("the listener is there"), buffer: Vec::new() }
    }

    /// Connects and shakes hands for `path`.
    ///
    /// # Panics
    /// When the handshake is refused.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let mut raw = Self::connect(address).await;
        raw.upgrade(path).await;
        raw
    }

    /// Shakes hands.
    ///
    /// # Panics
    /// When the handshake is refused.
    pub async fn upgrade(&mut self, path: &str) {
        self.send(handshake(path, "")).await;
        let head = self.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }

    /// Sends bytes as they stand.
    ///
    /// # Panics
    /// When the socket is broken or full for longer than [`PATIENCE`].
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

    /// Sends one JSON text.
    pub async fn say(&mut self, frame_of_dialect: &Value) {
        self.send(frame(TEXT, frame_of_dialect.to_string())).await;
    }

    /// Waits for the head of an HTTP answer and takes it.
    ///
    /// # Panics
    /// When the connection ends before.
    pub async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return String::from_utf8_lossy(&head).into_owned();
            }
            assert!(self.more().await, "no answer: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Waits for the next frame of the server; `None` at the end of the connection.
    ///
    /// # Panics
    /// When neither comes in [`PATIENCE`].
    pub async fn frame(&mut self) -> Option<ServerFrame> {
        loop {
            if let Some((start, length)) = frame_extent(&self.buffer) {
                let bytes: Vec<u8> = self.buffer.drain(..start + length).collect();
                let payload = bytes.get(start..).unwrap_or_default().to_vec();
                return Some(ServerFrame { first: bytes.first().copied().unwrap_or(0), payload, bytes });
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Waits for the next text frame, past pings and pongs.
    ///
    /// # Panics
    /// When something else comes, or nothing but pings and pongs for long.
    pub async fn json(&mut self) -> Value {
        let next = self.past("a text", |next| !matches!(next.first, PING | PONG)).await;
        assert_eq!(next.first, TEXT, "a text was awaited, not {next:?}");
        next.json()
    }

    /// Waits for the close frame, past all others.
    ///
    /// # Panics
    /// When the connection ends without one, or goes on for long.
    pub async fn closed(&mut self) -> (u16, String) {
        self.past("a close frame", |next| next.first == CLOSE).await.close()
    }

    /// Waits for a frame, past those that are not looked for: a server that pings for ever is not waited for as long.
    async fn past(&mut self, what: &str, is: impl Fn(&ServerFrame) -> bool) -> ServerFrame {
        let looking = async {
            loop {
                let next = self.frame().await.unwrap_or_else(|| panic!("{what} was awaited, not the end"));
                if is(&next) {
                    return next;
                }
            }
        };
        timeout(LONG, looking).await.unwrap_or_else(|_| panic!("{what} never comes"))
    }

    /// Reads to the end of the connection and returns the frames that came.
    pub async fn rest(&mut self) -> Vec<ServerFrame> {
        let mut all = Vec::new();
        while let Some(next) = self.frame().await {
            all.push(next);
        }
        all
    }

    /// Ends the connection with a reset, as a crashed client does.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn reset(self) {
        self.socket.set_zero_linger().expect("a socket can be reset");
    }

    /// Tells the other side that nothing more will be sent.
    pub async fn finish(&mut self) {
        let _ended_already = self.socket.shutdown().await.is_err();
    }

    /// Reads more, and says whether there was any. A reset is an end.
    async fn more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.socket.read_buf(&mut self.buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("nothing comes; so far {:?}", self.buffer.get(..200)));
        read.is_ok_and(|count| count > 0)
    }
}

/// Returns header and payload length of the frame that `bytes` begin with, once all of it is there.
#[must_use]
pub fn frame_extent(bytes: &[u8]) -> Option<(usize, usize)> {
    let (start, length) = match bytes {
        [_, 126, a, b, ..] => (4, u64::from(u16::from_be_bytes([*a, *b]))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        [_, short @ 0..=125, ..] => (2, u64::from(*short)),
        _ => return None,
    };
    let length = usize::try_from(length).ok()?;
    (bytes.len() >= start + length).then_some((start, length))
}

/// Waits until `look` finds what it looks for, asking again every few milliseconds.
///
/// # Panics
/// When it does not within [`PATIENCE`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("never came: {what}"))
}
