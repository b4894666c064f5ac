//! Which other nodes there are.
//!
//! **Lives here:** how nodes become known, fall silent and are forgotten, and which of them do not answer.
//! **Called by:** `rosters` with heartbeats, and when time passes.
//! **Must not know:** members, who tells what.

use std::{
    mem,
    time::{Duration, Instant},
};

use carillon_model::NodeId;

use super::{NODES_MAX, Rosters};
use crate::{Audience, Digests, Standing, Word, effect::after, peer::Peer};

/// Within this time at most one heartbeat answers nodes that have come.
const GREET_EVERY: Duration = Duration::from_millis(200);
/// For how long a node that is gone is remembered, so that its last words are not taken for a new one's.
const GONE: Duration = Duration::from_secs(600);
/// A node that is not known any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone {
    pub(super) at: Instant,
    pub(super) how: Ending,
}

/// How a node went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// It said goodbye, and does not come back.
    Farewell,
    /// It fell silent. It may come back in another life than this.
    Silence(u32),
}

impl Rosters {
    pub(super) fn hear_heartbeat(
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
    pub(super) fn meet(&mut self, from: NodeId, standing: Standing, life: u32, now: Instant) -> bool {
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
    pub(super) fn drop_peer(&mut self, id: NodeId, now: Instant) {
        if let Some(peer) = self.peers.remove(&id) {
            peer.part.clear(&mut self.view, now);
            self.elect(now);
        }
    }

    pub(super) fn remember(&mut self, id: NodeId, gone: Gone) {
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

    /// Drops the dead, and repeats questions that are not answered.
    pub(super) fn look_around(&mut self, now: Instant) {
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

    pub(super) fn watch(&mut self, at: Instant) {
        self.watch_at = Some(self.watch_at.map_or(at, |watch_at| watch_at.min(at)));
    }
}
