//! Live channels: brings what is published there, and says when some of it did not come.
//!
//! Nothing keeps these messages, so that what is lost can only be told. Two things tell it. After an interruption of
//! the connection everything may have been missed, and every live channel is told once. Apart from that publishers
//! count their messages: a number that is left out was dropped by this node's NATS client because its queue was full,
//! between servers, or with the publisher's own connection.
//!
//! NATS keeps the order of one connection's messages, so that a number is not merely late; only after a publisher has
//! moved to another server may its older messages arrive after newer ones. These are then delivered as they come,
//! after word of a loss that was none.
//!
//! Not found out: that the last messages of a publisher to a shard are missing, until it publishes there again, and
//! that the first ones are, as nobody knows when it began.
//!
//! **Lives here:** the loop of the live channels, and the publishers' counts.
//! **Called by:** `start`.
//! **Must not know:** who is subscribed.

use std::{collections::BTreeMap, sync::Arc};

use async_nats::{Message, Subscriber};
use carillon_broker::{Deliver, SHARDS, Shard};
use carillon_model::{NewMessage, Publication};
use carillon_tasks::{Phase, Stop};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};

use crate::{
    api,
    envelope::{self, Garbage, Stamp},
    link::Link,
    meters::Meters,
    receive::{TURN, answer},
    subject::Names,
};

/// Processes whose counts are remembered, 150 bytes each. The one that has been silent for longest is forgotten, and
/// then counts as one that was never heard.
const PUBLISHERS_MAX: usize = 1024;

/// What the task of the live channels needs.
pub(crate) struct LiveTask {
    pub(crate) link: Link,
    pub(crate) names: Names,
    pub(crate) deliver: Arc<dyn Deliver>,
    pub(crate) meters: Arc<Meters>,
}

enum Heard {
    Feed(Vec<Message>),
    Barrier,
    Link,
}

impl LiveTask {
    /// Brings what is published on live channels, until the process is cut.
    pub(crate) async fn run(self, feed: Subscriber, stop: Stop) {
        let (mut feed, mut view) = (feed.ready_chunks(TURN), self.link.view());
        let (mut generation, mut counts) = (self.link.feed_generation(), Counts::default());
        let mut barrier: Option<BoxFuture<'static, ()>> = None;
        loop {
            let heard = tokio::select! {
                biased;
                () = stop.reached(Phase::Cut) => return,
                () = answer(&mut barrier) => Heard::Barrier,
                Some(messages) = feed.next() => Heard::Feed(messages),
                Ok(()) = view.changed() => Heard::Link,
                else => return,
            };
            // First of all: the messages may be the first after an interruption.
            let seen = self.link.feed_generation();
            if seen != generation {
                generation = seen;
                counts.excuse();
                barrier = Some(api::pass_barrier(self.link.feed.clone(), self.names.barrier()).boxed());
            }
            match heard {
                Heard::Feed(messages) => self.take(&messages, &mut counts),
                // From here on nothing is missed any more, so that whoever joined meanwhile is told as well.
                Heard::Barrier if barrier.is_none() => {
                    tracing::warn!("live messages may have been missed while the link to NATS was down");
                    self.deliver.lost_live(&Shard::all().collect::<Vec<_>>());
                }
                Heard::Barrier | Heard::Link => {}
            }
        }
    }

    /// Hands on what came, and says then in which shards something is missing: one word for all of it, as each
    /// costs a look at every channel of the node.
    fn take(&self, messages: &[Message], counts: &mut Counts) {
        let mut holes = Vec::new();
        for message in messages {
            let (message, stamp) = match self.read(message) {
                Ok(read) => read,
                Err(garbage) => {
                    self.meters.poison.increment(1);
                    tracing::debug!(%garbage, "a live message cannot be read");
                    continue;
                }
            };
            let shard = Shard::of(&message.channel);
            match stamp.map_or(Missing::Nothing, |stamp| counts.note(shard, stamp)) {
                Missing::Nothing => {}
                Missing::Told(count) => self.meters.live_interrupted.increment(count),
                Missing::New(count) => {
                    self.meters.live_missing.increment(count);
                    if !holes.contains(&shard) {
                        holes.push(shard);
                    }
                }
            }
            self.deliver.deliver(Arc::new(Publication::new(message, None)));
        }
        if !holes.is_empty() {
            self.deliver.lost_live(&holes);
        }
    }

    fn read(&self, message: &Message) -> Result<(NewMessage, Option<Stamp>), Garbage> {
        // Prefix, kind and shard come first.
        let place = message.subject.splitn(4, '.').nth(3).ok_or(Garbage::Subject)?;
        let channel = self.names.channel(place).ok_or(Garbage::Subject)?;
        envelope::decode(channel, &message.payload)
    }
}

