//! Accepting connections and letting them go.
//!
//! **Lives here:** the accept loop, HTTP/1 and HTTP/2 settings, the way a connection ends.
//! **Called by:** `gateway`, once.
//! **Must not know:** what is asked on a connection.

use std::{fmt, future::Future, io, pin::pin, sync::Arc, time::Duration};

use carillon_auth::KeyRing;
use carillon_model::Apps;
use carillon_tasks::{Phase, Stop, Tasks};
use hyper::{rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use metrics::Gauge;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{sleep, timeout},
};

use crate::{
    channels::Channels, config::Config, grpc, http::Http, intake::Intake, publisher::Publisher,
    pusher::PusherRest,
};

/// All headers of a request together. Also what HTTP/1 reads at a time.
const HEADERS_MAX_BYTES: usize = 16 << 10;
const STREAMS_MAX: u32 = 100;
/// Streams that a client opened and reset at once, before the connection is closed (rapid reset).
const RESETS_MAX: usize = 20;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause after the system refused a connection, for want of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection that never asked anything may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the API answers for, and what it asks. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The keys of backends that are no Pusher clients.
    pub keys: Arc<KeyRing>,
    /// The applications.
    pub apps: Apps,
    /// Takes what is published.
    pub publisher: Arc<dyn Publisher>,
    /// Knows the channels.
    pub channels: Arc<dyn Channels>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("apps", &self.apps).finish_non_exhaustive()
    }
}

/// The API's connections on which something was asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct InUse(watch::Sender<usize>);

impl InUse {
    /// Waits until none is left. Once the process drains, each ends when its requests are answered.
    ///
    /// # Cancel safety
    /// Safe: connections go on when the future is dropped.
    pub async fn ended(&self) {
        // No error: the sender is ours.
        let _none_left = self.0.subscribe().wait_for(|count| *count == 0).await.is_ok();
    }

    fn one_more(&self) -> Using {
        self.0.send_modify(|count| *count = count.saturating_add(1));
        Using(self.clone())
    }
}

/// One of them.
struct Using(InUse);

impl Drop for Using {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Serves the API on `listener` until the process is cut; returns at once, with what tells whether publishers still
/// wait for answers.
///
/// While the process drains, connections are still accepted, since load balancers learn late; health checks say
/// NOT_SERVING, connections in use close after their answer, HTTP/2 is told to go away.
pub async fn serve(listener: TcpListener, config: Config, parts: Parts, tasks: &Tasks) -> InUse {
    let stop = tasks.stop();
    let in_use = InUse(watch::Sender::new(0));
    let pusher = PusherRest::new(&config, &parts);
    let intake = Arc::new(Intake::new(config, parts));
    let (routes, reporter) = grpc::routes(&intake, &stop).await;
    tasks.spawn("api health", {
        let stop = stop.clone();
        async move {
            stop.reached(Phase::Draining).await;
            grpc::not_serving(&reporter).await;
        }
    });
    let http = Arc::new(Http { intake, pusher, grpc: routes, stop });
    tasks.spawn("api", accept(listener, http, in_use.clone(), tasks.clone()));
    in_use
}

async fn accept(listener: TcpListener, http: Arc<Http>, in_use: InUse, tasks: Tasks) {
    let stop = tasks.stop();
    let server = Arc::new(server(&http.intake.config, tasks.clone()));
    let room = Arc::new(Semaphore::new(http.intake.config.connections_max));
    loop {
        let place = tokio::select! {
            () = stop.reached(Phase::Cut) => return,
            place = Arc::clone(&room).acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = stop.reached(Phase::Cut) => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _peer)) => {
                let (server, http) = (Arc::clone(&server), Arc::clone(&http));
                let serving = connection(server, socket, http, in_use.clone(), stop.clone(), place);
                tasks.spawn("api connection", serving);
            }
            Err(why) => {
                tracing::warn!(error = %why, "the API could not accept a connection");
                if !is_the_peers(&why) {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// Says whether the error is about one connection, not about this process.
fn is_the_peers(why: &io::Error) -> bool {
    matches!(why.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

fn server(config: &Config, tasks: Tasks) -> auto::Builder<Spawner> {
    let mut server = auto::Builder::new(Spawner(tasks));
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.keep_alive)
        .max_buf_size(HEADERS_MAX_BYTES);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADERS_MAX_BYTES).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(RESETS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    server
}

async fn connection(
    server: Arc<auto::Builder<Spawner>>,
    socket: TcpStream,
    http: Arc<Http>,
    in_use: InUse,
    stop: Stop,
    _place: OwnedSemaphorePermit,
) {
    if socket.set_nodelay(true).is_err() {
        return; // The peer has left already.
    }
    let _open = Open::count(&http.intake);
    let patience = http.intake.config.first_request_timeout;
    let asked = Arc::new(Notify::new());
    let heard = Arc::clone(&asked);
    let service = service_fn(move |request| {
        heard.notify_one();
        Arc::clone(&http).answer(request)
    });
    let mut connection = pin!(server.serve_connection(TokioIo::new(socket), service));

    // 1. The first request. hyper has no limit on how long it looks for the protocol's first bytes.
    let asked = tokio::select! {
        () = stop.reached(Phase::Cut) => return,
        _ended = connection.as_mut() => return,
        asked = timeout(patience, asked.notified()) => asked.is_ok(),
    };
    if !asked {
        connection.as_mut().graceful_shutdown();
        let _ended = timeout(GOODBYE, connection).await;
        return;
    }
    let _in_use = in_use.one_more();
    // 2. Serving. Only a connection that was in use is asked to end: one that a client has just opened would be
    //    closed in its face.
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = stop.reached(Phase::Draining) => connection.as_mut().graceful_shutdown(),
    }
    // 3. Answers in hand.
    tokio::select! {
        _ended = connection => {}
        () = stop.reached(Phase::Cut) => {}
    }
}

/// Counts a connection for as long as it lives.
struct Open(Gauge);

impl Open {
    fn count(intake: &Intake) -> Self {
        let gauge = intake.meters.connections.clone();
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Runs the streams of HTTP/2 as counted tasks.
#[derive(Clone)]
struct Spawner(Tasks);

impl<F> Executor<F> for Spawner
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn("api stream", stream);
    }
}
