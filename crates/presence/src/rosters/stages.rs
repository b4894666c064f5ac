//! How a node comes to tell the application what is its to tell.
//!
//! **Lives here:** when a stage ends, and what follows; who tells once that may be somebody else.
//! **Called by:** `rosters` whenever something has happened.
//! **Must not know:** words besides heartbeats, what is told.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use carillon_model::NodeId;

use super::Rosters;
use crate::{Effect, Fact, Standing, effect::after, peer::Peer, spell::Reconcile, telling::Stage};

/// How often a node that settles looks whether it has.
const SETTLE_AGAIN: Duration = Duration::from_millis(100);
impl Rosters {
    pub(super) fn standing(&self) -> Standing {
        match self.view.telling.stage {
            Stage::Ready => Standing::Ready,
            Stage::Deaf | Stage::Settling { .. } | Stage::Following { .. } if self.has_told => Standing::Told,
            Stage::Deaf | Stage::Settling { .. } | Stage::Following { .. } => Standing::New,
        }
    }

    /// Begins to listen to the others.
    pub(super) fn settle(&mut self, now: Instant) {
        let life = self.view.telling.life(self.me).saturating_add(1);
        self.view.telling.begin_life(self.me, life);
        let until = after(now, self.settings.settle);
        let latest = after(until, self.settings.dead_after);
        self.view.telling.stage = Stage::Settling { until, latest };
        self.heartbeat_at = now;
        self.watch_at = Some(now);
    }

    /// Goes to the next stage if its time has come.
    pub(super) fn advance(&mut self, now: Instant) {
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

    pub(super) fn enter(&mut self, stage: Stage, next: Stage, now: Instant) {
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
    pub(super) fn elect(&mut self, now: Instant) {
        let others = self.peers.iter().filter(|(_, peer)| peer.is_ready()).map(|(id, _)| *id);
        let me = self.view.telling.stage.is_ready().then_some(self.me);
        let ready: Vec<NodeId> = others.chain(me).collect();
        let facts = self.view.telling.elect(&ready, now);
        self.tell_again(facts);
    }

    pub(super) fn tell_again(&mut self, facts: Vec<Fact>) {
        for fact in facts {
            if self.view.is_news(&fact) {
                self.view.effects.push_back(Effect::Told(fact));
            }
        }
    }
}
