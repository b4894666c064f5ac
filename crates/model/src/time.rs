//! Wall-clock time as it travels on the wire.
//!
//! **Lives here:** milliseconds since 1970.
//! **Called by:** whoever stamps or compares publication times and token expiries.
//! **Must not know:** the clock.

use std::time::Duration;

/// Milliseconds since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixMillis(u64);

impl UnixMillis {
    /// Takes a count of milliseconds since 1970.
    #[must_use]
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// Takes a count of whole seconds since 1970.
    #[must_use]
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1000))
    }

    /// Returns the milliseconds since 1970.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns how long after `earlier` this is; zero when it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}
