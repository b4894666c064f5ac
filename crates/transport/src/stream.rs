//! A client that only listens: server-sent events, or lines of JSON.
//!
//! **Lives here:** the head of the response, and how what a client is told is framed. The response has no length and is
//! not chunked: it ends with the connection, so that everybody's frames are the same bytes.
//! **Called by:** `visit` makes links, workers drive them.
//! **Must not know:** what the texts say.

use std::{
    fmt::Write as _,
    io::{self, IoSlice},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use carillon_dialect_native::Native;
use carillon_model::{ChannelName, Form, Position, Publication};
use carillon_node::{Heard, Lead, Link, Received, Said};
use carillon_session::{Dialect, Wanted};
use carillon_tasks::clock;
use socket2::SockRef;
use tokio::net::TcpStream;

use crate::{cors::Cors, event, standing::Standing};

/// For how long what was sent may stay unanswered by the peer's system: this client answers no ping.
pub(crate) const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// Most that a client may send after its request. It has nothing to say; a proxy may.
const HEARD_MAX_BYTES: usize = 16 * 1024;

/// One listener.
#[derive(Debug)]
pub(crate) struct StreamLink {
    socket: TcpStream,
    form: Form,
    /// What goes before the first words.
    head: String,
    /// Where the client stands, if what it is sent says so.
    standing: Option<Standing>,
    /// The next words come with where the client stands.
    moved: bool,
    heard_bytes: usize,
    end: End,
}

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotYet,
    /// Our last words are queued.
    Said,
    /// Nothing that comes is read any more.
    Deaf,
}

impl StreamLink {
    /// Takes a socket after its request.
    pub(crate) fn new(socket: TcpStream, form: Form, wanted: &[Wanted], cors: &Cors) -> Self {
        // Where it cannot be set, the peer is found gone by the system's own patience.
        let _unset = SockRef::from(&socket).set_tcp_user_timeout(Some(USER_TIMEOUT)).is_err();
        let media = if is_event_stream(form) { "text/event-stream" } else { "application/x-ndjson" };
        let mut head = head(media, cors);
        let standing = if is_event_stream(form) {
            head.push_str(&event::welcome());
            Some(Standing::new(wanted))
        } else {
            None
        };
        Self { socket, form, head, standing, moved: false, heard_bytes: 0, end: End::NotYet }
    }

    fn words(&mut self, said: Said) -> String {
        let id = if std::mem::take(&mut self.moved) {
            self.standing.as_ref().and_then(Standing::text)
        } else {
            None
        };
        match (is_event_stream(self.form), said) {
            (true, Said::Text(text)) => event::control(&text, id.as_deref()),
            (true, Said::Goodbye(text, retry_after)) => event::goodbye(&text, retry_after),
            (true, Said::Ping) => ":\n\n".to_owned(),
            (false, Said::Text(text) | Said::Goodbye(text, _)) => text + "\n",
            (false, Said::Ping) => "{\"type\":\"ping\"}\n".to_owned(),
            (_, Said::Close(_)) => {
                self.end = End::Said;
                String::new()
            }
        }
    }
}

const fn is_event_stream(form: Form) -> bool {
    match form {
        Form::NativeSse | Form::NativeSseBare | Form::NativeSseRaw => true,
        Form::NativeWebSocket
        | Form::NativeLine
        | Form::NativePoll
        | Form::PusherWebSocket
        | Form::PusherLine => false,
    }
}

/// Returns the head of a response that does not end.
pub(crate) fn head(media: &str, cors: &Cors) -> String {
    let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + clock::since_1970());
    // The first is for proxies and caches of every kind, the second for nginx, which would gather what it passes on.
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nCache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\nDate: {date}\r\n"
    );
    for (name, value) in cors.lines() {
        // An origin that is not ASCII is on no list.
        let _infallible = write!(head, "{name}: {}\r\n", value.to_str().unwrap_or_default());
    }
    head.push_str("\r\n");
    head
}

impl Link for StreamLink {
    fn form(&self) -> Form {
        self.form
    }

    fn dialect(&self) -> &'static dyn Dialect {
        &Native
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.end {
            End::NotYet => self.socket.poll_read_ready(cx),
            End::Said => Poll::Ready(Ok(())),
            // It is woken when it has written what waits, or when the patience with it ends.
            End::Deaf => Poll::Pending,
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    fn receive(&mut self, scratch: &mut [u8], hear: &mut dyn FnMut(Heard)) -> io::Result<Received> {
        if self.end != End::NotYet {
            // A response that ends with the connection waits for no answer.
            self.end = End::Deaf;
            hear(Heard::Goodbye);
            return Ok(Received::Bytes(0));
        }
        let count = self.socket.try_read(scratch)?;
        self.heard_bytes = self.heard_bytes.saturating_add(count);
        if self.heard_bytes > HEARD_MAX_BYTES {
            self.end = End::Deaf;
            hear(Heard::Broken);
        }
        Ok(if count == 0 { Received::End } else { Received::Bytes(count) })
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match slices {
            [one] => self.socket.try_write(one),
            several => self.socket.try_write_vectored(several),
        }
    }

    fn wrap(&mut self, said: Said) -> Bytes {
        let words = self.words(said);
        Bytes::from(if self.head.is_empty() { words } else { std::mem::take(&mut self.head) + &words })
    }

    fn lead(&mut self, publication: &Publication) -> Lead {
        let (Some(standing), Some(position)) = (&mut self.standing, publication.position) else {
            return Lead::Nothing;
        };
        standing.stand(&publication.message.channel, position);
        let id = standing.text().unwrap_or_default();
        Lead::Bytes(Bytes::from(format!("id: {id}\n")))
    }

    fn stand(&mut self, channel: &ChannelName, position: Position) {
        if let Some(standing) = &mut self.standing {
            standing.stand(channel, position);
            self.moved = true;
        }
    }

    fn settle(&mut self) {
        if let Some(standing) = &mut self.standing {
            standing.settle();
        }
    }
}
