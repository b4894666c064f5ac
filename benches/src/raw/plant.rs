//! Faults planted on purpose, so that the checker itself can be checked.
//!
//! **Lives here:** what one subscriber gets instead of what all get.
//! **Called by:** `raw`.
//! **Must not know:** sockets.

use std::mem;

/// Which message of the run is spoiled, counted from 1: past the warm-up of single messages.
const SPOILED: u64 = 5;

/// A fault that one subscriber suffers once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// A message is not sent.
    Lose,
    /// A message is sent twice.
    Duplicate,
    /// A message is sent after the next one.
    Reorder,
}

/// Spoils one message of the victim.
#[derive(Debug)]
pub(super) struct Planter {
    plant: Plant,
    seen: u64,
    held: Vec<u8>,
}

impl Planter {
    pub(super) fn new(plant: Plant) -> Self {
        Self { plant, seen: 0, held: Vec::new() }
    }

    /// Returns what the victim gets in place of these frames.
    pub(super) fn spoil(&mut self, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for frame in frames {
            self.seen += 1;
            match (self.plant, self.seen == SPOILED) {
                (Plant::Lose, true) => {}
                (Plant::Duplicate, true) => out.extend_from_slice(&frame.repeat(2)),
                (Plant::Reorder, true) => self.held.clone_from(frame),
                (Plant::Lose | Plant::Duplicate | Plant::Reorder, false) => {
                    out.extend_from_slice(frame);
                    out.append(&mut mem::take(&mut self.held));
                }
            }
        }
        out
    }
}
