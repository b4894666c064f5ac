//! What came of a run: the ledger, as text and as JSON.
//!
//! **Lives here:** counting, percentiles, what must be zero.
//! **Called by:** `chaos` makes it; the program and tests read it.
//! **Must not know:** how anything was done.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::checker::{self, Fault, Outcome as Published, Run, Verdict, audit};

use super::{
    crowd::Outcome,
    nemesis::Done,
    plan::Plan,
    world::{Cause, Farewell, World},
};

/// What came of a run.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    run: Run,
    verdict: Verdict,
    unfinished: usize,
    faults: Vec<Done>,
    faulty_ms: u32,
    took: Vec<Duration>,
    caught_up: BTreeMap<(Cause, &'static str), Vec<Duration>>,
    farewells: BTreeMap<(Cause, &'static str, Farewell), u64>,
    not_begun: BTreeMap<Cause, u64>,
    refusals: BTreeMap<String, u64>,
    /// What a scenario measured.
    pub figures: Vec<(&'static str, String)>,
    /// What a scenario found wrong.
    pub wrong: Vec<String>,
}

/// Percentiles of durations: how many there are, p50, p90, p99 and the longest, in milliseconds.
#[must_use]
pub fn percentiles(times: &[Duration]) -> (usize, [u128; 4]) {
    let mut times = times.to_vec();
    times.sort();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1)));
    (times.len(), [50, 90, 99, 100].map(|share| at(share).map_or(0, Duration::as_millis)))
}

fn name(cause: Cause) -> &'static str {
    Cause::NAMES.iter().find(|(known, _)| *known == cause).map_or("?", |(_, name)| name)
}

impl Ledger {
    pub(super) fn new(
        plan: &Plan,
        world: &World,
        run: Run,
        outcome: Outcome,
        faults: Vec<Done>,
        faulty_ms: u32,
    ) -> Self {
        let counted = std::mem::take(&mut *world.counted.lock().expect("nobody panics with the lock"));
        Self {
            seed: plan.seed,
            verdict: audit(&run),
            run,
            unfinished: outcome.unfinished,
            faults,
            faulty_ms,
            took: outcome.took,
            caught_up: counted.caught_up,
            farewells: counted.farewells,
            not_begun: counted.not_begun,
            refusals: counted.refusals,
            figures: Vec::new(),
            wrong: Vec::new(),
        }
    }

    /// Messages that were checked.
    #[must_use]
    pub const fn deliveries(&self) -> u64 {
        self.verdict.deliveries
    }

    /// Faults that were done, by kind.
    #[must_use]
    pub fn faults(&self) -> BTreeMap<String, u64> {
        let mut kinds = BTreeMap::new();
        for done in self.faults.iter().filter(|done| done.failed.is_none()) {
            *kinds.entry(format!("{:?}", done.fault.kind)).or_default() += 1;
        }
        kinds
    }

    /// Returns how long clients took to catch up after such a disconnect.
    #[must_use]
    pub fn caught_up(&self, cause: Cause) -> Vec<Duration> {
        let of_it = |((of, _), times): (&(Cause, _), _)| (*of == cause).then_some(times);
        self.caught_up.iter().filter_map(|(key, times)| of_it((key, times))).flatten().copied().collect()
    }

    /// Ends of WebSockets that browsers call 1006, at nodes that were asked to end.
    #[must_use]
    pub fn abnormal_at_sigterm(&self) -> u64 {
        self.farewells.get(&(Cause::Term, "ws", Farewell::Abnormal)).copied().unwrap_or(0)
    }

    /// Connections that ended, but for those that their clients gave up.
    #[must_use]
    pub fn disconnects(&self) -> u64 {
        let ours = self.farewells.iter().filter(|((_, _, farewell), _)| *farewell != Farewell::Silence);
        ours.map(|(_, count)| count).sum()
    }

