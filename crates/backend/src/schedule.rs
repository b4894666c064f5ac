//! When a request that failed is made again.
//!
//! **Lives here:** the pauses and when to give up.
//! **Called by:** `send`; `webhooks` gives up what cannot be put into the queue after the same time.
//! **Must not know:** why a request failed, clocks.

use std::time::Duration;

/// For how long an event is tried to be told, from when it happened.
pub(crate) const TRIED_FOR: Duration = Duration::from_mins(5);
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(128);

/// The pauses between the attempts of one request: 1, 2, 4, … 128 s, each shortened by up to a quarter, so that what
/// failed together does not come back together.
#[derive(Debug)]
pub(crate) struct Schedule {
    next: Duration,
}

impl Schedule {
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// Returns how long to wait before the next attempt, or `None` when the event would be too old by then.
    ///
    /// `age` is how long ago the event happened, `random` is of 0 to 1.
    pub(crate) fn pause(&mut self, age: Duration, random: f64) -> Option<Duration> {
        let pause = self.next.mul_f64(1.0 - random.clamp(0.0, 1.0) / 4.0);
        self.next = self.next.saturating_mul(2).min(LONGEST);
        (age.saturating_add(pause) < TRIED_FOR).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs attempts in virtual time; each takes `call`. Returns when they began, in seconds.
    fn attempts(born: f64, call: f64, random: f64) -> Vec<f64> {
        let (mut schedule, mut now, mut begun) = (Schedule::new(), born, Vec::new());
        loop {
            begun.push(now);
            now += call;
            match schedule.pause(Duration::from_secs_f64(now), random) {
                Some(pause) => now += pause.as_secs_f64(),
                None => return begun,
            }
        }
    }

    #[test]
    fn pauses_double_until_the_event_is_five_minutes_old() {
        assert_eq!(attempts(0.0, 0.0, 0.0), [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 63.0, 127.0, 255.0]);
        assert_eq!(attempts(0.0, 5.0, 0.0), [0.0, 6.0, 13.0, 22.0, 35.0, 56.0, 93.0, 162.0, 295.0]);
        assert_eq!(
            attempts(0.0, 0.0, 1.0),
            [0.0, 0.75, 2.25, 5.25, 11.25, 23.25, 47.25, 95.25, 191.25, 287.25]
        );
    }

    #[test]
    fn an_event_that_another_node_has_tried_for_long_is_tried_once_more() {
        assert_eq!(attempts(299.5, 0.0, 0.0), [299.5]);
        assert_eq!(attempts(100_000.0, 0.0, 0.5), [100_000.0]);
    }
}
