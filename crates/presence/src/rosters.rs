//! The members of presence channels and the counts of subscribers, of all nodes.
//!
//! **Lives here:** what this node does and hears, who is alive, when something is said.
//! **Called by:** the presence task of a node.
//! **Must not know:** what carries words, what is done with facts.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    mem,
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_model::{ChannelName, ConnectionId, NodeId, UserId};

use crate::{
    Audience, Change, Digests, Effect, Fact, Full, Link, Member, Settings, Shard, Standing, Word,
    effect::after,
    part::Part,
    peer::{Peer, Piece, Question},
    spell::Reconcile,
    telling::{Stage, Telling},
    view::View,
    word::is_json_line,
};

/// Most nodes that are known, this one included. Others are not heard.
pub const NODES_MAX: usize = 1024;
/// Within this time at most one heartbeat answers nodes that have come.
const GREET_EVERY: Duration = Duration::from_millis(200);
/// For how long a node that is gone is remembered, so that its last words are not taken for a new one's.
const GONE: Duration = Duration::from_secs(600);
/// How often a node that settles looks whether it has.
const SETTLE_AGAIN: Duration = Duration::from_millis(100);
/// Most bytes of changes or entries in a word, one more left out of account.
const SAY_MAX_BYTES: usize = 192 * 1024;
/// Most answers that wait to be said: every shard to every node. Past that, nodes ask again.
const ANSWERS_MAX: usize = NODES_MAX * crate::SHARDS;

/// A node that is not known any more.
#[derive(Clone, Copy, Debug)]
struct Gone {
    at: Instant,
    how: Ending,
}

/// How a node went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It said goodbye, and does not come back.
    Farewell,
    /// It fell silent. It may come back in another life than this.
    Silence(u32),
}

/// All rosters, as one node knows them.
///
/// After each call, [`Self::next_effect`] is to be drained, and [`Self::handle_timeout`] to be called at
/// [`Self::next_deadline`].
#[derive(Debug)]
pub struct Rosters {
    me: NodeId,
    settings: Settings,
    view: View,
    mine: Part,
    /// This node's changes up to now.
    sequence: u64,
    /// The last of them, which were not said yet.
    unsaid: Vec<Change>,
    unsaid_bytes: usize,
    peers: BTreeMap<NodeId, Peer>,
    /// Who has died or said goodbye. At most [`NODES_MAX`]; the first makes room.
    gone: BTreeMap<NodeId, Gone>,
    /// Answers that are to be said.
    answers: VecDeque<(NodeId, u64, Shard)>,
    /// How many questions were asked.
    asked: u64,
    said_at: Option<Instant>,
    heartbeat_at: Instant,
    /// When it is to be seen whether a node has died, or does not answer. Not later than that happens.
    watch_at: Option<Instant>,
    /// Whether it was ready once.
    has_told: bool,
    has_left: bool,
}

impl Rosters {
    /// Begins without members, with a link. The first heartbeat is due at once.
    #[must_use]
    pub fn new(me: NodeId, settings: Settings, now: Instant) -> Self {
        let mut rosters = Self {
            me,
            settings,
            view: View::new(settings.hold, Telling::new(me, Stage::Deaf)),
            mine: Part::new(me),
            sequence: 0,
            unsaid: Vec::new(),
            unsaid_bytes: 0,
            peers: BTreeMap::new(),
            gone: BTreeMap::new(),
            answers: VecDeque::new(),
            asked: 0,
            said_at: None,
            heartbeat_at: now,
            watch_at: None,
            has_told: false,
            has_left: false,
        };
        rosters.settle(now);
        rosters.advance(now);
        rosters
    }

