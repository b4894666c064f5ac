//! What operators see of the broker.
//!
//! **Lives here:** the handles of the metrics; `telemetry` has their names.
//! **Called by:** whatever in this crate counts.
//! **Must not know:** where metrics go.

use carillon_telemetry::metric;
use metrics::{Counter, Gauge, Histogram};

/// Handles of all metrics, so that nothing is looked up while messages flow.
pub(crate) struct Meters {
    /// 1 when both connections are up and every shard is where its stream is.
    pub(crate) connected: Gauge,
    /// Connections made after the first.
    pub(crate) reconnects: Counter,
    /// Seconds from the call to the acknowledgement, retries included.
    pub(crate) publish_seconds: Histogram,
    /// Publications that wait for an acknowledgement.
    pub(crate) pending: Gauge,
    /// Messages that the library dropped because a task was too slow, as far as it says so.
    pub(crate) slow_consumer: Counter,
    /// Times that a shard missed something.
    pub(crate) gaps: Counter,
    /// Messages that were missed and fetched.
    pub(crate) repaired: Counter,
    /// Messages that came again.
    pub(crate) duplicates: Counter,
    /// Messages that could not be brought.
    pub(crate) lost: Counter,
    /// Live messages that did not come, over an interruption of the connection.
    pub(crate) live_interrupted: Counter,
    /// Live messages that did not come at another time.
    pub(crate) live_missing: Counter,
    /// Reads of a channel's past that NATS was asked for.
    pub(crate) recovered_read: Counter,
    /// Pasts that were answered from a read for somebody else.
    pub(crate) recovered_shared: Counter,
    /// Bytes that the last minutes take in memory.
    pub(crate) recent_bytes: Gauge,
    /// Messages that are not ours: they cannot be read.
    pub(crate) poison: Counter,
    errors: [Counter; Op::ALL.len()],
}

/// What failed, as the label `op`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Connect,
    Fetch,
    History,
    Layout,
    Poll,
    Publish,
    PublishLive,
    Server,
}

impl Op {
    const ALL: [Self; 8] = [
        Self::Connect,
        Self::Fetch,
        Self::History,
        Self::Layout,
        Self::Poll,
        Self::Publish,
        Self::PublishLive,
        Self::Server,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Fetch => "fetch",
            Self::History => "history",
            Self::Layout => "layout",
            Self::Poll => "poll",
            Self::Publish => "publish",
            Self::PublishLive => "publish_live",
            Self::Server => "server",
        }
    }
}

impl Meters {
    pub(crate) fn register() -> Self {
        let broker = ("broker", "nats");
        let connected = metric::BROKER_CONNECTED.gauge(&[broker]);
        connected.set(0.0);
        Self {
            connected,
            reconnects: metric::BROKER_RECONNECTS.counter(&[broker]),
            publish_seconds: metric::BROKER_PUBLISH_DURATION.histogram(&[broker]),
            pending: metric::BROKER_PENDING_MESSAGES.gauge(&[broker]),
            slow_consumer: metric::BROKER_SLOW_CONSUMER.counter(&[broker]),
            gaps: metric::BROKER_GAPS.counter(&[broker]),
            repaired: metric::BROKER_REPAIRED.counter(&[broker]),
            duplicates: metric::BROKER_DUPLICATES.counter(&[broker]),
            lost: metric::BROKER_LOST.counter(&[broker]),
            live_interrupted: metric::BROKER_LIVE_LOST.counter(&[broker, ("reason", "interrupted")]),
            live_missing: metric::BROKER_LIVE_LOST.counter(&[broker, ("reason", "missing")]),
            recovered_read: metric::BROKER_HISTORY_READS.counter(&[broker]),
            recovered_shared: metric::BROKER_HISTORY_SHARED.counter(&[broker]),
            recent_bytes: metric::BROKER_RECENT_BYTES.gauge(&[broker]),
            poison: metric::BROKER_POISON.counter(&[broker]),
            errors: Op::ALL.map(|op| metric::BROKER_ERRORS.counter(&[broker, ("op", op.label())])),
        }
    }

    /// Counts one failure of `op`.
    pub(crate) fn failed(&self, op: Op) {
        if let Some(counter) = self.errors.get(op as usize) {
            counter.increment(1);
        }
    }
}

/// The handles of what is counted of words between nodes.
pub(crate) struct WordMeters {
    pub(crate) sent: Counter,
    pub(crate) heard: Counter,
    /// Lost, as too many waited.
    pub(crate) queue_full: Counter,
    /// Lost, as the link was away.
    pub(crate) link: Counter,
    /// Lost, as the server does not take it.
    pub(crate) too_large: Counter,
    /// Messages that no node has sent.
    pub(crate) poison: Counter,
}

impl WordMeters {
    pub(crate) fn register() -> Self {
        let lost = |reason| metric::WORDS_LOST.counter(&[("reason", reason)]);
        Self {
            sent: metric::WORDS_SENT.counter(&[]),
            heard: metric::WORDS_HEARD.counter(&[]),
            queue_full: lost("queue_full"),
            link: lost("link"),
            too_large: lost("too_large"),
            poison: metric::BROKER_POISON.counter(&[("broker", "nats")]),
        }
    }
}
