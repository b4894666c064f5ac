//! The world of a schedule: streams, nodes and clients, and what happens between them.
//!
//! **Lives here:** carrying out events, what is published, the end, in which everything must be well.
//! **Called by:** `simulation::run`.
//! **Must not know:** the rules.

use std::collections::VecDeque;

use carillon_model::{IdempotencyKey, NewMessage, Offset, Position, UnixMillis};
use carillon_session::Command;

use super::{
    agenda::{Agenda, ClientEvent, Event, Here, MS, NodeEvent, SECOND},
    bug::Bug,
    client::Client,
    frame,
    node::Node,
    shard::Heard,
    stream::Stream,
    truth::{Place, Truth},
};

/// After the faults have ended, everything is well within this time.
const SETTLES_WITHIN: u64 = 30 * SECOND;

/// What a socket takes once all is calm.
const ROOM_BYTES: usize = 1 << 16;

/// All there is.
pub(super) struct World {
    pub(super) agenda: Agenda,
    pub(super) streams: Vec<Stream>,
    pub(super) truth: Truth,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) lives: Vec<u32>,
    pub(super) clients: Vec<Client>,
    pub(super) feeds: Vec<Feed>,
    /// Published with a key that may be used again.
    pub(super) recent: VecDeque<(usize, u64, NewMessage)>,
}

/// What is republished of a stream to a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feed {
    pub(super) here: Here,
    pub(super) stream: usize,
    pub(super) number: u64,
    /// When the last message arrives, and until when nothing does.
    pub(super) arrives: u64,
    pub(super) stalled_until: u64,
    /// Nothing is lost, doubled or late before this.
    pub(super) faithful_until: u64,
}

impl World {
    pub(super) fn new(seed: u64, bug: Bug, traced: bool) -> Self {
        let mut agenda = Agenda::new(seed, bug, traced);
        let plan = agenda.plan.clone();
        agenda.note(|| format!("{plan:#?}"));
        let mut truth = Truth::default();
        let streams = (0..plan.streams).map(|number| {
            let life = truth.begin(None);
            let stream = Stream::new(number as u64, life, plan.keep_messages, plan.keep_for);
            truth.claim(stream.epoch(), life);
            stream
        });
        let streams = streams.collect();
        for node in 0..plan.nodes {
            agenda.later(0, Event::Start(node));
        }
        let clients = (0..plan.clients).map(|number| Client::new(number, &mut agenda)).collect();
        for client in 0..plan.clients {
            let delay = agenda.draw(plan.horizon / 2);
            agenda.later(delay, Event::Client(client, ClientEvent::Connect));
            agenda.later(delay, Event::Client(client, ClientEvent::Read));
            agenda.later(delay, Event::Client(client, ClientEvent::Act));
        }
        agenda.later(0, Event::Publish);
        agenda.later(plan.faults.nemesis_every, Event::Nemesis);
        Self {
            agenda,
            streams,
            truth,
            nodes: (0..plan.nodes).map(|_| None).collect(),
            lives: vec![0; plan.nodes],
            clients,
            feeds: Vec::new(),
            recent: VecDeque::new(),
        }
    }

    /// Runs to the end, or to the first thing that is wrong.
    pub(super) fn run(&mut self) {
        let horizon = self.agenda.plan.horizon;
        self.run_until(horizon);
        self.calm();
        let end = horizon + SETTLES_WITHIN;
        let mut at = horizon;
        while at < end {
            at += SECOND;
            self.run_until(at);
            if self.agenda.wrong.is_some() || self.verdict().is_none() {
                return;
            }
        }
        if let Some(what) = self.verdict() {
            self.agenda.wrong(|| format!("in the end {what}"));
        }
    }

    fn run_until(&mut self, until: u64) {
        while self.agenda.wrong.is_none() {
            let Some(event) = self.agenda.next(until) else { break };
            self.happen(event);
            for claim in std::mem::take(&mut self.agenda.claims) {
                self.check_claim(&claim);
            }
        }
        self.agenda.now = self.agenda.now.max(until);
    }

