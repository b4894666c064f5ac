//! The larger faults, and what clients do on their own.
//!
//! **Lives here:** when they happen, and to whom. What nobody could notice does not happen: a stream is rolled back only
//! while some node remembers what is lost.
//! **Called by:** the world.
//! **Must not know:** how anybody recovers.

use std::{cell::RefCell, rc::Rc};

use carillon_session::{Command, Wanted};

use super::{
    agenda::{ClientEvent, Event, Here, MS, NodeEvent, SECOND},
    client::Wire,
    connection::Socket,
    frame,
    node::Node,
    plan::Nemesis,
    world::World,
};

impl World {
    pub(super) fn nemesis(&mut self) {
        if self.agenda.calm {
            return;
        }
        let delay = self.agenda.draw(self.agenda.plan.faults.nemesis_every);
        self.agenda.later(delay + MS, Event::Nemesis);
        let stream = self.agenda.dice.place(self.streams.len());
        if self.agenda.dice.once_in(2) {
            self.streams[stream].copy();
        }
        let node = self.agenda.dice.place(self.nodes.len());
        let client = self.agenda.dice.place(self.clients.len());
        let Some(what) = self.agenda.dice.pick(&self.agenda.plan.faults.nemeses).copied() else { return };
        self.agenda.note(|| format!("nemesis: {what:?} on stream {stream}, node {node}, client {client}"));
        self.agenda.tally.faults += 1;
        match what {
            Nemesis::CutLink => self.cut_link(node),
            Nemesis::StallFeed => {
                let until = self.agenda.now + self.agenda.draw(3 * SECOND);
                for feed in self.feeds.iter_mut().filter(|feed| feed.here.node == node) {
                    feed.stalled_until = until;
                }
            }
            Nemesis::StallWorker => {
                let until = self.agenda.now + self.agenda.draw(2 * SECOND);
                if let Some(node) = &mut self.nodes[node] {
                    node.stalled_until = until;
                }
            }
            Nemesis::KillNode if self.is_restored() => {}
            Nemesis::KillNode => {
                self.kill(node);
                let delay = self.agenda.draw(3 * SECOND);
                self.agenda.later(delay, Event::Start(node));
            }
            Nemesis::DrainNode => {
                if let Some(node) = &mut self.nodes[node] {
                    node.drain(&mut self.agenda);
                }
                self.agenda.later(2 * SECOND, Event::Start(node));
            }
            Nemesis::KillClient => self.kill_client(client),
            Nemesis::MuteClient => {
                self.clients[client].mute_until = self.agenda.now + self.agenda.draw(5 * SECOND);
            }
            // A node that begins cannot tell of which life what it has heard before was.
            Nemesis::Recreate | Nemesis::RollBack if self.some_node_begins() => {}
            Nemesis::Recreate => self.recreate(stream),
            Nemesis::RollBack => self.roll_back(stream),
            Nemesis::Purge if self.streams[stream].restored => {}
            Nemesis::Purge => self.streams[stream].purge(),
            Nemesis::NewLeader => self.streams[stream].leader += 1,
            Nemesis::Burst => {
                for _ in 0..5 + self.agenda.dice.below(30) {
                    self.publish_one();
                }
            }
        }
    }

    pub(super) fn is_restored(&self) -> bool {
        self.streams.iter().any(|stream| stream.restored)
    }

    fn some_node_begins(&self) -> bool {
        let begins = |node: &Node| !node.was_reached() || node.began + 3 * SECOND > self.agenda.now;
        self.nodes.iter().flatten().any(begins)
    }

    fn cut_link(&mut self, node: usize) {
        let Some(node) = self.nodes[node].as_mut().filter(|node| node.link.up) else { return };
        node.link.up = false;
        for stream in 0..node.shards.len() {
            node.hear_shard(stream, super::shard::Heard::Nothing, &mut self.agenda);
        }
        let here = node.here;
        let delay = self.agenda.draw(3 * SECOND);
        self.agenda.later(delay, Event::Node(here, NodeEvent::LinkUp));
    }

