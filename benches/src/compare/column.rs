//! What is compared: one column of the table each.
//!
//! **Lives here:** the list of columns, and how `load` is asked for each.
//! **Called by:** `compare`.
//! **Must not know:** figures.

use super::Side;
use crate::server::Kind;

/// One load, put on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// Closed loop of fan-outs.
    Fanout {
        /// Subscribers.
        subscribers: usize,
        /// Bytes of data of each message.
        size_bytes: usize,
        /// Messages per request.
        burst: u64,
    },
    /// Twenty messages a second: latency.
    Rate {
        /// Subscribers.
        subscribers: usize,
    },
    /// Memory per connection.
    Idle {
        /// Connections.
        subscribers: usize,
    },
    /// The publish API, beside bare hyper.
    Publish,
    /// The same, by the Pusher protocol: each request is signed.
    Trigger,
    /// Fan-out to Pusher clients, beside native ones: both at one gateway, published to by one API.
    Dialects {
        /// Subscribers.
        subscribers: usize,
        /// Messages per request.
        burst: u64,
    },
    /// The publish API by the Pusher protocol, beside the native one: both at one gateway.
    PublishDialects,
}

/// One figure of a report that is compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figure {
    /// Where it stands in the report, as a JSON pointer.
    pub(super) path: &'static str,
    /// Its name in the table.
    pub(super) name: &'static str,
    /// Its unit.
    pub(super) unit: &'static str,
    /// What it is judged by.
    pub(super) judged: Judged,
}

/// What tells whether a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// Its ratio to the limit's, as a median over the rounds.
    Ratio,
    /// Its own value, as a mean: the limit's is next to nothing, or single rounds are sampled too coarsely.
    Value,
}

const fn figure(path: &'static str, name: &'static str, unit: &'static str, judged: Judged) -> Figure {
    Figure { path, name, unit, judged }
}

/// Returns all columns for these numbers of subscribers; without a gateway, only those that a limit can stand in for.
pub(super) fn all(subscribers: &[usize], gateway: bool) -> Vec<Column> {
    let mut columns = Vec::new();
    for &subscribers in subscribers {
        for size_bytes in [128, 1024] {
            for burst in [1, 10] {
                columns.push(Column::Fanout { subscribers, size_bytes, burst });
            }
        }
    }
    columns.extend(subscribers.first().map(|&subscribers| Column::Rate { subscribers }));
    columns.extend(subscribers.last().map(|&subscribers| Column::Idle { subscribers }));
    columns.extend([Column::Publish, Column::Trigger]);
    if gateway {
        for &subscribers in subscribers {
            columns.extend([1, 10].map(|burst| Column::Dialects { subscribers, burst }));
        }
        columns.push(Column::PublishDialects);
    }
    columns
}

impl Column {
    /// Returns its name in the table.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Fanout { subscribers, size_bytes, burst } => {
                format!("fanout {subscribers} x {size_bytes} B x {burst}")
            }
            Self::Rate { subscribers } => format!("20/s to {subscribers}"),
            Self::Idle { subscribers } => format!("idle {subscribers}"),
            Self::Publish => "publish".into(),
            Self::Trigger => "trigger".into(),
            Self::Dialects { subscribers, burst } => {
                format!("Pusher/native {subscribers} x {burst}")
            }
            Self::PublishDialects => "trigger/publish".into(),
        }
    }

    /// Returns what shows the limit, and its program.
    pub(super) const fn limit(self) -> (Kind, &'static str) {
        match self {
            Self::Publish | Self::Trigger | Self::PublishDialects => (Kind::Hyper, "barehyper"),
            Self::Fanout { .. } | Self::Rate { .. } | Self::Idle { .. } | Self::Dialects { .. } => {
                (Kind::Raw, "rawsend")
            }
        }
    }

    /// Says whether one gateway is both sides: the native dialect is then the limit.
    pub(super) const fn compares_dialects(self) -> bool {
        matches!(self, Self::Dialects { .. } | Self::PublishDialects)
    }

    pub(super) fn load_arguments(self, side: Side, seconds: f64) -> Vec<String> {
        let dialect = match side {
            Side::Limit => "native",
            Side::Candidate => "pusher",
        };
        let line = match self {
            Self::Fanout { subscribers, size_bytes, burst } => {
                format!(
                    "fanout --subscribers {subscribers} --size {size_bytes} --burst {burst} --seconds {seconds}"
                )
            }
            Self::Rate { subscribers } => {
                format!("rate --rate 20 --subscribers {subscribers} --seconds {seconds}")
            }
            Self::Idle { subscribers } => format!("idle --subscribers {subscribers} --fanouts 20"),
            Self::Publish => format!("publish --connections 8 --seconds {seconds}"),
            Self::Trigger => format!("publish --publish-as pusher --connections 8 --seconds {seconds}"),
            Self::Dialects { subscribers, burst } => format!(
                "fanout --subscribe-as {dialect} --subscribers {subscribers} --burst {burst} --seconds {seconds}"
            ),
            Self::PublishDialects => {
                format!("publish --publish-as {dialect} --connections 8 --seconds {seconds}")
            }
        };
        line.split(' ').map(Into::into).collect()
    }

    /// Returns the figures that this load yields in good resolution.
    pub(super) fn figures(self) -> &'static [Figure] {
        const FANOUT: &[Figure] = &[
            figure("/cpu_us_per_delivery/total", "cpu/delivery", "us", Judged::Ratio),
            figure("/cpu_us_per_delivery/user", "user/delivery", "us", Judged::Value),
            figure("/latency_us/p99", "p99", "us", Judged::Ratio),
        ];
        const RATE: &[Figure] = &[
            figure("/latency_us/p50", "p50", "us", Judged::Ratio),
            figure("/latency_us/p99", "p99", "us", Judged::Ratio),
        ];
        const IDLE: &[Figure] = &[
            figure("/bytes_per_connection", "memory", "B", Judged::Value),
            figure("/bytes_per_connection_after", "memory after", "B", Judged::Value),
            figure("/cpu_us_per_connect/total", "cpu/connect", "us", Judged::Ratio),
        ];
        const PUBLISH: &[Figure] = &[
            figure("/cpu_us_per_publish/total", "cpu/publish", "us", Judged::Ratio),
            figure("/cpu_us_per_publish/user", "user/publish", "us", Judged::Value),
            figure("/publishes_per_s", "publishes", "/s", Judged::Value),
            figure("/latency_us/p99", "p99", "us", Judged::Ratio),
        ];
        match self {
            Self::Fanout { .. } | Self::Dialects { .. } => FANOUT,
            Self::Rate { .. } => RATE,
            Self::Idle { .. } => IDLE,
            Self::Publish | Self::Trigger | Self::PublishDialects => PUBLISH,
        }
    }
}
