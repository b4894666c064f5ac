//! One session's queue of frames that wait for its socket.
//!
//! **Lives here:** the bound, the overflow rules, and what is left of a frame that was sent in part.
//! **Called by:** workers offer frames in a turn and take slices when they flush.
//! **Must not know:** what a frame says, any socket.

use std::{
    collections::{BTreeMap, VecDeque},
    io::IoSlice,
};

use bytes::{Buf as _, Bytes};
use carillon_model::Position;

use crate::Line;

/// A queue that is bounded in bytes. Frames are shared, not copied.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Waiting>,
    bytes: usize,
    /// How many of the frames may be dropped.
    droppable: usize,
    /// The first frame was sent in part: it must go out whole, or the stream of frames is broken.
    torn: bool,
}

#[derive(Debug)]
struct Waiting {
    frame: Bytes,
    /// `None` is [`Origin::Kept`]: most are, and every connection keeps room for a few frames.
    origin: Option<Box<Origin>>,
}

impl Waiting {
    fn new(frame: Bytes, origin: Origin) -> Self {
        let origin = (origin != Origin::Kept).then(|| Box::new(origin));
        Self { frame, origin }
    }

    fn origin(&self) -> Origin {
        self.origin.as_deref().copied().unwrap_or(Origin::Kept)
    }
}

/// What a frame is to the overflow rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is never dropped: said to this client alone, or of a channel whose rule is to close.
    Kept,
    /// Of a channel whose rule is `drop_oldest`.
    Oldest(Line, Option<Position>),
    /// Of a channel whose rule is `latest`.
    Latest(Line, Option<Position>),
    /// Word of what was dropped of a channel, up to the position.
    Gap(Line, Option<Position>),
}

impl Origin {
    const fn line(self) -> Option<Line> {
        match self {
            Self::Kept => None,
            Self::Oldest(line, _) | Self::Latest(line, _) | Self::Gap(line, _) => Some(line),
        }
    }

    const fn is_droppable(self) -> bool {
        matches!(self, Self::Oldest(..) | Self::Latest(..))
    }
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
    pub fn offer(&mut self, frame: Bytes, origin: Origin, limit_bytes: usize) -> Offered {
        if !self.has_room(frame.len(), limit_bytes) {
            return Offered::Full;
        }
        self.push(frame, origin);
        Offered::Queued
    }

    /// Says whether [`Self::offer`] would queue a frame of so many bytes.
    #[must_use]
    pub fn has_room(&self, frame_bytes: usize, limit_bytes: usize) -> bool {
        self.frames.is_empty() || self.bytes.saturating_add(frame_bytes) <= limit_bytes
    }

    /// Drops what the rules of channels allow to drop, so that a frame of `frame_bytes` has room, and a quarter of the
    /// queue with it: looking through the queue then costs each frame a constant. In the place of what was dropped
    /// stands one frame for each channel, made by `gap`. Returns how many were dropped.
    ///
    /// `latest` is a channel of which a newer frame is about to come: none of what waits is its latest.
    pub fn make_room(
        &mut self,
        frame_bytes: usize,
        limit_bytes: usize,
        latest: Option<Line>,
        mut gap: impl FnMut(Line, Option<Position>) -> Bytes,
    ) -> usize {
        if self.droppable == 0 {
            return 0;
        }
        let goal = (limit_bytes / 4 * 3).min(limit_bytes.saturating_sub(frame_bytes));
        let mut last: BTreeMap<Line, usize> = BTreeMap::new();
        for (place, waiting) in self.frames.iter().enumerate() {
            if let Origin::Latest(line, _) = waiting.origin()
                && latest != Some(line)
            {
                last.insert(line, place);
            }
        }
        let mut kept: VecDeque<Waiting> = VecDeque::with_capacity(self.frames.len());
        // Where the word of each channel's gap stands, and how far the gap reaches.
        let mut gaps: BTreeMap<Line, usize> = BTreeMap::new();
        let mut dropped = 0;
        for (place, waiting) in std::mem::take(&mut self.frames).into_iter().enumerate() {
            let drops = match waiting.origin() {
                _ if place == 0 && self.torn => None,
                Origin::Oldest(line, position) if self.bytes > goal => Some((line, position)),
                Origin::Latest(line, position) if last.get(&line) != Some(&place) => Some((line, position)),
                // Word of an earlier gap goes into that of the present one.
                Origin::Gap(line, position) => Some((line, position)),
                Origin::Oldest(line, _) | Origin::Latest(line, _) => {
                    gaps.remove(&line);
                    None
                }
                Origin::Kept => None,
            };
            let Some((line, position)) = drops else {
                kept.push_back(waiting);
                continue;
            };
            if waiting.origin().is_droppable() {
                dropped += 1;
                self.bytes = self.bytes.saturating_sub(waiting.frame.len());
            }
            let origin = Origin::Gap(line, position);
            match gaps.get(&line).and_then(|place| kept.get_mut(*place)) {
                Some(told) => told.origin = Some(Box::new(origin)),
                None => {
                    gaps.insert(line, kept.len());
                    kept.push_back(Waiting::new(Bytes::new(), origin));
                }
            }
        }
        for waiting in kept.iter_mut().skip(usize::from(self.torn)) {
            if let Origin::Gap(line, position) = waiting.origin() {
                waiting.frame = gap(line, position);
            }
        }
        // There is nothing to say of a channel that the client has left.
        kept.retain(|waiting| !waiting.frame.is_empty());
        self.frames = kept;
        self.count();
        dropped
    }

