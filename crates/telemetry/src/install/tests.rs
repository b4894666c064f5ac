use std::collections::{BTreeMap, BTreeSet};

use carillon_tasks::Tasks;
use metrics::Unit;

use super::*;
use crate::label;

/// Renders what a fresh process shows after `work`.
fn exposition(work: impl FnOnce()) -> String {
    let recorder = recorder();
    let metrics = Metrics::of(&recorder);
    metrics::with_local_recorder(&recorder, || {
        begin("1.2.3", "abc\"def\\");
        metrics.process.describe();
        work();
        metrics.render()
    })
}

/// One line of the exposition that is no comment.
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, &'a str>,
    value: &'a str,
}

fn samples(text: &str) -> Vec<Sample<'_>> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.strip_suffix('}').unwrap();
            let labels = labels.split("\",").filter(|label| !label.is_empty());
            let labels = labels.map(|label| label.trim_end_matches('"').split_once("=\"").unwrap()).collect();
            Sample { name, labels, value }
        })
        .collect()
}

/// Returns the row that a sample belongs to, and whether the sample is a bucket.
fn row(name: &str) -> Option<(&'static Entry, bool)> {
    metric::TABLE.iter().find_map(|entry| match entry.kind {
        Kind::Counter | Kind::Gauge => (entry.name == name).then_some((*entry, false)),
        Kind::Histogram(_) => {
            let part = name.strip_prefix(entry.name)?;
            matches!(part, "_bucket" | "_sum" | "_count").then_some((*entry, part == "_bucket"))
        }
    })
}