    /// Ends a node without a word.
    pub(super) fn kill(&mut self, node: usize) {
        let Some(dead) = self.nodes[node].take() else { return };
        self.feeds.retain(|feed| feed.here != dead.here);
        for client in 0..self.clients.len() {
            if self.clients[client].wire.as_ref().is_some_and(|wire| wire.here == dead.here) {
                self.lose(client);
            }
        }
    }

    fn recreate(&mut self, stream: usize) {
        let life = self.truth.begin(None);
        self.truth.end(self.streams[stream].epoch());
        let created = self.agenda.number() + 1;
        self.streams[stream].recreate(created, life);
        self.truth.claim(self.streams[stream].epoch(), life);
    }

    /// Restores an older copy, if somebody remembers what is lost with it.
    fn roll_back(&mut self, stream: usize) {
        let which = self.agenda.dice.place(4);
        let Some((parent, cut)) = self.streams[stream].copy_at(which) else { return };
        let label = self.streams[stream].copy_epoch(which);
        let remembers = |node: &Node| {
            let Some(shard) = node.shards.get(stream).filter(|shard| shard.is_settled()) else {
                return false;
            };
            let witness = shard.tracker.witnesses().next().map_or(0, carillon_model::Offset::get);
            match shard.tracker.position() {
                Some(position) if Some(position.epoch) == label => witness > cut,
                Some(_) => shard.has_left(label),
                None => false,
            }
        };
        if self.is_restored() || !self.nodes.iter().flatten().any(remembers) {
            return;
        }
        let life = self.truth.begin(Some((parent, cut)));
        self.truth.end(self.streams[stream].epoch());
        self.streams[stream].restore(which, life);
        let epoch = self.streams[stream].epoch();
        self.truth.claim(epoch, life);
        // What is stored again in its old place says the same, and nobody misses anything.
        self.recent.clear();
        self.agenda.tally.rolled_back += 1;
        self.agenda.note(|| {
            format!("stream {stream} is restored to {cut} in life {parent}, now {life}, as {epoch}")
        });
        if self.agenda.dice.once_in(2) {
            for node in 0..self.nodes.len() {
                self.cut_link(node);
            }
        } else {
            // Another leader with less on its disk: links stay, and so the feed is the only witness for a while.
            self.streams[stream].leader += 1;
            let until = self.agenda.now + 5 * SECOND;
            for feed in self.feeds.iter_mut().filter(|feed| feed.stream == stream) {
                feed.faithful_until = until;
            }
        }
    }

    fn kill_client(&mut self, client: usize) {
        let Some(wire) = self.clients[client].wire.clone() else { return };
        let socket = wire.socket.borrow().number;
        wire.socket.borrow_mut().client_gone = true;
        let delay = self.agenda.draw(2 * SECOND);
        self.agenda.later(delay, Event::Node(wire.here, NodeEvent::Gone { socket }));
        self.lose(client);
    }

    /// Has a client notice that its connection is gone, and come back.
    fn lose(&mut self, client: usize) {
        self.clients[client].disconnect();
        let delay = self.agenda.draw(2 * SECOND);
        self.agenda.later(delay, Event::Client(client, ClientEvent::Connect));
    }

    /// Ends a socket from the node's side.
    pub(super) fn cut_socket(&mut self, socket: u64) {
        let holds = |wire: &Wire| wire.socket.borrow().number == socket;
        let client = self.clients.iter().position(|client| client.wire.as_ref().is_some_and(holds));
        if let Some(client) = client {
            self.lose(client);
        }
    }

    pub(super) fn client(&mut self, client: usize, event: &ClientEvent) {
        match event {
            ClientEvent::Connect => self.connect(client),
            ClientEvent::Read => self.read(client),
            ClientEvent::Act => self.act(client),
        }
    }

