//! One thread and the connections that live on it: the only place that waits for clients.
//!
//! **Lives here:** taking connections in, the task of each, what a session asks for, the ticks. Channels are in `joining`,
//! their pasts in `catching_up`, fan-out is in `turn`.
//! **Called by:** `node` starts workers; doors open connections.
//! **Must not know:** transports, dialects, which broker it is.

mod catching_up;
mod crowding;
mod joining;
mod permit;
mod speaking;
mod turn;

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    io::ErrorKind,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use carillon_hub::{Channels, Offered, Origin, Outbox, SessionKey};
use carillon_model::{
    App, ChannelName, CloseReason, ConnectionId, ErrorCode, Form, NodeId, Position, Refusal,
};
use carillon_session::{Answer, Effect, Heartbeat, Manners, Push, Session, Wanted};
use carillon_tasks::clock;
use slab::Slab;
use tokio::{
    sync::Notify,
    task::{LocalSet, spawn_local, yield_now},
};

use crate::{
    Heard, Link, Node, Received,
    connection::{Connection, Woken},
    dice::Dice,
    link::Said,
    mailbox::Mailbox,
    node::{Door, Place},
    shown::{self, Ending, Shown},
    wheel::{TICK, Wheel},
};

/// Bytes that a worker reads from a socket before others have their turn, into a buffer that all its connections
/// share: at most 2,000 frames, which is a few milliseconds of nonsense.
const SCRATCH_BYTES: usize = 16 * 1024;

/// After a goodbye, clients come back within this time.
const COME_BACK_WITHIN: Duration = Duration::from_secs(2);

/// For how long connections may take to leave when the node is cut.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// For how long a drain waits for handshakes that began before it. A socket that says nothing, such as one that a backend
/// keeps for its next request, does not hold it longer: pusher-js is back a second after it was sent away, and waits
/// for 15 more where it finds nobody then.
const HANDSHAKE_PATIENCE: Duration = Duration::from_millis(300);

/// One thread's connections, channels and timers.
pub struct Worker {
    node: Arc<Node>,
    index: usize,
    mailbox: Arc<Mailbox>,
    door: Door,
    dice: Dice,
    connections: RefCell<Slab<Box<Connection>>>,
    channels: RefCell<Channels>,
    /// Connections that were offered frames and not flushed yet.
    touched: RefCell<Vec<SessionKey>>,
    wheel: RefCell<Wheel>,
    scratch: RefCell<Box<[u8]>>,
    /// Some connection waits for the broker, or for the time to ask it again.
    waiting: Cell<bool>,
    /// Questions to storage that were not put yet; at most a few for each connection.
    asks: RefCell<Vec<catching_up::Ask>>,
    asked: Notify,
    /// The number of the last question.
    questions: Cell<u64>,
    /// Connections whose first event waits to be sent.
    speakers: RefCell<Vec<(SessionKey, ConnectionId)>>,
    spoken: Notify,
    /// The node is stopping since then: clients are asked to move.
    draining: Cell<Option<Instant>>,
    cut_at: Cell<Option<Instant>>,
    ended: Notify,
    /// Requests that receive for a connection, which may be another worker's.
    guests: Cell<usize>,
    shown: Shown,
}

/// Keeps a worker until it is dropped, or the node is cut.
#[derive(Debug)]
pub struct Guest(Rc<Worker>);

/// What a worker begins with.
pub(crate) struct Seed {
    pub(crate) node: Arc<Node>,
    pub(crate) index: usize,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) door: Door,
    pub(crate) dice: u64,
}

/// Which application a client belongs to.
#[derive(Clone, Debug)]
pub enum Whose {
    /// The first: it names none.
    First,
    /// The one with this id, if there is one.
    Named(String),
    /// This one, whose key it has shown.
    Known(Arc<App>),
}

/// What a client asked for with its first request.
#[derive(Debug)]
pub struct Opening {
    /// Whose channels it wants.
    pub whose: Whose,
    /// Its token, if it brought one.
    pub token: Option<String>,
    /// The channels that it named, or what is wrong with them.
    pub wanted: Vec<Result<Wanted, (String, Refusal)>>,
    /// How it notices that the server is gone.
    pub heartbeat: Heartbeat,
}