/// What a message's number says of those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Nothing,
    /// So many are missing, and it is told with an interruption.
    Told(u64),
    /// So many are missing.
    New(u64),
}

/// How far each publisher has counted, as it was heard here.
#[derive(Debug, Default)]
struct Counts {
    publishers: BTreeMap<u64, Publisher>,
    /// Messages that were noted: the time by which the longest silence is found.
    noted: u64,
    interruptions: u64,
}

#[derive(Debug, Default)]
struct Publisher {
    heard_at: u64,
    shards: [Heights; SHARDS as usize],
}

/// What was heard last, and after how many interruptions.
#[derive(Clone, Copy, Debug, Default)]
struct Heights {
    count: u64,
    interruptions: u64,
}

impl Counts {
    /// Notes an interruption: what turns out to be missing before the next message of each publisher was told with it.
    const fn excuse(&mut self) {
        self.interruptions += 1;
    }

    fn note(&mut self, shard: Shard, stamp: Stamp) -> Missing {
        self.noted += 1;
        if self.publishers.len() >= PUBLISHERS_MAX && !self.publishers.contains_key(&stamp.publisher) {
            let silent = self.publishers.iter().min_by_key(|(_, publisher)| publisher.heard_at);
            if let Some(silent) = silent.map(|(publisher, _)| *publisher) {
                self.publishers.remove(&silent);
            }
        }
        let publisher = self.publishers.entry(stamp.publisher).or_default();
        publisher.heard_at = self.noted;
        let Some(last) = publisher.shards.get_mut(usize::from(shard.index())) else {
            return Missing::Nothing;
        };
        let before = *last;
        *last = Heights { count: stamp.count.max(before.count), interruptions: self.interruptions };
        let missing = stamp.count.saturating_sub(before.count.saturating_add(1));
        match missing {
            0 => Missing::Nothing,
            // It is heard for the first time.
            _ if before.count == 0 => Missing::Nothing,
            _ if before.interruptions != self.interruptions => Missing::Told(missing),
            _ => Missing::New(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(counts: &mut Counts, shard: usize, publisher: u64, count: u64) -> Missing {
        counts.note(Shard::all().nth(shard).unwrap(), Stamp { publisher, count })
    }

    #[test]
    fn a_number_that_is_left_out_is_missing_once() {
        let mut counts = Counts::default();
        for (shard, publisher, count, missing) in [
            (0, 1, 7, Missing::Nothing),
            (0, 1, 8, Missing::Nothing),
            (1, 1, 1, Missing::Nothing),
            (0, 2, 3, Missing::Nothing),
            (0, 1, 12, Missing::New(3)),
            (0, 1, 13, Missing::Nothing),
            (0, 2, 4, Missing::Nothing),
            (1, 1, 3, Missing::New(1)),
            // Late, and nothing new about those that are missing.
            (0, 1, 10, Missing::Nothing),
            (0, 1, 14, Missing::Nothing),
        ] {
            assert_eq!(note(&mut counts, shard, publisher, count), missing, "{shard} {publisher} {count}");
        }
    }

    #[test]
    fn what_an_interruption_cost_is_not_told_again() {
        let mut counts = Counts::default();
        note(&mut counts, 0, 1, 1);
        note(&mut counts, 1, 1, 1);
        counts.excuse();
        assert_eq!(note(&mut counts, 0, 1, 5), Missing::Told(3));
        assert_eq!(note(&mut counts, 0, 1, 7), Missing::New(1));
        counts.excuse();
        assert_eq!(note(&mut counts, 1, 1, 2), Missing::Nothing);
        assert_eq!(note(&mut counts, 1, 1, 4), Missing::New(1));
    }

    #[test]
    fn the_publisher_that_was_silent_for_longest_is_forgotten() {
        let mut counts = Counts::default();
        for publisher in 1..=PUBLISHERS_MAX as u64 {
            note(&mut counts, 0, publisher, 1);
        }
        note(&mut counts, 0, 1, 2);
        note(&mut counts, 0, 5000, 1);
        assert_eq!(counts.publishers.len(), PUBLISHERS_MAX);
        assert_eq!(note(&mut counts, 0, 1, 4), Missing::New(1));
        assert_eq!(note(&mut counts, 0, 2, 9), Missing::Nothing, "it was forgotten");
    }

    #[test]
    fn no_number_makes_it_panic() {
        let mut counts = Counts::default();
        note(&mut counts, 0, 1, u64::MAX);
        assert_eq!(note(&mut counts, 0, 1, u64::MAX), Missing::Nothing);
        assert_eq!(note(&mut counts, 0, 1, 1), Missing::Nothing);
    }
}
