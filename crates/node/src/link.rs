//! The seam to transports: a client's socket and its framing.
//!
//! **Lives here:** what a worker needs of a connection.
//! **Called by:** workers; implemented by `transport`.
//! **Must not know:** HTTP, WebSocket, TLS.

use std::{
    fmt,
    io::{self, IoSlice},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use carillon_model::{ChannelName, CloseReason, Form, Position, Publication};
use carillon_session::Dialect;

/// One client's connection. Nothing here waits, and nothing is buffered for writing: the outbox is the only queue.
pub trait Link: fmt::Debug {
    /// Returns which frames of a publication go over this link.
    fn form(&self) -> Form;

    /// Returns what the client speaks.
    fn dialect(&self) -> &'static dyn Dialect;

    /// Wakes the task when the socket can be read, or has ended.
    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Wakes the task when the socket can be written.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Reads once into `scratch`, which is the worker's, and reports what was heard.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; any other error ends the connection.
    fn receive(&mut self, scratch: &mut [u8], hear: &mut dyn FnMut(Heard)) -> io::Result<Received>;

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; any other error ends the connection.
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Wraps something that is for this client alone. Nothing is sent where it returns no bytes.
    fn wrap(&mut self, said: Said) -> Bytes;

    /// Looks at a publication whose frame is about to be queued, where the form is led.
    fn lead(&mut self, _publication: &Publication) -> Lead {
        Lead::Nothing
    }

    /// Learns where the client stands in a channel: before it is told that it is subscribed, or of a gap.
    fn stand(&mut self, _channel: &ChannelName, _position: Position) {}

    /// Learns that nothing which the client asked for waits for an answer. Called again and again.
    fn settle(&mut self) {}
}

/// What goes before a publication's frame for one client alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lead {
    /// Nothing.
    Nothing,
    /// These bytes.
    Bytes(Bytes),
    /// The client takes no more, neither this one nor any later.
    Enough,
}

/// What a link heard.
#[derive(Debug)]
pub enum Heard {
    /// A whole text of the client's dialect.
    Text(String),
    /// A sign of life.
    Alive,
    /// Bytes that must be sent in answer, such as a pong.
    Reply(Bytes),
    /// The client ends the connection; `Reply` came before if it is owed an answer.
    Goodbye,
    /// The client broke the transport's rules; `Reply` tells it so.
    Broken,
}

/// What became of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes came.
    Bytes(usize),
    /// The peer will send nothing more.
    End,
}

/// What is said to one client.
#[derive(Debug)]
pub enum Said {
    /// A text of its dialect.
    Text(String),
    /// The last text of its dialect, and when to come back.
    Goodbye(String, Option<Duration>),
    /// The transport's own ping.
    Ping,
    /// The transport's own end.
    Close(CloseReason),
}