    /// Queues word of a frame that was dropped before it was queued, unless word of the channel's gap is the last of it.
    pub fn note_dropped(&mut self, line: Line, position: Option<Position>, frame: Bytes) {
        if frame.is_empty() {
            return;
        }
        let of_line = |waiting: &&mut Waiting| waiting.origin().line() == Some(line);
        let torn = usize::from(self.torn);
        match self.frames.iter_mut().skip(torn).rev().find(of_line) {
            Some(told) if matches!(told.origin(), Origin::Gap(..)) => {
                told.origin = Some(Box::new(Origin::Gap(line, position)));
                told.frame = frame;
                self.count();
            }
            Some(_) | None => self.push(frame, Origin::Gap(line, position)),
        }
    }

    /// Drops what waits of a channel that the client has left: whatever comes of it later is of another subscription.
    pub fn forget(&mut self, line: Line) {
        let begun = usize::from(self.torn);
        let mut place = 0;
        self.frames.retain(|waiting| {
            place += 1;
            place <= begun || waiting.origin().line() != Some(line)
        });
        self.count();
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
        if self.frames.len() == 1 { self.frames.front().map(|waiting| &waiting.frame) } else { None }
    }

    /// Fills `slices` with what is to be written next and returns how many were filled.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, waiting) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(&waiting.frame);
            filled += 1;
        }
        filled
    }

    /// Forgets the first `written` bytes: the socket has them.
    pub fn advance(&mut self, mut written: usize) {
        if written == self.bytes {
            self.drop_all();
            return;
        }
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(first) = self.frames.front_mut() {
            if written < first.frame.len() {
                if written > 0 {
                    first.frame.advance(written);
                    self.torn = true;
                }
                return;
            }
            written -= first.frame.len();
            self.droppable -= usize::from(first.origin().is_droppable());
            self.torn = false;
            self.frames.pop_front();
        }
    }

    /// Empties the queue.
    fn drop_all(&mut self) {
        if self.frames.capacity() > KEPT_CAPACITY {
            self.frames = VecDeque::new();
        } else {
            self.frames.clear();
        }
        (self.bytes, self.droppable, self.torn) = (0, 0, false);
    }

    /// Drops every frame that was not begun and returns how many: the session ends, and its goodbye is next.
    pub fn drop_unsent(&mut self) -> usize {
        let before = self.frames.len();
        self.frames.truncate(usize::from(self.torn));
        self.count();
        before - self.frames.len()
    }

    fn push(&mut self, frame: Bytes, origin: Origin) {
        self.bytes = self.bytes.saturating_add(frame.len());
        self.droppable += usize::from(origin.is_droppable());
        self.frames.push_back(Waiting::new(frame, origin));
    }

    /// Counts anew what waits.
    fn count(&mut self) {
        self.bytes = self.frames.iter().map(|waiting| waiting.frame.len()).sum();
        self.droppable = self.frames.iter().filter(|waiting| waiting.origin().is_droppable()).count();
    }
}

#[cfg(test)]
mod tests;
