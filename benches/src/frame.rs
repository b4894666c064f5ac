//! WebSocket frames, as far as a load generator and a bare server need them.
//!
//! **Lives here:** reading the header of a server's frame, writing a text frame, a pong.
//! **Called by:** `subscribers` (reads), `raw` (writes).
//! **Must not know:** sockets, what a payload says.

use anyhow::{Result, bail};

/// What a frame is for. Continuations are refused: no server here fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole text message.
    Text,
    /// The server says goodbye.
    Close,
    /// The server asks for a pong.
    Ping,
    /// An answer nobody asked for; allowed.
    Pong,
}

/// One frame at the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it is for.
    pub kind: Kind,
    /// Its payload, unmasked as every server frame is.
    pub payload: &'a [u8],
    /// How many bytes it takes, header included.
    pub length_bytes: usize,
}

/// Returns the frame at the front of `bytes`, or `None` while it is incomplete.
///
/// # Errors
///
/// When the bytes cannot be a frame of a server that does not fragment or mask.
pub fn first(bytes: &[u8]) -> Result<Option<Frame<'_>>> {
    let Some((&[opcode, short], after)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
    let kind = match opcode {
        0x81 => Kind::Text,
        0x88 => Kind::Close,
        0x89 => Kind::Ping,
        0x8a => Kind::Pong,
        other => bail!("frame begins with {other:#04x}, expected a whole unfragmented text or control frame"),
    };
    let (header_bytes, payload_bytes): (usize, usize) = match short {
        0..=125 => (2, usize::from(short)),
        126 => match after.first_chunk::<2>() {
            Some(length) => (4, usize::from(u16::from_be_bytes(*length))),
            None => return Ok(None),
        },
        127 => match after.first_chunk::<8>() {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(*length))?),
            None => return Ok(None),
        },
        _ => bail!("server sent a masked frame"),
    };
    let Some(length_bytes) = header_bytes.checked_add(payload_bytes) else { bail!("frame length overflows") };
    Ok(bytes.get(header_bytes..length_bytes).map(|payload| Frame { kind, payload, length_bytes }))
}

/// Appends one unmasked text frame.
pub fn write_text(payload: &[u8], out: &mut Vec<u8>) {
    out.push(0x81);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => out.push(length),
        (_, Ok(length)) => {
            out.push(126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        (_, Err(_long)) => {
            out.push(127);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Returns a client's pong for `payload`, masked with the key zero: masked in form, cheap in fact.
#[must_use]
pub fn pong(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or(125).min(125);
    let mut out = vec![0x8a, 0x80 | length, 0, 0, 0, 0];
    out.extend_from_slice(&payload[..usize::from(length)]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_at_every_header_size() {
        for size in [0, 1, 125, 126, 65_535, 65_536] {
            let payload = vec![b'x'; size];
            let mut bytes = Vec::new();
            write_text(&payload, &mut bytes);
            for cut in [0, 1, bytes.len() - 1] {
                assert!(first(&bytes[..cut]).unwrap().is_none(), "{size} cut at {cut}");
            }
            let frame = first(&bytes).unwrap().unwrap();
            assert_eq!(
                (frame.kind, frame.payload.len(), frame.length_bytes),
                (Kind::Text, size, bytes.len())
            );
        }
    }

    #[test]
    fn a_fragment_and_a_masked_frame_are_refused() {
        first(&[0x01, 0]).unwrap_err();
        first(&[0x81, 0x80, 0, 0, 0, 0]).unwrap_err();
    }
}
