//! The members of presence channels and the counts of subscribers, of all nodes.
//!
//! **Lives here:** what this node does and hears, who is alive, when something is said.
//! **Called by:** the presence task of a node.
//! **Must not know:** what carries words, what is done with facts.

use std::{collections::BTreeMap, mem, time::Instant};

use bytes::Bytes;
use carillon_model::{ChannelName, ConnectionId, NodeId, UserId};

use crate::{
    Audience, Change, Effect, Full, Link, Member, Settings, Standing, Word,
    answers::{Answers, Wanted},
    effect::after,
    part::Part,
    peer::{Peer, Piece, Question},
    telling::{Stage, Telling},
    view::View,
    word::is_json_line,
};
use living::{Ending, Gone};

mod living;
mod stages;

/// Most nodes that are known, this one included. Others are not heard.
pub const NODES_MAX: usize = 1024;
/// Most bytes of changes in a word, one more left out of account.
const SAY_MAX_BYTES: usize = 192 * 1024;
/// All rosters, as one node knows them.
///
/// After each call, [`Self::next_effect`] and [`Self::next_answer`] are to be drained, and [`Self::handle_timeout`] to be
/// called at [`Self::next_deadline`].
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
    answers: Answers,
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
            answers: Answers::new(now),
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
            Word::Ask { ask, shard, after } => self.answers.want(from, Wanted { ask, shard, after }),
            Word::State { ask, shard, after, as_of, entries, next } => {
                let piece = Piece { wanted: Wanted { ask, shard, after }, as_of, entries, next };
                let peer = self.peers.get_mut(&from);
                let question = peer.and_then(|peer| peer.answer(piece, &mut self.view, now));
                self.ask(from, question);
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

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.view.handle_timeout(now);
        self.beat(now);
        if self.hears() && self.watch_at.is_some_and(|at| at <= now) {
            self.look_around(now);
        }
        self.advance(now);
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
        if let Some(Wanted { ask, shard, after }) = question {
            self.say(Audience::Node(whom), Word::Ask { ask, shard, after });
            if let Some(at) = self.peers.get(&whom).and_then(Peer::again_at) {
                self.watch(at);
            }
        }
    }

    /// Returns the next thing to do.
    pub fn next_effect(&mut self) -> Option<Effect> {
        if self.view.effects.is_empty() {
            self.say_changes();
        }
        self.view.effects.pop_front()
    }

    /// Returns the next piece of this node's entries that another has asked for, at most 192 KiB and one entry more, and
    /// whom it is for. There is none while others have got 4 MiB within 100 ms: what is more urgent never waits for more.
    pub fn next_answer(&mut self, now: Instant) -> Option<(NodeId, Word)> {
        let (whom, Wanted { ask, shard, after }) = self.answers.next(now)?;
        let piece_bytes = self.settings.piece_bytes;
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0_usize, after);
        let mut left = self.mine.entries(shard, after, &self.view).peekable();
        while let Some((place, entry)) = left.next_if(|_| bytes < piece_bytes) {
            bytes = bytes.saturating_add(entry.bytes());
            entries.push(entry);
            next = Some(place);
        }
        let next = next.filter(|_| left.peek().is_some());
        drop(left);
        self.answers.said(bytes);
        Some((whom, Word::State { ask, shard, after, as_of: self.sequence, entries, next }))
    }

    /// Returns how many nodes wait for a piece of this one's entries.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.answers.len()
    }

    /// Returns when [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let heard = [Some(self.heartbeat_at), self.watch_at].into_iter().flatten().filter(|_| self.hears());
        let telling = self.view.next_deadline().into_iter().chain(self.view.telling.stage.until());
        heard.chain(telling).chain(self.answers.next_at()).min()
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

    /// Returns how many entries there are, of all nodes.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.peers.values().fold(self.mine.len(), |sum, peer| sum.saturating_add(peer.part.len()))
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "tests may panic")]
mod tests;
