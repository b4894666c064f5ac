//! A client over WebSocket (RFC 6455).
//!
//! **Lives here:** reading through the WebSocket library without a buffer for each connection, and the answers that
//! the protocol itself demands.
//! **Called by:** `door` makes links, workers drive them.
//! **Must not know:** what the texts say.

use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    task::{Context, Poll},
};

use bytes::Bytes;
use carillon_dialect_native::Native;
use carillon_dialect_pusher::Pusher;
use carillon_model::Form;
use carillon_node::{Heard, Link, Received, Said};
use carillon_session::Dialect;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use crate::{edge::Edge, frame, pusher::frames};

/// What the library reserves while a message is being read.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Most that the library may hold for writing: pongs and one close, which are taken from it at once.
const WRITE_BUFFER_BYTES: usize = 64 * 1024;

/// One WebSocket.
#[derive(Debug)]
pub(crate) struct WebSocketLink {
    socket: TcpStream,
    /// What came together with the handshake.
    early: Bytes,
    /// The library's state; only there while a message is under way.
    codec: Option<Box<WebSocketContext>>,
    edge: Edge,
    frame_max_bytes: usize,
    speech: Speech,
    end: End,
}

/// What is spoken over a WebSocket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speech {
    Native,
    Pusher(&'static Pusher),
}

/// How far the closing handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// Our close is on its way.
    Said,
    /// Nothing that comes is read any more.
    Deaf,
}

impl WebSocketLink {
    /// Takes a socket after its handshake, with what was read past it.
    pub(crate) const fn new(socket: TcpStream, early: Bytes, frame_max_bytes: usize, speech: Speech) -> Self {
        Self { socket, early, codec: None, edge: Edge::new(), frame_max_bytes, speech, end: End::NotYet }
    }

    /// Reads what `bytes` hold and tells what was heard.
    fn feed(&mut self, bytes: &[u8], hear: &mut dyn FnMut(Heard)) {
        if self.end == End::Deaf {
            return;
        }
        self.edge.pass(bytes);
        let codec = self.codec.get_or_insert_with(|| Box::new(new_codec(self.frame_max_bytes)));
        let mut wire = Wire { input: bytes, output: Vec::new() };
        let verdict = loop {
            match codec.read(&mut wire) {
                Ok(Message::Text(text)) => hear(Heard::Text(text.as_str().to_owned())),
                Ok(Message::Ping(_) | Message::Pong(_)) => hear(Heard::Alive),
                Ok(Message::Close(_)) => {
                    // The library writes the answer when it is read from once more.
                    while codec.read(&mut wire).is_ok() {}
                    break Some(Heard::Goodbye);
                }
                Ok(Message::Binary(_)) => {
                    wire.output.extend_from_slice(&frame::close(1003, "text frames only"));
                    break Some(Heard::Broken);
                }
                Ok(Message::Frame(_)) => {} // Never read, only written.
                Err(Error::Io(fault)) if fault.kind() == ErrorKind::WouldBlock => break None,
                Err(fault) => {
                    wire.output.extend_from_slice(&refuse(&fault));
                    break Some(Heard::Broken);
                }
            }
        };
        if !wire.output.is_empty() && self.end == End::NotYet {
            hear(Heard::Reply(Bytes::from(wire.output)));
        }
        if let Some(verdict) = verdict {
            self.end = End::Deaf;
            hear(verdict);
        }
        if self.end == End::Deaf || self.edge.is_clean() {
            self.codec = None;
        }
    }
}

fn new_codec(frame_max_bytes: usize) -> WebSocketContext {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER_BYTES)
        .max_message_size(Some(frame_max_bytes))
        .max_frame_size(Some(frame_max_bytes));
    WebSocketContext::new(Role::Server, Some(config))
}

/// Returns the close frame for a broken rule (RFC 6455 §7.4.1).
fn refuse(fault: &Error) -> Bytes {
    let code = if matches!(fault, Error::Capacity(_)) {
        1009
    } else if matches!(fault, Error::Utf8(_)) {
        1007
    } else {
        1002
    };
    frame::close(code, &fault.to_string())
}

impl Link for WebSocketLink {
    fn form(&self) -> Form {
        match self.speech {
            Speech::Native => Form::NativeWebSocket,
            Speech::Pusher(_) => Form::PusherWebSocket,
        }
    }

    fn dialect(&self) -> &'static dyn Dialect {
        match self.speech {
            Speech::Native => &Native,
            Speech::Pusher(pusher) => pusher,
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() { self.socket.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    fn receive(&mut self, scratch: &mut [u8], hear: &mut dyn FnMut(Heard)) -> io::Result<Received> {
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() {
            self.feed(&early, hear);
            return Ok(Received::Bytes(early.len()));
        }
        match self.socket.try_read(scratch)? {
            0 => Ok(Received::End),
            count => {
                self.feed(scratch.get(..count).unwrap_or_default(), hear);
                Ok(Received::Bytes(count))
            }
        }
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => self.socket.try_write(one),
            several => self.socket.try_write_vectored(several),
        }
    }

    fn wrap(&mut self, said: Said) -> Bytes {
        match said {
            Said::Text(text) | Said::Goodbye(text, _) => frames(&text),
            Said::Ping => frame::ping(),
            Said::Close(reason) => {
                if self.end == End::NotYet {
                    self.end = End::Said;
                }
                match self.speech {
                    Speech::Native => frame::close(reason.code(), reason.name()),
                    Speech::Pusher(_) => {
                        let (code, message) = carillon_dialect_pusher::close(reason);
                        frame::close(code, message)
                    }
                }
            }
        }
    }
}

/// The library's view of the socket: what was read already, and a place for what it wants to write.
struct Wire<'a> {
    input: &'a [u8],
    output: Vec<u8>,
}

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.input.read(into)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
