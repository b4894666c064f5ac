//! One run: chance acts on the nodes for a while, then faults end, and everything is looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use carillon_model::{ChannelName, ConnectionId, NodeId, UserId};
use carillon_presence::{Audience, Effect, IdKind, Link, Member, Rosters, Settings, Word};

use super::{
    dice::Dice,
    net::{Letter, Net, spoil},
    plan::{Bug, Faults},
    truth::{Heard, Truth},
};

/// For how long chance acts, in milliseconds.
const ACTING: u64 = 60_000;
/// How long everybody has to agree: the dead are found after 8 s, a node that heard nothing settles within 7, ends are
/// held for 3, numbers for 5.
const HEALING: u64 = 35_000;
/// Words that may be lost, in a thousand, where the application is wanted to know the truth.
const TOLD_LOSSES_MAX: u64 = 30;
/// How far apart interruptions are where the application is wanted to know the truth.
const INTERRUPTED_EVERY: u64 = 20_000;
const NODES_MAX: usize = 5;

/// A live process.
struct Node {
    rosters: Rosters,
    linked: bool,
    /// Since when it is what it is, its link included.
    since: u64,
    members: BTreeMap<(ChannelName, ConnectionId), UserId>,
    counts: BTreeMap<ChannelName, u32>,
    /// What its subscribers were shown.
    shown: BTreeSet<(ChannelName, UserId)>,
    counted: BTreeMap<ChannelName, u64>,
    /// When it is woken.
    woken_at: u64,
}

enum Event {
    Letter(Letter),
    Wake(NodeId),
    Act,
    Heal,
}

struct World {
    start: Instant,
    now: u64,
    dice: Dice,
    faults: Faults,
    bug: Bug,
    net: Net,
    nodes: BTreeMap<NodeId, Node>,
    events: BTreeMap<(u64, u64), Event>,
    drawn: u64,
    truth: Truth,
    heard: Heard,
    channels: Vec<ChannelName>,
    users: Vec<UserId>,
    acting: bool,
    losses: u64,
    /// When nodes were killed, lately.
    killed: Vec<u64>,
}

pub(crate) fn run(seed: u64, faults: Faults, bug: Bug) -> Result<(), String> {
    let mut dice = Dice(seed);
    let name = |index: u64| ChannelName::any(&format!("presence-{index}")).expect("a name");
    let mut channels: Vec<ChannelName> = (0..dice.within(1, 8)).map(name).collect();
    channels.push(ChannelName::of_online(&UserId::new("7").expect("an id")).expect("a name"));
    let user = |index: u64| UserId::new(&index.to_string()).expect("an id");
    let users = (0..dice.within(1, 10)).map(user).collect();
    let losses = if !faults.loses() {
        0
    } else if dice.permille(500) {
        dice.within(1, TOLD_LOSSES_MAX)
    } else {
        dice.within(TOLD_LOSSES_MAX, 400)
    };
    let net = Net::new(losses, dice.within(2, 200));
    let mut world = World {
        start: carillon_tasks::clock::now(),
        now: 0,
        dice,
        faults,
        bug,
        net,
        nodes: BTreeMap::new(),
        events: BTreeMap::new(),
        drawn: 0,
        truth: Truth::default(),
        heard: Heard::default(),
        channels,
        users,
        acting: true,
        losses,
        killed: Vec::new(),
    };
    for _ in 0..world.dice.within(1, 5) {
        world.begin_node()?;
    }
    world.after(1, Event::Act);
    world.after(ACTING, Event::Heal);
    while let Some(((at, _), event)) = world.events.pop_first() {
        if at > ACTING + HEALING {
            break;
        }
        world.now = at;
        world.happen(event)?;
    }
    world.look()
}

impl World {
    fn after(&mut self, wait: u64, event: Event) {
        self.drawn += 1;
        self.events.insert((self.now + wait, self.drawn), event);
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.now)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Letter(letter) => self.deliver(&letter),
            Event::Wake(id) => {
                let now = self.instant();
                match self.nodes.get_mut(&id) {
                    Some(node) if node.woken_at <= self.now => {
                        node.woken_at = u64::MAX;
                        node.rosters.handle_timeout(now);
                        self.settle(id)
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Event::Act if self.acting => {
                self.act()?;
                let wait = self.dice.within(1, 400);
                self.after(wait, Event::Act);
                Ok(())
            }
            Event::Act => Ok(()),
            Event::Heal => {
                self.acting = false;
                self.net.losses = 0;
                for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                    self.link(id, true)?;
                }
                Ok(())
            }
        }
    }