    /// Everything that must not be.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let counts = self.verdict.counts.iter().map(|(fault, count)| format!("{fault:?}: {count}"));
        let mut all: Vec<_> = counts.chain(self.wrong.clone()).collect();
        if self.unfinished > 0 {
            all.push(format!("clients that did not see the end of every channel: {}", self.unfinished));
        }
        if self.abnormal_at_sigterm() > 0 {
            all.push(format!("closes with 1006 at SIGTERM: {}", self.abnormal_at_sigterm()));
        }
        let unpolite =
            self.faults.iter().filter(|done| done.failed.as_ref().is_some_and(|why| why.contains("ended")));
        all.extend(
            unpolite.map(|done| format!("{}: {}", done.fault, done.failed.clone().unwrap_or_default())),
        );
        all
    }

    fn outcomes(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        for one in &self.run.publications {
            let slot = match one.outcome {
                Published::Stored(_) => 0,
                Published::Unknown => 1,
                Published::Refused => 2,
            };
            counts[slot] += 1;
        }
        counts
    }

    /// What must be zero, under the names of the reliability page.
    fn zeros(&self) -> [(&'static str, u64); 5] {
        let count = |faults: &[Fault]| faults.iter().map(|fault| self.verdict.count(*fault)).sum();
        [
            ("acked-lost", count(&[Fault::AckedLost])),
            ("duplicates", count(&[Fault::Duplicate, Fault::StoredTwice])),
            ("reordered", count(&[Fault::Reordered, Fault::OutOfTurn])),
            ("silent gaps", count(&[Fault::SilentGap, Fault::ForeignEpoch])),
            ("phantoms", count(&[Fault::Phantom, Fault::WrongContent, Fault::Disagreement])),
        ]
    }

    /// The ledger as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let [stored, unknown, refused] = self.outcomes();
        let share = |times: &[Duration]| {
            let (count, [p50, p90, p99, max]) = percentiles(times);
            json!({"count": count, "p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "max_ms": max})
        };
        let told = |may_lose: bool| -> BTreeMap<String, u64> {
            let told = self.verdict.told.iter().filter(|((of, _), _)| *of == may_lose);
            told.map(|((_, reason), count)| (reason.to_string(), *count)).collect()
        };
        let caught_up = self
            .caught_up
            .iter()
            .map(|((cause, transport), times)| (format!("{} {transport}", name(*cause)), share(times)));
        let farewells = self.farewells.iter().map(|((cause, transport, farewell), count)| {
            (format!("{} {transport} {farewell:?}", name(*cause)), *count)
        });
        let faults = self.faults.iter().map(|done| {
            json!({"fault": done.fault.to_string(), "from_ms": done.from_ms, "to_ms": done.to_ms, "failed": done.failed})
        });
        json!({
            "seed": self.seed,
            "clients": self.run.clients.len(),
            "unfinished": self.unfinished,
            "faulty_ms": self.faulty_ms,
            "publications": {"stored": stored, "unknown": unknown, "refused": refused},
            "publish": share(&self.took),
            "deliveries": self.deliveries(),
            "faults": self.faults(),
            "zero": self.zeros().into_iter().collect::<BTreeMap<_, _>>(),
            "violations": self.verdict.counts.iter().map(|(fault, count)| (format!("{fault:?}"), *count))
                .collect::<BTreeMap<_, _>>(),
            "told": {"nothing deleted": told(false), "deleted": told(true)},
            "stale": self.verdict.stale,
            "recovered": {"times": self.verdict.recovered.0, "messages": self.verdict.recovered.1},
            "caught_up": caught_up.collect::<BTreeMap<_, _>>(),
            "farewells": farewells.collect::<BTreeMap<_, _>>(),
            "not_begun": self.not_begun.iter().map(|(cause, count)| (name(*cause), *count)).collect::<BTreeMap<_, _>>(),
            "refusals": self.refusals,
            "figures": self.figures.iter().cloned().collect::<BTreeMap<_, _>>(),
            "complaints": self.complaints(),
            "schedule": faults.collect::<Vec<_>>(),
        })
    }

    /// Where ledgers are kept.
    #[must_use]
    pub fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/chaos")
    }

    /// Writes the ledger, and what the nodes logged when something is wrong.
    pub(super) fn keep(&self, scenario: &str, logs: &Path) {
        let folder = Self::folder();
        fs::create_dir_all(&folder).expect("the target directory is writable");
        let file = |ending: &str| folder.join(format!("ledger-{scenario}-{}.{ending}", self.seed));
        fs::write(file("txt"), self.to_string()).expect("the target directory is writable");
        fs::write(file("json"), format!("{:#}", self.json())).expect("the target directory is writable");
        if !self.complaints().is_empty() {
            for node in 0..super::stand::NODES {
                let name = format!("node-{node}.log");
                let _none =
                    fs::copy(logs.join(&name), folder.join(format!("{scenario}-{}-{name}", self.seed)))
                        .is_err();
            }
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [stored, unknown, refused] = self.outcomes();
        let row = |text: &mut String, what: &str, times: &[Duration]| {
            let (count, [p50, p90, p99, max]) = percentiles(times);
            writeln!(
                text,
                "  {what:<24} {count:>7} times  p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, max {max} ms"
            )
        };
        let mut text = format!("seed {}: {}, faults for {} s\n", self.seed, self.run, self.faulty_ms / 1000);
        writeln!(text, "publications: {stored} stored, {unknown} unknown, {refused} refused")?;
        row(&mut text, "publish, with retries", &self.took)?;
        writeln!(text, "deliveries: {}", self.deliveries())?;
        let kinds = self.faults();
        writeln!(text, "faults: {} of {} kinds: {kinds:?}", kinds.values().sum::<u64>(), kinds.len())?;
        for (what, count) in self.zeros() {
            writeln!(text, "{what}: {count}")?;
        }
        for (what, may_lose) in [("where nothing was deleted", false), ("where something was", true)] {
            let told = self.verdict.told.iter().filter(|((of, _), _)| *of == may_lose);
            let told: Vec<_> = told.map(|((_, reason), count)| format!("{reason} {count}")).collect();
            writeln!(
                text,
                "losses told {what}: {}",
                if told.is_empty() { "0".to_owned() } else { told.join(", ") }
            )?;
        }
        let (times, messages) = self.verdict.recovered;
        writeln!(
            text,
            "acknowledged with the epoch before, where something was deleted: {}",
            self.verdict.stale
        )?;
        writeln!(text, "recovered: {messages} messages in {times} times")?;
        writeln!(text, "from disconnect to caught up:")?;
        for ((cause, transport), times) in &self.caught_up {
            row(&mut text, &format!("{}, {transport}", name(*cause)), times)?;
        }
        writeln!(text, "ends of connections:")?;
        for ((cause, transport, farewell), count) in &self.farewells {
            writeln!(text, "  {:<24} {count:>7} {farewell:?}", format!("{}, {transport}", name(*cause)))?;
        }
        writeln!(text, "1006 at SIGTERM: {}", self.abnormal_at_sigterm())?;
        writeln!(text, "connections that did not begin: {:?}", self.not_begun)?;
        writeln!(text, "refusals: {:?}", self.refusals)?;
        for (what, figure) in &self.figures {
            writeln!(text, "{what}: {figure}")?;
        }
        let complaints = self.complaints();
        if complaints.is_empty() {
            writeln!(text, "nothing is wrong")?;
        } else {
            writeln!(text, "WRONG: {complaints:#?}")?;
            for violation in &self.verdict.first {
                text.push_str(&self.run.show(violation));
                self.write_faults_around(&mut text, violation)?;
            }
        }
        f.write_str(&text)
    }
}

impl Ledger {
    fn write_faults_around(&self, text: &mut String, violation: &checker::Violation) -> fmt::Result {
        const BEFORE_MS: u32 = 5000;
        let Some((client, place)) = violation.place else { return Ok(()) };
        let event = self.run.clients.get(client).and_then(|story| story.events.get(place));
        let Some(at_ms) = event.map(|event| event.at_ms) else { return Ok(()) };
        let near = |done: &&Done| done.from_ms <= at_ms && at_ms <= done.to_ms.saturating_add(BEFORE_MS);
        for done in self.faults.iter().filter(near) {
            writeln!(text, "    during or after {} ({} to {} ms)", done.fault, done.from_ms, done.to_ms)?;
        }
        Ok(())
    }
}
