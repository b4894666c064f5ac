//! The simulation: many nodes, a lossy broker and dying clients in virtual time, by a seed.
//!
//! The rules are the real ones: shard tracker, ring, catch-up, channels, outbox and session. What surrounds them in a
//! process (tasks, sockets, NATS) is played here, in the same order of calls, so that ten thousand bad days fit into
//! a minute. A schedule that fails fails again.
//!
//! **Lives here:** a schedule's run and its outcome.
//! **Called by:** `tests/simulation.rs`, and `make sim` for as many seeds as one likes.
//! **Must not know:** real time, real sockets.

mod agenda;
mod bug;
mod client;
mod connection;
mod frame;
mod joining;
mod mailbox;
mod nemesis;
mod node;
mod plan;
mod serving;
mod shard;
mod stream;
mod truth;
mod turn;
mod world;

use std::fmt;

pub use bug::Bug;
use world::World;

/// What happened in schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events of any kind.
    pub events: u64,
    /// Messages that were stored.
    pub published: u64,
    /// Messages that clients were sent, replays among them.
    pub delivered: u64,
    /// Messages that were replayed.
    pub replayed: u64,
    /// Clients that were brought all they had missed.
    pub recovered: u64,
    /// Clients that were told that it cannot be had.
    pub unrecovered: u64,
    /// Gaps that clients were told of.
    pub gaps: u64,
    /// Messages that overflow rules dropped.
    pub dropped: u64,
    /// Messages that found no room in a mailbox and were brought from memory.
    pub made_up: u64,
    /// Sessions that were closed because their outbox was full.
    pub slow: u64,
    /// Sessions that were closed because memory no longer had what came next in their past.
    pub too_slow: u64,
    /// Losses that trackers found and could not repair.
    pub lost: u64,
    /// Streams that were rolled back.
    pub rolled_back: u64,
    /// Times that a tracker said that a stream went back.
    pub went_back: u64,
    /// Larger faults.
    pub faults: u64,
}

impl Tally {
    /// Adds another schedule's.
    pub const fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.published += other.published;
        self.delivered += other.delivered;
        self.replayed += other.replayed;
        self.recovered += other.recovered;
        self.unrecovered += other.unrecovered;
        self.gaps += other.gaps;
        self.dropped += other.dropped;
        self.made_up += other.made_up;
        self.slow += other.slow;
        self.too_slow += other.too_slow;
        self.lost += other.lost;
        self.rolled_back += other.rolled_back;
        self.went_back += other.went_back;
        self.faults += other.faults;
    }
}

/// A schedule in which something was wrong.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The schedule.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
    /// What led to it, where that was asked for.
    pub trace: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        write!(f, "seed {}: {}", self.seed, self.what)
    }
}

/// Runs the schedule of a seed.
///
/// # Errors
/// [`Violation`], without a trace.
pub fn run(seed: u64, bug: Bug) -> Result<Tally, Violation> {
    finish(seed, World::new(seed, bug, false))
}

/// Runs the schedule of a seed and keeps what happens last.
///
/// # Errors
/// [`Violation`], with a trace.
pub fn trace(seed: u64, bug: Bug) -> Result<Tally, Violation> {
    finish(seed, World::new(seed, bug, true))
}

fn finish(seed: u64, mut world: World) -> Result<Tally, Violation> {
    world.run();
    match world.agenda.wrong.take() {
        None => Ok(world.agenda.tally),
        Some(what) => Err(Violation { seed, what, trace: world.agenda.take_trace() }),
    }
}