    fn deliver(&mut self, letter: &Letter) -> Result<(), String> {
        let now = self.instant();
        let Some(node) = self.nodes.get_mut(&letter.to).filter(|node| node.linked) else { return Ok(()) };
        let word = Word::decode(&letter.bytes).map_err(|garbage| garbage.to_string())?;
        node.rosters.handle_word(letter.from, word, now);
        self.settle(letter.to)
    }

    /// Does what a node wants done, and sees when it wants to be woken.
    fn settle(&mut self, id: NodeId) -> Result<(), String> {
        while let Some(effect) = self.nodes.get_mut(&id).and_then(|node| node.rosters.next_effect()) {
            match effect {
                Effect::Say(audience, word) => self.say(id, audience, word),
                Effect::Told(fact) => self.heard.hear(fact, self.now),
                Effect::Added { channel, member } => self.show(id, channel, member, true)?,
                Effect::Removed { channel, member } => self.show(id, channel, member, false)?,
                Effect::Counted { channel, count } => {
                    let node = self.nodes.get_mut(&id).expect("it has an effect");
                    node.counted.insert(channel, count);
                }
            }
        }
        let now = self.instant();
        while let Some((whom, word)) = self.nodes.get_mut(&id).and_then(|node| node.rosters.next_answer(now))
        {
            self.say(id, Audience::Node(whom), word);
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let at = node.rosters.next_deadline().map_or(u64::MAX, |deadline| {
            let wait = deadline.saturating_duration_since(self.start + Duration::from_millis(self.now));
            self.now + u64::try_from(wait.as_nanos().div_ceil(1_000_000)).expect("it is soon")
        });
        if at < node.woken_at {
            node.woken_at = at;
            let wait = at - self.now;
            self.after(wait, Event::Wake(id));
        }
        Ok(())
    }

    fn show(&mut self, id: NodeId, channel: ChannelName, member: Member, here: bool) -> Result<(), String> {
        let spoilt = self.bug == Bug::AddedTwice && here && self.dice.permille(5);
        let node = self.nodes.get_mut(&id).expect("it has an effect");
        let topic = (channel, member.user);
        let said = format!("{} {topic:?} at {} on {id}", if here { "added" } else { "removed" }, self.now);
        let is_news = if here { node.shown.insert(topic) } else { node.shown.remove(&topic) };
        (is_news && !spoilt).then_some(()).ok_or_else(|| format!("{said}, which is nothing new"))
    }

    fn say(&mut self, from: NodeId, audience: Audience, word: Word) {
        if !self.nodes.get(&from).is_some_and(|node| node.linked) {
            return;
        }
        let Some(word) = spoil(word, self.bug, &mut self.dice) else { return };
        let bytes = word.encode();
        let receivers: Vec<NodeId> = match audience {
            Audience::All => self.nodes.keys().copied().collect(),
            Audience::Node(to) => vec![to],
        };
        for to in receivers {
            if let Some(at) = self.net.send((from, to), audience, self.now, &mut self.dice) {
                let wait = at - self.now;
                self.after(wait, Event::Letter(Letter { from, to, bytes: bytes.clone() }));
            }
        }
    }

    fn begin_node(&mut self) -> Result<(), String> {
        self.heard.node_changes(self.now);
        // From one entry to a hundred.
        let piece_bytes = usize::try_from(self.dice.within(1, 10_000)).expect("it is small");
        let mut settings = Settings { piece_bytes, ..Settings::default() };
        match self.bug {
            Bug::Immortal => settings.dead_after = Duration::from_secs(600),
            Bug::DiesAtOnce => settings.dead_after = Duration::from_secs(1),
            Bug::NoHold => settings.hold = Duration::ZERO,
            Bug::TellsAtOnce => settings.settle = Duration::ZERO,
            Bug::None
            | Bug::NoAnswers
            | Bug::AnswersFromTheFuture
            | Bug::DigestOfNothing
            | Bug::DeafUnknown
            | Bug::AllTell
            | Bug::NobodyTells
            | Bug::Ghosts
            | Bug::HalfWords
            | Bug::ByeAndStay
            | Bug::NoDoubt
            | Bug::OneLife
            | Bug::AddedTwice => {}
        }
        let id = NodeId::from_bits(self.dice.draw());
        let node = Node {
            rosters: Rosters::new(id, settings, self.instant()),
            linked: true,
            since: self.now,
            members: BTreeMap::new(),
            counts: BTreeMap::new(),
            shown: BTreeSet::new(),
            counted: BTreeMap::new(),
            woken_at: u64::MAX,
        };
        self.nodes.insert(id, node);
        self.settle(id)
    }

    fn link(&mut self, id: NodeId, linked: bool) -> Result<(), String> {
        let now = self.instant();
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.linked != linked {
            node.linked = linked;
            node.since = self.now;
            if self.bug != Bug::DeafUnknown {
                node.rosters.handle_link(if linked { Link::Up } else { Link::Down }, now);
            }
        }
        self.settle(id)
    }

    /// Ends a process, in order or not.
    fn end_node(&mut self, id: NodeId, in_order: bool) -> Result<(), String> {
        self.heard.node_changes(self.now);
        if in_order {
            let now = self.instant();
            if let Some(node) = self.nodes.get_mut(&id) {
                node.rosters.handle_farewell(now);
            }
            self.settle(id)?;
            if self.bug == Bug::ByeAndStay {
                return Ok(());
            }
        }
        let Some(node) = self.nodes.remove(&id) else { return Ok(()) };
        for ((channel, _), user) in node.members {
            self.truth.remove(&(channel, Some(user)), self.now);
        }
        for (channel, subscribers) in node.counts {
            (0..subscribers).for_each(|_| self.truth.remove(&(channel.clone(), None), self.now));
        }
        Ok(())
    }

    /// Does something.
    fn act(&mut self) -> Result<(), String> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let Some(id) = self.dice.pick(&ids) else { return self.begin_node() };
        match self.dice.within(0, 100) {
            0..2 if self.faults.nodes_change() && ids.len() < NODES_MAX => self.begin_node(),
            2..3 if self.faults.nodes_change() && self.is_known(id) => self.end_node(id, true),
            3..4 if self.faults.kills() && self.is_known(id) && self.may_kill() => self.end_node(id, false),
            4..7 if self.faults == Faults::All => {
                let linked = !self.nodes.get(&id).is_some_and(|node| node.linked);
                self.link(id, linked)
            }
            7..8 if self.faults == Faults::All => {
                let linked = self.dice.permille(500);
                ids.into_iter().try_for_each(|id| self.link(id, linked))
            }
            4..8 if self.faults == Faults::Links => self.interrupt(id, ids),
            8..50 => self.join(id),
            50..80 => self.leave(id),
            _ => self.count(id),
        }
    }

