//! A client's socket: bytes come, or nothing does, or it is over.
//!
//! **Lives here:** connecting, reading with a limit to silence, heads of answers, frames, lines.
//! **Called by:** the clients of each transport.
//! **Must not know:** what the bytes say.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf as _, BytesMut};
use carillon_model::Position;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

use crate::raw;

/// How long a client waits for a connection, and for room to send.
const CONNECT: Duration = Duration::from_secs(3);

/// How long nothing may come, not even a ping: more than heartbeat and pong time-out of the nodes.
const SILENCE: Duration = Duration::from_secs(6);

/// Why no more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The connection is at its end, whatever that end was.
    Ended,
    /// Nothing came for too long.
    Silence,
}

#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    buffer: BytesMut,
    /// Where each channel of the run ends. It wakes the reader.
    ends: watch::Receiver<Option<Vec<Position>>>,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    text: String,
}

impl Head {
    /// Returns the value of a header by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.text.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after")?.parse().ok().map(Duration::from_secs)
    }
}

impl Wire {
    /// Connects and sends a request.
    pub(super) async fn open(
        address: SocketAddr,
        request: &[u8],
        ends: watch::Receiver<Option<Vec<Position>>>,
    ) -> Option<Self> {
        let socket = timeout(CONNECT, TcpStream::connect(address)).await.ok()?.ok()?;
        let _slower = socket.set_nodelay(true).is_err();
        let mut wire = Self { socket, buffer: BytesMut::new(), ends };
        wire.send(request).await.then_some(wire)
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> bool {
        timeout(CONNECT, self.socket.write_all(bytes)).await.is_ok_and(|written| written.is_ok())
    }

    /// Waits for more; also returns, with nothing, when it becomes known where channels end.
    async fn more(&mut self) -> Result<(), Over> {
        // What was read is forgotten before more is.
        self.buffer.reserve(4096);
        tokio::select! {
            read = self.socket.read_buf(&mut self.buffer) => match read {
                Ok(1..) => Ok(()),
                Ok(0) | Err(_) => Err(Over::Ended),
            },
            _known = self.ends.changed() => Ok(()),
            () = sleep(SILENCE) => Err(Over::Silence),
        }
    }

    /// Waits for the head of an answer and takes it.
    pub(super) async fn head(&mut self) -> Result<Head, Over> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.buffer.split_to(end + 4);
                let text = String::from_utf8_lossy(&head).into_owned();
                let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
                return Ok(Head { status, text });
            }
            self.more().await?;
        }
    }

    /// Waits for so many bytes and takes them.
    pub(super) async fn exactly(&mut self, length: usize) -> Result<BytesMut, Over> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.split_to(length))
    }

    /// Waits for a line and takes it; `None` when it became known where channels end.
    pub(super) async fn line(&mut self) -> Result<Option<BytesMut>, Over> {
        if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
            let line = self.buffer.split_to(end);
            self.buffer.advance(1);
            return Ok(Some(line));
        }
        self.more().await.map(|()| None)
    }

    /// Waits for a frame of a WebSocket and takes it: its first byte and its payload. `None` when it became known where
    /// channels end.
    pub(super) async fn frame(&mut self) -> Result<Option<(u8, BytesMut)>, Over> {
        let Some((start, length)) = raw::frame_extent(&self.buffer) else {
            return self.more().await.map(|()| None);
        };
        let first = self.buffer.first().copied().unwrap_or(0);
        self.buffer.advance(start);
        Ok(Some((first, self.buffer.split_to(length))))
    }
}
