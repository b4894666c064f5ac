//! What the workers show of themselves.
//!
//! **Lives here:** the handles of the metrics that the delivery path touches, made once.
//! **Called by:** workers; sums are added once a turn, not once a message.
//! **Must not know:** names and labels beyond those of `telemetry`'s table.

use carillon_model::CloseReason;
use carillon_telemetry::{label, metric};
use metrics::{Counter, Gauge, Histogram};

const WEBSOCKET: (&str, &str) = ("transport", "websocket");
const NATIVE: (&str, &str) = ("protocol", "native");

/// The handles of one worker.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) connections: Gauge,
    pub(crate) opened: Counter,
    pub(crate) duration: Histogram,
    pub(crate) subscriptions: Gauge,
    pub(crate) delivered: Counter,
    pub(crate) dropped_slow: Counter,
    pub(crate) latency: Histogram,
    pub(crate) recipients: Histogram,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) queued_frames: Gauge,
    pub(crate) queued_bytes: Gauge,
    pub(crate) ping_rtt: Histogram,
    pub(crate) drained: Counter,
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self {
            connections: metric::CONNECTIONS.gauge(&[WEBSOCKET, NATIVE]),
            opened: metric::CONNECTIONS_OPENED.counter(&[WEBSOCKET, NATIVE]),
            duration: metric::CONNECTION_DURATION.histogram(&[WEBSOCKET]),
            subscriptions: metric::SUBSCRIPTIONS.gauge(&[]),
            delivered: metric::MESSAGES_DELIVERED.counter(&[WEBSOCKET]),
            dropped_slow: metric::MESSAGES_DROPPED.counter(&[("reason", "slow_consumer")]),
            latency: metric::DELIVERY_LATENCY.histogram(&[WEBSOCKET]),
            recipients: metric::FANOUT_RECIPIENTS.histogram(&[]),
            sent_bytes: metric::SENT_BYTES.counter(&[WEBSOCKET]),
            received_bytes: metric::RECEIVED_BYTES.counter(&[WEBSOCKET]),
            queued_frames: metric::SEND_QUEUE_MESSAGES.gauge(&[]),
            queued_bytes: metric::SEND_QUEUE_BYTES.gauge(&[]),
            ping_rtt: metric::PING_RTT.histogram(&[WEBSOCKET]),
            drained: metric::DRAINED_CONNECTIONS.counter(&[]),
        }
    }
}

/// Counts the end of a connection.
pub(crate) fn closed(ending: Ending) {
    let reason = match ending {
        Ending::Client => "client",
        Ending::Broken => "error",
        Ending::Ours(reason) => label::close_reason(reason),
    };
    metric::CONNECTIONS_CLOSED.counter(&[WEBSOCKET, ("reason", reason)]).increment(1);
}

/// Counts the outcome of a wish to subscribe.
pub(crate) fn subscribed(result: &'static str) {
    metric::SUBSCRIBES.counter(&[("result", result)]).increment(1);
}

/// Counts a client that came without a token.
pub(crate) fn anonymous() {
    metric::AUTH.counter(&[("method", "anonymous"), ("result", "ok")]).increment(1);
}

/// What ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client closed it.
    Client,
    /// The socket broke.
    Broken,
    /// We closed it.
    Ours(CloseReason),
}