/// Runs a worker until the node is drained or cut.
pub(crate) fn run(seed: Seed, runtime: &tokio::runtime::Runtime) {
    let worker = Rc::new(Worker::new(seed));
    LocalSet::new().block_on(runtime, async move {
        let turns = spawn_local(Rc::clone(&worker).turns());
        let ticks = spawn_local(Rc::clone(&worker).ticks());
        let reads = spawn_local(Rc::clone(&worker).reads());
        let speeches = spawn_local(Rc::clone(&worker).speeches());
        tokio::select! {
            () = worker.ended.notified() => worker.node.note_end(worker.index),
            _ = turns => fail_fast(),
            _ = ticks => fail_fast(),
            _ = reads => fail_fast(),
            _ = speeches => fail_fast(),
        }
    });
}

/// A worker that no longer turns would hold its clients and send them nothing: their reconnection is the better end.
/// The panic itself was printed where it happened.
fn fail_fast() {
    std::process::abort();
}

impl Worker {
    fn new(seed: Seed) -> Self {
        Self {
            node: seed.node,
            index: seed.index,
            mailbox: seed.mailbox,
            door: seed.door,
            dice: Dice::new(seed.dice),
            connections: RefCell::default(),
            channels: RefCell::default(),
            touched: RefCell::default(),
            wheel: RefCell::new(Wheel::new(clock::now())),
            scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
            waiting: Cell::new(false),
            asks: RefCell::default(),
            asked: Notify::new(),
            questions: Cell::new(0),
            speakers: RefCell::default(),
            spoken: Notify::new(),
            draining: Cell::new(None),
            cut_at: Cell::new(None),
            ended: Notify::new(),
            guests: Cell::new(0),
            shown: Shown::new(),
        }
    }

    /// Returns the node.
    #[must_use]
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Has the worker wait for something that it does for a connection of another.
    #[must_use]
    pub fn guest(self: &Rc<Self>) -> Guest {
        self.guests.set(self.guests.get().saturating_add(1));
        Guest(Rc::clone(self))
    }

    /// Takes a connection in: greets the client, joins what it named, and serves it from now on.
    pub fn open(self: &Rc<Self>, link: Box<dyn Link>, opening: Opening, place: Place) {
        let now = clock::now();
        let limits = &self.node.config().limits;
        let id = self.node.next_connection();
        let full = place.is_over_capacity();
        let app = self.node.app_of(&opening.whose);
        let identity = match (&app, opening.token) {
            (Err(refusal), _) => Err(refusal.clone()),
            (Ok(app), Some(token)) => self.node.identify(&token, app, now).map(Some),
            (Ok(_), None) => {
                shown::anonymous();
                Ok(None)
            }
        };
        let app = app.unwrap_or_else(|_unknown| Arc::clone(self.node.apps().first()));
        let (wanted, unusable): (Vec<_>, Vec<_>) = opening.wanted.into_iter().partition(Result::is_ok);
        // A node that is full joins nothing for a client that it is about to send away.
        let within = |wanted: Wanted| Wanted { channel: wanted.channel.within(&app.space), ..wanted };
        let wanted = wanted.into_iter().flatten().filter(|_| !full).map(within).collect();
        let mut session = match identity {
            Ok(identity) => Session::open(id, identity, wanted, opening.heartbeat, limits, now),
            Err(refusal) => {
                let mut session = Session::open(id, None, Vec::new(), opening.heartbeat, limits, now);
                let reason = if refusal.code == ErrorCode::TokenExpired {
                    CloseReason::TokenExpired
                } else {
                    CloseReason::Unauthorized
                };
                session.handle_answer(Answer::Rejected { refusal, reference: None });
                session.handle_close(reason, None);
                session
            }
        };
        if link.form().is_pusher() {
            session.set_manners(manners(&app, now));
        }
        for (channel, refusal) in unusable.into_iter().filter_map(Result::err) {
            session.handle_unusable(channel, refusal);
        }
        if full {
            session.handle_close(CloseReason::OverCapacity, Some(self.come_back()));
        }
        if self.draining.get().is_some() {
            let reason = reason_to_move(link.form(), &self.node.neighbours().others());
            session.handle_leave(reason, now, self.come_back());
        }
        if let Some(at) = self.age_ends(opening.heartbeat, now) {
            // Ages end at times of their own: no jitter is needed to come back.
            session.handle_leave(CloseReason::MaxAge, at, Duration::ZERO);
        }
        let shown = self.shown.of(link.form());
        shown.opened.increment(1);
        shown.connections.increment(1);
        self.node.note_connection(&app, true);
        let mut connections = self.connections.borrow_mut();
        let free = connections.vacant_entry();
        let Some(key) = SessionKey::new(free.key()) else { return };
        let mut connection = Box::new(Connection::new(link, session, app, place, now));
        self.join_user(key, &mut connection);
        free.insert(connection);
        drop(connections);
        self.carry_out(key, now);
        spawn_local(Rc::clone(self).serve(key));
    }

