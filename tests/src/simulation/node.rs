//! A node: its shards, its mailbox, its one worker, in the order of calls of `node`.
//!
//! **Lives here:** what a node consists of, how what shards bring reaches the mailbox, connections that open and end.
//! **Called by:** the world.
//! **Must not know:** streams, clients, what is true.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use carillon_broker::RingBudget;
use carillon_hub::{Channels, Left, Offered};
use carillon_model::{ChannelName, CloseReason, ConnectionId};
use carillon_session::{Effect, Heartbeat, Limits, Push, Session};

use super::{
    agenda::{Agenda, Event, Here, MS, NodeEvent, SECOND},
    bug::Bug,
    connection::{Connection, Seated, Socket},
    frame,
    mailbox::{Mailbox, Missed},
    shard::{Brought, Heard, LinkState, Shard},
    turn::Work,
};

/// For how long a peer may take to close its side.
const CLOSE_PATIENCE: u64 = 5 * SECOND;

/// One node in one of its lives.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) here: Here,
    pub(super) began: u64,
    pub(super) link: LinkState,
    pub(super) shards: Vec<Shard>,
    pub(super) interest: BTreeSet<ChannelName>,
    pub(super) mailbox: Mailbox,
    pub(super) work: VecDeque<Work>,
    pub(super) turns: bool,
    pub(super) stalled_until: u64,
    pub(super) channels: Channels,
    pub(super) connections: BTreeMap<usize, Connection>,
    pub(super) questions: u64,
    /// Some connection waits for the broker, or for the time to ask it again.
    pub(super) waiting: bool,
    pub(super) draining: bool,
    pub(super) limits: Limits,
}

impl Node {
    /// Starts a node, whose feeds have these numbers.
    pub(super) fn new(here: Here, feeds: &[u64], agenda: &mut Agenda) -> Self {
        let budget = RingBudget::new(agenda.plan.ring_bytes);
        let shards = feeds.iter().enumerate();
        let shards = shards.map(|(stream, feed)| Shard::new(stream, *feed, &budget, agenda)).collect();
        agenda.later(100 * MS, Event::Node(here, NodeEvent::Tick));
        Self {
            here,
            began: agenda.now,
            link: LinkState { up: false, generation: 0 },
            shards,
            interest: BTreeSet::new(),
            mailbox: Mailbox::default(),
            work: VecDeque::new(),
            turns: false,
            stalled_until: 0,
            channels: Channels::default(),
            connections: BTreeMap::new(),
            questions: 0,
            waiting: false,
            draining: false,
            limits: Limits {
                heartbeat: Duration::from_secs(25),
                pong_timeout: Duration::from_secs(10),
                frame_max_bytes: 65536,
                channels_max: 100,
            },
        }
    }

    /// Says whether every shard knows where it stands.
    pub(super) fn was_reached(&self) -> bool {
        self.shards.iter().all(|shard| shard.ring.position().is_some())
    }

    /// Says what is still on its way within the node, if anything.
    pub(super) fn unrest(&self) -> Option<String> {
        let shard = self.shards.iter().position(|shard| !shard.is_settled());
        let connections = || self.connections.iter();
        let reads = connections().find(|(_, one)| !one.readers.is_empty() || !one.wishes.is_empty());
        match (shard, reads) {
            (Some(shard), _) => Some(format!("has shard {shard} unsettled")),
            (_, Some((key, one))) => {
                let channels: Vec<_> = one.readers.iter().map(|reader| reader.channel.to_string()).collect();
                Some(format!("still brings connection {key} {channels:?}, and {} wait", one.wishes.len()))
            }
            _ if !self.mailbox.is_empty() || !self.work.is_empty() => Some("has mail".to_owned()),
            _ => None,
        }
    }

    pub(super) fn hear_shard(&mut self, stream: usize, heard: Heard, agenda: &mut Agenda) {
        let Self { here, link, shards, interest, mailbox, .. } = self;
        let Some(shard) = shards.get_mut(stream) else { return };
        shard.hear(*here, *link, heard, agenda, &mut |brought, agenda| match brought {
            Brought::Deliver(publication) | Brought::Late(publication) => {
                if interest.contains(&publication.message.channel) {
                    let silent = agenda.bug == Bug::OverflowInSilence;
                    mailbox.deliver(publication, agenda.plan.mailbox, silent);
                }
            }
            Brought::Lost(position) => {
                for channel in interest.iter() {
                    if agenda.plan.channels[frame::number(channel)].stream == stream {
                        mailbox.note_gap(channel.clone(), position, Missed::Lost);
                    }
                }
            }
        });
        self.wake_worker(agenda);
    }

    /// Has the worker take its turn, if there is anything for it.
    pub(super) fn wake_worker(&mut self, agenda: &mut Agenda) {
        if self.turns || (self.mailbox.is_empty() && self.work.is_empty()) {
            return;
        }
        self.turns = true;
        let pause = agenda.plan.faults.pause;
        let delay = if agenda.chance(pause) { agenda.draw(agenda.plan.faults.pause_max) } else { 1 };
        let at = self.stalled_until.max(agenda.now + delay);
        agenda.on(at, Event::Node(self.here, NodeEvent::Turn));
    }

