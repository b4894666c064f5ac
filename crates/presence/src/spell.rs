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

/// What a time of somebody is, and what the application was told of it.
#[derive(Debug, Default)]
pub(crate) struct Spell {
    /// Whether somebody is there.
    pub(crate) here: bool,
    /// Whether the application believes so.
    pub(crate) told: bool,
    /// Until when an end is held.
    pub(crate) until: Option<Instant>,
}

impl Spell {
    /// Says whether nobody is there, and nothing is left to be told.
    pub(crate) const fn is_over(&self) -> bool {
        !self.here && !self.told && self.until.is_none()
    }

    /// Brings up to date what the application believes. Returns what it is to be told: whether somebody is there.
    pub(crate) const fn reconcile(&mut self, how: Reconcile) -> Option<bool> {
        let is_held = self.until.is_some();
        let told = self.told;
        // A held end is yet to be told, by whoever has told the beginning.
        self.told = self.here || is_held && (told || matches!(how, Reconcile::Adopt));
        match how {
            Reconcile::Adopt => None,
            Reconcile::Tell if told == self.told => None,
            Reconcile::Tell => Some(self.told),
        }
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

/// How many times a node has begun to settle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Life(pub(crate) u32);

/// A change at a node, by which the same fact is known on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    pub(crate) node: NodeId,
    pub(crate) change: u64,
    /// The life of the node in which it was heard of: who was thought dead begins another, and what is told of its entries
    /// then is told anew.
    pub(crate) life: Life,
}