    /// The task of one connection.
    async fn serve(self: Rc<Self>, key: SessionKey) {
        let _if_it_panics = Removal { worker: Rc::clone(&self), key };
        loop {
            match poll_fn(|cx| self.poll_connection(key, cx)).await {
                Woken::Readable => {
                    if self.read(key) {
                        yield_now().await;
                    }
                }
                Woken::Writable => {
                    self.flush(key);
                    if self.catch_up(key) {
                        yield_now().await;
                    }
                }
                Woken::Over(ending) => return self.remove(key, ending),
            }
        }
    }

    fn poll_connection(&self, key: SessionKey, cx: &mut Context<'_>) -> Poll<Woken> {
        match self.connections.borrow_mut().get_mut(key.get()) {
            Some(connection) => connection.poll(cx),
            None => Poll::Ready(Woken::Over(Ending::Broken)),
        }
    }

    /// Reads once, and says whether there may be more.
    fn read(&self, key: SessionKey) -> bool {
        let now = clock::now();
        let mut heard = Vec::new();
        let received = {
            let mut connections = self.connections.borrow_mut();
            let Some(connection) = connections.get_mut(key.get()) else { return false };
            let received = connection.receive(&mut self.scratch.borrow_mut(), &mut heard);
            if let Ok(Received::Bytes(bytes)) = received {
                self.shown.of(connection.link.form()).received_bytes.increment(bytes as u64);
            }
            received
        };
        let ended = match received {
            Ok(Received::Bytes(_)) => None,
            Ok(Received::End) => Some(Ending::Client),
            Err(fault) if matches!(fault.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return false;
            }
            Err(_broken) => Some(Ending::Broken),
        };
        for one in heard {
            self.hear(key, one, now);
        }
        self.carry_out(key, now);
        if let Some(ending) = ended
            && let Some(connection) = self.connections.borrow_mut().get_mut(key.get())
        {
            connection.over(ending);
        }
        ended.is_none()
    }