#[test]
fn every_series_is_in_the_table_and_begins_at_zero() {
    let text = exposition(|| {});
    let mut shown = BTreeSet::new();
    for Sample { name, mut labels, value } in samples(&text) {
        if metric::PROCESS.iter().any(|(known, ..)| *known == name) {
            assert!(labels.is_empty());
            continue;
        }
        let (entry, bucket) = row(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        assert_eq!(labels.remove("le").is_some(), bucket, "{name}");
        if entry.name == metric::BUILD_INFO.entry().name {
            assert_eq!((labels["version"], value), ("1.2.3", "1"));
        } else {
            assert_eq!(value, "0", "{name}");
            let fits = |set: &&[&label::Label]| {
                let found = set.iter().filter(|label| label.values.contains(&labels[label.name])).count();
                found == set.len() && found == labels.len()
            };
            assert!(entry.label_sets().iter().any(fits), "{name} {labels:?}");
        }
        shown.insert(entry.name);
    }
    for entry in metric::TABLE {
        let begins = entry.start == Start::AtZero || entry.name == metric::BUILD_INFO.entry().name;
        assert_eq!(shown.contains(entry.name), begins, "{}", entry.name);
    }
    for (name, ..) in metric::PROCESS {
        assert!(text.contains(&format!("\n{name} ")), "{name} is missing");
    }
}

#[test]
fn every_combination_of_labels_is_there_from_the_start() {
    let text = exposition(|| {});
    for entry in metric::TABLE.iter().filter(|entry| entry.start == Start::AtZero) {
        let expected: usize = entry
            .label_sets()
            .iter()
            .map(|set| set.iter().map(|label| label.values.len()).product::<usize>())
            .sum();
        let count = format!("{}_count", entry.name);
        let found =
            samples(&text).iter().filter(|sample| sample.name == entry.name || sample.name == count).count();
        assert_eq!(found, expected, "{}", entry.name);
    }
}

/// What `promtool check metrics` asks of names and comments.
#[test]
fn the_exposition_keeps_the_rules_of_prometheus() {
    let text = exposition(|| metric::BROKER_CONNECTED.gauge(&[("broker", "memory")]).set(1.0));
    let mut commented = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('#')) {
        let mut words = line.splitn(4, ' ').skip(1);
        let (what, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        assert!(!rest.trim().is_empty(), "{line}");
        let before = commented.insert((name, what), rest);
        assert_eq!(before, None, "{line} comes twice");
    }
    for entry in metric::TABLE {
        assert_eq!(commented.get(&(entry.name, "TYPE")), Some(&entry.kind.name()), "{}", entry.name);
        assert_eq!(commented.get(&(entry.name, "HELP")), Some(&entry.help), "{}", entry.name);
    }
    for (name, kind, _) in metric::PROCESS {
        assert_eq!(commented.get(&(*name, "TYPE")), Some(&kind.name()), "{name}");
        assert!(commented.contains_key(&(*name, "HELP")), "{name}");
    }
    assert!(text.contains("\ncarillon_broker_connected{broker=\"memory\"} 1\n") && !text.contains("summary"));
}

#[test]
fn every_row_is_well_formed() {
    let mut names = BTreeSet::new();
    for entry in metric::TABLE {
        let name = entry.name;
        assert!(names.insert(name), "{name} is there twice");
        let bare = name.strip_prefix("carillon_").expect(name);
        assert!(bare.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert_eq!(bare.ends_with("_total"), entry.kind == Kind::Counter, "{name}: counters end in _total");
        let stem = bare.trim_end_matches("_total");
        assert_eq!(stem.ends_with("_seconds"), entry.unit == Unit::Seconds, "{name}: unit");
        assert_eq!(stem.ends_with("_bytes"), entry.unit == Unit::Bytes, "{name}: unit");
        for suffix in ["_count", "_sum", "_bucket", "_gauge", "_counter", "_histogram", "_ms", "_percent"] {
            assert!(!stem.ends_with(suffix), "{name} ends in {suffix}");
        }
        assert_eq!(
            bare.ends_with("_info"),
            entry.label_sets().concat().iter().any(|label| label.values.is_empty()),
            "{name}"
        );
        assert!(entry.help.ends_with('.') && !entry.help.contains('\n'), "{name}: help is a sentence");
        if let Kind::Histogram(buckets) = entry.kind {
            assert!(!buckets.is_empty() && buckets.is_sorted_by(|a, b| a < b), "{name}: buckets");
        }
        let labels: BTreeSet<_> = entry.label_sets().concat().iter().map(|label| label.name).collect();
        for set in entry.label_sets() {
            assert_eq!(labels.len(), set.len(), "{name}: every series has the same labels, each once");
        }
        // What would multiply series without end, and what Prometheus keeps for itself.
        for never in ["channel", "user", "connection", "ip", "path", "le", "quantile", "job", "instance"] {
            assert!(!labels.contains(never), "{name} is labelled by {never}");
        }
    }
}

#[test]
fn a_handle_counts_whatever_the_order_of_its_labels() {
    let text = exposition(|| {
        metric::CONNECTIONS_OPENED
            .counter(&[("transport", "websocket"), ("protocol", "native")])
            .increment(1);
        metric::CONNECTIONS_OPENED
            .counter(&[("protocol", "native"), ("transport", "websocket")])
            .increment(1);
        let latency = metric::DELIVERY_LATENCY.histogram(&[("transport", "websocket")]);
        latency.record(Duration::from_millis(3));
        latency.record(7.0);
        let reason = label::close_reason(carillon_model::CloseReason::SlowConsumer);
        metric::CONNECTIONS_CLOSED.counter(&[("transport", "websocket"), ("reason", reason)]).increment(4);
    });
    for line in [
        "carillon_connections_opened_total{transport=\"websocket\",protocol=\"native\"} 2",
        "carillon_delivery_latency_seconds_bucket{transport=\"websocket\",le=\"0.0025\"} 0",
        "carillon_delivery_latency_seconds_bucket{transport=\"websocket\",le=\"0.005\"} 1",
        "carillon_delivery_latency_seconds_bucket{transport=\"websocket\",le=\"+Inf\"} 2",
        "carillon_delivery_latency_seconds_count{transport=\"websocket\"} 2",
        "carillon_connections_closed_total{transport=\"websocket\",reason=\"slow_consumer\"} 4",
    ] {
        assert!(text.lines().any(|shown| shown == line), "no line {line} in\n{text}");
    }
}

#[test]
fn labels_that_are_not_in_the_table_make_no_key() {
    let publishes = metric::PUBLISH_REQUESTS.entry();
    assert!(publishes.key(&[("api", "grpc"), ("code", "ok")]).is_some());
    assert!(publishes.key(&[("api", "http"), ("code", "ok")]).is_none());
    let entry = metric::CONNECTIONS_OPENED.entry();
    assert!(entry.key(&[("transport", "websocket"), ("protocol", "native")]).is_some());
    for labels in [
        &[][..],
        &[("transport", "websocket")],
        &[("transport", "websocket"), ("protocol", "orders.7")],
        &[("transport", "websocket"), ("transport", "websocket")],
        &[("transport", "websocket"), ("protocol", "native"), ("channel", "orders.7")],
    ] {
        assert!(entry.key(labels).is_none(), "{labels:?}");
    }
}

#[test]
#[should_panic(expected = "carillon_connections_opened_total has no series")]
fn a_wrong_label_stops_a_debug_build() {
    metric::CONNECTIONS_OPENED.counter(&[("channel", "orders.7")]).increment(1);
}

#[test]
fn installing_twice_is_refused() {
    assert!(install("0", "x").is_ok());
    assert!(matches!(install("0", "x"), Err(InstallError::Twice)));
}

#[tokio::test(start_paused = true)]
async fn upkeep_ends_when_the_process_is_cut() {
    let metrics = Metrics::of(&recorder());
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    tasks.spawn("upkeep", metrics.upkeep(tasks.stop()));
    tokio::time::sleep(UPKEEP * 3).await;
    assert_eq!(tasks.running(), 1);
    tasks.enter(Phase::Cut);
    assert_eq!(tasks.finished(UPKEEP).await, carillon_tasks::Stopped::Clean);
}
