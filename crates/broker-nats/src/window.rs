//! A part of a channel's history, as it was read once for all who ask.
//!
//! **Lives here:** whom it answers, and with what.
//! **Called by:** `past`, which reads windows and keeps them for a while.
//! **Must not know:** how it was read.

use std::sync::Arc;

use carillon_broker::{RecoverError, Recovery};
use carillon_model::{Epoch, Offset, Position, Publication, ReplayLimits, Since, UnixMillis, Unrecovered};

/// What a read brought.
#[derive(Debug)]
pub(crate) struct Window {
    /// The life of the stream that was read.
    pub(crate) epoch: Epoch,
    /// From where it was read: who wants older messages needs another read.
    pub(crate) from: Offset,
    /// Everything of the channel after this is in the list, up to `upto`.
    pub(crate) floor: Offset,
    /// Why what is before the floor cannot be had.
    pub(crate) beneath: Unrecovered,
    /// Everything that was accepted at or after this time is in the list; `None` when that is not known.
    pub(crate) since: Option<UnixMillis>,
    /// Oldest first.
    pub(crate) list: Vec<Arc<Publication>>,
    pub(crate) upto: Offset,
    /// Where the stream ended when it was read, by the leader: nobody had got further.
    pub(crate) last: Offset,
}

impl Window {
    /// Says whether it answers somebody who wants what follows `since`, be it with a refusal.
    pub(crate) fn answers(&self, since: Since) -> bool {
        self.from <= start(since)
    }

    /// Returns where it ends.
    pub(crate) const fn end(&self) -> Position {
        Position { epoch: self.epoch, offset: self.upto }
    }

    /// Answers somebody that it [`Self::answers`].
    pub(crate) fn answer(&self, since: Since, limits: ReplayLimits) -> Result<Recovery, RecoverError> {
        let from = match since {
            Since::Now => self.list.len(),
            Since::After(after) if after.epoch != self.epoch || after.offset > self.last.max(self.upto) => {
                return Err(RecoverError::Gone(Unrecovered::Epoch));
            }
            // Another node has brought it further, and what follows is brought by this one.
            Since::After(after) if after.offset > self.upto => {
                return Ok(Recovery { publications: Vec::new(), upto: after });
            }
            Since::After(after) if after.offset < self.floor => {
                return Err(RecoverError::Gone(self.beneath));
            }
            Since::After(after) => {
                self.list.partition_point(|kept| kept.position.is_some_and(|at| at.offset <= after.offset))
            }
            // What is no longer kept is not asked for, but all that is.
            Since::Oldest if self.beneath == Unrecovered::Limit => {
                return Err(RecoverError::Gone(Unrecovered::Limit));
            }
            Since::Oldest => 0,
            Since::Last(count) => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                if count > self.list.len() && self.beneath == Unrecovered::Limit {
                    return Err(RecoverError::Gone(Unrecovered::Limit));
                }
                self.list.len().saturating_sub(count)
            }
            Since::Time(time) if self.since.is_none_or(|since| time < since) => {
                return Err(RecoverError::Gone(self.beneath));
            }
            // Times need not rise as offsets do.
            Since::Time(time) => {
                self.list.iter().position(|kept| kept.message.time >= time).unwrap_or(self.list.len())
            }
        };
        let publications = self.list.get(from..).unwrap_or_default();
        let bytes: usize = publications.iter().map(|publication| publication.message.data.len()).sum();
        if publications.len() > limits.messages || bytes > limits.bytes {
            return Err(RecoverError::Gone(Unrecovered::Limit));
        }
        Ok(Recovery { publications: publications.to_vec(), upto: self.end() })
    }

    /// Returns what it costs to keep.
    pub(crate) fn bytes(&self) -> usize {
        let cost = |publication: &Arc<Publication>| PUBLICATION_BYTES + 2 * publication.message.data.len();
        WINDOW_BYTES + self.list.iter().map(cost).sum::<usize>()
    }
}

/// What an empty window costs: it is kept with its channel's name, and found in more than one table.
const WINDOW_BYTES: usize = 4096;

/// What a publication costs besides its data and the frames made of it.
const PUBLICATION_BYTES: usize = 640;

/// Returns from where a read must begin to answer `since`.
pub(crate) const fn start(since: Since) -> Offset {
    match since {
        Since::After(after) => after.offset,
        Since::Now | Since::Oldest | Since::Last(_) | Since::Time(_) => Offset::ZERO,
    }
}
