//! The two connections to NATS, and whether they are up.
//!
//! One brings what is published, the other publishes and asks, so that a burst of publishing cannot delay what
//! is received.
//!
//! **Lives here:** connecting for the first time, the pace of reconnecting, following the library's state.
//! **Called by:** `lib`, which starts everything once the link is there.
//! **Must not know:** streams, shards.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr, ServerError, Subscriber, connection::State,
};
use carillon_tasks::{Phase, Stop};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use crate::{
    Fatal,
    api::{ApiError, PATIENCE},
    config::{Config, StartError},
    meters::{Meters, Op},
};

/// The link's state must be looked at, as its events may be dropped when there are many.
const LOOK: Duration = Duration::from_millis(100);
/// Room for the answers to acknowledgements and requests; they are bounded by what we ask.
const ANSWERS_CAPACITY: usize = 65_536;
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(4);
/// The first server that republishes in order and answers batches of Direct Gets.
const OLDEST: (u16, u16) = (2, 11);

/// Both connections, cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    /// Brings the feeds.
    pub(crate) feed: Client,
    /// Publishes, and asks the JetStream API.
    pub(crate) ask: Client,
    view: watch::Receiver<View>,
}

/// How the link stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// Both connections are up.
    pub(crate) up: bool,
    /// Counts how often either was made: what was received before another number may have a gap after it.
    pub(crate) generation: u64,
}

impl Link {
    /// Says whether a message can be sent just now, by the library's own state.
    pub(crate) fn is_up(&self) -> bool {
        self.ask.connection_state() == State::Connected && self.view.borrow().up
    }

    /// Looks at the link itself, whose view may be a moment behind: a message that was received is not newer than
    /// the generation that is seen after it.
    pub(crate) fn now(&self) -> View {
        look(&self.feed, &self.ask)
    }

    /// Counts how often the connection that brings the feeds was made.
    pub(crate) fn feed_generation(&self) -> u64 {
        self.feed.statistics().connects.load(Ordering::Relaxed)
    }

    /// Subscribes on the connection that brings the feeds.
    pub(crate) async fn hear(&self, subject: String) -> Result<Subscriber, ApiError> {
        // The library waits without end for room in its queue while the link is down.
        match timeout(PATIENCE, self.feed.subscribe(subject)).await {
            Ok(Ok(feed)) => Ok(feed),
            Ok(Err(_)) | Err(_) => Err(ApiError::Silent),
        }
    }

    /// Returns a view that follows every change.
    pub(crate) fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// Waits until the link is up or down, as asked.
    pub(crate) async fn until(&self, up: bool) {
        let mut view = self.view.clone();
        if view.wait_for(|view| view.up == up).await.is_err() {
            // The watcher ended with the process: nothing changes any more.
            std::future::pending::<()>().await;
        }
    }
}

/// Makes the connections, and tries until it succeeds or the process stops.
pub(crate) struct Connector {
    servers: Vec<ServerAddr>,
    /// The same for the log.
    shown: Arc<str>,
    feed: ConnectOptions,
    ask: ConnectOptions,
    nudge: Arc<Notify>,
    denied: watch::Receiver<Option<String>>,
}

impl Connector {
    pub(crate) fn new(config: &Config, meters: &Arc<Meters>) -> Result<Self, StartError> {
        let nudge = Arc::new(Notify::new());
        let denied = watch::Sender::new(None);
        let feed = config.options()?.subscription_capacity(config.subscription_capacity);
        let ask = config.options()?.subscription_capacity(ANSWERS_CAPACITY);
        let servers = config.check()?;
        Ok(Self {
            shown: shown(&servers),
            servers,
            denied: denied.subscribe(),
            feed: with_events(feed, "feed", meters, &nudge, denied.clone()),
            ask: with_events(ask, "ask", meters, &nudge, denied),
            nudge,
        })
    }

