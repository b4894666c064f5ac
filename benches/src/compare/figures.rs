//! The figures of a comparison.
//!
//! **Lives here:** medians, means, ratios, the table and the line of JSON.
//! **Called by:** `compare` (enters), its binary (prints).
//! **Must not know:** processes, sockets.

use std::{collections::BTreeMap, fmt};

use serde_json::{Value, json};

use super::{
    Column, Side,
    column::{Figure, Judged},
};

/// The reports of both sides, round by round.
#[derive(Debug, Default)]
pub struct Figures {
    /// Rounds that were finished.
    pub rounds: usize,
    reports: BTreeMap<Column, BTreeMap<Side, Vec<Value>>>,
}

/// One figure over all rounds: medians where the ratio is judged, else means.
#[derive(Debug)]
struct Compared {
    name: &'static str,
    unit: &'static str,
    limit: f64,
    candidate: f64,
    /// Median of the rounds' own ratios; absent where the value itself is judged.
    ratio: Option<f64>,
}

impl Figures {
    /// Enters one report.
    pub(super) fn enter(&mut self, column: Column, side: Side, report: Value) {
        self.reports.entry(column).or_default().entry(side).or_default().push(report);
    }

    /// Returns the lost, duplicated and reordered messages of the candidate, all rounds together.
    #[must_use]
    pub fn faults(&self) -> [u64; 3] {
        ["lost", "duplicated", "reordered"].map(|fault| {
            let sides = self.reports.values().filter_map(|sides| sides.get(&Side::Candidate));
            sides.flatten().filter_map(|report| report[fault].as_u64()).sum()
        })
    }

    /// Returns everything as one JSON value.
    #[must_use]
    pub fn json(&self) -> Value {
        let mut columns = serde_json::Map::new();
        for (column, sides) in &self.reports {
            let figures: serde_json::Map<_, _> = compared(*column, sides)
                .into_iter()
                .map(|one| {
                    let value =
                        json!({"limit": round(one.limit), "candidate": round(one.candidate), "ratio": one.ratio.map(round)});
                    (format!("{} {}", one.name, one.unit), value)
                })
                .collect();
            columns.insert(column.name(), Value::Object(figures));
        }
        let [lost, duplicated, reordered] = self.faults();
        json!({
            "rounds": self.rounds, "columns": columns,
            "lost": lost, "duplicated": duplicated, "reordered": reordered,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<26} {:<14} {:>13} {:>12} {:>6}   ({} rounds)",
            "", "", "limit", "candidate", "ratio", self.rounds
        )?;
        for (column, sides) in &self.reports {
            for (index, one) in compared(*column, sides).iter().enumerate() {
                let name = if index == 0 { column.name() } else { String::new() };
                let ratio = one.ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}"));
                writeln!(
                    f,
                    "{name:<26} {:<14} {:>10.2} {u:<2} {:>9.2} {u:<2} {ratio:>6}",
                    one.name,
                    one.limit,
                    one.candidate,
                    u = one.unit
                )?;
            }
        }
        let [lost, duplicated, reordered] = self.faults();
        write!(f, "lost {lost}, duplicated {duplicated}, reordered {reordered}")
    }
}

fn compared(column: Column, sides: &BTreeMap<Side, Vec<Value>>) -> Vec<Compared> {
    let side = |side| sides.get(&side).map(Vec::as_slice).unwrap_or_default();
    let (limits, candidates) = (side(Side::Limit), side(Side::Candidate));
    let mut all = Vec::new();
    for Figure { path, name, unit, judged } in column.figures() {
        let number = |report: &Value| report.pointer(path).and_then(Value::as_f64);
        let rounds = limits.iter().zip(candidates);
        let pairs: Vec<(f64, f64)> =
            rounds.filter_map(|(limit, candidate)| Some((number(limit)?, number(candidate)?))).collect();
        let (limit, candidate): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        let ratios =
            pairs.iter().filter(|(limit, _)| *limit > 0.0).map(|(limit, candidate)| candidate / limit);
        let (limit, candidate, ratio) = match judged {
            Judged::Ratio => (median(limit), median(candidate), median(ratios.collect())),
            Judged::Value => (mean(&limit), mean(&candidate), None),
        };
        let (Some(limit), Some(candidate)) = (limit, candidate) else { continue };
        all.push(Compared { name, unit, limit, candidate, ratio });
    }
    all
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    let upper = numbers.get(middle)?;
    match numbers.len() % 2 {
        0 => Some(f64::midpoint(*upper, numbers[middle - 1])),
        _odd => Some(*upper),
    }
}

fn mean(numbers: &[f64]) -> Option<f64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<f64>() / numbers.len() as f64)
}

fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_medians_and_ratios_are_of_the_same_round() {
        let mut figures = Figures { rounds: 3, ..Figures::default() };
        for (limit, candidate, lost) in [(1.0, 2.0, 0), (10.0, 11.0, 1), (4.0, 4.0, 2)] {
            let report = |cpu, lost| json!({"cpu_us_per_publish": {"total": cpu}, "lost": lost});
            figures.enter(Column::Publish, Side::Limit, report(limit, 100));
            figures.enter(Column::Publish, Side::Candidate, report(candidate, lost));
        }
        let json = figures.json();
        assert_eq!(
            json["columns"]["publish"]["cpu/publish us"],
            json!({"limit": 4.0, "candidate": 4.0, "ratio": 1.1})
        );
        assert_eq!(figures.faults(), [3, 0, 0]);
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0]), Some(2.0));
    }
}
