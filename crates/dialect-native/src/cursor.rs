//! Where one client stands in many channels, as one text.
//!
//! **Lives here:** the cursor of the native protocol (NATIVE_PROTOCOL §2): writing it, and reading what may be anything.
//! **Called by:** transports, for clients that keep one text instead of a position for each channel.
//! **Must not know:** which channels there are, what is kept of them.
//!
//! `c1.` and base64url without padding of: for each epoch its 6 characters, how many channels stand in it, and for each of
//! them 48 bits of its name's hash and its offset; then 32 bits of a hash over all that. In the place of an epoch stands
//! `OLDEST`, `LAST-N` or `@TIME-` for channels whose client left before it was told where it stands. Numbers are LEB128.
//! The point makes it unlike every other `since`. The checksum finds what was cut or mistyped; whoever forges one can only
//! name places, and those are checked like any other.

use std::{borrow::Cow, collections::BTreeMap};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use carillon_model::{ChannelName, Position, Since, UnixMillis};
use xxhash_rust::xxh3::xxh3_64;

/// What every cursor begins with: the version of its shape.
const PREFIX: &str = "c1.";

/// Longest cursor that is read, in bytes. One of 200 channels stays below as long as offsets stay below 2⁴² and epochs
/// are at most 64.
pub const CURSOR_MAX_BYTES: usize = 4096;

/// Characters of an epoch, and of what stands in the place of one.
const EPOCH_BYTES: usize = 6;
const OLDEST: &str = "OLDEST";
const LAST: &str = "LAST-N";
const TIME: &str = "@TIME-";

/// Bytes of a channel's hash. That two of 200 channels share one happens once in 10¹⁰ cursors.
const TAG_BYTES: usize = 6;

const CHECKSUM_BYTES: usize = 4;

/// The hash of a channel's name.
type Tag = [u8; TAG_BYTES];

/// Places in channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(BTreeMap<Tag, Since>);

impl Cursor {
    /// Notes where the client stands in a channel.
    pub fn stand(&mut self, channel: &ChannelName, position: Position) {
        self.want(channel, Since::After(position));
    }

    /// Notes from where on the client wants a channel. What begins now begins now whenever it comes.
    pub fn want(&mut self, channel: &ChannelName, since: Since) {
        if since != Since::Now {
            self.0.insert(tag(channel), since);
        }
    }

    /// Returns from where on the client wants a channel, if the cursor says so.
    #[must_use]
    pub fn of(&self, channel: &ChannelName) -> Option<Since> {
        self.0.get(&tag(channel)).copied()
    }

    /// Returns its places, and for channels that it does not name those of `older`.
    #[must_use]
    pub fn or<'a>(&'a self, older: &'a Self) -> Cow<'a, Self> {
        if older.0.is_empty() {
            return Cow::Borrowed(self);
        }
        let both = older.0.iter().chain(&self.0).map(|(tag, since)| (*tag, *since));
        Cow::Owned(Self(both.collect()))
    }

    /// Writes it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut epochs: BTreeMap<String, Vec<(&Tag, u64)>> = BTreeMap::new();
        for (tag, since) in &self.0 {
            let (epoch, number) = match since {
                Since::After(position) => (position.epoch.to_string(), position.offset.get()),
                Since::Oldest => (OLDEST.to_owned(), 0),
                Since::Last(count) => (LAST.to_owned(), u64::from(*count)),
                Since::Time(time) => (TIME.to_owned(), time.get()),
                Since::Now => continue,
            };
            epochs.entry(epoch).or_default().push((tag, number));
        }
        let mut bytes = Vec::with_capacity(self.0.len().saturating_mul(12));
        for (epoch, stands) in epochs {
            bytes.extend_from_slice(epoch.as_bytes());
            write_number(&mut bytes, stands.len() as u64);
            for (tag, number) in stands {
                bytes.extend_from_slice(tag);
                write_number(&mut bytes, number);
            }
        }
        bytes.extend_from_slice(&checksum(&bytes));
        let mut text = PREFIX.to_owned();
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        text
    }

    /// Says whether a text means to be a cursor.
    pub(crate) fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Reads one, all of it or nothing.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.len() > CURSOR_MAX_BYTES {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let (mut rest, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_BYTES)?)?;
        if sum != checksum(rest) {
            return None;
        }
        let mut stands = BTreeMap::new();
        while !rest.is_empty() {
            let epoch = std::str::from_utf8(take(&mut rest, EPOCH_BYTES)?).ok()?;
            for _ in 0..read_number(&mut rest)? {
                // As many as are there: the count is not believed.
                let tag = take(&mut rest, TAG_BYTES)?.try_into().ok()?;
                let number = read_number(&mut rest)?;
                let since = match epoch {
                    OLDEST => Since::Oldest,
                    LAST => Since::Last(u32::try_from(number).ok()?),
                    TIME => Since::Time(UnixMillis::new(number)),
                    _ => Since::After(format!("{epoch}-{number}").parse().ok()?),
                };
                stands.insert(tag, since);
            }
        }
        Some(Self(stands))
    }
}

fn tag(channel: &ChannelName) -> Tag {
    let [.., a, b, c, d, e, f] = xxh3_64(channel.as_str().as_bytes()).to_be_bytes();
    [a, b, c, d, e, f]
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [.., a, b, c, d] = xxh3_64(bytes).to_be_bytes();
    [a, b, c, d]
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

fn write_number(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return out.push(low & 0x7f);
        }
        out.push(low | 0x80);
    }
}

fn read_number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let [byte, ..] = *take(rest, 1)? else { return None };
        let bits = u64::from(byte & 0x7f);
        let placed = bits.checked_shl(shift)?;
        // What does not come back was shifted out.
        if placed.checked_shr(shift)? != bits {
            return None;
        }
        value |= placed;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
