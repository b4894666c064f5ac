//! Who is connected: connections and users.
//!
//! **Lives here:** the ids' shapes as text.
//! **Called by:** `node` mints connection ids, `auth` reads users from tokens.
//! **Must not know:** where randomness comes from.

use std::{fmt, str::FromStr, sync::Arc};

use crate::text::BadText;

/// One connection, unique in the cluster: 64 bits, shown as 13 characters of Crockford's base 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const DIGITS: u32 = 13;

impl ConnectionId {
    /// Takes 64 bits that no other connection has.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the upper and the lower 32 bits: what Pusher's clients know a connection by, with a point between.
    #[must_use]
    pub const fn halves(self) -> (u32, u32) {
        ((self.0 >> 32) as u32, (self.0 & 0xffff_ffff) as u32)
    }

    /// Puts an id together again.
    #[must_use]
    pub const fn from_halves(high: u32, low: u32) -> Self {
        Self((high as u64) << 32 | low as u64)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for digit in (0..DIGITS).rev() {
            let index = (self.0 >> (digit * 5)) & 31;
            let byte = usize::try_from(index).ok().and_then(|i| ALPHABET.get(i)).copied().unwrap_or(b'0');
            fmt::Write::write_char(f, char::from(byte))?;
        }
        Ok(())
    }
}

impl FromStr for ConnectionId {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText { what: "a connection id", rule: "is the 13 characters of a `welcome` frame" };
        if text.len() != 13 {
            return Err(bad());
        }
        let mut bits: u128 = 0;
        for byte in text.bytes() {
            let digit = ALPHABET.iter().position(|known| *known == byte).ok_or_else(bad)?;
            bits = bits << 5 | u128::try_from(digit).map_err(|_e| bad())?;
        }
        u64::try_from(bits).map(Self).map_err(|_e| bad())
    }
}

/// One life of a node: 64 random bits, drawn when the process starts. Shown as 13 characters, as a connection's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u64);

impl NodeId {
    /// Takes 64 bits that no other process has.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&ConnectionId(self.0), f)
    }
}

/// Longest user id in bytes.
pub const USER_MAX_BYTES: usize = 128;

/// A user as the application names them: 1 to 128 bytes, the same characters as a channel name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Checks `text` and takes it as a user's id.
    ///
    /// # Errors
    /// [`BadText`] when it is empty, too long, or holds a character that ids cannot have.
    pub fn new(text: &str) -> Result<Self, BadText> {
        let illegal = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '>');
        if text.is_empty() || text.len() > USER_MAX_BYTES || text.contains(illegal) {
            return Err(BadText {
                what: "a user id",
                rule: "has 1 to 128 bytes without whitespace, control characters, `*` or `>`",
            });
        }
        Ok(Self(Arc::from(text)))
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_id_reads_back_what_it_writes() {
        for bits in [0, 1, 31, 32, u64::MAX, 0x0123_4567_89ab_cdef] {
            let id = ConnectionId::from_bits(bits);
            assert_eq!(id.to_string().len(), 13);
            assert_eq!(id.to_string().parse::<ConnectionId>(), Ok(id));
        }
        for bad in ["", "0", "zzzzzzzzzzzzz", "00000000000i0", "0000000000000 "] {
            assert!(bad.parse::<ConnectionId>().is_err(), "{bad:?}");
        }
    }
}
