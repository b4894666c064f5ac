//! WebSocket frames as a server writes them (RFC 6455 §5.2): unmasked, unfragmented.
//!
//! **Lives here:** headers. A frame does not depend on who receives it, so header and payload are one shared buffer.
//! **Called by:** `render` for publications, `websocket` for what one client is told.
//! **Must not know:** what the payload says.

use bytes::{BufMut as _, Bytes, BytesMut};

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

/// Longest reason of a close frame: a control frame has at most 125 bytes, two of them the code.
const REASON_MAX_BYTES: usize = 123;

/// Returns a text frame.
pub(crate) fn text(payload: &str) -> Bytes {
    frame(TEXT, &[payload.as_bytes()])
}

/// Returns an empty ping.
pub(crate) fn ping() -> Bytes {
    Bytes::from_static(&[PING, 0])
}

/// Returns a close frame with a code and a reason of at most 123 bytes; longer ones are cut at a character.
pub(crate) fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(REASON_MAX_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = reason.get(..end).unwrap_or_default();
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()])
}

fn frame(first: u8, payload: &[&[u8]]) -> Bytes {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(length + 10);
    out.put_u8(first);
    // The shortest of the three forms must be used (§5.2).
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.put_u8(short),
        (_, Ok(medium)) => {
            out.put_u8(126);
            out.put_u16(medium);
        }
        _ => {
            out.put_u8(127);
            out.put_u64(length as u64);
        }
    }
    for part in payload {
        out.put_slice(part);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

    use super::*;

    #[test]
    fn lengths_take_the_shortest_form_and_read_back() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10), (1 << 20, 10)] {
            let bytes = text(&"x".repeat(length));
            let mut cursor = Cursor::new(&bytes);
            let (parsed, read) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!((cursor.position(), read), (header, length as u64));
            assert!(parsed.is_final && parsed.mask.is_none());
            assert_eq!(bytes.len() as u64, header + length as u64);
        }
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let bytes = close(4101, &"ü".repeat(100));
        assert_eq!(bytes[1], 124);
        assert!(std::str::from_utf8(&bytes[4..]).is_ok());
    }
}
