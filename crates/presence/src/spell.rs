//! A time during which somebody is there: a user in a channel, or any subscriber at all.
//!
//! The application is told when it begins and when it ends. An end is held for a moment: who comes back within it was
//! never away, and neither the end nor the new beginning is told. A page that is loaded again looks like that.
//!
//! **Lives here:** what of a time was told.
//! **Called by:** `view`, which keeps one for each user and each channel.
//! **Must not know:** who is there, and who tells.

use std::time::Instant;

use carillon_model::NodeId;

/// What the application believes, as far as a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Belief {
    /// That nobody is there.
    #[default]
    Away,
    /// That somebody is.
    Here,
    /// One of both: it was here, and another node may have told the end.
    Unsure,
}

/// What a time of somebody is, and what the application was told of it.
#[derive(Debug, Default)]
pub(crate) struct Spell {
    /// Whether somebody is there.
    pub(crate) here: bool,
    pub(crate) told: Belief,
    /// Until when an end is held.
    pub(crate) until: Option<Instant>,
    /// In which of its node's lives the last entry went. The node may begin another before the end is told, and the next
    /// end of the same entry is another.
    pub(crate) ended_in: u32,
}

impl Spell {
    /// Says whether nobody is there, and nothing is left to be told.
    pub(crate) fn is_over(&self) -> bool {
        !self.here && self.told == Belief::Away && self.until.is_none()
    }

    /// Somebody is there again while this node hears nothing: others may have seen an end in between, and told it.
    pub(crate) fn doubt(&mut self) {
        if self.told == Belief::Here {
            self.told = Belief::Unsure;
        }
    }

    /// Brings up to date what the application believes. Returns what it is to be told: whether somebody is there.
    pub(crate) fn reconcile(&mut self, how: Reconcile) -> Option<bool> {
        let is_held = self.until.is_some();
        let before = self.told;
        // A held end is yet to be told, by whoever has told the beginning.
        let is_here = self.here || is_held && (before != Belief::Away || how == Reconcile::Adopt);
        self.told = if is_here { Belief::Here } else { Belief::Away };
        let is_news = how == Reconcile::Tell && before != self.told && (self.here || !is_held);
        is_news.then_some(is_here)
    }
}

/// How the application's picture is brought up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reconcile {
    /// Others have told it.
    Adopt,
    /// It is told the difference.
    Tell,
}

/// A change at a node, by which the same fact is known on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) node: NodeId,
    pub(crate) change: u64,
}

impl Stamp {
    pub(crate) const fn within(self, life: u32) -> Cause {
        Cause { stamp: self, life }
    }
}

/// What a fact follows from: a change, in one of its node's lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause {
    pub(crate) stamp: Stamp,
    pub(crate) life: u32,
}