    /// Makes a connection of this node a member. One that is a member already stays what it is. An info that is not one
    /// JSON text on one line, or longer than [`crate::INFO_MAX_BYTES`], is left out.
    ///
    /// # Errors
    /// [`Full`] when the user is not on the roster yet, and `members_max` others are; or when this node has 4,000,000
    /// entries.
    pub fn handle_join(
        &mut self,
        channel: &ChannelName,
        connection: ConnectionId,
        member: Member,
        members_max: usize,
        now: Instant,
    ) -> Result<(), Full> {
        if self.mine.has(&self.view, channel, connection) {
            return Ok(());
        }
        let is_new = !self.view.is_here(channel, &member.user);
        if is_new && self.view.users(channel) >= members_max || self.mine.is_full() {
            return Err(Full);
        }
        // The info is copied, so that it does not keep the whole frame that it came in.
        let info = member.info.filter(|info| is_json_line(info)).map(|info| Bytes::copy_from_slice(&info));
        let member = Member { info, ..member };
        self.change(Change::Join { channel: channel.clone(), connection, member }, now);
        Ok(())
    }

    /// A connection of this node is no member any more, if it was one.
    pub fn handle_leave(&mut self, channel: &ChannelName, connection: ConnectionId, now: Instant) {
        if self.mine.has(&self.view, channel, connection) {
            self.change(Change::Leave { channel: channel.clone(), connection }, now);
        }
    }

    /// This node's subscriptions of a counted channel are now so many. Past 4,000,000 entries, further channels are not
    /// counted.
    pub fn handle_count(&mut self, channel: &ChannelName, subscribers: u32, now: Instant) {
        let before = self.mine.count(&self.view, channel);
        if subscribers != before && !(before == 0 && self.mine.is_full()) {
            self.change(Change::Count { channel: channel.clone(), subscribers }, now);
        }
    }

    fn change(&mut self, change: Change, now: Instant) {
        self.sequence = self.sequence.saturating_add(1);
        self.mine.apply(&change, self.sequence, &mut self.view, now);
        self.unsaid_bytes = self.unsaid_bytes.saturating_add(change.bytes());
        self.unsaid.push(change);
        if self.unsaid_bytes >= SAY_MAX_BYTES {
            self.say_changes();
        }
    }

    /// This node stops: the others drop its entries at once. Nothing is said any more, and no fact told.
    pub fn handle_farewell(&mut self, now: Instant) {
        self.say(Audience::All, Word::Bye);
        self.has_left = true;
        self.answers.clear();
        self.view.telling.stage = Stage::Deaf;
        self.elect(now);
    }

    /// Learns whether words get through. While they do not, nobody dies of silence; afterwards everybody has the full time
    /// again.
    pub fn handle_link(&mut self, link: Link, now: Instant) {
        if self.has_left {
            return;
        }
        for peer in self.peers.values_mut() {
            peer.standing = Standing::New;
            peer.heard_at = now;
        }
        match link {
            Link::Up => self.settle(now),
            Link::Down => self.view.telling.stage = Stage::Deaf,
        }
        self.elect(now);
        self.handle_timeout(now);
    }

