//! The rate of one key.
//!
//! **Lives here:** a bucket of one second's worth, kept as one instant.
//! **Called by:** `keys`.
//! **Must not know:** the clock; `now` comes in.

use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How much may be taken at once: what flows in during this time.
const BURST: Duration = Duration::from_secs(1);

/// The key's rate is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key's rate is used up for {wait:?}")]
pub struct TooFast {
    /// Until the next publication is allowed.
    pub wait: Duration,
}

#[derive(Debug)]
pub(super) struct Bucket {
    /// Time that one publication costs.
    interval: Duration,
    /// When the bucket is full again; the past when it is full. Held for a few instructions, never across a wait.
    full_at: Mutex<Option<Instant>>,
}

impl Bucket {
    pub(super) fn new(per_second: NonZeroU32) -> Self {
        let nanos = 1_000_000_000_u64.checked_div(per_second.get().into()).unwrap_or_default();
        Self { interval: Duration::from_nanos(nanos.max(1)), full_at: Mutex::new(None) }
    }

    pub(super) fn take(&self, now: Instant) -> Result<(), TooFast> {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = full_at.map_or(now, |at| at.max(now));
        let after = from.checked_add(self.interval).unwrap_or(from);
        let wait = after.saturating_duration_since(now).saturating_sub(BURST);
        if wait.is_zero() {
            *full_at = Some(after);
            Ok(())
        } else {
            Err(TooFast { wait })
        }
    }

    pub(super) fn charge(&self, more: u32, now: Instant) {
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = full_at.map_or(now, |at| at.max(now));
        *full_at = Some(from.checked_add(self.interval.saturating_mul(more)).unwrap_or(from));
    }
}
