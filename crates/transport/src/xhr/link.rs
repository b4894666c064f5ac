//! The worker's side of a session of the fallback: a connection without a socket.
//!
//! **Lives here:** how what a client is told becomes lines, how the connection ends.
//! **Called by:** workers, as any other link.
//! **Must not know:** which request receives, and where.

use std::{
    io::{self, ErrorKind, IoSlice},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use carillon_dialect_pusher::{Pusher, close, line};
use carillon_model::Form;
use carillon_node::{Heard, Link, Received, Said};
use carillon_session::Dialect;

use super::{Fallback, Shared, closing};

/// Texts that one turn of the worker reads: others have their turns.
const TEXTS_AT_ONCE: usize = 64;

/// One session's connection.
#[derive(Debug)]
pub(crate) struct XhrLink {
    fallback: Arc<Fallback>,
    name: Arc<str>,
    session: Arc<Shared>,
    dialect: &'static Pusher,
    end: End,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// Our last line is queued.
    Said,
    /// Nothing that comes is read any more.
    Deaf,
}

impl XhrLink {
    pub(crate) const fn new(
        fallback: Arc<Fallback>,
        name: Arc<str>,
        session: Arc<Shared>,
        dialect: &'static Pusher,
    ) -> Self {
        Self { fallback, name, session, dialect, end: End::NotYet }
    }
}

impl Link for XhrLink {
    fn form(&self) -> Form {
        Form::PusherLine
    }

    fn dialect(&self) -> &'static dyn Dialect {
        self.dialect
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.end {
            End::NotYet => self.session.lock().poll_link(false, cx).map(Ok),
            End::Said => self.session.lock().poll_link(true, cx).map(Ok),
            // It is over as soon as the worker looks.
            End::Deaf => Poll::Pending,
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.lock().poll_room(cx).map(Ok)
    }

    fn receive(&mut self, _scratch: &mut [u8], hear: &mut dyn FnMut(Heard)) -> io::Result<Received> {
        let mut session = self.session.lock();
        let mut bytes = 0_usize;
        for text in std::iter::from_fn(|| session.next_text()).take(TEXTS_AT_ONCE) {
            bytes = bytes.saturating_add(text.len());
            hear(Heard::Text(text));
        }
        if session.take_alive() {
            hear(Heard::Alive);
        }
        if session.is_gone() {
            return Ok(Received::End);
        }
        if self.end == End::Said && session.is_drained() {
            self.end = End::Deaf;
            hear(Heard::Goodbye);
        }
        Ok(Received::Bytes(bytes))
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let (taken, saying) = self.session.lock().push(slices);
        self.fallback.say(saying);
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn wrap(&mut self, said: Said) -> Bytes {
        match said {
            Said::Text(texts) | Said::Goodbye(texts, _) => {
                Bytes::from(texts.split('\n').filter(|text| !text.is_empty()).map(line).collect::<String>())
            }
            Said::Ping => Bytes::from_static(b"h\n"),
            Said::Close(reason) => {
                self.end = End::Said;
                let (code, message) = close(reason);
                Bytes::from(closing(code, message))
            }
        }
    }
}

impl Drop for XhrLink {
    fn drop(&mut self) {
        self.fallback.forget(&self.name);
        let saying = self.session.lock().finish();
        self.fallback.say(saying);
    }
}