    /// Cuts off one node, or all, when the last interruption is over; or ends it. Of two that are cut off one after the
    /// other, nobody knows all that was told.
    fn interrupt(&mut self, id: NodeId, mut ids: Vec<NodeId>) -> Result<(), String> {
        if self.nodes.values().any(|node| !node.linked) {
            return ids.into_iter().try_for_each(|id| self.link(id, true));
        }
        if self.nodes.values().any(|node| node.since + INTERRUPTED_EVERY > self.now) {
            return Ok(());
        }
        if self.dice.permille(500) {
            ids = vec![id];
        }
        ids.into_iter().try_for_each(|id| self.link(id, false))
    }

    /// Says whether another node knows for long enough what the application was told: with the last that does, this is
    /// forgotten.
    fn is_known(&self, id: NodeId) -> bool {
        let long = if self.faults.loses() { 30_000 } else { 19_000 };
        let knows = |node: &Node| node.linked && node.since + long < self.now;
        self.nodes.iter().any(|(other, node)| *other != id && knows(node))
    }

    /// Facts are remembered for 20 s, and the dead are found after 8: of three that would have told one after the other, the
    /// third takes some with it.
    fn may_kill(&mut self) -> bool {
        self.killed.retain(|at| at + 25_000 > self.now);
        let may = self.killed.len() < 2;
        if may {
            self.killed.push(self.now);
        }
        may
    }

    fn join(&mut self, id: NodeId) -> Result<(), String> {
        let channel = self.draw_channel();
        let user = self.users[usize::try_from(self.dice.draw()).unwrap_or(0) % self.users.len()].clone();
        let connection = ConnectionId::from_bits(self.dice.draw());
        let info = self.dice.permille(500).then(|| bytes::Bytes::from(format!("{{\"n\":{}}}", self.now)));
        let member = Member { user: user.clone(), kind: IdKind::Text, info };
        let now = self.instant();
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.rosters.handle_join(&channel, connection, member, 1000, now).is_err() {
            return Err("a roster with room was full".to_owned());
        }
        node.members.insert((channel.clone(), connection), user.clone());
        self.truth.add(&(channel, Some(user)), self.now);
        self.settle(id)
    }

