//! One session's queue of frames that wait for its socket.
//!
//! **Lives here:** the bound, and what is left of a frame that was sent in part.
//! **Called by:** workers offer frames in a turn and take slices when they flush.
//! **Must not know:** what a frame says, any socket.

use std::{collections::VecDeque, io::IoSlice};

use bytes::{Buf as _, Bytes};

/// A queue that is bounded in bytes. Frames are shared, not copied.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// The first frame was sent in part: it must go out whole, or the stream of frames is broken.
    torn: bool,
}

/// What became of a frame that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// It is queued.
    Queued,
    /// It would pass the bound; it was not queued, and the channel's overflow rule decides.
    Full,
}

/// Queues of more frames than this are given back when they run empty.
const KEPT_CAPACITY: usize = 8;

impl Outbox {
    /// Queues a frame, unless the queue would then hold more than `limit_bytes`.
    ///
    /// A frame is always taken by an empty queue, so that a limit below a frame's size stalls nobody.
    pub fn offer(&mut self, frame: Bytes, limit_bytes: usize) -> Offered {
        if !self.has_room(frame.len(), limit_bytes) {
            return Offered::Full;
        }
        self.bytes = self.bytes.saturating_add(frame.len());
        self.frames.push_back(frame);
        Offered::Queued
    }

    /// Says whether [`Self::offer`] would queue a frame of so many bytes.
    #[must_use]
    pub fn has_room(&self, frame_bytes: usize, limit_bytes: usize) -> bool {
        self.frames.is_empty() || self.bytes.saturating_add(frame_bytes) <= limit_bytes
    }

    /// Says whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Returns how many frames wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Returns how many bytes wait.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the only frame, where there is exactly one.
    #[must_use]
    pub fn single(&self) -> Option<&Bytes> {
        if self.frames.len() == 1 { self.frames.front() } else { None }
    }

    /// Fills `slices` with what is to be written next and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(frame);
            filled += 1;
        }
        filled
    }

    /// Forgets the first `written` bytes: the socket has them.
    pub fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(first) = self.frames.front_mut() {
            if written < first.len() {
                if written > 0 {
                    first.advance(written);
                    self.torn = true;
                }
                return;
            }
            written -= first.len();
            self.torn = false;
            self.frames.pop_front();
        }
        if self.frames.capacity() > KEPT_CAPACITY {
            self.frames = VecDeque::new();
        }
    }

    /// Drops every frame that was not begun and returns how many: the session ends, and its goodbye is next.
    pub fn drop_unsent(&mut self) -> usize {
        let before = self.frames.len();
        self.frames.truncate(usize::from(self.torn));
        self.bytes = self.frames.iter().map(Bytes::len).sum();
        before - self.frames.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let filled = outbox.slices(&mut slices);
        slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn frames_leave_in_order_whatever_the_socket_takes() {
        let mut outbox = Outbox::default();
        for frame in ["one", "two", "three"] {
            assert_eq!(outbox.offer(Bytes::from_static(frame.as_bytes()), 100), Offered::Queued);
        }
        for (taken, rest) in [(0, "onetwothree"), (2, "etwothree"), (1, "twothree"), (5, "ree"), (3, "")] {
            outbox.advance(taken);
            assert_eq!((written(&outbox), outbox.bytes()), (rest.as_bytes().to_vec(), rest.len()));
        }
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_full_queue_refuses_and_an_empty_one_never_does() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.offer(Bytes::from_static(b"larger than the limit"), 4), Offered::Queued);
        assert_eq!(outbox.offer(Bytes::from_static(b"x"), 4), Offered::Full);
        outbox.advance(21);
        assert_eq!(outbox.offer(Bytes::from_static(b"abcd"), 4), Offered::Queued);
        assert_eq!(outbox.offer(Bytes::new(), 4), Offered::Queued);
        assert_eq!(outbox.offer(Bytes::from_static(b"e"), 4), Offered::Full);
    }

    #[test]
    fn what_was_begun_is_never_dropped() {
        let mut outbox = Outbox::default();
        for _ in 0..3 {
            outbox.offer(Bytes::from_static(b"frame"), 100);
        }
        assert_eq!(outbox.drop_unsent(), 3);
        for _ in 0..3 {
            outbox.offer(Bytes::from_static(b"frame"), 100);
        }
        outbox.advance(7);
        assert_eq!((outbox.drop_unsent(), written(&outbox)), (1, b"ame".to_vec()));
    }
}