    /// Ends what goes wrong.
    fn calm(&mut self) {
        self.agenda.note(|| "all is calm".to_owned());
        self.agenda.calm = true;
        self.agenda.plan.faults.end();
        for node in 0..self.nodes.len() {
            match &self.nodes[node] {
                None => self.agenda.later(0, Event::Start(node)),
                Some(running) if !running.link.up => {
                    self.agenda.later(0, Event::Node(running.here, NodeEvent::LinkUp));
                }
                Some(running) if running.draining => self.agenda.later(0, Event::Start(node)),
                Some(_) => {}
            }
        }
        self.agenda.plan.socket_bytes = ROOM_BYTES;
        for client in &mut self.clients {
            client.mute_until = 0;
            client.bite = 1 << 16;
            client.pause = 10 * MS;
            if let Some(wire) = &client.wire {
                wire.socket.borrow_mut().room_bytes = ROOM_BYTES;
            }
        }
        for feed in &mut self.feeds {
            feed.stalled_until = 0;
        }
    }

    /// Says what is not well, if anything.
    fn verdict(&self) -> Option<String> {
        if let Some(stream) = self.streams.iter().position(|stream| stream.restored) {
            return Some(format!("nobody noticed that stream {stream} was restored"));
        }
        for node in &self.nodes {
            let Some(node) = node else { return Some("a node is down".to_owned()) };
            if let Some(what) = node.unrest() {
                return Some(format!("node {} {what}", node.here.node));
            }
            for (stream, shard) in node.shards.iter().enumerate() {
                let kept = &self.streams[stream];
                let there = Position { epoch: kept.epoch(), offset: Offset::new(kept.last()) };
                if shard.tracker.position() != Some(there) {
                    return Some(format!(
                        "node {} stands at {:?}, not {there}",
                        node.here.node,
                        shard.tracker.position()
                    ));
                }
            }
        }
        for client in &self.clients {
            for (channel, plan) in self.agenda.plan.channels.iter().enumerate() {
                let stream = &self.streams[plan.stream];
                let lack = client.lacks(channel, stream.life, stream.epoch(), &self.truth);
                if lack.is_some() {
                    return lack;
                }
            }
        }
        None
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Publish => self.publish(),
            Event::Nemesis => self.nemesis(),
            Event::Start(node) => self.start(node),
            Event::Client(client, event) => self.client(client, &event),
            Event::Node(here, event) => self.node(here, event),
            Event::Server(here, event) => self.serve(here, event),
        }
    }

    pub(super) fn at(&mut self, here: Here) -> Option<(&mut Node, &mut Agenda)> {
        let node = self.nodes.get_mut(here.node)?.as_mut().filter(|node| node.here == here)?;
        Some((node, &mut self.agenda))
    }

    pub(super) fn start(&mut self, node: usize) {
        match &self.nodes[node] {
            None => {}
            Some(running) if !running.draining => return,
            // It has what the others must be told.
            Some(_) if self.is_restored() => return self.agenda.later(500 * MS, Event::Start(node)),
            Some(_) => self.kill(node),
        }
        self.lives[node] += 1;
        let here = Here { node, life: self.lives[node] };
        self.agenda.note(|| format!("{here:?} starts"));
        let numbers: Vec<_> = self.streams.iter().map(|_| self.agenda.number()).collect();
        for (stream, number) in numbers.iter().enumerate() {
            self.listen(here, stream, *number);
        }
        self.nodes[node] = Some(Node::new(here, &numbers, &mut self.agenda));
        let delay = self.agenda.draw(200 * MS);
        self.agenda.later(delay, Event::Node(here, NodeEvent::LinkUp));
    }

    pub(super) fn listen(&mut self, here: Here, stream: usize, number: u64) {
        let faithful_until =
            self.feeds.iter().filter(|feed| feed.stream == stream).map(|feed| feed.faithful_until).max();
        let feed = Feed {
            here,
            stream,
            number,
            arrives: 0,
            stalled_until: 0,
            faithful_until: faithful_until.unwrap_or(0),
        };
        self.feeds.push(feed);
    }

    fn node(&mut self, here: Here, event: NodeEvent) {
        let Some((node, agenda)) = self.at(here) else { return };
        match event {
            NodeEvent::Feed { stream, feed, link, stored } => {
                // What came before an interruption may wait in a queue of the node's own.
                if node.link.up && (node.link.generation == link || agenda.dice.once_in(4)) {
                    node.hear_shard(stream, Heard::Feed { feed, stored }, agenda);
                }
            }
            NodeEvent::Tail { stream, ask, answer } => {
                node.hear_shard(stream, Heard::Tail { ask, answer }, agenda);
            }
            NodeEvent::Fetched { stream, ask, answer } => {
                node.hear_shard(stream, Heard::Fetched { ask, answer }, agenda);
            }
            NodeEvent::Wake { stream } => node.hear_shard(stream, Heard::Nothing, agenda),
            NodeEvent::Turn => node.turn(agenda),
            NodeEvent::Tick => {
                node.tick(agenda);
                agenda.later(100 * MS, Event::Node(here, NodeEvent::Tick));
            }
            NodeEvent::LinkUp => {
                agenda.note(|| format!("{here:?} is linked"));
                node.link.up = true;
                node.link.generation += 1;
                for stream in 0..node.shards.len() {
                    node.hear_shard(stream, Heard::Nothing, agenda);
                }
            }
            NodeEvent::Open { client, socket } => {
                let wire =
                    self.clients[client].wire.clone().filter(|wire| wire.socket.borrow().number == socket);
                if let (Some(wire), Some((node, agenda))) = (wire, self.at(here)) {
                    node.open(wire.socket, agenda);
                }
            }
            NodeEvent::Command { socket, command } => {
                let Some(key) = node.key_of(socket) else { return };
                let now = agenda.instant();
                let limits = node.limits;
                if let Some(connection) = node.connections.get_mut(&key).filter(|one| one.open) {
                    connection.session.handle_command(Ok(command), &limits, now);
                }
                node.carry_out(key, agenda);
            }
            NodeEvent::Writable { socket } => {
                let Some(key) = node.key_of(socket) else { return };
                if !node.connections.get(&key).is_some_and(|one| one.hungry || !one.outbox.is_empty()) {
                    return;
                }
                node.with(key, agenda, |node, connection, agenda| {
                    connection.flush();
                    connection.hungry = false;
                    node.advance_readers(key, connection, agenda);
                });
                node.carry_out(key, agenda);
            }
            NodeEvent::Gone { socket } => {
                if let Some(key) = node.key_of(socket) {
                    node.remove(key);
                    self.cut_socket(socket);
                }
            }
            NodeEvent::Read { key, number, answer } => node.take_read(key, number, *answer, agenda),
        }
    }

    fn publish(&mut self) {
        let Agenda { plan, calm, .. } = &self.agenda;
        let (calm, every) = (*calm, plan.publish_every);
        if calm {
            return;
        }
        let delay = self.agenda.draw(every);
        self.agenda.later(delay, Event::Publish);
        self.publish_one();
    }

    pub(super) fn publish_one(&mut self) {
        let again = self
            .agenda
            .dice
            .once_in(20)
            .then(|| self.agenda.dice.pick(self.recent.make_contiguous()).cloned());
        let (channel, number, message) = again.flatten().unwrap_or_else(|| self.compose());
        let stream = self.agenda.plan.channels[channel].stream;
        let (offset, stored) = self.streams[stream].publish(channel, number, message, self.agenda.now);
        let Some(stored) = stored else { return };
        let life = self.streams[stream].life;
        self.agenda
            .note(|| format!("message {number} of channel {channel} is stored at {offset} in life {life}"));
        self.agenda.tally.published += 1;
        self.truth.store(number, Place { life, offset, channel });
        self.republish(stream, &stored);
    }

    fn compose(&mut self) -> (usize, u64, NewMessage) {
        let channel = self.agenda.dice.place(self.agenda.plan.channels.len());
        let (number, bytes) = (self.agenda.number(), self.agenda.draw(self.agenda.plan.data_max));
        let message = NewMessage {
            channel: frame::name(channel),
            event: None,
            data: frame::data(number, bytes),
            kind: carillon_model::DataKind::Json,
            time: UnixMillis::new(self.agenda.now / MS),
            user: None,
            exclude: Box::default(),
            id: None::<IdempotencyKey>,
        };
        if self.recent.len() == 10 {
            self.recent.pop_front();
        }
        self.recent.push_back((channel, number, message.clone()));
        (channel, number, message)
    }

    pub(super) fn command(&mut self, client: usize, command: Command) {
        let Some(wire) = self.clients[client].wire.clone() else { return };
        let at = self.clients[client].said_at.max(self.agenda.now + self.agenda.draw(30 * MS));
        self.clients[client].said_at = at;
        let socket = wire.socket.borrow().number;
        self.agenda.on(at, Event::Node(wire.here, NodeEvent::Command { socket, command }));
    }
}
