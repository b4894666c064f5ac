//! The parts of one process that all workers share.
//!
//! **Lives here:** starting and stopping the workers, giving connections to them, who a token belongs to.
//! **Called by:** `gateway`; doors bring connections, the API publishes.
//! **Must not know:** HTTP, WebSocket, which broker it is.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    net::TcpStream,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use carillon_auth::{BadAuth, BadToken, TokenVerifier, shown_key, verify_auth};
use carillon_broker::{Broker, Health};
use carillon_hub::Render;
use carillon_model::{
    App, Apps, ChannelName, ConnectionId, ErrorCode, Findings, Member, Question, Refusal, UnixMillis,
};
use carillon_session::{Expiry, Identity, Limits};
use carillon_tasks::clock;
use carillon_telemetry::{Refused, metric};
use tokio::{sync::watch, time::timeout_at};

use crate::{
    Neighbours, Router, Whose, Worker,
    mailbox::Mail,
    recent::RecentKeys,
    shown,
    worker::{self, Seed},
};

/// Serves a socket on the worker that it was given to: the transport's part.
pub type Door = Arc<dyn Fn(&Rc<Worker>, TcpStream, Place) + Send + Sync>;

/// What an operator decides about a node.
#[derive(Clone, Copy, Debug)]
pub struct NodeConfig {
    /// What sessions allow.
    pub limits: Limits,
    /// Most bytes that wait for one client.
    pub outbox_max_bytes: usize,
    /// Most connections at once.
    pub connections_max: usize,
    /// Age at which a client is asked to connect again, less a random part of up to a fifth. Without it, never.
    pub connection_age_max: Option<Duration>,
}

/// What a node is made of.
pub struct Parts {
    /// The operator's decisions.
    pub config: NodeConfig,
    /// Where the broker delivers.
    pub router: Arc<Router>,
    /// Where publications go.
    pub broker: Arc<dyn Broker>,
    /// Who writes frames.
    pub render: Arc<dyn Render>,
    /// Whom it serves.
    pub apps: Apps,
    /// The other nodes.
    pub neighbours: Arc<Neighbours>,
    /// Who checks tokens; without it no token is good.
    pub tokens: Option<TokenVerifier>,
    /// Random, different for every process.
    pub seed: u64,
}

/// One process: its workers and what they share.
pub struct Node {
    parts: Parts,
    loads: Arc<[AtomicUsize]>,
    /// Connections without a socket of their own.
    beside: Arc<AtomicUsize>,
    /// Connections were numbered so far, and what their numbers are hashed with: ids that nobody can guess, and that no
    /// two connections have.
    connection: AtomicU64,
    ids: RandomState,
    /// Connections of each application.
    app_loads: Box<[AtomicUsize]>,
    accepted: RecentKeys,
    refused: Refused,
    broker: watch::Receiver<Health>,
    began: Instant,
    /// When each worker turned last, in milliseconds since `began`.
    turned: Box<[AtomicU64]>,
}

/// A socket's place on its worker; given back when it and its clones are dropped.
#[derive(Clone, Debug)]
pub struct Place(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    loads: Arc<[AtomicUsize]>,
    worker: usize,
    over_capacity: bool,
    /// Counts it among those without a socket.
    beside: Option<Arc<AtomicUsize>>,
}

/// Connections past the limit that are still told politely that the node is full.
pub const POLITE_RESERVE: usize = 256;

/// Connections without a socket have one part in so many of a node's room.
const BESIDE_PART: usize = 4;

/// A worker that does not turn for this long is stuck; it turns every quarter of a second.
pub const STALLED: Duration = Duration::from_secs(10);

