//! The clock. Rules receive `now` from whoever calls them; callers read it here.
//!
//! **Lives here:** the only reads of the system's clocks.
//! **Called by:** doors, brokers and the worker loop.
//! **Must not know:** timers.
#![expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Returns the present on the clock that never goes back.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Returns how long it is since 1970-01-01 00:00 UTC; zero on a clock set before that.
#[must_use]
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
