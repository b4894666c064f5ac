//! Virtual time: what happens next.
//!
//! **Lives here:** the clock of a schedule, its events in their order, the dice, what was found wrong.
//! **Called by:** every part of the simulation.
//! **Must not know:** what an event does.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    time::{Duration, Instant},
};

use carillon_broker::{RecoverError, Recovery, Stored, Tail};
use carillon_model::{Epoch, Offset, Position, Since};
use carillon_session::{Command, Recovered};
use carillon_tasks::clock;

use super::{Bug, Tally, plan::Plan};
use crate::faults::dice::Dice;

/// Virtual time is counted in microseconds.
pub(super) const MS: u64 = 1000;
pub(super) const SECOND: u64 = 1000 * MS;

/// The last events that a violation is shown with.
const TRACE: usize = 2000;

/// A node in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Here {
    pub(super) node: usize,
    pub(super) life: u32,
}

/// What happens at a moment.
#[derive(Debug)]
pub(super) enum Event {
    Publish,
    Nemesis,
    Start(usize),
    Client(usize, ClientEvent),
    Node(Here, NodeEvent),
    /// A question arrives where streams are kept.
    Server(Here, ServerEvent),
}

#[derive(Debug)]
pub(super) enum ClientEvent {
    Connect,
    Read,
    Act,
}

#[derive(Debug)]
pub(super) enum NodeEvent {
    Feed {
        stream: usize,
        feed: u64,
        link: u32,
        stored: Box<Stored>,
    },
    Tail {
        stream: usize,
        ask: u64,
        answer: Option<TailAnswer>,
    },
    Fetched {
        stream: usize,
        ask: u64,
        answer: Option<(Offset, Vec<Stored>)>,
    },
    /// A shard's own time, or a step that it has yet to do.
    Wake {
        stream: usize,
    },
    Turn,
    Tick,
    LinkUp,
    Command {
        socket: u64,
        command: Command,
    },
    Open {
        client: usize,
        socket: u64,
    },
    /// The socket has room, or is gone.
    Writable {
        socket: u64,
    },
    Gone {
        socket: u64,
    },
    Read {
        key: usize,
        number: u64,
        answer: Box<Result<Recovery, RecoverError>>,
    },
}

#[derive(Debug)]
pub(super) enum ServerEvent {
    Tail {
        stream: usize,
        ask: u64,
        hear: Option<u64>,
        renew: Option<Epoch>,
        proven: Option<u32>,
        witnesses: Vec<Offset>,
    },
    Fetch {
        stream: usize,
        ask: u64,
        from: Offset,
        to: Offset,
    },
    Read {
        key: usize,
        number: u64,
        channel: usize,
        since: Since,
        head: Position,
    },
}

/// What a node is told of a stream's tail.
#[derive(Debug)]
pub(super) struct TailAnswer {
    pub(super) tail: Tail,
    pub(super) leader: u32,
    /// The feed that was begun before.
    pub(super) feed: Option<u64>,
}

/// What a client is about to be told of a channel's past: to be compared with what is true.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) channel: usize,
    pub(super) since: Since,
    pub(super) position: Position,
    pub(super) recovered: Recovered,
}

/// What all parts of a schedule share.
pub(super) struct Agenda {
    pub(super) dice: Dice,
    pub(super) plan: Plan,
    pub(super) bug: Bug,
    pub(super) now: u64,
    base: Instant,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next: u64,
    numbers: u64,
    pub(super) claims: Vec<Claim>,
    pub(super) largest_frame: usize,
    /// The first thing that was found wrong.
    pub(super) wrong: Option<String>,
    pub(super) tally: Tally,
    trace: Option<VecDeque<String>>,
    /// Faults have ended.
    pub(super) calm: bool,
}

impl Agenda {
    pub(super) fn new(seed: u64, bug: Bug, traced: bool) -> Self {
        let plan = Plan::draw(&mut Dice::of(seed, 1));
        Self {
            dice: Dice::of(seed, 2),
            plan,
            bug,
            now: 0,
            base: clock::now(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next: 0,
            numbers: 0,
            claims: Vec::new(),
            largest_frame: 0,
            wrong: None,
            tally: Tally::default(),
            trace: traced.then(VecDeque::new),
            calm: false,
        }
    }

    /// Returns the present as the rules want it.
    pub(super) fn instant(&self) -> Instant {
        self.at(self.now)
    }

    pub(super) fn at(&self, micros: u64) -> Instant {
        self.base + Duration::from_micros(micros)
    }

    /// Returns a moment of the rules as virtual time, not before the present.
    pub(super) fn micros(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.base).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX).max(self.now)
    }

    pub(super) fn later(&mut self, delay: u64, event: Event) {
        self.on(self.now + delay, event);
    }

    /// Has an event happen at a time; those of one time in the order in which they were told.
    pub(super) fn on(&mut self, at: u64, event: Event) {
        self.queue.push(Reverse((at.max(self.now), self.next)));
        self.events.insert(self.next, event);
        self.next += 1;
    }

    /// Moves on to the next event before `until`.
    pub(super) fn next(&mut self, until: u64) -> Option<Event> {
        let Reverse((at, number)) = *self.queue.peek()?;
        if at > until {
            return None;
        }
        self.queue.pop();
        self.now = at;
        self.tally.events += 1;
        self.events.remove(&number)
    }

    /// Returns a number that was not given before.
    pub(super) const fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.dice.below(1000) < per_mille
    }

    /// Says whether a planted bug shows just now.
    pub(super) fn has(&mut self, bug: Bug, once_in: u64) -> bool {
        self.bug == bug && self.dice.once_in(once_in)
    }

    /// Draws how long something takes, `most` microseconds at most.
    pub(super) fn draw(&mut self, most: u64) -> u64 {
        self.dice.below(most + 1)
    }

    pub(super) fn wrong(&mut self, what: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            let what = what();
            self.note(|| format!("WRONG: {what}"));
            self.wrong = Some(what);
        }
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE {
                trace.pop_front();
            }
            trace.push_back(format!("{:>12.3} ms  {}", self.now as f64 / 1000.0, what()));
        }
    }

    pub(super) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().into_iter().flatten().collect()
    }
}
