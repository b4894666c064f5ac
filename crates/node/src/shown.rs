//! What the workers show of themselves.
//!
//! **Lives here:** the handles of the metrics that the delivery path touches, made once.
//! **Called by:** workers; sums are added once a turn, not once a message.
//! **Must not know:** names and labels beyond those of `telemetry`'s table.

use carillon_model::{CloseReason, Form, Unrecovered};
use carillon_session::Recovered;
use carillon_telemetry::{label, metric};
use metrics::{Counter, Gauge, Histogram};

/// The transports and what is spoken over them, as metrics call them.
const TRANSPORTS: [(&str, &str); 6] = [
    ("websocket", "native"),
    ("sse", "native"),
    ("stream", "native"),
    ("poll", "native"),
    ("websocket", "pusher"),
    ("xhr", "pusher"),
];

/// The handles of one worker.
#[derive(Debug)]
pub(crate) struct Shown {
    transports: [OfTransport; TRANSPORTS.len()],
    pub(crate) subscriptions: Gauge,
    pub(crate) dropped_slow: Counter,
    pub(crate) dropped_overflow: Counter,
    pub(crate) dropped_full: Counter,
    pub(crate) recipients: Histogram,
    pub(crate) queued_frames: Gauge,
    pub(crate) queued_bytes: Gauge,
    pub(crate) drained: Counter,
    pub(crate) replayed: Counter,
    pub(crate) healed: Counter,
    pub(crate) gaps: Counter,
}

/// The handles that differ by transport.
#[derive(Debug)]
pub(crate) struct OfTransport {
    pub(crate) connections: Gauge,
    pub(crate) opened: Counter,
    pub(crate) duration: Histogram,
    pub(crate) delivered: Counter,
    pub(crate) latency: Histogram,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) ping_rtt: Histogram,
}

/// A number for each transport.
pub(crate) type Tally = [usize; TRANSPORTS.len()];

/// Returns a transport's place in [`TRANSPORTS`].
pub(crate) const fn place(form: Form) -> usize {
    match form {
        Form::NativeWebSocket => 0,
        Form::NativeSse | Form::NativeSseBare | Form::NativeSseRaw => 1,
        Form::NativeLine => 2,
        Form::NativePoll => 3,
        Form::PusherWebSocket => 4,
        Form::PusherLine => 5,
    }
}

impl Shown {
    pub(crate) fn new() -> Self {
        Self {
            transports: TRANSPORTS.map(OfTransport::new),
            subscriptions: metric::SUBSCRIPTIONS.gauge(&[]),
            dropped_slow: metric::MESSAGES_DROPPED.counter(&[("reason", "slow_consumer")]),
            dropped_overflow: metric::MESSAGES_DROPPED.counter(&[("reason", "overflow")]),
            dropped_full: metric::MESSAGES_DROPPED.counter(&[("reason", "queue_full")]),
            recipients: metric::FANOUT_RECIPIENTS.histogram(&[]),
            queued_frames: metric::SEND_QUEUE_MESSAGES.gauge(&[]),
            queued_bytes: metric::SEND_QUEUE_BYTES.gauge(&[]),
            drained: metric::DRAINED_CONNECTIONS.counter(&[]),
            replayed: metric::RECOVERED_MESSAGES.counter(&[]),
            healed: metric::WORKER_QUEUE_HEALED.counter(&[]),
            gaps: metric::GAPS.counter(&[]),
        }
    }

    /// Returns the handles of a form's transport.
    pub(crate) const fn of(&self, form: Form) -> &OfTransport {
        &self.transports[place(form)]
    }

    /// Returns the handles of each transport beside a number of each.
    pub(crate) fn each(&self, tally: Tally) -> impl Iterator<Item = (&OfTransport, usize)> {
        self.transports.iter().zip(tally)
    }
}

impl OfTransport {
    fn new((transport, protocol): (&'static str, &'static str)) -> Self {
        let (transport, protocol) = (("transport", transport), ("protocol", protocol));
        Self {
            connections: metric::CONNECTIONS.gauge(&[transport, protocol]),
            opened: metric::CONNECTIONS_OPENED.counter(&[transport, protocol]),
            duration: metric::CONNECTION_DURATION.histogram(&[transport]),
            delivered: metric::MESSAGES_DELIVERED.counter(&[transport]),
            latency: metric::DELIVERY_LATENCY.histogram(&[transport]),
            sent_bytes: metric::SENT_BYTES.counter(&[transport]),
            received_bytes: metric::RECEIVED_BYTES.counter(&[transport]),
            ping_rtt: metric::PING_RTT.histogram(&[transport]),
        }
    }
}

/// Counts the end of a connection.
pub(crate) fn closed(form: Form, ending: Ending) {
    let reason = match ending {
        Ending::Client => "client",
        Ending::Broken => "error",
        Ending::Ours(reason) => label::close_reason(reason),
    };
    let (transport, _) = TRANSPORTS[place(form)];
    metric::CONNECTIONS_CLOSED.counter(&[("transport", transport), ("reason", reason)]).increment(1);
}

/// Counts the outcome of a wish to subscribe.
pub(crate) fn subscribed(result: &'static str) {
    metric::SUBSCRIBES.counter(&[("result", result)]).increment(1);
}

/// Counts what became of a client's past.
pub(crate) fn recovered(recovered: Recovered) {
    let result = match recovered {
        Recovered::All { .. } => "ok",
        Recovered::No(Unrecovered::Epoch) => "epoch",
        Recovered::No(Unrecovered::Expired) => "expired",
        Recovered::No(Unrecovered::Limit) => "limit",
        Recovered::No(Unrecovered::Unavailable) => "unavailable",
    };
    metric::RECOVERIES.counter(&[("result", result)]).increment(1);
}

/// Counts a client that came without a token.
pub(crate) fn anonymous() {
    metric::AUTH.counter(&[("method", "anonymous"), ("result", "ok")]).increment(1);
}

/// Counts what an application has signed for a client, or has not.
pub(crate) fn signature(good: bool) {
    let result = if good { "ok" } else { "invalid" };
    metric::AUTH.counter(&[("method", "signature"), ("result", result)]).increment(1);
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