impl Node {
    /// Makes a node whose workers are not running yet.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let workers = parts.router.mailboxes.len();
        metric::CONNECTIONS_LIMIT.gauge(&[]).set(approximately(parts.config.connections_max));
        let loads = (0..workers).map(|_| AtomicUsize::new(0)).collect();
        let turned = (0..workers).map(|_| AtomicU64::new(0)).collect();
        let broker = parts.broker.health();
        let app_loads = parts.apps.all().iter().map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Self {
            beside: Arc::default(),
            connection: AtomicU64::new(0),
            ids: RandomState::new(),
            app_loads,
            parts,
            loads,
            accepted: RecentKeys::default(),
            refused: Refused::default(),
            broker,
            began: clock::now(),
            turned,
        })
    }

    /// Starts a thread for every worker. Each ends after a drain, when its connections are gone, or is cut.
    ///
    /// # Errors
    /// When the system gives no thread or no event queue.
    pub fn start_workers(self: &Arc<Self>, door: &Door) -> std::io::Result<Vec<JoinHandle<()>>> {
        let mut threads = Vec::new();
        for (index, mailbox) in self.parts.router.mailboxes.iter().enumerate() {
            let seed = Seed {
                node: Arc::clone(self),
                index,
                mailbox: Arc::clone(mailbox),
                door: Arc::clone(door),
                // Far apart, and different in every process.
                dice: self.parts.seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let name = format!("worker-{index}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || worker::run(seed, &runtime))?);
        }
        Ok(threads)
    }

    /// Gives a socket to the worker with the fewest connections. Returns it when the node is too full even for a
    /// polite refusal.
    ///
    /// # Errors
    /// The socket, to be dropped.
    pub fn accept(&self, socket: TcpStream) -> Result<(), TcpStream> {
        let total = self.connections();
        if total >= self.parts.config.connections_max.saturating_add(POLITE_RESERVE) {
            return Err(socket);
        }
        let emptiest = self.loads.iter().enumerate().min_by_key(|(_, load)| load.load(Ordering::Relaxed));
        let Some((worker, load)) = emptiest else { return Err(socket) };
        load.fetch_add(1, Ordering::Relaxed);
        let over_capacity = total >= self.parts.config.connections_max;
        let loads = Arc::clone(&self.loads);
        let place = Place(Arc::new(Taken { loads, worker, over_capacity, beside: None }));
        if let Some(mailbox) = self.parts.router.mailboxes.get(worker) {
            mailbox.put(Mail::Accepted(socket, place));
        }
        Ok(())
    }

    /// Takes a place for a connection without a socket of its own, on the worker of another. Sockets are accepted at a
    /// bounded rate, and these are not: they have a quarter of the node's room at most.
    #[must_use]
    pub fn place_beside(&self, other: &Place) -> Place {
        let most = self.parts.config.connections_max;
        let beside = self.beside.fetch_add(1, Ordering::Relaxed);
        let over_capacity = self.connections() >= most || beside >= most.div_ceil(BESIDE_PART);
        let worker = other.0.worker;
        if let Some(load) = self.loads.get(worker) {
            load.fetch_add(1, Ordering::Relaxed);
        }
        let beside = Some(Arc::clone(&self.beside));
        Place(Arc::new(Taken { loads: Arc::clone(&self.loads), worker, over_capacity, beside }))
    }

    /// Returns how many sockets are with workers, handshakes included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.loads.iter().map(|load| load.load(Ordering::Relaxed)).sum()
    }

    /// Returns how many sockets one worker has, handshakes included.
    pub(crate) fn sockets(&self, worker: usize) -> usize {
        self.loads.get(worker).map_or(0, |load| load.load(Ordering::Relaxed))
    }

    /// Asks every client to move, spread over `window`. Sockets that were accepted before are among them.
    pub fn drain(&self, window: Duration) {
        self.all_workers(|| Mail::Drain(window));
    }

    /// Closes what is left and ends the workers.
    pub fn cut(&self) {
        self.all_workers(|| Mail::Cut);
    }

    /// Checks a client's token.
    ///
    /// # Errors
    /// The refusal for the client.
    pub fn identify(&self, token: &str, app: &App, now: Instant) -> Result<Identity, Refusal> {
        let result = self.check_token(token, app, now);
        let shown = match &result {
            Ok(_) => "ok",
            // Nobody did anything wrong, and the client was told what to do.
            Err(bad) if bad.refusal.code == ErrorCode::TokenExpired => "expired",
            Err(bad) => {
                if self.refused.is_due(bad.check, now) {
                    tracing::info!(reason = bad.check, "a token was refused");
                }
                "invalid"
            }
        };
        metric::AUTH.counter(&[("method", "token"), ("result", shown)]).increment(1);
        result.map_err(|bad| bad.refusal)
    }

    fn check_token(&self, token: &str, app: &App, now: Instant) -> Result<Identity, BadToken> {
        let Some(tokens) = &self.parts.tokens else {
            let message = "this server takes no tokens; the operator sets auth.token_secret";
            let refusal = Refusal::new(ErrorCode::Unauthorized, message);
            return Err(BadToken { refusal, check: "auth.token_secret is not set" });
        };
        let unix = UnixMillis::new(u64::try_from(clock::since_1970().as_millis()).unwrap_or(u64::MAX));
        let claims = tokens.verify(token, unix)?;
        let meant = claims.app.as_deref().unwrap_or(&self.apps().first().id);
        if meant != app.id {
            let refusal =
                Refusal::new(ErrorCode::Unauthorized, "the token is for another application (`app`)");
            return Err(BadToken { refusal, check: "it is for another application (`app`)" });
        }
        let left = claims.expires.since(unix);
        let expiry = Expiry { time: claims.expires, at: now.checked_add(left).unwrap_or(now) };
        Ok(Identity { user: claims.user, info: claims.info, grants: claims.grants, expiry: Some(expiry) })
    }

    /// Checks what an application has signed for a client.
    ///
    /// # Errors
    /// The refusal for the client.
    pub(crate) fn check_signature(&self, app: &App, auth: &str, signed: &str) -> Result<(), Refusal> {
        let checked = verify_auth(app, auth, signed);
        shown::signature(checked.is_ok());
        checked.map_err(|bad| {
            if self.refused.is_due(bad.check(), clock::now()) {
                let key =
                    if let BadAuth::Key { key } = &bad { Some(shown_key(self.apps(), key)) } else { None };
                tracing::info!(
                    app = app.id,
                    key,
                    reason = bad.check(),
                    "what a Pusher client showed was refused"
                );
            }
            Refusal::new(ErrorCode::Unauthorized, bad.to_string())
        })
    }

    /// Finds the application whose key a client of the Pusher protocol shows.
    #[must_use]
    pub fn app_by_key(&self, key: &str) -> Option<&Arc<App>> {
        let app = self.apps().by_key(key);
        let reason = "unknown app key";
        if app.is_none() && self.refused.is_due(reason, clock::now()) {
            tracing::info!(key = shown_key(self.apps(), key), reason, "a Pusher client was refused");
        }
        app
    }

    /// Returns the applications.
    #[must_use]
    pub const fn apps(&self) -> &Apps {
        &self.parts.apps
    }

    /// Finds the application of a client.
    pub(crate) fn app_of(&self, whose: &Whose) -> Result<Arc<App>, Refusal> {
        let app = match whose {
            Whose::First => self.apps().first(),
            Whose::Known(app) => app,
            Whose::Named(id) => self.apps().by_id(id).ok_or_else(|| {
                Refusal::new(ErrorCode::Unauthorized, "no application has the id that `app` names")
            })?,
        };
        if !app.enabled {
            return Err(Refusal::new(ErrorCode::Forbidden, "the application is disabled"));
        }
        Ok(Arc::clone(app))
    }

    /// Says whether an application has as many connections here as it may.
    #[must_use]
    pub fn is_full(&self, app: &App) -> bool {
        let load = self.load_of(app).map_or(0, |load| load.load(Ordering::Relaxed));
        app.connections_max.is_some_and(|most| load >= most)
    }

    /// Counts a connection of an application, or the end of one.
    pub(crate) fn note_connection(&self, app: &App, opened: bool) {
        if let Some(load) = self.load_of(app) {
            let _before = if opened {
                load.fetch_add(1, Ordering::Relaxed)
            } else {
                load.fetch_sub(1, Ordering::Relaxed)
            };
        }
    }

    fn load_of(&self, app: &App) -> Option<&AtomicUsize> {
        let place = self.apps().all().iter().position(|known| known.id == app.id)?;
        self.app_loads.get(place)
    }

    /// Returns an id for a connection.
    pub(crate) fn next_connection(&self) -> ConnectionId {
        ConnectionId::from_bits(self.ids.hash_one(self.connection.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn neighbours(&self) -> &Neighbours {
        &self.parts.neighbours
    }

    /// Says goodbye to the other nodes: whoever is left here leaves every channel.
    pub fn farewell(&self) {
        self.neighbours().farewell();
    }

    /// Asks every node.
    ///
    /// # Cancel safety
    /// Safe, but what a question ends may have ended.
    pub async fn survey(&self, question: Question, deadline: Instant) -> Arc<Findings> {
        self.neighbours().surveys.ask(question, deadline).await
    }

    /// Returns the users in a presence channel, on all nodes.
    #[must_use]
    pub fn members(&self, channel: &ChannelName) -> Vec<Member> {
        self.neighbours().crowd.members(channel).what
    }

    /// Returns a worker that has not turned for [`STALLED`]: its thread is stuck.
    #[must_use]
    pub fn stalled_worker(&self, now: Instant) -> Option<usize> {
        let now = self.millis(now);
        let limit = u64::try_from(STALLED.as_millis()).unwrap_or(u64::MAX);
        self.turned.iter().position(|turned| now.saturating_sub(turned.load(Ordering::Relaxed)) > limit)
    }

    /// Notes that a worker has ended, which is no stall.
    pub(crate) fn note_end(&self, worker: usize) {
        if let Some(turned) = self.turned.get(worker) {
            turned.store(u64::MAX, Ordering::Relaxed);
        }
    }

    /// Notes that a worker turns.
    pub(crate) fn note_turn(&self, worker: usize, now: Instant) {
        if let Some(turned) = self.turned.get(worker) {
            turned.store(self.millis(now), Ordering::Relaxed);
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    /// Shows how full the node's queues and tables are; called before each scrape.
    pub fn show(&self) {
        metric::CHANNELS.gauge(&[]).set(approximately(self.router().interest.len()));
        self.neighbours().crowd.show();
        metric::WORKER_QUEUE_MESSAGES.gauge(&[]).set(approximately(self.router().waiting()));
    }

    /// Returns what the operator decided.
    #[must_use]
    pub const fn config(&self) -> &NodeConfig {
        &self.parts.config
    }

    pub(crate) fn router(&self) -> &Router {
        &self.parts.router
    }

    pub(crate) fn broker(&self) -> &dyn Broker {
        &*self.parts.broker
    }

    /// Says whether positions are known: the broker was reached at least once.
    pub(crate) fn broker_was_reached(&self) -> bool {
        !matches!(*self.broker.borrow(), Health::Connecting { .. })
    }

    /// Says whether the broker is there and nothing is missing.
    pub(crate) fn broker_is_connected(&self) -> bool {
        *self.broker.borrow() == Health::Connected
    }

    /// Waits until the broker was reached, an attempt to reach it has failed, or it is `late`.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub(crate) async fn broker_was_tried(&self, late: Instant) {
        let tried = |health: &Health| *health != Health::Connecting { failed: false };
        if !tried(&self.broker.borrow()) {
            let mut broker = self.broker.clone();
            let _late = timeout_at(late.into(), broker.wait_for(tried)).await.is_err();
        }
    }

    pub(crate) fn render(&self) -> &dyn Render {
        &*self.parts.render
    }

    /// The keys of live messages that this node accepted.
    pub(crate) const fn accepted(&self) -> &RecentKeys {
        &self.accepted
    }

    fn all_workers(&self, mail: impl Fn() -> Mail) {
        for mailbox in &self.parts.router.mailboxes {
            mailbox.put(mail());
        }
    }
}

impl Place {
    /// Says whether the node was full when the connection came.
    #[must_use]
    pub fn is_over_capacity(&self) -> bool {
        self.0.over_capacity
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(load) = self.loads.get(self.worker) {
            load.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(beside) = &self.beside {
            beside.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A count as a gauge shows it: exact up to 2³², which no count here passes.
pub(crate) fn approximately(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("config", &self.config).finish_non_exhaustive()
    }
}
