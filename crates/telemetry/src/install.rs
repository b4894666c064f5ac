//! The exporter: every row of the table described, with its buckets, from zero.
//!
//! **Lives here:** installing the recorder, its upkeep, the exposition as text.
//! **Called by:** `gateway`, once a process.
//! **Must not know:** HTTP, who scrapes.

use std::{future::Future, time::Duration};

use carillon_tasks::{Phase, Stop};
use metrics::{Key, Label, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{
    entry::{Entry, Kind, Start},
    logs, metric,
};

/// Time between two drains of the histograms' samples; between them, samples wait in memory.
const UPKEEP: Duration = Duration::from_secs(5);

/// The metrics of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

/// Why metrics cannot be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The process has a recorder already.
    #[error("metrics are installed already; install them once a process, before the first handle is made")]
    Twice,
}

/// Installs the exporter for this process, with every series of the table at zero.
///
/// # Errors
/// [`InstallError::Twice`] when there is one already.
pub fn install(version: &str, revision: &str) -> Result<Metrics, InstallError> {
    let recorder = recorder();
    let metrics = Metrics::of(&recorder);
    metrics::set_global_recorder(recorder).map_err(|_recorder| InstallError::Twice)?;
    begin(version, revision);
    metrics.process.describe();
    Ok(metrics)
}

impl Metrics {
    fn of(recorder: &PrometheusRecorder) -> Self {
        Self { handle: recorder.handle(), process: metrics_process::Collector::new("") }
    }

    /// Returns the exposition, in Prometheus' text format. Reads a few files of `/proc`: takes a millisecond or so.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        metric::LOG_DROPPED.counter(&[]).absolute(logs::dropped());
        self.handle.render()
    }

    /// Keeps the histograms small until the process is cut. Spawn it: without it their samples pile up.
    ///
    /// # Cancel safety
    /// Safe: what was not drained is drained by the next turn or by [`render`](Self::render).
    pub fn upkeep(&self, stop: Stop) -> impl Future<Output = ()> + Send + 'static {
        let handle = self.handle.clone();
        async move {
            loop {
                tokio::select! {
                    () = stop.reached(Phase::Cut) => return,
                    () = tokio::time::sleep(UPKEEP) => handle.run_upkeep(),
                }
            }
        }
    }
}

/// Makes the recorder with the buckets of every histogram: without buckets it would show summaries, which cannot
/// be added up over nodes.
fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for entry in metric::TABLE {
        if let Kind::Histogram(buckets) = entry.kind {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(entry.name.to_owned()), buckets)
                .expect("a test holds that every histogram of the table has buckets");
        }
    }
    builder.build_recorder()
}

/// Describes every metric to the present recorder and begins its series.
fn begin(version: &str, revision: &str) {
    metrics::with_recorder(|recorder| {
        for entry in metric::TABLE {
            let name = SharedString::const_str(entry.name).into();
            let help = SharedString::const_str(entry.help);
            match entry.kind {
                Kind::Counter => recorder.describe_counter(name, Some(entry.unit), help),
                Kind::Gauge => recorder.describe_gauge(name, Some(entry.unit), help),
                Kind::Histogram(_) => recorder.describe_histogram(name, Some(entry.unit), help),
            }
        }
    });
    for entry in metric::TABLE {
        match entry.start {
            Start::AtZero => begin_at_zero(entry),
            Start::OnUse => {}
        }
    }
    let labels = vec![
        Label::new(crate::label::VERSION.name, version.to_owned()),
        Label::new(crate::label::REVISION.name, revision.to_owned()),
    ];
    Entry::register_gauge(&Key::from_parts(metric::BUILD_INFO.entry().name, labels)).set(1.0);
}

fn begin_at_zero(entry: &Entry) {
    for labels in entry.combinations() {
        let key = entry.key(&labels).expect("combinations are made from the row's own labels");
        match entry.kind {
            Kind::Counter => Entry::register_counter(&key).absolute(0),
            Kind::Gauge => Entry::register_gauge(&key).set(0.0),
            Kind::Histogram(_) => drop(Entry::register_histogram(&key)),
        }
    }
}

#[cfg(test)]
mod tests;
