//! Chance that repeats itself.
//!
//! **Lives here:** a small generator of numbers (SplitMix64) and what is drawn with it.
//! **Called by:** the fault kit, `chaos`, generators of tests.
//! **Must not know:** what is drawn for.

use std::time::Duration;

/// Draws the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Starts at a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns dice of their own for a part of the whole, so that what one part draws moves no other.
    #[must_use]
    pub fn of(seed: u64, part: u64) -> Self {
        Self(Self(seed).draw() ^ Self(part.wrapping_add(0x5851)).draw())
    }

    /// Draws any number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number below `end`; 0 when that is 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.draw() % end }
    }

    /// Draws a place in a list of `count`.
    ///
    /// # Panics
    /// Never: a place fits where the count did.
    pub fn place(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("it is below a usize")
    }

    /// Draws one of a list.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        let place = self.place(list.len());
        list.get(place)
    }

    /// Says yes once in `count` times.
    pub const fn once_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Draws a time from `from` on, `to` at most, in milliseconds.
    pub fn time(&mut self, from: Duration, to: Duration) -> Duration {
        let span = u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX);
        from + Duration::from_millis(self.below(span.saturating_add(1)))
    }
}
