//! Credentials that were refused, for the operator.
//!
//! **Lives here:** how often the log says so: a client that tries again and again does not fill it.
//! **Called by:** `node` for clients, `api` for backends.
//! **Must not know:** credentials.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// For how long one reason is not told again.
const QUIET: Duration = Duration::from_secs(1);

/// When each reason was told last. Reasons are few: they are constants of the program.
#[derive(Debug, Default)]
pub struct Refused(Mutex<BTreeMap<&'static str, Instant>>);

impl Refused {
    /// Says whether the log is to have a line at `now`: at most one a second for each reason.
    pub fn is_due(&self, reason: &'static str, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = told.get(reason).is_none_or(|then| now.saturating_duration_since(*then) >= QUIET);
        if due {
            told.insert(reason, now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use carillon_tasks::clock;

    use super::*;

    #[test]
    fn a_reason_is_told_once_a_second() {
        let refused = Refused::default();
        let now = clock::now();
        assert!(refused.is_due("signature", now));
        assert!(!refused.is_due("signature", now));
        assert!(refused.is_due("issuer", now), "others are not held back");
        assert!(!refused.is_due("signature", now + QUIET - Duration::from_millis(1)));
        assert!(refused.is_due("signature", now + QUIET));
    }
}
