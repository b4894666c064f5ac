//! What operators see of webhooks.
//!
//! **Lives here:** the handles of the metrics; `telemetry` has their names.
//! **Called by:** whatever in this crate counts.
//! **Must not know:** where metrics go.

use std::time::Duration;

use carillon_telemetry::metric;
use metrics::{Counter, Gauge, Histogram};

use crate::call::Outcome;

/// Handles of all metrics but the requests', which are looked up: there are few.
pub(crate) struct Meters {
    /// Events that an application has accepted.
    pub(crate) told: Counter,
    pub(crate) retries: Counter,
    /// Events that wait to be put into the queue, or are being told.
    pub(crate) waiting: Gauge,
    duration: Histogram,
    /// Given up, as the application did not accept them in time.
    pub(crate) refused: Counter,
    /// Given up, as too many waited.
    pub(crate) queue_full: Counter,
    /// Given up, as the queue could not be reached in time.
    pub(crate) unavailable: Counter,
    /// Not written by us.
    pub(crate) unreadable: Counter,
}

impl Meters {
    pub(crate) fn register() -> Self {
        let dropped = |reason| metric::WEBHOOK_EVENTS_DROPPED.counter(&[("reason", reason)]);
        Self {
            told: metric::WEBHOOK_EVENTS_TOLD.counter(&[]),
            retries: metric::WEBHOOK_RETRIES.counter(&[]),
            waiting: metric::WEBHOOK_EVENTS_WAITING.gauge(&[]),
            duration: metric::WEBHOOK_DURATION.histogram(&[]),
            refused: dropped("refused"),
            queue_full: dropped("queue_full"),
            unavailable: dropped("unavailable"),
            unreadable: dropped("unreadable"),
        }
    }

    /// Counts one request.
    pub(crate) fn called(&self, outcome: &Outcome, took: Duration) {
        metric::WEBHOOK_REQUESTS.counter(&[("result", outcome.label())]).increment(1);
        self.duration.record(took);
    }
}
