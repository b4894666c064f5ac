//! Some nodes on a network without delay, and a clock that is a number: scripts of what happens and what follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_model::{ChannelName, ConnectionId, NodeId, UserId};

use crate::{Audience, Effect, IdKind, Link, Member, Rosters, Settings, What, Word};

pub(super) fn channel(text: &str) -> ChannelName {
    ChannelName::any(text).unwrap()
}

pub(super) fn member(user: &str, info: Option<&str>) -> Member {
    let info = info.map(|info| Bytes::from(info.to_owned()));
    Member { user: UserId::new(user).unwrap(), kind: IdKind::Text, info }
}

fn connection(text: &str) -> ConnectionId {
    ConnectionId::from_bits(text.bytes().map(u64::from).sum())
}

fn show(member: &Member) -> String {
    let info = member.info.as_ref().map(|info| format!(":{}", String::from_utf8_lossy(info)));
    format!("{}{}", member.user, info.unwrap_or_default())
}

#[derive(Default)]
struct Cluster {
    start: Option<Instant>,
    now: u64,
    nodes: BTreeMap<u64, Rosters>,
    unlinked: BTreeSet<u64>,
    /// Ways on which words are lost.
    lost: BTreeSet<(u64, u64)>,
    asks: usize,
    /// Whether numbers are shown as facts.
    alone: bool,
    /// When the line began that is played, and what has followed from it.
    began: u64,
    said: String,
    keys: BTreeSet<String>,
}

impl Cluster {
    fn at(&self, ms: u64) -> Instant {
        self.start.unwrap() + Duration::from_millis(ms)
    }

    fn note(&mut self, text: &str) {
        if self.now != self.began {
            write!(self.said, " {}:{text}", self.now).unwrap();
        } else {
            write!(self.said, " {text}").unwrap();
        }
    }

    /// Does all that the nodes want done.
    fn settle(&mut self) {
        loop {
            self.carry_out();
            let now = self.at(self.now);
            let next = |(id, node): (&u64, &mut Rosters)| Some((*id, node.next_answer(now)?));
            let Some((id, (whom, word))) = self.nodes.iter_mut().find_map(next) else { return };
            self.say(id, Audience::Node(whom), &word);
        }
    }

    fn carry_out(&mut self) {
        let next = |(id, node): (&u64, &mut Rosters)| Some((*id, node.next_effect()?));
        while let Some((id, effect)) = self.nodes.iter_mut().find_map(next) {
            match effect {
                Effect::Say(audience, word) => self.say(id, audience, &word),
                Effect::Added { channel, member } => self.note(&format!("{id}+{}@{channel}", show(&member))),
                Effect::Removed { channel, member } => {
                    self.note(&format!("{id}-{}@{channel}", show(&member)));
                }
                Effect::Counted { channel, count } => self.note(&format!("{id}#{count}@{channel}")),
                // The queue takes each key once.
                Effect::Told(fact) if self.keys.insert(fact.key.clone()) => {
                    let channel = fact.channel;
                    match fact.what {
                        What::Occupied => self.note(&format!("!occupied@{channel}")),
                        What::Vacated => self.note(&format!("!vacated@{channel}")),
                        What::Came(member) => self.note(&format!("!came:{}@{channel}", member.user)),
                        What::Went(member) => self.note(&format!("!went:{}@{channel}", member.user)),
                        What::Counted(count) if self.alone => {
                            self.note(&format!("!count:{count}@{channel}"));
                        }
                        What::Counted(_) => {}
                    }
                }
                Effect::Told(_) => {}
            }
        }
    }