    fn hear(&self, key: SessionKey, heard: Heard, now: Instant) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get_mut(key.get()) else { return };
        match heard {
            Heard::Text(text) if connection.is_open() => {
                let command = connection.link.dialect().decode(&text);
                let command = command.map(|command| command.within(&connection.app.space));
                connection.session.handle_command(command, &self.node.config().limits, now);
                // Before what was heard next: nothing may be said after the answer to a close.
                self.obey(key, connection, now);
            }
            Heard::Text(_) => {}
            Heard::Alive => {
                connection.session.handle_heard(now);
                if let Some(probed) = connection.probed.take() {
                    self.shown
                        .of(connection.link.form())
                        .ping_rtt
                        .record(now.saturating_duration_since(probed).as_secs_f64());
                }
            }
            Heard::Reply(frame) if connection.is_open() => {
                if connection.offer(frame, Origin::Kept, self.node.config().outbox_max_bytes) == Offered::Full
                {
                    connection.session.handle_close(CloseReason::SlowConsumer, Some(self.come_back()));
                }
            }
            Heard::Reply(_) => {}
            Heard::Goodbye => connection.closing(Ending::Client, now, true),
            Heard::Broken => connection.closing(Ending::Ours(CloseReason::ProtocolError), now, false),
        }
    }

    /// Does what the session has decided, flushes, and sets the connection's timer.
    fn carry_out(&self, key: SessionKey, now: Instant) {
        let mut connections = self.connections.borrow_mut();
        let Some(connection) = connections.get_mut(key.get()) else { return };
        self.obey(key, connection, now);
        if !connection.wishes.is_empty() {
            self.grant_next(key, connection, now);
            self.obey(key, connection, now);
        }
        if connection.wishes.is_empty() && connection.readers.is_empty() {
            connection.link.settle();
        }
        self.flush_one(connection);
        self.arm(key, connection);
    }

    /// Does what the session has decided.
    fn obey(&self, key: SessionKey, connection: &mut Connection, now: Instant) {
        while let Some(effect) = connection.session.next_effect() {
            self.carry(key, connection, effect, now);
        }
    }

    /// Carries one effect out.
    fn carry(&self, key: SessionKey, connection: &mut Connection, effect: Effect, now: Instant) {
        match effect {
            // A close is the last frame (RFC 6455 §5.5.1).
            Effect::Say(_) | Effect::ProbePeer if !connection.is_open() => {}
            Effect::Say(push) => self.say(connection, &push),
            Effect::Join { wanted, reference } => {
                connection.spend(&wanted.channel, now);
                self.answer_join(key, connection, wanted, reference, now);
            }
            Effect::Leave(channel) => {
                connection.spend(&channel, now);
                self.leave(connection, &channel);
            }
            Effect::Verify { token, reference } => {
                let answer = match self.node.identify(&token, &connection.app, now) {
                    Ok(identity) => Answer::Verified { identity, reference },
                    Err(refusal) => Answer::Rejected { refusal, reference },
                };
                connection.session.handle_answer(answer);
                self.join_user(key, connection);
                self.revoke(connection);
            }
            Effect::SignIn(sign_in) => self.sign_in(key, connection, *sign_in),
            Effect::Publish(outgoing) => self.send(key, connection, *outgoing),
            Effect::Members { channel, reference } => {
                let members = self.crowd().members(&channel).what;
                connection.session.handle_told_next(Push::Members { channel, members, reference });
            }
            Effect::ProbePeer => {
                connection.probed = Some(now);
                let said = connection.say(Said::Ping, self.node.config().outbox_max_bytes);
                // A reader that took nothing since the last ping holds what waits for it, and whatever it is brought.
                if said == Offered::Full || connection.is_stuck() {
                    connection.session.handle_close(CloseReason::SlowConsumer, Some(self.come_back()));
                }
            }
            Effect::Close(reason) => connection.close(reason, now),
        }
    }

    fn say(&self, connection: &mut Connection, push: &Push) {
        let limit = self.node.config().outbox_max_bytes;
        if matches!(push, Push::Error { refusal, .. } if refusal.code == ErrorCode::LimitExceeded) {
            shown::subscribed("limit");
        }
        if let Push::Subscribed { channel, position: Some(position), .. } = push {
            connection.link.stand(channel, *position);
        }
        let text = connection.link.dialect().push(push);
        if let Push::Goodbye { retry_after, .. } = push {
            self.make_room(connection, limit);
            // It has room, or the socket is gone.
            let _offered = connection.say(Said::Goodbye(text, *retry_after), limit);
        } else if connection.say(Said::Text(text), limit) == Offered::Full {
            connection.session.handle_close(CloseReason::SlowConsumer, Some(self.come_back()));
        }
    }

    /// A goodbye goes out instead of what waits for a reader that is too slow for it.
    fn make_room(&self, connection: &mut Connection, limit: usize) {
        if connection.outbox.bytes() > limit / 2 {
            let dropped = connection.outbox.drop_unsent();
            self.shown.dropped_slow.increment(dropped as u64);
        }
    }

    fn flush(&self, key: SessionKey) {
        if let Some(connection) = self.connections.borrow_mut().get_mut(key.get()) {
            self.flush_one(connection);
        }
    }

    fn flush_one(&self, connection: &mut Connection) {
        let sent = connection.flush();
        self.shown.of(connection.form).sent_bytes.increment(sent as u64);
        self.show_queue(connection);
    }

    fn show_queue(&self, connection: &mut Connection) {
        let dropped = std::mem::take(&mut connection.dropped);
        if dropped > 0 {
            self.shown.dropped_overflow.increment(dropped as u64);
        }
        let waits = (connection.outbox.len(), connection.outbox.bytes());
        let shown = std::mem::replace(&mut connection.shown_queue, waits);
        if shown != waits {
            self.shown.queued_frames.increment(waits.0 as f64 - shown.0 as f64);
            self.shown.queued_bytes.increment(waits.1 as f64 - shown.1 as f64);
        }
    }

    fn remove(&self, key: SessionKey, ending: Ending) {
        let Some(mut connection) = self.connections.borrow_mut().try_remove(key.get()) else { return };
        while let Some(seated) = connection.seats.pop() {
            self.unseat(&connection, &seated);
        }
        self.sign_out(&connection);
        connection.outbox = Outbox::default();
        self.show_queue(&mut connection);
        let form = connection.link.form();
        let shown = self.shown.of(form);
        shown.connections.decrement(1);
        self.node.note_connection(&connection.app, false);
        shown.duration.record(clock::now().saturating_duration_since(connection.opened).as_secs_f64());
        shown::closed(form, ending);
    }

    /// Has the wheel name the connection at its next deadline.
    fn arm(&self, key: SessionKey, connection: &mut Connection) {
        let Some(deadline) = connection.next_deadline(&self.node.config().limits) else { return };
        let mut wheel = self.wheel.borrow_mut();
        let tick = wheel.tick_of(deadline);
        if connection.armed.is_none_or(|armed| tick < armed) {
            connection.armed = Some(tick);
            wheel.arm(tick, key);
        }
    }

    async fn ticks(self: Rc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        loop {
            interval.tick().await;
            let now = clock::now();
            self.node.note_turn(self.index, now);
            let due = self.wheel.borrow_mut().take_due(now);
            for (tick, key) in due {
                {
                    let mut connections = self.connections.borrow_mut();
                    let Some(connection) = connections.get_mut(key.get()) else { continue };
                    if connection.armed != Some(tick) {
                        continue;
                    }
                    connection.armed = None;
                    connection.resume(now);
                    connection.give_up(now);
                    connection.session.handle_timeout(&self.node.config().limits, now);
                }
                self.carry_out(key, now);
            }
            self.grant_wishes(now);
            self.end_if_done(now);
        }
    }

    fn end_if_done(&self, now: Instant) {
        let left = !self.connections.borrow().is_empty() || self.guests.get() > 0;
        let drained = self.draining.get().is_some_and(|began| {
            let waited = now.saturating_duration_since(began) >= HANDSHAKE_PATIENCE;
            !left && (waited || self.node.sockets(self.index) == 0)
        });
        let cut = self.cut_at.get().is_some_and(|cut| !left || cut <= now);
        if drained || cut {
            self.ended.notify_one();
        }
    }

    /// Returns when a connection that begins at `now` is as old as it may be.
    fn age_ends(&self, heartbeat: Heartbeat, now: Instant) -> Option<Instant> {
        let age = self.node.config().connection_age_max?;
        // A stream of HTTP passes more that ends long answers, and comes back by itself.
        let age = if heartbeat == Heartbeat::OneWay { age / 2 } else { age };
        now.checked_add(age.saturating_sub(self.dice.part_of(age / 5)))
    }

    fn come_back(&self) -> Duration {
        self.dice.part_of(COME_BACK_WITHIN)
    }
}

/// Returns why a node that stops sends a client away. Those of the Pusher protocol come back at once, which only other
/// nodes can serve.
fn reason_to_move(form: Form, others: &[NodeId]) -> CloseReason {
    if form.is_pusher() && others.is_empty() { CloseReason::Restarting } else { CloseReason::Draining }
}

/// Returns what an application lets a client say.
fn manners(app: &App, now: Instant) -> Manners {
    let by = app.authorize_within.and_then(|within| now.checked_add(within));
    let limits = &app.limits;
    Manners::new(app.client_events, limits.event_data_bytes, limits.client_events_per_second, by, now)
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.0.guests.set(self.0.guests.get().saturating_sub(1));
    }
}

/// A connection whose task panics is dropped; the others go on.
struct Removal {
    worker: Rc<Worker>,
    key: SessionKey,
}

impl Drop for Removal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.worker.remove(self.key, Ending::Broken);
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("index", &self.index).finish_non_exhaustive()
    }
}
