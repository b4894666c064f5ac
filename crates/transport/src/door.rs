//! One socket, until it is given to a worker's loop or its requests are answered.
//!
//! **Lives here:** HTTP/1.1 on the public listener, in which time what must come, and taking the socket back.
//! **Called by:** workers, for every socket that they are given.
//! **Must not know:** other connections, what sessions do.

use std::{
    convert::Infallible, fmt, future::poll_fn, pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration,
};

use bytes::Bytes;
use carillon_auth::Origins;
use carillon_node::{Door, Place, Worker};
use futures_util::future::BoxFuture;
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::spawn_local, time::sleep_until};

use crate::{
    page::Page,
    problem::Answer,
    visit::{Visit, reject},
    xhr::Fallback,
};

/// How first requests are read.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// From accepting a socket to the end of its request's head.
    pub handshake_timeout: Duration,
    /// Largest frame that a client may send, in bytes.
    pub frame_max_bytes: usize,
    /// Websites whose pages may connect.
    pub origins: Origins,
    /// The REST API of the Pusher protocol, where it answers here, too.
    pub rest: Option<Rest>,
    /// The sessions of the HTTP fallback of the Pusher protocol.
    pub fallback: Arc<Fallback>,
    /// The page for trying it, where there is one: this is development mode.
    pub page: Option<Page>,
}

/// Answers requests of backends on the listener for clients.
#[derive(Clone)]
pub struct Rest {
    /// In which time a request is read and answered.
    pub takes: Duration,
    /// Who answers.
    pub answer: Arc<Answerer>,
}

/// See [`Rest::answer`].
pub type Answerer = dyn Fn(Request<Incoming>) -> BoxFuture<'static, Answer> + Send + Sync;

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").field("takes", &self.takes).finish_non_exhaustive()
    }
}

/// Most bytes of a request's head; hyper's own least is 8 KiB.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Most header lines of a request.
const HEADERS_MAX: usize = 100;

/// Makes what workers call for every socket.
#[must_use]
pub fn door(config: DoorConfig) -> Door {
    let config = Arc::new(config);
    Arc::new(move |worker, socket, place| {
        spawn_local(serve(Rc::clone(worker), Arc::clone(&config), socket, place));
    })
}

/// How a conversation in HTTP ends.
enum End {
    /// It is over, or it is no longer one in HTTP.
    Done,
    Broken(hyper::Error),
    Late,
}

async fn serve(worker: Rc<Worker>, config: Arc<DoorConfig>, socket: std::net::TcpStream, place: Place) {
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let handshake_timeout = config.handshake_timeout;
    let visit = Rc::new(Visit::new(worker, config, place));
    let answering = Rc::clone(&visit);
    let answer = hyper::service::service_fn(move |request| {
        let visit = Rc::clone(&answering);
        Box::pin(async move { Ok::<_, Infallible>(visit.answer(request).await) })
    });
    let mut conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(handshake_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(socket), answer);
    // The library ends a head that is slow to come, not a reader that is slow to take its answers.
    let mut late = pin!(sleep_until(visit.deadline()));
    let end = poll_fn(|cx| {
        if let Poll::Ready(end) = conversation.poll_without_shutdown(cx) {
            return Poll::Ready(end.map_or_else(End::Broken, |()| End::Done));
        }
        // The request is not answered by the library.
        if visit.is_stream() {
            return Poll::Ready(End::Done);
        }
        if late.deadline() != visit.deadline() {
            late.as_mut().reset(visit.deadline());
        }
        late.as_mut().poll(cx).map(|()| End::Late)
    });
    match end.await {
        End::Done => {
            // A copy of what was read past the request: even an empty part of the library's read buffer would keep all
            // of its 8 KiB.
            let parts = conversation.into_parts();
            let early = Bytes::copy_from_slice(&parts.read_buf);
            drop((parts.read_buf, parts.service));
            if let Some(mut over) = visit.open(parts.io.into_inner(), early) {
                let _gone_already = over.shutdown().await.is_err();
            }
        }
        End::Broken(fault) if visit.was_served() => drop(fault),
        End::Broken(fault) => reject("websocket", if fault.is_timeout() { "timeout" } else { "bad_request" }),
        End::Late => reject("websocket", "timeout"),
    }
}
