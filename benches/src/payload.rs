//! What every benchmark publishes: a counter, padded to a size.
//!
//! **Lives here:** making the `data` of a publication, finding its counter in a received message.
//! **Called by:** `publisher` (makes), `subscribers` (reads).
//! **Must not know:** sockets, who received what.

use anyhow::{Context, Result};

/// Digits of the counter: fixed, so that every message of a run has one length.
const DIGITS: usize = 16;

/// What stands before the counter in a message of the native protocol.
const MARK: &[u8] = b"\"data\":\"";

/// Smallest size in bytes: two quotes, the counter, a colon.
pub const SIZE_MIN_BYTES: usize = DIGITS + 3;

/// Appends a JSON string of exactly `size_bytes` bytes (quotes included) that begins with `counter`.
pub fn write_data(counter: u64, size_bytes: usize, out: &mut Vec<u8>) {
    let end = out.len() + size_bytes.max(SIZE_MIN_BYTES);
    out.extend_from_slice(format!("\"{counter:0DIGITS$}:").as_bytes());
    out.resize(end - 1, b'x');
    out.push(b'"');
}

/// Finds counters. Remembers where the last one stood: within a run they hardly ever move.
#[derive(Debug, Default)]
pub struct CounterFinder {
    last_at: usize,
}

impl CounterFinder {
    /// Returns the counter of a message.
    ///
    /// # Errors
    ///
    /// When there is none: the message is then not one of this run.
    pub fn find(&mut self, message: &[u8]) -> Result<u64> {
        if message.get(self.last_at..).is_none_or(|tail| !tail.starts_with(MARK)) {
            self.last_at =
                message.windows(MARK.len()).position(|window| window == MARK).with_context(|| {
                    format!("message carries no counter: {}", String::from_utf8_lossy(message))
                })?;
        }
        let digits = message.get(self.last_at + MARK.len()..).and_then(|tail| tail.first_chunk::<DIGITS>());
        digits
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))
            .map(|digits| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
            .with_context(|| format!("message has a broken counter: {}", String::from_utf8_lossy(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_wherever_it_stands() {
        let mut finder = CounterFinder::default();
        for (prefix, counter) in [("{", 0), ("{", 41), ("{\"id\":\"e-10\",", 9_999_999), ("", 7)] {
            let mut message = format!("{prefix}\"data\":").into_bytes();
            write_data(counter, 64, &mut message);
            assert_eq!(finder.find(&message).unwrap(), counter);
        }
        finder.find(b"{}").unwrap_err();
        finder.find(b"\"data\":\"00000000000000zz").unwrap_err();
    }

    #[test]
    fn data_has_the_size_asked_for() {
        for size in [SIZE_MIN_BYTES, 128, 1024] {
            let mut out = Vec::new();
            write_data(5, size, &mut out);
            assert_eq!(out.len(), size);
            serde_json::from_slice::<String>(&out).unwrap();
        }
    }
}
