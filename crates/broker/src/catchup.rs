//! One reader's way from its past to the present of a channel.
//!
//! Nothing is held for the reader meanwhile: it gets nothing of the channel until it has taken all that it missed, and
//! what is published in between is taken from the broker's memory at the end. The last step is one moment: memory is
//! asked for what follows, there is nothing, and the reader stands where memory ends.
//!
//! **Lives here:** when memory is asked, when storage, what the reader is told, when it is up with the channel.
//! **Called by:** `node`'s workers, for every reader that names a place in the past.
//! **Must not know:** clocks, sockets, sessions, which broker it is.

use std::{collections::VecDeque, sync::Arc};

use carillon_model::{Offset, Position, Publication, ReplayLimits, Since, Unrecovered};

use crate::{Attached, Past, RecoverError, Recovery};

/// Times that storage is asked for one reader.
const READS_MAX: u8 = 3;

/// What is to be done next for a reader.
#[derive(Clone, Debug)]
pub enum Step {
    /// Ask [`crate::Broker::attach`] and answer with [`CatchUp::handle_attached`].
    Attach(Since),
    /// Ask [`crate::Broker::recover`] and answer with [`CatchUp::handle_recovered`].
    Recover(Since),
    /// Tell the reader where it stands, and how many messages follow or why none do; then
    /// [`CatchUp::handle_told`].
    Tell {
        /// Before anything that is replayed.
        position: Position,
        /// How many are replayed.
        replayed: Result<u32, Unrecovered>,
    },
    /// Give the reader this publication, and once it has room for it call [`CatchUp::handle_taken`].
    Give(Arc<Publication>),
    /// Tell the reader that the channel lost messages before this position, then [`CatchUp::handle_told`].
    Gap(Position),
    /// The reader is up with the channel: what follows this position is for it. Nothing comes after this.
    Stand(Position),
    /// The reader was too slow, or this node is: what must come next is no longer in memory, or not yet. It has to begin
    /// again, perhaps on another node.
    TooSlow,
}

/// A reader on its way.
#[derive(Debug)]
pub struct CatchUp {
    since: Since,
    limits: ReplayLimits,
    state: State,
    waiting: VecDeque<Arc<Publication>>,
    reads: u8,
}

#[derive(Debug)]
enum State {
    /// Memory is to be asked.
    Ask,
    /// Storage is to be asked.
    Read,
    /// Memory is to be asked for what follows what storage brought.
    AskOn(Recovery),
    /// The reader is to be told.
    Tell {
        position: Position,
        replayed: Result<u32, Unrecovered>,
        reached: Position,
    },
    /// What waits is given, and all up to `reached` is then taken.
    Give {
        reached: Position,
    },
    /// The reader is to be told of a gap.
    Gap(Position),
    Stand(Position),
    TooSlow,
}

impl CatchUp {
    /// Begins the way of a reader that wants what follows `since`.
    #[must_use]
    pub const fn new(since: Since, limits: ReplayLimits) -> Self {
        Self { since, limits, state: State::Ask, waiting: VecDeque::new(), reads: 0 }
    }

    /// Returns what is to be done; the same until it was answered.
    #[must_use]
    pub fn step(&self) -> Step {
        match &self.state {
            State::Ask => Step::Attach(self.since),
            State::Read => Step::Recover(self.since),
            State::AskOn(read) => Step::Attach(Since::After(read.upto)),
            State::Tell { position, replayed, .. } => Step::Tell { position: *position, replayed: *replayed },
            State::Give { reached } => match self.waiting.front() {
                Some(next) => Step::Give(Arc::clone(next)),
                None => Step::Attach(Since::After(*reached)),
            },
            State::Gap(position) => Step::Gap(*position),
            State::Stand(position) => Step::Stand(*position),
            State::TooSlow => Step::TooSlow,
        }
    }

