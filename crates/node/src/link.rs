//! The seam to transports: a client's socket and its framing.
//!
//! **Lives here:** what a worker needs of a connection.
//! **Called by:** workers; implemented by `transport`.
//! **Must not know:** HTTP, WebSocket, TLS.

use std::{
    fmt,
    io::{self, IoSlice},
    task::{Context, Poll},
};

use bytes::Bytes;
use carillon_hub::Form;
use carillon_model::CloseReason;
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

    /// Wraps something that is for this client alone.
    fn wrap(&mut self, said: Said) -> Bytes;
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
    /// The transport's own ping.
    Ping,
    /// The transport's own end.
    Close(CloseReason),
}