    /// Waits until the server says that something is not permitted. It says so only in this way: what was asked
    /// for simply does not happen.
    pub(crate) async fn denied(&self) -> Fatal {
        let mut denied = self.denied.clone();
        let reason = match denied.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_closed) => None,
        };
        match reason {
            Some(reason) => Fatal::Permission { reason },
            None => std::future::pending().await,
        }
    }

    /// Connects both; `None` when the process stops first. Each attempt that fails is told to `failed`.
    pub(crate) async fn connect(
        &self,
        stop: &Stop,
        failed: &impl Fn(Op),
    ) -> Result<Option<(Link, Watcher)>, Fatal> {
        let Some(ask) = self.connect_one(&self.ask, stop, failed).await? else { return Ok(None) };
        let Some(feed) = self.connect_one(&self.feed, stop, failed).await? else { return Ok(None) };
        let sender = watch::Sender::new(look(&feed, &ask));
        let link = Link { feed, ask, view: sender.subscribe() };
        let (shown, nudge) = (Arc::clone(&self.shown), Arc::clone(&self.nudge));
        let watcher = Watcher { link: link.clone(), shown, sender, nudge };
        Ok(Some((link, watcher)))
    }

    async fn connect_one(
        &self,
        options: &ConnectOptions,
        stop: &Stop,
        failed: &impl Fn(Op),
    ) -> Result<Option<Client>, Fatal> {
        let mut said = String::new();
        for attempt in 1.. {
            let connecting = options.clone().connect(self.servers.clone());
            let connected = tokio::select! {
                connected = connecting => connected,
                () = stop.reached(Phase::Draining) => return Ok(None),
            };
            match connected {
                Ok(client) => {
                    check_version(&client)?;
                    return Ok(Some(client));
                }
                Err(error) => match error.kind() {
                    ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                        return Err(Fatal::Credentials { reason: error.to_string() });
                    }
                    ConnectErrorKind::ServerParse
                    | ConnectErrorKind::Dns
                    | ConnectErrorKind::TimedOut
                    | ConnectErrorKind::Tls
                    | ConnectErrorKind::Io
                    | ConnectErrorKind::MaxReconnects => {
                        failed(Op::Connect);
                        let cause = error.to_string();
                        if said != cause {
                            tracing::warn!(servers = %self.shown, error = %cause, "NATS cannot be reached; still trying");
                            said = cause;
                        }
                    }
                },
            }
            tokio::select! {
                () = tokio::time::sleep(reconnect_delay(attempt)) => {}
                () = stop.reached(Phase::Draining) => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// Follows the state of both connections.
pub(crate) struct Watcher {
    link: Link,
    /// The servers, for the log.
    shown: Arc<str>,
    sender: watch::Sender<View>,
    nudge: Arc<Notify>,
}

impl Watcher {
    /// Runs until the process is cut. Ends early when a server that is too old took over.
    pub(crate) async fn run(self, stop: Stop, meters: Arc<Meters>) -> Result<(), Fatal> {
        loop {
            let seen = look(&self.link.feed, &self.link.ask);
            let before = self.sender.send_replace(seen);
            if seen.generation != before.generation {
                meters.reconnects.increment(seen.generation.saturating_sub(before.generation));
                check_version(&self.link.ask)?;
                check_version(&self.link.feed)?;
            }
            if seen.up != before.up {
                if seen.up {
                    tracing::info!("NATS is back");
                } else {
                    tracing::warn!(servers = %self.shown, "the link to NATS is down");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = self.nudge.notified() => {}
                () = stop.reached(Phase::Cut) => return Ok(()),
            }
        }
    }
}

/// Writes where servers are, without the users and passwords that their URLs may have.
fn shown(servers: &[ServerAddr]) -> Arc<str> {
    let place = |server: &ServerAddr| match server.host() {
        host if host.contains(':') => format!("[{host}]:{}", server.port()),
        host => format!("{host}:{}", server.port()),
    };
    servers.iter().map(place).collect::<Vec<_>>().join(", ").into()
}

fn look(feed: &Client, ask: &Client) -> View {
    let connects = |client: &Client| client.statistics().connects.load(Ordering::Relaxed);
    let up = |client: &Client| client.connection_state() == State::Connected;
    View { generation: connects(feed).saturating_add(connects(ask)), up: up(feed) && up(ask) }
}

fn check_version(client: &Client) -> Result<(), Fatal> {
    let Some(info) = client.try_server_info() else { return Ok(()) };
    let mut parts = info.version.split('.').map(|part| part.parse::<u16>().ok());
    let known = parts.next().flatten().zip(parts.next().flatten());
    if known.is_none_or(|version| version < OLDEST) {
        return Err(Fatal::TooOld { version: info.version });
    }
    Ok(())
}

/// Returns how long to wait before the given attempt: 50 ms, doubled up to 4 s, and jittered, so that the nodes
/// of a cluster do not come back all at once.
pub(crate) fn reconnect_delay(attempt: usize) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    jittered(RECONNECT_FIRST.saturating_mul(1 << doublings).min(RECONNECT_MAX))
}

/// Returns between half and all of `longest`.
pub(crate) fn jittered(longest: Duration) -> Duration {
    // Without a source of randomness all that is lost is the spreading.
    let random = getrandom::u32().unwrap_or(u32::MAX);
    longest.mul_f64(0.5 + 0.5 * f64::from(random) / f64::from(u32::MAX))
}

fn with_events(
    options: ConnectOptions,
    connection: &'static str,
    meters: &Arc<Meters>,
    nudge: &Arc<Notify>,
    denied: watch::Sender<Option<String>>,
) -> ConnectOptions {
    let (meters, nudge) = (Arc::clone(meters), Arc::clone(nudge));
    options.event_callback(move |event| {
        match &event {
            Event::Connected | Event::Disconnected | Event::Draining | Event::Closed => {}
            Event::LameDuckMode => tracing::info!(connection, "the NATS server is about to stop"),
            Event::SlowConsumer(_) => meters.slow_consumer.increment(1),
            Event::ServerError(error) => {
                meters.failed(Op::Server);
                tracing::error!(connection, %error, "NATS reports an error");
                if let ServerError::Other(text) = error
                    && text.to_ascii_lowercase().contains("permissions violation")
                {
                    denied.send_replace(Some(text.clone()));
                }
            }
            Event::ClientError(error) => {
                meters.failed(Op::Connect);
                tracing::debug!(connection, %error, "the link to NATS failed");
            }
        }
        nudge.notify_one();
        std::future::ready(())
    })
}
