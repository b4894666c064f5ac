//! JSON texts that every reader can read.
//!
//! **Lives here:** what is refused although JSON's grammar allows it.
//! **Called by:** every edge that takes JSON whose grammar was checked, and passes it on as it is.
//! **Must not know:** what the JSON means. It is never parsed into values.

use bytes::Bytes;

/// Deepest nesting. Readers that subscribers use give up at 128 (serde_json) or 512 (PHP), and the message that
/// surrounds the data adds a level.
pub const DEPTH_MAX: usize = 100;

/// Numbers shorter than this and without an exponent fit a double.
const PLAIN_NUMBER_BYTES: usize = 300;

/// Why some readers could not read a valid JSON text. Each is the rest of a sentence that names the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsound {
    /// They give up before they come to its bottom.
    #[error("is nested deeper than {DEPTH_MAX} levels")]
    Deep,
    /// It has a string that is no text.
    #[error("holds half of a surrogate pair (\\ud800 to \\udfff)")]
    Surrogate,
    /// It has a number that no double can hold.
    #[error("holds a number that is out of range")]
    Number,
}

/// Copies a valid JSON text, with spaces for its line breaks, if every reader can read it. It takes a time proportional to
/// the text's length.
///
/// # Errors
/// [`Unsound`] says who could not.
pub fn one_line(json: &str) -> Result<Bytes, Unsound> {
    match survey(json.as_bytes())? {
        Lines::One => Ok(Bytes::copy_from_slice(json.as_bytes())),
        Lines::Several => {
            let space = |byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte };
            Ok(json.bytes().map(space).collect())
        }
    }
}

/// Whether line breaks stand between the values. Inside strings the grammar has none.
enum Lines {
    One,
    Several,
}

/// Walks over a valid JSON text once, without recursion.
fn survey(text: &[u8]) -> Result<Lines, Unsound> {
    let mut lines = Lines::One;
    let mut depth = 0_usize;
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = match byte {
            b'"' => after_string(after)?,
            b'-' | b'0'..=b'9' => after_number(rest)?,
            b'{' | b'[' => {
                depth = depth.saturating_add(1);
                if depth > DEPTH_MAX {
                    return Err(Unsound::Deep);
                }
                after
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                after
            }
            b'\r' | b'\n' => {
                lines = Lines::Several;
                after
            }
            _ => after,
        };
    }
    Ok(lines)
}

/// Returns what follows the string that `rest` is in.
fn after_string(mut rest: &[u8]) -> Result<&[u8], Unsound> {
    while let Some(stop) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        rest = match rest.split_at(stop).1 {
            [b'\\', b'u', a, b, c, d, after @ ..] => after_unit(hex([*a, *b, *c, *d]), after)?,
            [b'\\', _, after @ ..] => after,
            [_quote, after @ ..] => return Ok(after),
            [] => break,
        };
    }
    Ok(&[])
}

/// Returns what follows an escaped UTF-16 unit. Refuses half of a surrogate pair: PHP and Rust readers would refuse
/// the whole message.
fn after_unit(unit: u32, after: &[u8]) -> Result<&[u8], Unsound> {
    match (unit, after) {
        (0xD800..=0xDBFF, [b'\\', b'u', a, b, c, d, after @ ..])
            if matches!(hex([*a, *b, *c, *d]), 0xDC00..=0xDFFF) =>
        {
            Ok(after)
        }
        (0xD800..=0xDFFF, _) => Err(Unsound::Surrogate),
        _ => Ok(after),
    }
}

fn hex(digits: [u8; 4]) -> u32 {
    digits.into_iter().fold(0, |sum, digit| sum << 4 | char::from(digit).to_digit(16).unwrap_or(0))
}

/// Returns what follows the number that `rest` begins with. Refuses one that no double can hold.
fn after_number(rest: &[u8]) -> Result<&[u8], Unsound> {
    let part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    let end = rest.iter().position(|byte| !part(byte)).unwrap_or(rest.len());
    let (number, after) = rest.split_at(end);
    let plain = number.len() < PLAIN_NUMBER_BYTES && !number.iter().any(|b| matches!(b, b'e' | b'E'));
    let finite =
        || str::from_utf8(number).ok().and_then(|n| n.parse::<f64>().ok()).is_some_and(f64::is_finite);
    if plain || finite() { Ok(after) } else { Err(Unsound::Number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_some_readers_cannot_read_is_refused() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (text, expected) in [
            (deep(100), Ok(())),
            (deep(101), Err(Unsound::Deep)),
            (r#"{"a":["\ud800"]}"#.to_owned(), Err(Unsound::Surrogate)),
            (r#""\ud83d\ude00""#.to_owned(), Ok(())),
            ("1e999".to_owned(), Err(Unsound::Number)),
            ("1e99".to_owned(), Ok(())),
        ] {
            assert_eq!(one_line(&text).map(|_| ()), expected, "{text}");
        }
        assert_eq!(one_line("{\r\n\"a\":1}").unwrap(), "{  \"a\":1}");
    }
}
