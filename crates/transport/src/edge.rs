//! Where frames begin and end in what a client sends.
//!
//! **Lives here:** counting bytes across frames (RFC 6455 §5.2), nothing else: reading and validating is the WebSocket
//! library's part.
//! **Called by:** `websocket`, to know when nothing of a message is buffered, so that an idle connection keeps no
//! read buffer of 4 KiB and no codec, only these 24 bytes.
//! **Must not know:** payloads.

/// A place in a stream of frames.
#[derive(Debug)]
pub(crate) struct Edge {
    /// The header's bytes so far; zero length between two headers.
    header: [u8; 2],
    have: u8,
    /// What the extended length says so far.
    length: u64,
    payload_left: u64,
    /// A fragmented message waits for its last frame.
    in_message: bool,
}

impl Edge {
    /// Begins at the start of a stream.
    pub(crate) const fn new() -> Self {
        Self { header: [0; 2], have: 0, length: 0, payload_left: 0, in_message: false }
    }

    /// Moves past `bytes`.
    pub(crate) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let skip = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = bytes.get(skip..).unwrap_or_default();
                self.payload_left -= skip as u64;
                continue;
            }
            let Some((byte, rest)) = bytes.split_first() else { return };
            self.header_byte(*byte);
            bytes = rest;
        }
    }

    /// Says whether the last byte ended a message, so that whoever reads from here on needs no memory of before.
    pub(crate) const fn is_clean(&self) -> bool {
        self.have == 0 && self.payload_left == 0 && !self.in_message
    }

    fn header_byte(&mut self, byte: u8) {
        let [first, second] = &mut self.header;
        match self.have {
            0 => *first = byte,
            1 => *second = byte,
            _ => {}
        }
        let [first, second] = self.header;
        let extended = match second & 0x7f {
            _ if self.have == 0 => return self.have = 1,
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if self.have >= 2 && self.have < 2 + extended {
            self.length = self.length << 8 | u64::from(byte);
        }
        self.have += 1;
        if self.have < 2 + extended + mask {
            return;
        }
        self.payload_left = if extended == 0 { u64::from(second & 0x7f) } else { self.length };
        let is_control = first & 0x08 != 0;
        if !is_control {
            self.in_message = first & 0x80 == 0;
        }
        self.have = 0;
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame of `length` bytes.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend([1, 2, 3, 4]);
        bytes.resize(bytes.len() + length, 7);
        bytes
    }

    #[test]
    fn it_is_clean_exactly_at_the_end_of_messages() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
            let bytes = frame(0x81, length);
            for cut in [1, 2, 3, 5, 7, 4096, bytes.len()] {
                let mut edge = Edge::new();
                let mut passed = 0;
                for part in bytes.chunks(cut) {
                    edge.pass(part);
                    passed += part.len();
                    assert_eq!(edge.is_clean(), passed == bytes.len(), "{length} bytes in parts of {cut}");
                }
            }
        }
    }

    #[test]
    fn a_fragmented_message_ends_with_its_last_frame_whatever_comes_between() {
        let mut edge = Edge::new();
        for (first, clean) in [(0x01, false), (0x89, false), (0x00, false), (0x80, true), (0x8a, true)] {
            edge.pass(&frame(first, 3));
            assert_eq!(edge.is_clean(), clean, "after {first:#x}");
        }
    }
}