    fn leave(&mut self, id: NodeId) -> Result<(), String> {
        let forgotten = self.bug == Bug::Ghosts && self.dice.permille(100);
        let place = usize::try_from(self.dice.draw() >> 1).expect("63 bits");
        let now = self.instant();
        let Some(node) = self.nodes.get_mut(&id).filter(|node| !node.members.is_empty()) else {
            return Ok(());
        };
        let place = place % node.members.len();
        let (channel, connection) = node.members.keys().nth(place).cloned().expect("it is below the length");
        let user = node.members.remove(&(channel.clone(), connection)).expect("it is there");
        if !forgotten {
            node.rosters.handle_leave(&channel, connection, now);
        }
        self.truth.remove(&(channel, Some(user)), self.now);
        self.settle(id)
    }

    fn count(&mut self, id: NodeId) -> Result<(), String> {
        let channel = self.draw_channel();
        if channel.is_reserved() {
            return Ok(());
        }
        let large = self.dice.permille(100);
        let subscribers = [0, 0, 1, 2, if large { 150 } else { 3 }];
        let subscribers = self.dice.pick(&subscribers).expect("there are some");
        let now = self.instant();
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let before = node.counts.insert(channel.clone(), subscribers).unwrap_or(0);
        node.rosters.handle_count(&channel, subscribers, now);
        let topic = (channel, None);
        (before..subscribers).for_each(|_| self.truth.add(&topic, self.now));
        (subscribers..before).for_each(|_| self.truth.remove(&topic, self.now));
        self.settle(id)
    }

    fn draw_channel(&mut self) -> ChannelName {
        let place = usize::try_from(self.dice.draw() >> 1).expect("63 bits");
        self.channels[place % self.channels.len()].clone()
    }

    /// Looks at everything, now that all is quiet.
    fn look(mut self) -> Result<(), String> {
        let alive: Vec<NodeId> = self.nodes.keys().copied().collect();
        let mut counts: BTreeMap<ChannelName, u64> = BTreeMap::new();
        for (channel, subscribers) in self.nodes.values().flat_map(|node| &node.counts) {
            *counts.entry(channel.clone()).or_default() += u64::from(*subscribers);
        }
        for (id, node) in &mut self.nodes {
            let nodes: Vec<NodeId> = node.rosters.nodes().collect();
            if nodes != alive {
                return Err(format!("{id} believes that {nodes:?} are alive, which are {alive:?}"));
            }
            for channel in &self.channels {
                let is = self.truth.users(channel);
                let known: Vec<UserId> =
                    node.rosters.members(channel).into_iter().map(|member| member.user.clone()).collect();
                if known != is {
                    return Err(format!("{id} knows {known:?} in {channel}, where {is:?} are"));
                }
                let (stranger, now) =
                    (ConnectionId::from_bits(0), self.start + Duration::from_millis(self.now));
                let user = UserId::new("stranger").expect("an id");
                let member = Member { user, kind: IdKind::Text, info: None };
                if node.rosters.handle_join(channel, stranger, member, is.len(), now).is_ok() {
                    return Err(format!("{id} has room for more than {is:?} in {channel}"));
                }
                let shown = node.shown.iter().filter(|(of, _)| of == channel).map(|(_, user)| user.clone());
                if shown.collect::<Vec<_>>() != is {
                    return Err(format!("{id} has shown others in {channel} than {is:?}"));
                }
                let count = counts.get(channel).copied().unwrap_or(0);
                let counted = node.counted.get(channel).copied().unwrap_or(0);
                if (node.rosters.count(channel), counted) != (count, count) {
                    let counts = node.rosters.count(channel);
                    return Err(format!("{id} counts {counts}, said {counted} in {channel} of {count}"));
                }
            }
        }
        if alive.is_empty() {
            return Ok(());
        }
        // Nobody watches `$online:` channels from outside.
        self.truth.forget_reserved();
        // Where much is lost, or everything happens at once, one teller can take over from another before it knows what
        // the other knew.
        if self.losses <= TOLD_LOSSES_MAX && self.faults != Faults::All {
            self.heard.compare(&self.truth)?;
        }
        match self.faults {
            Faults::None => {
                if let Some(key) = self.heard.repeated.first() {
                    return Err(format!("{key} was told more than once"));
                }
                self.heard.compare_counts(&self.truth)?;
            }
            Faults::Rolling => self.heard.compare_counts(&self.truth)?,
            Faults::Kills | Faults::Losses | Faults::Links | Faults::All => {}
        }
        Ok(())
    }
}
