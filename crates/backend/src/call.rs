//! One request to an application, and what it made of it.
//!
//! **Lives here:** the request's headers, its limits, the connection that is kept for the next.
//! **Called by:** `send`, which decides what follows.
//! **Must not know:** queues, retries.

use std::{
    fmt,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_tasks::clock;
use futures_util::{FutureExt as _, future::BoxFuture};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use tokio::time::{timeout, timeout_at};

use crate::dial::{DialError, Dialer, Place};

/// From resolving the host to the last header of the answer.
const CALL_MAX: Duration = Duration::from_secs(5);
/// What is read of an answer's body, so that the connection can be used again, and for how long.
const BODY_MAX_BYTES: usize = 64 << 10;
const BODY_MAX: Duration = Duration::from_secs(1);
/// Most bytes of an answer's headers.
const HEADERS_MAX_BYTES: usize = 64 << 10;
/// A connection that was not used for so long may just be closed by the server: many wait 5 s.
const IDLE_MAX: Duration = Duration::from_secs(3);

/// What is sent, the same at each attempt.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// The application's key.
    pub(crate) key: String,
    /// Of the body, by the key's secret; in hexadecimal digits.
    pub(crate) signature: String,
    pub(crate) body: Bytes,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The application has it.
    Accepted,
    /// It answered with another status; redirects are not followed.
    Status(u16),
    /// It did not answer in time.
    Timeout,
    /// Its address may not be called.
    Forbidden,
    /// It cannot be reached, or does not speak HTTP.
    Unreachable(String),
}

impl Outcome {
    /// Returns the value of the metrics' label.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Accepted => "ok",
            Self::Status(_) => "status",
            Self::Timeout => "timeout",
            Self::Forbidden => "forbidden",
            Self::Unreachable(_) => "unreachable",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("it has it"),
            Self::Status(status) => write!(f, "it answered with status {status}"),
            Self::Timeout => write!(f, "it did not answer within {} s", CALL_MAX.as_secs()),
            Self::Forbidden => write!(f, "{}", DialError::Forbidden),
            Self::Unreachable(why) => f.write_str(why),
        }
    }
}

/// A connection to the application.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes while it is polled, which is while a call is under way.
    driver: BoxFuture<'static, ()>,
    ended: bool,
    idle_since: Instant,
}

/// Calls one place, one request after the other.
pub(crate) struct Caller {
    place: Place,
    dialer: Arc<Dialer>,
    kept: Option<Connection>,
}

impl Caller {
    pub(crate) const fn new(place: Place, dialer: Arc<Dialer>) -> Self {
        Self { place, dialer, kept: None }
    }

    /// Sends a letter. Comes back after 6 s at most.
    ///
    /// # Cancel safety
    /// The application may have it or not.
    pub(crate) async fn post(&mut self, letter: &Letter) -> Outcome {
        let deadline = clock::now() + CALL_MAX;
        let answered = match timeout_at(deadline.into(), self.send(letter)).await {
            Ok(answered) => answered,
            Err(_elapsed) => return Outcome::Timeout,
        };
        let (mut connection, answer) = match answered {
            Ok(answered) => answered,
            Err(outcome) => return outcome,
        };
        let status = answer.status();
        let body = connection.drive(is_short(answer.into_body()));
        if timeout(BODY_MAX, body).await == Ok(true) && !connection.ended {
            connection.idle_since = clock::now();
            self.kept = Some(connection);
        }
        if status.is_success() { Outcome::Accepted } else { Outcome::Status(status.as_u16()) }
    }

    /// Closes the connection that was kept: there is nothing to send for a while.
    pub(crate) fn hang_up(&mut self) {
        self.kept = None;
    }

    /// Sends a letter on the connection that was kept, or on another when that is closed.
    async fn send(&mut self, letter: &Letter) -> Result<(Connection, Response<Incoming>), Outcome> {
        if let Some(mut kept) = self.kept.take()
            && clock::now().duration_since(kept.idle_since) < IDLE_MAX
        {
            match kept.exchange(self.request(letter)).await {
                Ok(answer) => return Ok((kept, answer)),
                // Not a byte has left: the server had closed.
                Err(error) if error.is_canceled() || error.is_closed() => {}
                Err(error) => return Err(unreachable(&error)),
            }
        }
        let stream = match self.dialer.dial(&self.place).await {
            Ok(stream) => stream,
            Err(DialError::Forbidden) => return Err(Outcome::Forbidden),
            Err(error @ (DialError::Resolve(_) | DialError::Connect(_) | DialError::Tls(_))) => {
                return Err(Outcome::Unreachable(error.to_string()));
            }
        };
        // As clients of the protocol look for them: `X-Pusher-Key`, not `x-pusher-key`.
        let handshake = http1::Builder::new()
            .title_case_headers(true)
            .max_buf_size(HEADERS_MAX_BYTES)
            .handshake(TokioIo::new(stream));
        let (sender, driver) = handshake.await.map_err(|error| unreachable(&error))?;
        // What goes wrong is told to the sender as well.
        let driver = driver.map(drop).boxed();
        let mut fresh = Connection { sender, driver, ended: false, idle_since: clock::now() };
        match fresh.exchange(self.request(letter)).await {
            Ok(answer) => Ok((fresh, answer)),
            Err(error) => Err(unreachable(&error)),
        }
    }

    fn request(&self, letter: &Letter) -> Request<Full<Bytes>> {
        let request = Request::post(&self.place.path)
            .header(header::HOST, &self.place.authority)
            // Without a charset: SDKs compare it as a whole.
            .header(header::CONTENT_TYPE, "application/json")
            .header("X-Pusher-Key", &letter.key)
            .header("X-Pusher-Signature", &letter.signature)
            .header(header::USER_AGENT, concat!("carillon/", env!("CARGO_PKG_VERSION")));
        request.body(Full::new(letter.body.clone())).expect("paths and keys were checked at the start")
    }
}

impl Connection {
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        let Self { sender, driver, ended, .. } = self;
        let exchange = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        drive(driver, ended, exchange).await
    }

    async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        drive(&mut self.driver, &mut self.ended, work).await
    }
}

/// Does `work`, for which the bytes must move.
async fn drive<T>(driver: &mut BoxFuture<'static, ()>, ended: &mut bool, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            // What it has read is still there for the work.
            () = &mut *driver, if !*ended => *ended = true,
        }
    }
}

/// Reads a body that is of no interest. Returns whether it ended.
async fn is_short(mut body: Incoming) -> bool {
    let mut left = BODY_MAX_BYTES;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        let read = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(read) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

fn unreachable(error: &hyper::Error) -> Outcome {
    Outcome::Unreachable(format!("it does not answer as HTTP does: {error}"))
}