    fn say(&mut self, from: u64, audience: Audience, word: &Word) {
        self.asks += usize::from(matches!(word, Word::Ask { .. }));
        let now = self.at(self.now);
        for (to, node) in &mut self.nodes {
            let is_meant = audience == Audience::All || audience == Audience::Node(NodeId::from_bits(*to));
            let is_cut = self.unlinked.contains(&from) || self.unlinked.contains(to);
            if is_meant && !is_cut && !self.lost.contains(&(from, *to)) {
                let word = Word::decode(&word.encode()).unwrap();
                node.handle_word(NodeId::from_bits(from), word, now);
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, until: u64) {
        loop {
            let due = |(id, node): (&u64, &Rosters)| Some((node.next_deadline()?, *id));
            let Some((at, id)) = self.nodes.iter().filter_map(due).min() else { break };
            let since = at.saturating_duration_since(self.start.unwrap());
            let ms = u64::try_from(since.as_millis()).unwrap();
            if ms > until {
                break;
            }
            self.now = self.now.max(ms);
            self.nodes.get_mut(&id).unwrap().handle_timeout(at);
            self.settle();
        }
        self.now = until;
    }

    fn play(&mut self, words: &[&str]) {
        let now = self.at(self.now);
        let (verb, id) = (words[0], words.get(1).and_then(|id| id.parse::<u64>().ok()).unwrap_or(0));
        let option = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
        let node = self.nodes.get_mut(&id);
        match verb {
            "start" => {
                let mut settings = Settings::default();
                if words.get(2) == Some(&"alone") {
                    settings.settle = Duration::ZERO;
                    self.alone = true;
                }
                self.nodes.insert(id, Rosters::new(NodeId::from_bits(id), settings, now));
            }
            "join" => {
                let max = option("max=").map_or(usize::MAX, |max| max.parse().unwrap());
                let (channel, connection) = (channel(words[2]), connection(words[3]));
                let member = member(words[4], option("info="));
                if node.unwrap().handle_join(&channel, connection, member, max, now).is_err() {
                    self.note("full");
                }
            }
            "leave" => node.unwrap().handle_leave(&channel(words[2]), connection(words[3]), now),
            "count" => node.unwrap().handle_count(&channel(words[2]), words[3].parse().unwrap(), now),
            "kill" => drop(self.nodes.remove(&id)),
            "stop" => node.unwrap().handle_farewell(now),
            "cut" => {
                self.unlinked.insert(id);
                node.unwrap().handle_link(Link::Down, now);
            }
            "mend" => {
                self.unlinked.remove(&id);
                node.unwrap().handle_link(Link::Up, now);
            }
            "lose" => {
                let (from, to) = words[1].split_once('>').unwrap();
                self.lost.insert((from.parse().unwrap(), to.parse().unwrap()));
            }
            "heal" => self.lost.clear(),
            "look" => {}
            "roster" => {
                let shown: Vec<String> =
                    node.unwrap().members(&channel(words[2])).into_iter().map(show).collect();
                self.note(&shown.join(","));
            }
            "nodes" => {
                let nodes: Vec<u64> = node.unwrap().nodes().map(NodeId::bits).collect();
                self.note(&format!("{nodes:?}").replace(' ', ""));
            }
            "entries" => {
                let entries = node.unwrap().entries();
                self.note(&entries.to_string());
            }
            "asks" => {
                let asks = std::mem::take(&mut self.asks);
                self.note(&asks.to_string());
            }
            other => panic!("no such verb: {other}"),
        }
        self.settle();
    }
}

/// Plays a script of `time input => what follows before the next line`. Facts are shown once, whoever tells them; those of
/// numbers only where a node is alone.
#[track_caller]
pub(super) fn check(script: &str) {
    let mut cluster = Cluster { start: Some(carillon_tasks::clock::now()), ..Cluster::default() };
    let lines: Vec<&str> = script.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let times = lines.iter().skip(1).map(|line| line.split(' ').next().unwrap().parse().unwrap());
    let ends: Vec<u64> = times.collect();
    for (place, line) in lines.iter().enumerate() {
        let (input, expected) = line.split_once("=>").unwrap();
        let words: Vec<&str> = input.split_whitespace().collect();
        cluster.now = words[0].parse().unwrap();
        cluster.began = cluster.now;
        let end = ends.get(place).copied().unwrap_or(cluster.began + 60_000);
        cluster.said.clear();
        cluster.play(&words[1..]);
        // What happens at the time of the next line belongs to that, unless it is the time of this line, too.
        cluster.pass(cluster.began.max(end.saturating_sub(1)));
        assert_eq!(sorted(&cluster.said), sorted(expected), "after `{}`", input.trim());
    }
}

/// Which node does something first at a time does not matter.
fn sorted(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words
}
