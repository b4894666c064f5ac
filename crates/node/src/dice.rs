//! Randomness for spreading things in time. Not for secrets.
//!
//! **Lives here:** a small generator (xorshift64*), one a worker.
//! **Called by:** workers, for jitter and connection ids.
//! **Must not know:** what is spread.

use std::{cell::Cell, time::Duration};

/// A stream of random numbers.
#[derive(Debug)]
pub(crate) struct Dice(Cell<u64>);

impl Dice {
    /// Begins a stream; equal seeds give equal streams.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Cell::new(seed | 1))
    }

    /// Returns 64 random bits.
    pub(crate) fn bits(&self) -> u64 {
        let mut state = self.0.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.0.set(state);
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a random part of `whole`.
    pub(crate) fn part_of(&self, whole: Duration) -> Duration {
        // 16 bits are fine enough for a jitter.
        let share = f64::from(u16::try_from(self.bits() >> 48).unwrap_or(0)) / 65_536.0;
        whole.mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_spread_over_the_whole() {
        let dice = Dice::new(7);
        let parts: Vec<_> = (0..1000).map(|_| dice.part_of(Duration::from_secs(10))).collect();
        for tenth in 0..10 {
            let range = Duration::from_secs(tenth)..Duration::from_secs(tenth + 1);
            let hits = parts.iter().filter(|part| range.contains(part)).count();
            assert!((50..200).contains(&hits), "{hits} of 1000 in {range:?}");
        }
    }
}
