//! The reference of all metrics, written from the table.
//!
//! **Lives here:** its layout.
//! **Called by:** the test that holds `docs/metrics.md` against it.
//! **Must not know:** any metric in particular.

use std::fmt::Write;

use metrics::Unit;

use crate::{
    Label, LabelSet,
    entry::{Entry, Kind},
    metric::{PROCESS, SECTIONS},
};

const INTRODUCTION: &str = r#"# Metrics

Every node shows its own on the admin listener, in Prometheus' text format: `curl http://127.0.0.1:9000/metrics`. This
page is written from the table in the program, and a test compares them.

- A counter ends in `_total`, and a unit ends the name: `_seconds`, `_bytes`. What has no unit is a count.
- Every series begins with 0 when the process starts, so that `rate()` and alerts work from the first scrape. Only
  `carillon_build_info` and `carillon_broker_connected` begin when there is something to say.
- The labels below have the values below and no others. A channel, a user, a connection, an address or a path is never
  a label: nothing that a client or a publisher chooses makes a series.
- Connections of each node: `sum by (instance) (carillon_connections)`.
- Gauges and counters can be added up over nodes. So can histograms: take quantiles of the sum, as in
  `histogram_quantile(0.99, sum by (le) (rate(carillon_delivery_latency_seconds_bucket[5m])))`.

In [deploy/prometheus](../deploy/prometheus) are a scrape configuration, the alerts TargetDown, ConnectionsDropped,
BrokerDisconnected, PublishErrors and NearConnectionLimit, and the tests that show when each fires; in
[deploy/grafana](../deploy/grafana) is a dashboard: import `dashboard.json` and choose your Prometheus. The scrape
configuration comes down to

```yaml
scrape_configs:
  - job_name: carillon            # the alert TargetDown asks for this name
    static_configs:
      - targets: ["gateway-1:9000", "gateway-2:9000", "gateway-3:9000"]
```

The admin listener is on loopback unless `admin.exposed = true` ([configuration](configuration.md#admin)); it asks for
no key, so a firewall or a NetworkPolicy should let only Prometheus and the probes reach it.

This is a rolling restart as Prometheus saw it, in a test with three nodes behind nginx: each node in turn is asked to
stop, says goodbye to its clients over its drain, and is started again. No connection ended without a close frame. A
new node fills as connections reach their largest age (`client.connection_age_max`, half an hour by default, 20 s in
the test).

![Connections of three nodes during a rolling restart](rolling-restart.svg)
"#;

/// Returns the reference of all metrics as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (title, entries) in SECTIONS {
        begin(&mut page, title);
        for entry in *entries {
            row(&mut page, entry);
        }
    }
    begin(&mut page, "Process");
    for (name, kind, help) in PROCESS {
        let kind = kind.name();
        writeln!(page, "| `{name}` | {kind} | – | {help} |").expect("a string takes everything");
    }
    page
}

fn begin(page: &mut String, title: &str) {
    page.push_str(&format!("\n## {title}\n\n| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n"));
}

fn row(page: &mut String, entry: &Entry) {
    let Entry { name, kind, help, .. } = entry;
    let sets: Vec<_> = entry.label_sets().iter().map(labels).collect();
    let (kind_name, sets) = (kind.name(), sets.join("; or "));
    write!(page, "| `{name}` | {kind_name} | {sets} | {help}").expect("a string takes everything");
    if let Kind::Histogram(bounds) = kind {
        let bounds: Vec<_> = bounds.iter().map(f64::to_string).collect();
        let unit = if entry.unit == Unit::Seconds { " s" } else { "" };
        write!(page, " Buckets up to {}{unit}.", bounds.join(", ")).expect("a string takes everything");
    }
    page.push_str(" |\n");
}

fn labels(set: &LabelSet) -> String {
    if set.is_empty() {
        return "–".to_owned();
    }
    set.iter().map(|label| values(label)).collect::<Vec<_>>().join("; ")
}

fn values(label: &Label) -> String {
    let (name, values) = (label.name, label.values.join("`, `"));
    if values.is_empty() { format!("`{name}`") } else { format!("`{name}`: `{values}`") }
}
