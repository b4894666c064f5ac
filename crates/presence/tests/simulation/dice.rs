//! Chance that repeats itself: SplitMix64.

/// Draws the same for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number from `from` on, below `end`.
    pub(crate) const fn within(&mut self, from: u64, end: u64) -> u64 {
        from + self.draw() % (end - from)
    }

    /// Says yes so many times in a thousand.
    pub(crate) const fn permille(&mut self, times: u64) -> bool {
        self.draw() % 1000 < times
    }

    pub(crate) fn pick<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        let count = u64::try_from(list.len()).expect("a length fits");
        (count > 0).then(|| list[usize::try_from(self.within(0, count)).expect("below a length")])
    }
}
