//! What is compared: one column of the table each.
//!
//! **Lives here:** the list of columns, and how `load` is asked for each.
//! **Called by:** `compare`.
//! **Must not know:** figures.

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

/// Returns all columns for these numbers of subscribers.
pub(super) fn all(subscribers: &[usize]) -> Vec<Column> {
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
    columns.push(Column::Publish);
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
        }
    }

    pub(super) fn load_arguments(self, seconds: f64) -> Vec<String> {
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
            figure("/latency_us/p99", "p99", "us", Judged::Ratio),
        ];
        match self {
            Self::Fanout { .. } => FANOUT,
            Self::Rate { .. } => RATE,
            Self::Idle { .. } => IDLE,
            Self::Publish => PUBLISH,
        }
    }
}
