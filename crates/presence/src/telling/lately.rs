//! What happened to some things within the last seconds.
//!
//! **Lives here:** how long that is remembered, and of how many.
//! **Called by:** `telling`.
//! **Must not know:** what happened.

use std::{collections::BTreeMap, time::Instant};

use super::{BETWEEN, REMEMBERED_MAX};

/// What was put in less than [`BETWEEN`] ago. Where more than [`REMEMBERED_MAX`] wait, all are forgotten.
#[derive(Debug)]
pub(super) struct Lately<T> {
    things: BTreeMap<T, Instant>,
    last: Option<Instant>,
}

impl<T: Ord> Lately<T> {
    pub(super) const fn new() -> Self {
        Self { things: BTreeMap::new(), last: None }
    }

    pub(super) fn insert(&mut self, thing: T, now: Instant) {
        if self.things.len() >= REMEMBERED_MAX || !self.is_fresh(now) {
            self.things.clear();
        }
        self.things.insert(thing, now);
        self.last = Some(now);
    }

    /// Says whether a thing is there. It is not made where nothing is.
    pub(super) fn has(&self, thing: impl FnOnce() -> T, now: Instant) -> bool {
        self.is_fresh(now) && self.things.get(&thing()).is_some_and(|at| is_between(*at, now))
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.last.is_some_and(|at| is_between(at, now))
    }
}

/// Says whether two tellers may be at work at `now`, of whom one began, or ceased, at `at`.
pub(super) fn is_between(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) <= BETWEEN
}
