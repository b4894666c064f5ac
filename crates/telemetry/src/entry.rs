//! One row of the table of metrics, and the handles that are made from it.
//!
//! **Lives here:** the shape of a row; the check that labels are those of the table.
//! **Called by:** `metric` makes rows; every crate asks rows for handles, once, and keeps them.
//! **Must not know:** which metrics there are, the exporter.

use metrics::{Counter, Gauge, Histogram, Key, Level, Metadata, Unit};

use crate::Label;

/// One metric: everything that is known of it before the first sample.
#[derive(Debug)]
pub struct Entry {
    /// Its full name, unit suffix included.
    pub name: &'static str,
    /// What kind of numbers it shows.
    pub kind: Kind,
    /// The unit of its value.
    pub unit: Unit,
    /// What the value means, for the person who reads the dashboard.
    pub help: &'static str,
    /// The sets of labels that its series have, each in the order of the exposition; none is one without labels.
    /// More than one set where the values of one label depend on another.
    pub sets: &'static [LabelSet],
    /// When its series begin.
    pub start: Start,
}

/// The labels of a series. Every combination of their values exists.
pub type LabelSet = &'static [&'static Label];

/// The kinds of metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts samples by size, in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// Returns its name in the exposition.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// When a metric's series begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With zero, for every combination of labels, when the exporter is installed: `rate()` and alerts then work
    /// from the first scrape.
    AtZero,
    /// When somebody first asks for a handle: a zero would be a false statement.
    OnUse,
}

/// What a metric's labels are in one series, such as `[("transport", "websocket")]`.
pub type Labels<'a> = &'a [(&'static str, &'static str)];

const METADATA: Metadata<'static> = Metadata::new("carillon", Level::INFO, None);

impl Entry {
    /// Returns the sets of labels, of which there is at least the empty one.
    pub(crate) const fn label_sets(&self) -> &'static [LabelSet] {
        if self.sets.is_empty() { &[&[]] } else { self.sets }
    }

    /// Makes the key of one series, with the labels in the table's order whatever order they come in.
    /// `None` when a label or a value is not in the table.
    pub(crate) fn key(&self, labels: Labels<'_>) -> Option<Key> {
        let checked = self.label_sets().iter().find_map(|set| in_order(set, labels))?;
        Some(Key::from_parts(self.name, checked))
    }

    /// As [`key`](Self::key); a series that is not in the table stops a debug build and counts nothing in a release.
    fn checked_key(&self, labels: Labels<'_>) -> Option<Key> {
        let key = self.key(labels);
        debug_assert!(
            key.is_some(),
            "{} has no series {labels:?}: see the labels in telemetry::metric",
            self.name
        );
        key
    }

    /// Returns the labels of every series, none left out.
    pub(crate) fn combinations(&self) -> Vec<Vec<(&'static str, &'static str)>> {
        self.label_sets().iter().flat_map(|set| combinations(set)).collect()
    }

    pub(crate) fn register_counter(key: &Key) -> Counter {
        metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA))
    }

    pub(crate) fn register_gauge(key: &Key) -> Gauge {
        metrics::with_recorder(|recorder| recorder.register_gauge(key, &METADATA))
    }

    pub(crate) fn register_histogram(key: &Key) -> Histogram {
        metrics::with_recorder(|recorder| recorder.register_histogram(key, &METADATA))
    }
}

/// Returns the labels in the order of `set`; `None` when one is missing, or has another value, or is too many.
fn in_order(set: LabelSet, labels: Labels<'_>) -> Option<Vec<metrics::Label>> {
    let find = |label: &&Label| {
        let (name, value) = labels.iter().find(|(name, _)| *name == label.name)?;
        label.values.contains(value).then(|| metrics::Label::from_static_parts(name, value))
    };
    if labels.len() == set.len() { set.iter().map(find).collect() } else { None }
}

fn combinations(set: LabelSet) -> Vec<Vec<(&'static str, &'static str)>> {
    set.iter().fold(vec![Vec::new()], |so_far, label| {
        let longer = |begun: Vec<_>| {
            label.values.iter().map(move |value| [begun.as_slice(), &[(label.name, *value)]].concat())
        };
        so_far.into_iter().flat_map(longer).collect()
    })
}

/// A metric that only rises.
#[derive(Debug)]
pub struct CounterMetric(Entry);

/// A metric that rises and falls.
#[derive(Debug)]
pub struct GaugeMetric(Entry);

/// A metric that counts samples by size.
#[derive(Debug)]
pub struct HistogramMetric(Entry);

impl CounterMetric {
    pub(crate) const fn new(
        name: &'static str,
        unit: Unit,
        sets: &'static [LabelSet],
        help: &'static str,
    ) -> Self {
        Self(Entry { name, kind: Kind::Counter, unit, help, sets, start: Start::AtZero })
    }

    /// Returns the row.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.0
    }

    /// Returns the handle of one series. Ask after the exporter is installed, once, and keep it.
    ///
    /// # Panics
    /// In debug builds, when a label or its value is not in the table; in a release such a handle counts nothing.
    pub fn counter(&self, labels: Labels<'_>) -> Counter {
        self.0.checked_key(labels).map_or_else(Counter::noop, |key| Entry::register_counter(&key))
    }
}

impl GaugeMetric {
    pub(crate) const fn new(
        name: &'static str,
        unit: Unit,
        sets: &'static [LabelSet],
        help: &'static str,
    ) -> Self {
        Self(Entry { name, kind: Kind::Gauge, unit, help, sets, start: Start::AtZero })
    }

    pub(crate) const fn on_use(mut self) -> Self {
        self.0.start = Start::OnUse;
        self
    }

    /// Returns the row.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.0
    }

    /// Returns the handle of one series. Ask after the exporter is installed, once, and keep it.
    ///
    /// # Panics
    /// In debug builds, when a label or its value is not in the table; in a release such a handle shows nothing.
    pub fn gauge(&self, labels: Labels<'_>) -> Gauge {
        self.0.checked_key(labels).map_or_else(Gauge::noop, |key| Entry::register_gauge(&key))
    }
}

impl HistogramMetric {
    pub(crate) const fn new(
        name: &'static str,
        unit: Unit,
        buckets: &'static [f64],
        sets: &'static [LabelSet],
        help: &'static str,
    ) -> Self {
        Self(Entry { name, kind: Kind::Histogram(buckets), unit, help, sets, start: Start::AtZero })
    }

    /// Returns the row.
    #[must_use]
    pub const fn entry(&self) -> &Entry {
        &self.0
    }

    /// Returns the handle of one series. Ask after the exporter is installed, once, and keep it.
    ///
    /// # Panics
    /// In debug builds, when a label or its value is not in the table; in a release such a handle counts nothing.
    pub fn histogram(&self, labels: Labels<'_>) -> Histogram {
        self.0.checked_key(labels).map_or_else(Histogram::noop, |key| Entry::register_histogram(&key))
    }
}
