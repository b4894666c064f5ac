//! What operators see: the table of metrics, and the log.
//!
//! **Lives here:** every metric's name, labels and meaning; the exporter; the log's writer and its redaction.
//! **Called by:** every crate that counts something; `gateway` installs both and serves the exposition.
//! **Must not know:** channels, users, connections: none of them is ever a label.

pub mod entry;
mod install;
pub mod label;
pub mod logs;
pub mod metric;
mod redact;
mod reference;
mod refused;

pub use entry::{CounterMetric, Entry, GaugeMetric, HistogramMetric, Kind, LabelSet, Start};
pub use install::{InstallError, Metrics, install};
pub use label::Label;
pub use logs::{BadDirectives, LogFormat, Logs, LogsError, logs};
pub use redact::redact_query;
pub use reference::reference;
pub use refused::Refused;