    /// Takes a connection in.
    pub(super) fn open(&mut self, socket: Rc<RefCell<Socket>>, agenda: &mut Agenda) {
        let key = (0..).find(|key| !self.connections.contains_key(key)).unwrap_or(0);
        let id = ConnectionId::from_bits(agenda.dice.draw());
        let now = agenda.instant();
        let session = Session::open(id, None, Vec::new(), Heartbeat::Transport, &self.limits, now);
        let mut connection = Connection::new(socket, session);
        if self.draining {
            connection.session.handle_leave(CloseReason::Draining, now, Duration::from_secs(1));
            connection.session.handle_timeout(&self.limits, now);
        }
        self.connections.insert(key, connection);
        self.carry_out(key, agenda);
    }

    pub(super) fn key_of(&self, socket: u64) -> Option<usize> {
        let found = self.connections.iter().find(|(_, one)| one.socket.borrow().number == socket);
        found.map(|(key, _)| *key)
    }

    /// Works on one connection, which is not in the table meanwhile.
    pub(super) fn with(
        &mut self,
        key: usize,
        agenda: &mut Agenda,
        work: impl FnOnce(&mut Self, &mut Connection, &mut Agenda),
    ) {
        if let Some(mut connection) = self.connections.remove(&key) {
            work(self, &mut connection, agenda);
            self.connections.insert(key, connection);
        }
    }

    /// Does what the session has decided, and writes.
    pub(super) fn carry_out(&mut self, key: usize, agenda: &mut Agenda) {
        self.with(key, agenda, |node, connection, agenda| {
            node.obey(key, connection, agenda);
            if !connection.wishes.is_empty() {
                node.grant_next(key, connection, agenda);
                node.obey(key, connection, agenda);
            }
            connection.flush();
            if connection.is_woken() {
                let socket = connection.socket.borrow().number;
                agenda.later(1, Event::Node(node.here, NodeEvent::Writable { socket }));
            }
        });
        self.remove_if_over(key);
    }

    fn obey(&mut self, key: usize, connection: &mut Connection, agenda: &mut Agenda) {
        while let Some(effect) = connection.session.next_effect() {
            self.carry(key, connection, effect, agenda);
        }
    }

    pub(super) fn carry(
        &mut self,
        key: usize,
        connection: &mut Connection,
        effect: Effect,
        agenda: &mut Agenda,
    ) {
        match effect {
            Effect::Say(_) | Effect::ProbePeer if !connection.open => {}
            Effect::Say(push) => {
                if matches!(push, Push::Goodbye { .. })
                    && connection.outbox.bytes() > agenda.plan.outbox_bytes / 2
                {
                    connection.outbox.drop_unsent();
                }
                let full = connection.say(frame::write(&push), agenda) == Offered::Full;
                if full && !matches!(push, Push::Goodbye { .. }) {
                    connection.session.handle_close(CloseReason::SlowConsumer, None);
                }
            }
            Effect::Join { wanted, reference } => {
                self.answer_join(key, connection, wanted, reference, agenda)
            }
            Effect::Leave(channel) => self.leave(connection, &channel),
            Effect::Close(_) => {
                connection.close();
                let socket = connection.socket.borrow().number;
                agenda.later(CLOSE_PATIENCE, Event::Node(self.here, NodeEvent::Gone { socket }));
            }
            Effect::ProbePeer
            | Effect::Verify { .. }
            | Effect::SignIn(_)
            | Effect::Publish(_)
            | Effect::Members { .. } => {}
        }
    }

    /// Ends a connection whose close is out, or whose client is gone.
    pub(super) fn remove_if_over(&mut self, key: usize) {
        let over = |one: &Connection| !one.open && one.outbox.is_empty();
        if self.connections.get(&key).is_some_and(over) {
            self.remove(key);
        }
    }

    pub(super) fn remove(&mut self, key: usize) {
        let Some(mut connection) = self.connections.remove(&key) else { return };
        while let Some(seated) = connection.seats.pop() {
            self.unseat(&seated);
        }
    }

    pub(super) fn unseat(&mut self, seated: &Seated) {
        if self.channels.leave(&seated.channel, seated.seat) == Left::Last {
            self.interest.remove(&seated.channel);
        }
    }

    /// Asks every client to move.
    pub(super) fn drain(&mut self, agenda: &mut Agenda) {
        self.draining = true;
        let now = agenda.instant();
        for key in self.connections.keys().copied().collect::<Vec<_>>() {
            if let Some(connection) = self.connections.get_mut(&key) {
                connection.session.handle_leave(CloseReason::Draining, now, Duration::from_secs(1));
                connection.session.handle_timeout(&self.limits, now);
            }
            self.carry_out(key, agenda);
        }
    }
}
