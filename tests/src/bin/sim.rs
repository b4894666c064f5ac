//! Runs schedules of the simulation: `sim SEEDS [FROM]` for so many from a seed on, `sim --trace SEED` for what happens in one.
//!
//! **Lives here:** arguments, threads, figures.
//! **Called by:** `make sim`.
//! **Must not know:** what a schedule is made of.

use std::{
    error::Error,
    io::{Write as _, stdout},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use carillon_tasks::clock;
use carillon_tests::simulation::{self, Bug, Tally};

/// Failing seeds that are shown; the rest is counted.
const SHOWN: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut out = stdout();
    if let [flag, seed] = arguments.as_slice()
        && flag == "--trace"
    {
        match simulation::trace(seed.parse()?, Bug::None) {
            Ok(tally) => writeln!(out, "{tally:#?}")?,
            Err(violation) => writeln!(out, "{violation}")?,
        }
        return Ok(());
    }
    let seeds: u64 = arguments.first().map_or(Ok(1000), |seeds| seeds.parse())?;
    let from: u64 = arguments.get(1).map_or(Ok(0), |from| from.parse())?;
    let (next, total) = (AtomicU64::new(from), Mutex::new((Tally::default(), Vec::new())));
    let began = clock::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut own = Tally::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        break;
                    }
                    match simulation::run(seed, Bug::None) {
                        Ok(tally) => own.add(&tally),
                        Err(violation) => {
                            total.lock().unwrap_or_else(PoisonError::into_inner).1.push(violation);
                        }
                    }
                }
                total.lock().unwrap_or_else(PoisonError::into_inner).0.add(&own);
            });
        }
    });
    let took = clock::now().saturating_duration_since(began).as_secs_f64();
    let (tally, mut violations) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    violations.sort_by_key(|violation| violation.seed);
    writeln!(out, "{tally:#?}")?;
    writeln!(out, "{seeds} schedules in {took:.1} s, {:.0} a second", seeds as f64 / took)?;
    for violation in violations.iter().take(SHOWN) {
        writeln!(out, "{violation}\n    make sim TRACE={}", violation.seed)?;
    }
    writeln!(out, "{} violations", violations.len())?;
    if violations.is_empty() { Ok(()) } else { Err("the rules were broken".into()) }
}