    /// Hears another node. Its own words do not move a node.
    pub fn handle_word(&mut self, from: NodeId, word: Word, now: Instant) {
        if from == self.me || self.has_left {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.heard_at = now;
        }
        match word {
            Word::Heartbeat { sequence, digests, standing, life } => {
                self.hear_heartbeat(from, (sequence, *digests), standing, life, now);
            }
            Word::Delta { first, changes } => {
                let ask = self.next_ask();
                let peer = self.peers.get_mut(&from);
                let question = peer.and_then(|peer| peer.change(first, changes, ask, &mut self.view, now));
                self.ask(from, question);
            }
            Word::Ask { ask, shards } => {
                for shard in shards.iter() {
                    if self.answers.len() < ANSWERS_MAX {
                        self.answers.push_back((from, ask, shard));
                    }
                }
            }
            Word::State { ask, shard, as_of, part, parts, entries } => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    let piece = Piece { ask, shard, as_of, part, parts, entries };
                    peer.answer(piece, &mut self.view, now);
                }
            }
            Word::Doubt { life } => {
                if life == self.view.telling.life(self.me) {
                    self.settle(now);
                    self.elect(now);
                    self.beat(now);
                }
            }
            Word::Bye => {
                if let Some(peer) = self.peers.get_mut(&from) {
                    // In order: it has told what was its to tell, and only what was on its way is left.
                    peer.standing = Standing::New;
                    self.view.telling.farewell(from);
                    self.elect(now);
                }
                self.drop_peer(from, now);
                self.remember(from, Gone { at: now, how: Ending::Farewell });
            }
        }
        self.advance(now);
    }

    fn hear_heartbeat(
        &mut self,
        from: NodeId,
        (sequence, digests): (u64, Digests),
        standing: Standing,
        life: u32,
        now: Instant,
    ) {
        if !self.peers.contains_key(&from) && !self.meet(from, standing, life, now) {
            return;
        }
        let ask = self.next_ask();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        self.view.telling.begin_life(from, life);
        let changed = mem::replace(&mut peer.standing, standing) != standing;
        let question = peer.compare(sequence, &digests, ask, now);
        self.ask(from, question);
        if changed {
            self.elect(now);
        }
    }

    /// Takes a node among those that are known, if there is room. What one believes that was thought dead, or that others
    /// were never told of, is not what the application believes: it is heard in its next life.
    fn meet(&mut self, from: NodeId, standing: Standing, life: u32, now: Instant) -> bool {
        let gone = self.gone.get(&from).map(|gone| gone.how);
        if gone == Some(Ending::Farewell) || self.peers.len() >= NODES_MAX.saturating_sub(1) {
            return false;
        }
        if gone == Some(Ending::Silence(life))
            || standing == Standing::Ready && self.view.telling.stage.knows()
        {
            self.say(Audience::Node(from), Word::Doubt { life });
            return false;
        }
        self.peers.insert(from, Peer::new(from, now));
        self.watch(after(now, self.settings.dead_after));
        // It does not know this node yet either.
        let greet_at = self.said_at.map_or(now, |at| after(at, GREET_EVERY).max(now));
        self.heartbeat_at = self.heartbeat_at.min(greet_at);
        self.beat(now);
        true
    }

    /// Drops a node and its entries.
    fn drop_peer(&mut self, id: NodeId, now: Instant) {
        if let Some(peer) = self.peers.remove(&id) {
            peer.part.clear(&mut self.view, now);
            self.elect(now);
        }
    }

    fn remember(&mut self, id: NodeId, gone: Gone) {
        while let Some((first, at)) =
            self.gone.iter().map(|(id, other)| (*id, other.at)).min_by_key(|(_, at)| *at)
            && (self.gone.len() >= NODES_MAX || after(at, GONE) <= gone.at)
        {
            self.gone.remove(&first);
            if !self.peers.contains_key(&first) {
                self.view.telling.end_life(first);
            }
        }
        self.gone.insert(id, gone);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.view.handle_timeout(now);
        self.beat(now);
        if self.hears() && self.watch_at.is_some_and(|at| at <= now) {
            self.look_around(now);
        }
        self.advance(now);
    }

    /// Drops the dead, and repeats questions that are not answered.
    fn look_around(&mut self, now: Instant) {
        let dead_after = self.settings.dead_after;
        let is_dead = |peer: &Peer| after(peer.heard_at, dead_after) <= now;
        let dead: Vec<NodeId> = self.peers.iter().filter(|(_, p)| is_dead(p)).map(|(id, _)| *id).collect();
        for id in dead {
            let how = Ending::Silence(self.view.telling.life(id));
            self.drop_peer(id, now);
            self.remember(id, Gone { at: now, how });
        }
        let again = |(id, peer): (&NodeId, &mut Peer)| Some((*id, peer.ask_again(now)?));
        let questions: Vec<_> = self.peers.iter_mut().filter_map(again).collect();
        self.watch_at = None;
        let due = |peer: &Peer| {
            let dies_at = after(peer.heard_at, dead_after);
            peer.again_at().map_or(dies_at, |again| again.min(dies_at))
        };
        self.watch_at = self.peers.values().map(due).min();
        for (id, question) in questions {
            self.ask(id, Some(question));
        }
    }

    fn watch(&mut self, at: Instant) {
        self.watch_at = Some(self.watch_at.map_or(at, |watch_at| watch_at.min(at)));
    }

    fn hears(&self) -> bool {
        self.view.telling.stage != Stage::Deaf
    }

    /// Says the heartbeat if it is due.
    fn beat(&mut self, now: Instant) {
        if !self.hears() || self.heartbeat_at > now {
            return;
        }
        self.say_changes();
        let standing = self.standing();
        let (sequence, digests) = (self.sequence, Box::new(self.mine.digests()));
        let life = self.view.telling.life(self.me);
        self.say(Audience::All, Word::Heartbeat { sequence, digests, standing, life });
        self.said_at = Some(now);
        self.heartbeat_at = after(now, self.settings.heartbeat);
    }

    fn say(&mut self, audience: Audience, word: Word) {
        if !self.has_left {
            self.say_changes();
            self.view.effects.push_back(Effect::Say(audience, word));
        }
    }

    /// Says the changes that were not said yet. They are said before any other word.
    fn say_changes(&mut self) {
        let changes = mem::take(&mut self.unsaid);
        self.unsaid_bytes = 0;
        let count = u64::try_from(changes.len()).unwrap_or(0);
        if count > 0 && !self.has_left {
            let first = self.sequence.saturating_sub(count).saturating_add(1);
            self.view.effects.push_back(Effect::Say(Audience::All, Word::Delta { first, changes }));
        }
    }

    const fn next_ask(&mut self) -> u64 {
        self.asked = self.asked.saturating_add(1);
        self.asked
    }

    fn ask(&mut self, whom: NodeId, question: Question) {
        if let Some((ask, shards)) = question {
            self.say(Audience::Node(whom), Word::Ask { ask, shards });
            if let Some(at) = self.peers.get(&whom).and_then(Peer::again_at) {
                self.watch(at);
            }
        }
    }

    /// Says all entries of a shard.
    fn answer(&mut self, whom: NodeId, ask: u64, shard: Shard) {
        let (mut parts, mut part) = (Vec::new(), Vec::new());
        let mut bytes: usize = 0;
        for entry in self.mine.entries(shard, &self.view) {
            if bytes >= SAY_MAX_BYTES {
                parts.push(mem::take(&mut part));
                bytes = 0;
            }
            bytes = bytes.saturating_add(entry.bytes());
            part.push(entry);
        }
        parts.push(part);
        let as_of = self.sequence;
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        for (part, entries) in (0..count).zip(parts) {
            let word = Word::State { ask, shard, as_of, part, parts: count, entries };
            self.say(Audience::Node(whom), word);
        }
    }

    fn standing(&self) -> Standing {
        match self.view.telling.stage {
            Stage::Ready => Standing::Ready,
            Stage::Deaf | Stage::Settling { .. } | Stage::Following { .. } if self.has_told => Standing::Told,
            Stage::Deaf | Stage::Settling { .. } | Stage::Following { .. } => Standing::New,
        }
    }

    /// Begins to listen to the others.
    fn settle(&mut self, now: Instant) {
        let life = self.view.telling.life(self.me).saturating_add(1);
        self.view.telling.begin_life(self.me, life);
        let until = after(now, self.settings.settle);
        let latest = after(until, self.settings.dead_after);
        self.view.telling.stage = Stage::Settling { until, latest };
        self.heartbeat_at = now;
        self.watch_at = Some(now);
    }

    /// Goes to the next stage if its time has come.
    fn advance(&mut self, now: Instant) {
        loop {
            let stage = self.view.telling.stage;
            let others_tell = self.peers.values().any(Peer::is_ready);
            let is_due = stage.until().is_some_and(|until| until <= now);
            let next = match stage {
                Stage::Settling { latest, .. } if is_due => {
                    // Of those that begin together one tells what there is, and the others follow.
                    // Best is who knows what the application was told before.
                    let mine = (self.standing(), Reverse(self.me));
                    let is_first = self.peers.iter().all(|(id, peer)| (peer.standing, Reverse(*id)) < mine);
                    let is_complete = self.peers.values().all(Peer::is_complete);
                    if latest > now && !(is_complete && (is_first || others_tell)) {
                        let until = after(now, SETTLE_AGAIN);
                        self.view.telling.stage = Stage::Settling { until, latest };
                        return;
                    }
                    if others_tell {
                        Stage::Following { until: after(now, self.settings.follow()) }
                    } else {
                        Stage::Ready
                    }
                }
                // Without the others it is this node's turn.
                Stage::Following { .. } if is_due || !others_tell => Stage::Ready,
                Stage::Deaf | Stage::Settling { .. } | Stage::Following { .. } | Stage::Ready => {
                    return;
                }
            };
            self.enter(stage, next, now);
        }
    }

    fn enter(&mut self, stage: Stage, next: Stage, now: Instant) {
        self.view.telling.stage = next;
        let was_settling = matches!(stage, Stage::Settling { .. });
        let before = if was_settling { self.view.telling.take_remembered(now) } else { Vec::new() };
        if !next.is_ready() {
            // What it would tell is remembered, should the others be cut off before they do.
            let how = if self.has_told { Reconcile::Tell } else { Reconcile::Adopt };
            return self.view.reconcile(how, now);
        }
        self.has_told = true;
        self.elect(now);
        if was_settling {
            // Of what happened before, whoever was to tell it may have been cut off, too.
            self.tell_again(before);
            self.view.reconcile(Reconcile::Tell, now);
        }
        self.heartbeat_at = now;
        self.beat(now);
    }

    /// Finds who tells, now that somebody else may.
    fn elect(&mut self, now: Instant) {
        let others = self.peers.iter().filter(|(_, peer)| peer.is_ready()).map(|(id, _)| *id);
        let me = self.view.telling.stage.is_ready().then_some(self.me);
        let ready: Vec<NodeId> = others.chain(me).collect();
        let facts = self.view.telling.elect(&ready, now);
        self.tell_again(facts);
    }

    fn tell_again(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            if self.view.is_news(&fact) {
                self.view.effects.push_back(Effect::Told(fact));
            }
        }
    }

    /// Returns the next thing to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        if self.view.effects.is_empty() {
            self.say_changes();
        }
        if self.view.effects.is_empty()
            && let Some((whom, ask, shard)) = self.answers.pop_front()
        {
            self.answer(whom, ask, shard);
        }
        self.view.effects.pop_front()
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let heard = [Some(self.heartbeat_at), self.watch_at].into_iter().flatten().filter(|_| self.hears());
        heard.chain(self.view.next_deadline()).chain(self.view.telling.stage.until()).min()
    }

    /// Returns the members of `channel`, one a user, in the order of their ids. Of a user with several connections it is
    /// what the first said.
    #[must_use]
    pub fn members(&self, channel: &ChannelName) -> Vec<&Member> {
        self.view.members(channel)
    }

    /// Returns what a connection of this node is in a channel.
    #[must_use]
    pub fn member(&self, channel: &ChannelName, connection: ConnectionId) -> Option<&Member> {
        self.mine.member(&self.view, channel, connection)
    }

    /// Returns how many users are members of `channel`.
    #[must_use]
    pub fn users(&self, channel: &ChannelName) -> usize {
        self.view.users(channel)
    }

    /// Says whether `user` is a member of `channel`.
    #[must_use]
    pub fn is_here(&self, channel: &ChannelName, user: &UserId) -> bool {
        self.view.is_here(channel, user)
    }

    /// Returns how many subscriptions `channel` has, if it is counted.
    #[must_use]
    pub fn count(&self, channel: &ChannelName) -> u64 {
        self.view.subscribers(channel)
    }

    /// Returns the nodes that are alive, this one included, in the order of their ids.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        let before = self.peers.range(..self.me).map(|(id, _)| *id);
        before.chain([self.me]).chain(self.peers.range(self.me..).map(|(id, _)| *id))
    }

    /// Returns the node that tells the facts of `channel`; this one while nobody does.
    #[must_use]
    pub fn teller(&self, channel: &ChannelName) -> NodeId {
        self.view.telling.teller(Shard::of(channel)).unwrap_or(self.me)
    }

    /// Returns how many entries there are, of all nodes.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.peers.values().fold(self.mine.len(), |sum, peer| sum.saturating_add(peer.part.len()))
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests may panic")]
mod tests;
