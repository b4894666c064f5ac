//! Latencies, kept in buckets less than one per cent wide.
//!
//! **Lives here:** the buckets, reading percentiles out of them.
//! **Called by:** `load`.
//! **Must not know:** what was measured.

use std::time::Duration;

/// Buckets per power of two.
const STEPS: usize = 128;
/// Longest latency told apart: about an hour. Longer ones count as this.
const LONGEST_US: u64 = u32::MAX as u64;

/// Percentiles, in microseconds.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Percentiles {
    /// Half were faster.
    pub p50: u64,
    /// Nine in ten were faster.
    pub p90: u64,
    /// Ninety-nine in a hundred were faster.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
}

/// Counts durations with a fixed memory.
#[derive(Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    total: u64,
    max_us: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; bucket(LONGEST_US) + 1], total: 0, max_us: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US).min(LONGEST_US);
        self.buckets[bucket(us)] += 1;
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Returns the percentiles, or `None` when nothing was counted.
    #[must_use]
    pub fn percentiles(&self) -> Option<Percentiles> {
        (self.total > 0).then(|| Percentiles {
            p50: self.at(50),
            p90: self.at(90),
            p99: self.at(99),
            max: self.max_us,
        })
    }

    fn at(&self, percent: u64) -> u64 {
        let wanted = (self.total * percent).div_ceil(100);
        let mut seen = 0;
        let index = self.buckets.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        index.map_or(self.max_us, upper_us).min(self.max_us)
    }
}

/// The bucket of a value: exact below `2 * STEPS`, then `STEPS` buckets per power of two.
fn bucket(us: u64) -> usize {
    let power = us.max(1).ilog2().saturating_sub(STEPS.ilog2());
    usize::try_from(us >> power).expect("at most 2 * STEPS") + power as usize * STEPS
}

/// The largest value of a bucket.
fn upper_us(index: usize) -> u64 {
    if index < 2 * STEPS {
        return index as u64;
    }
    let power = index / STEPS - 1;
    ((((index % STEPS) + STEPS + 1) as u64) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_one_per_cent() {
        let mut histogram = Histogram::default();
        assert!(histogram.percentiles().is_none());
        (1..=100_000).for_each(|us| histogram.record(Duration::from_micros(us)));
        let read = histogram.percentiles().unwrap();
        for (value, exact) in
            [(read.p50, 50_000), (read.p90, 90_000), (read.p99, 99_000), (read.max, 100_000)]
        {
            assert!(value.abs_diff(exact) <= exact / 100, "{value} for {exact}");
        }
    }

    #[test]
    fn every_value_lies_in_its_bucket() {
        for us in (0..5_000).chain([LONGEST_US - 1, LONGEST_US]) {
            let index = bucket(us);
            assert!(upper_us(index) >= us && (index == 0 || upper_us(index - 1) < us), "{us}");
        }
    }
}
