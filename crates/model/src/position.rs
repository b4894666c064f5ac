//! Where a publication stands in its channel's stream.
//!
//! **Lives here:** epoch, offset and their text form, the `id` of the native protocol.
//! **Called by:** brokers mint positions, dialects write them, sessions compare them.
//! **Must not know:** which broker counts, or how.

use std::{fmt, str::FromStr};

use crate::text::BadText;

/// One life of a stream. Offsets of two epochs do not compare.
///
/// Shown as 6 characters of `[0-9a-z]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

const BASE: u64 = 36;
const EPOCH_DIGITS: u32 = 6;
const EPOCH_MAX_DIGITS: usize = 8;

impl Epoch {
    /// Makes an epoch of any 64 bits, such as a hash or random ones.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits % BASE.pow(EPOCH_DIGITS))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for place in (0..EPOCH_DIGITS).rev() {
            let digit = u32::try_from(self.0 / BASE.pow(place) % BASE).unwrap_or(0);
            fmt::Write::write_char(f, char::from_digit(digit, 36).unwrap_or('0'))?;
        }
        Ok(())
    }
}

/// A place in a stream. Offsets rise along a channel and may skip: only their order has meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(u64);

impl Offset {
    /// Before the first publication.
    pub const ZERO: Self = Self(0);

    /// Takes a stream's sequence number.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// Returns the sequence number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the offset that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Epoch and offset together: where a reader stands. Shown as `<epoch>-<offset>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the stream.
    pub epoch: Epoch,
    /// How far along it.
    pub offset: Offset,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

impl FromStr for Position {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText { what: "a position", rule: "is the `id` of a message, such as `k3f9ab-1042`" };
        let (epoch, offset) = text.split_once('-').ok_or_else(bad)?;
        let lower = epoch.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        if !lower || epoch.len() < 4 || epoch.len() > EPOCH_MAX_DIGITS {
            return Err(bad());
        }
        if offset.is_empty() || !offset.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let epoch = u64::from_str_radix(epoch, 36).map_err(|_e| bad())?;
        let offset = offset.parse().map_err(|_e| bad())?;
        Ok(Self { epoch: Epoch(epoch), offset: Offset(offset) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back_what_it_writes() {
        for (bits, offset) in [(0, 0), (35, 1), (u64::MAX, u64::MAX), (123_456_789, 42)] {
            let position = Position { epoch: Epoch::from_bits(bits), offset: Offset::new(offset) };
            assert_eq!(position.to_string().parse(), Ok(position), "{position}");
        }
        for bad in
            ["", "-", "abcd-", "abc-1", "abcd-+1", "ABCD-1", "abcd-18446744073709551616", "abcdefghi-1"]
        {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }
}