    fn connect(&mut self, client: usize) {
        if self.clients[client].wire.is_some() {
            return;
        }
        let alive: Vec<Here> = self.nodes.iter().flatten().map(|node| node.here).collect();
        let Some(here) = self.agenda.dice.pick(&alive).copied() else {
            self.agenda.later(500 * MS, Event::Client(client, ClientEvent::Connect));
            return;
        };
        let number = self.agenda.number();
        let room_bytes = self.agenda.plan.socket_bytes;
        let socket =
            Socket { number, bytes: std::collections::VecDeque::new(), room_bytes, client_gone: false };
        self.clients[client].wire = Some(Wire { here, socket: Rc::new(RefCell::new(socket)) });
        let at = self.agenda.now + self.agenda.draw(30 * MS);
        self.clients[client].said_at = at;
        self.agenda.note(|| format!("client {client} connects to {here:?}"));
        self.agenda.on(at, Event::Node(here, NodeEvent::Open { client, socket: number }));
        let wanted = |channel: &usize| self.clients[client].tracks[*channel].wanted;
        let channels: Vec<_> = (0..self.agenda.plan.channels.len()).filter(wanted).collect();
        self.subscribe(client, &channels);
    }

    fn subscribe(&mut self, client: usize, channels: &[usize]) {
        let channels: Vec<_> = channels
            .iter()
            .map(|channel| {
                let since = self.clients[client].subscribe(*channel, &mut self.agenda);
                self.agenda.note(|| format!("client {client} asks for channel {channel} since {since:?}"));
                Wanted::new(frame::name(*channel), since)
            })
            .collect();
        self.command(client, Command::Subscribe { channels, reference: None });
    }

    fn unsubscribe(&mut self, client: usize, channel: usize) {
        self.clients[client].unsubscribe(channel);
        let channels = vec![frame::name(channel)];
        self.command(client, Command::Unsubscribe { channels, reference: None });
    }

    fn act(&mut self, client: usize) {
        let delay = self.agenda.draw(1500 * MS);
        self.agenda.later(delay + MS, Event::Client(client, ClientEvent::Act));
        if self.clients[client].wire.is_none() {
            return;
        }
        let channel = self.agenda.dice.place(self.agenda.plan.channels.len());
        if !self.agenda.calm && self.agenda.dice.once_in(3) {
            let track = &mut self.clients[client].tracks[channel];
            track.wanted = !track.wanted || channel == 0;
        }
        for channel in 0..self.agenda.plan.channels.len() {
            let track = &self.clients[client].tracks[channel];
            if !track.wants_other() {
                continue;
            }
            if track.wanted {
                self.subscribe(client, &[channel]);
            } else {
                self.unsubscribe(client, channel);
                if self.agenda.dice.once_in(3) {
                    // It thinks better of it before it has the answer.
                    self.clients[client].tracks[channel].wanted = true;
                    self.subscribe(client, &[channel]);
                }
            }
        }
    }

    fn read(&mut self, client: usize) {
        let Self { clients, agenda, truth, .. } = self;
        let reader = &mut clients[client];
        agenda.later(reader.pause, Event::Client(client, ClientEvent::Read));
        if reader.mute_until > agenda.now {
            return;
        }
        let Some(wire) = reader.wire.clone() else { return };
        let bytes: Vec<u8> = {
            let mut socket = wire.socket.borrow_mut();
            let count = socket.bytes.len().min(reader.bite);
            socket.bytes.drain(..count).collect()
        };
        if bytes.is_empty() {
            return;
        }
        let socket = wire.socket.borrow().number;
        let ended = reader.read(bytes.into_iter(), truth, agenda);
        let delay = agenda.draw(5 * MS);
        if ended {
            wire.socket.borrow_mut().client_gone = true;
            agenda.later(delay, Event::Node(wire.here, NodeEvent::Gone { socket }));
            self.lose(client);
        } else {
            agenda.later(delay, Event::Node(wire.here, NodeEvent::Writable { socket }));
        }
    }
}