    /// Returns what is to be given, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = &Publication> {
        self.waiting.iter().map(|publication| &**publication)
    }

    /// Takes what memory knows.
    pub fn handle_attached(&mut self, attached: Attached) {
        let Attached { position: head, past } = attached;
        self.state = match (std::mem::replace(&mut self.state, State::Ask), past) {
            (State::Ask, Past::Complete(list)) => self.begin(list, head),
            (State::Ask, Past::Older | Past::Ahead) => State::Read,
            (State::Ask, Past::Gone(reason)) => unrecovered(head, reason),
            (State::AskOn(read), Past::Complete(more)) => {
                let mut list = read.publications;
                list.extend(more);
                self.begin(list, head)
            }
            // Storage vouches for a place that this node's feed has yet to reach.
            (State::AskOn(read), Past::Ahead) => self.begin(read.publications, read.upto),
            (State::AskOn(_), Past::Older) => self.read_again(head),
            (State::AskOn(_), Past::Gone(reason)) => unrecovered(head, reason),
            (State::Give { .. }, Past::Complete(list)) if list.is_empty() => State::Stand(head),
            (State::Give { .. }, Past::Complete(list)) => {
                self.waiting = list.into();
                State::Give { reached: head }
            }
            (State::Give { reached }, Past::Ahead) => State::Stand(reached),
            (State::Give { .. }, Past::Gone(Unrecovered::Epoch)) => State::Gap(head),
            (State::Give { .. }, Past::Older | Past::Gone(_)) => State::TooSlow,
            // Nothing was asked.
            (other, _) => other,
        };
    }

    /// Takes what storage said. `head` is where the channel stands.
    pub fn handle_recovered(&mut self, result: Result<Recovery, RecoverError>, head: Position) {
        if !matches!(self.state, State::Read) {
            return;
        }
        self.state = match result {
            Ok(read) => State::AskOn(read),
            Err(RecoverError::Gone(reason)) => unrecovered(head, reason),
            Err(RecoverError::Unavailable) => self.read_again(head),
        };
    }

    /// Notes that the reader was told what [`Self::step`] said.
    pub fn handle_told(&mut self) {
        match self.state {
            State::Tell { reached, replayed: Ok(_), .. } => self.state = State::Give { reached },
            State::Tell { reached, replayed: Err(_), .. } => self.state = State::Stand(reached),
            State::Gap(position) => self.state = State::Stand(position),
            State::Ask
            | State::Read
            | State::AskOn(_)
            | State::Give { .. }
            | State::Stand(_)
            | State::TooSlow => {}
        }
    }

    /// Notes that the reader has taken what [`Self::step`] gave.
    pub fn handle_taken(&mut self) {
        self.waiting.pop_front();
    }

    /// Notes that nothing has passed the reader by since memory was asked last: whatever was published since is about to
    /// be delivered. Who has taken all then stands where memory ended, without asking again: of a channel that keeps
    /// one message, memory may have lost those in between by then.
    pub fn handle_unbroken(&mut self) {
        if let State::Give { reached } = self.state
            && self.waiting.is_empty()
        {
            self.state = State::Stand(reached);
        }
    }

    /// Says that all of this list, up to `reached`, is what was missed.
    fn begin(&mut self, mut list: Vec<Arc<Publication>>, reached: Position) -> State {
        // What was published after storage was read counts, too.
        let from = match self.since {
            Since::Last(count) => list.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX)),
            Since::Time(time) => list.iter().position(|one| one.message.time >= time).unwrap_or(list.len()),
            Since::Now | Since::After(_) | Since::Oldest => 0,
        };
        list.drain(..from);
        let bytes: usize = list.iter().map(|publication| publication.message.data.len()).sum();
        if list.len() > self.limits.messages || bytes > self.limits.bytes {
            return unrecovered(reached, Unrecovered::Limit);
        }
        let first = list.first().and_then(|publication| publication.position);
        let position = match (self.since, first) {
            (_, None) => reached,
            (Since::After(position), Some(_)) => position,
            (Since::Now | Since::Oldest | Since::Last(_) | Since::Time(_), Some(first)) => {
                Position { offset: Offset::new(first.offset.get().saturating_sub(1)), ..first }
            }
        };
        let replayed = Ok(u32::try_from(list.len()).unwrap_or(u32::MAX));
        self.waiting = list.into();
        State::Tell { position, replayed, reached }
    }

    fn read_again(&mut self, head: Position) -> State {
        self.reads += 1;
        if self.reads < READS_MAX {
            return State::Read;
        }
        match self.since {
            // This node is behind the reader: from `head` on it would be given again what it has. Another node knows more.
            Since::After(place) if place.epoch == head.epoch && place.offset > head.offset => State::TooSlow,
            Since::After(_) | Since::Now | Since::Oldest | Since::Last(_) | Since::Time(_) => {
                unrecovered(head, Unrecovered::Unavailable)
            }
        }
    }
}

const fn unrecovered(head: Position, reason: Unrecovered) -> State {
    State::Tell { position: head, replayed: Err(reason), reached: head }
}

#[cfg(test)]
mod tests;
