//! What one schedule is made of, drawn from its seed.
//!
//! **Lives here:** sizes, limits and how often what goes wrong. Each kind of fault is absent from many schedules, so that
//! some have much of a few kinds.
//! **Called by:** the world, which is built by it.
//! **Must not know:** what follows from it.

use carillon_broker::HeldLimits;
use carillon_model::{Overflow, ReplayLimits};

use super::agenda::{MS, SECOND};
use crate::faults::dice::Dice;

/// A channel of a schedule.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelPlan {
    /// The stream that keeps it.
    pub(super) stream: usize,
    pub(super) overflow: Overflow,
}

/// One schedule.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    pub(super) streams: usize,
    pub(super) channels: Vec<ChannelPlan>,
    pub(super) clients: usize,
    /// Until then messages are published and things go wrong.
    pub(super) horizon: u64,
    /// Longest time between two messages.
    pub(super) publish_every: u64,
    pub(super) data_max: u64,
    /// Most messages that are kept of a channel, and for how long.
    pub(super) keep_messages: usize,
    pub(super) keep_for: u64,
    pub(super) held: HeldLimits,
    pub(super) ring_bytes: usize,
    pub(super) replay: ReplayLimits,
    pub(super) mailbox: usize,
    /// Deliveries that a worker takes at once, subscribers that it serves at once.
    pub(super) mail_at_once: usize,
    pub(super) subscribers_at_once: usize,
    pub(super) burst_bytes: usize,
    pub(super) outbox_bytes: usize,
    pub(super) socket_bytes: usize,
    pub(super) faults: Faults,
}

/// How often things go wrong, in a thousand times each.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// A message that the feed loses, brings twice, brings late.
    pub(super) lose: u64,
    pub(super) double: u64,
    pub(super) late: u64,
    /// Longest time that the feed takes.
    pub(super) feed_delay: u64,
    /// A question that is not answered, or answered late.
    pub(super) silence: u64,
    /// A fetch that a replica answers which lags, or a tail that an unready leader tells.
    pub(super) lag: u64,
    /// A shard or a worker that has to wait between two steps.
    pub(super) pause: u64,
    pub(super) pause_max: u64,
    /// Longest time between two of the larger faults, and which of them there are.
    pub(super) nemesis_every: u64,
    pub(super) nemeses: Vec<Nemesis>,
}

/// A larger fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nemesis {
    CutLink,
    StallFeed,
    StallWorker,
    KillNode,
    DrainNode,
    KillClient,
    MuteClient,
    Recreate,
    RollBack,
    Purge,
    NewLeader,
    Burst,
}

const NEMESES: [Nemesis; 12] = [
    Nemesis::CutLink,
    Nemesis::StallFeed,
    Nemesis::StallWorker,
    Nemesis::KillNode,
    Nemesis::DrainNode,
    Nemesis::KillClient,
    Nemesis::MuteClient,
    Nemesis::Recreate,
    Nemesis::RollBack,
    Nemesis::Purge,
    Nemesis::NewLeader,
    Nemesis::Burst,
];

impl Plan {
    /// Draws a schedule.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let streams = 1 + dice.place(2) * dice.place(2);
        let channel = |place: usize, dice: &mut Dice| ChannelPlan {
            stream: place % streams,
            overflow: match dice.below(4) {
                0 => Overflow::DropOldest,
                1 => Overflow::Latest,
                _ => Overflow::Close,
            },
        };
        let tight = dice.once_in(3);
        Self {
            nodes: 1 + dice.place(3),
            streams,
            channels: (0..streams + dice.place(4)).map(|place| channel(place, dice)).collect(),
            clients: 2 + dice.place(5),
            horizon: (5 + dice.below(12)) * SECOND,
            publish_every: [20, 100, 400, 1500].map(|ms| ms * MS)[dice.place(4)],
            data_max: [20, 60, 300][dice.place(3)],
            keep_messages: [3, 8, 1000][dice.place(3)],
            keep_for: [3, 10, 1000].map(|seconds| seconds * SECOND)[dice.place(3)],
            held: if dice.once_in(3) {
                HeldLimits { messages: 3, bytes: 2000 }
            } else {
                HeldLimits::default()
            },
            ring_bytes: if tight { 3000 + dice.place(9000) } else { 1 << 20 },
            replay: if dice.once_in(3) {
                ReplayLimits { messages: 2 + dice.place(12), bytes: 4000 }
            } else {
                ReplayLimits::default()
            },
            mailbox: if dice.once_in(3) { 1 + dice.place(8) } else { 10_000 },
            mail_at_once: 1 + dice.place(12),
            subscribers_at_once: 1 + dice.place(6),
            burst_bytes: [50, 500, 5000][dice.place(3)],
            outbox_bytes: 300 + dice.place(3000),
            socket_bytes: 40 + dice.place(2000),
            faults: Faults::draw(dice),
        }
    }
}

impl Faults {
    fn draw(dice: &mut Dice) -> Self {
        let rate = |dice: &mut Dice| [0, 0, 10, 80, 300][dice.place(5)];
        Self {
            lose: rate(dice),
            double: rate(dice),
            late: rate(dice),
            feed_delay: [2, 30, 400].map(|ms| ms * MS)[dice.place(3)],
            silence: rate(dice),
            lag: rate(dice),
            pause: rate(dice),
            pause_max: [1, 20, 300].map(|ms| ms * MS)[dice.place(3)],
            nemesis_every: [300, 1500, 6000].map(|ms| ms * MS)[dice.place(3)],
            nemeses: NEMESES.into_iter().filter(|_| dice.once_in(3)).collect(),
        }
    }

    /// Ends all that goes wrong by chance.
    pub(super) fn end(&mut self) {
        *self = Self {
            lose: 0,
            double: 0,
            late: 0,
            feed_delay: 2 * MS,
            silence: 0,
            lag: 0,
            pause: 0,
            pause_max: MS,
            nemesis_every: SECOND,
            nemeses: Vec::new(),
        };
    }
}
