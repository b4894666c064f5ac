//! The way between nodes: words of one node to one audience stay in order, each arrives or is lost.

use std::collections::BTreeMap;

use carillon_model::NodeId;
use carillon_presence::{Audience, Standing, Word};

use super::{dice::Dice, plan::Bug};

/// A word on its way.
#[derive(Debug)]
pub(crate) struct Letter {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) bytes: bytes::Bytes,
}

#[derive(Debug)]
pub(crate) struct Net {
    /// When the last word of each way arrives: from, to, whether it was to all.
    last: BTreeMap<(NodeId, NodeId, bool), u64>,
    /// How many words in a thousand are lost.
    pub(crate) losses: u64,
    /// How many milliseconds a word takes, less than.
    slowest: u64,
}

impl Net {
    pub(crate) fn new(losses: u64, slowest: u64) -> Self {
        Self { last: BTreeMap::new(), losses, slowest }
    }

    /// Sends a word to one node, and returns when it arrives, if it does.
    pub(crate) fn send(
        &mut self,
        (from, to): (NodeId, NodeId),
        audience: Audience,
        now: u64,
        dice: &mut Dice,
    ) -> Option<u64> {
        if dice.permille(self.losses) {
            return None;
        }
        let to_all = audience == Audience::All;
        let last = self.last.entry((from, to, to_all)).or_default();
        let at = now + dice.within(1, self.slowest);
        *last = at.max(*last);
        Some(*last)
    }
}

/// What a bug makes of a word.
pub(crate) fn spoil(word: Word, bug: Bug, dice: &mut Dice) -> Option<Word> {
    Some(match (word, bug) {
        (Word::Ask { .. }, Bug::NoAnswers) => return None,
        (Word::State { ask, shard, after, as_of, entries, next }, Bug::AnswersFromTheFuture) => {
            Word::State { ask, shard, after, as_of: as_of + 20, entries, next }
        }
        (Word::Heartbeat { sequence, standing, life, .. }, Bug::DigestOfNothing) => {
            Word::Heartbeat { sequence, digests: Box::default(), standing, life }
        }
        (Word::Heartbeat { sequence, digests, life, .. }, Bug::AllTell) => {
            Word::Heartbeat { sequence, digests, standing: Standing::New, life }
        }
        (Word::Heartbeat { sequence, digests, life, .. }, Bug::NobodyTells) => {
            Word::Heartbeat { sequence, digests, standing: Standing::Ready, life }
        }
        (Word::Heartbeat { sequence, digests, standing, .. }, Bug::OneLife) => {
            Word::Heartbeat { sequence, digests, standing, life: 1 }
        }
        (Word::Doubt { .. }, Bug::NoDoubt) => return None,
        (Word::Delta { first, mut changes }, Bug::HalfWords) => {
            if dice.permille(500) {
                changes.truncate(changes.len() / 2);
            }
            Word::Delta { first, changes }
        }
        (word, _) => word,
    })
}
