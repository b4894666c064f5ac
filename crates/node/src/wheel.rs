//! One coarse wheel of timers for all connections of a worker.
//!
//! **Lives here:** which connections are due when, to a quarter of a second.
//! **Called by:** the worker, at every tick and whenever a deadline moves closer.
//! **Must not know:** what is due: the session knows.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use carillon_hub::SessionKey;

/// How coarse deadlines are.
pub(crate) const TICK: Duration = Duration::from_millis(250);

/// A count of ticks since the wheel began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u32);

/// The timers of one worker.
#[derive(Debug)]
pub(crate) struct Wheel {
    began: Instant,
    due: BTreeMap<Tick, Vec<SessionKey>>,
}

impl Wheel {
    /// Begins at `now`.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { began: now, due: BTreeMap::new() }
    }

    /// Returns the first tick at or after `at`.
    pub(crate) fn tick_of(&self, at: Instant) -> Tick {
        let ticks = at.saturating_duration_since(self.began).as_millis().div_ceil(TICK.as_millis());
        Tick(u32::try_from(ticks).unwrap_or(u32::MAX))
    }

    /// Has `session` named at `tick`.
    pub(crate) fn arm(&mut self, tick: Tick, session: SessionKey) {
        self.due.entry(tick).or_default().push(session);
    }

    /// Returns who is due by `now`, with the tick that each was armed for.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<(Tick, SessionKey)> {
        let past = now.saturating_duration_since(self.began).as_millis() / TICK.as_millis();
        let past = u32::try_from(past).unwrap_or(u32::MAX);
        let later = self.due.split_off(&Tick(past.saturating_add(1)));
        let due = std::mem::replace(&mut self.due, later);
        due.into_iter().flat_map(|(tick, keys)| keys.into_iter().map(move |key| (tick, key))).collect()
    }
}

#[cfg(test)]
mod tests {
    use carillon_tasks::clock;

    use super::*;

    #[test]
    fn nobody_is_due_early_and_nobody_is_forgotten() {
        let now = clock::now();
        let mut wheel = Wheel::new(now);
        let deadlines = [0_u32, 1, 249, 250, 251, 10_000];
        for (key, after) in deadlines.iter().enumerate() {
            let tick = wheel.tick_of(now + Duration::from_millis(u64::from(*after)));
            wheel.arm(tick, SessionKey::new(key).unwrap());
        }
        let mut seen = Vec::new();
        for millis in (0..=10_250).step_by(125) {
            let at = now + Duration::from_millis(millis);
            for (_, key) in wheel.take_due(at) {
                assert!(u64::from(deadlines[key.get()]) <= millis, "{key:?} at {millis} ms");
                seen.push(key.get());
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    }
}
