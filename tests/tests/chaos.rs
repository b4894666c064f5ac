//! The whole under faults, as `make chaos` does it: 90 seconds with a seed that is always the same, and a short form of
//! each scenario. Nothing may be lost, doubled, reordered or made up; how fast it is, is not judged here.

use std::time::Duration;

use carillon_tests::chaos::{self, Cause, ledger::Ledger, plan::Plan, scenario};

/// Fails with the whole ledger.
fn all_is_well(ledger: &Ledger) {
    assert!(ledger.complaints().is_empty(), "{ledger}");
    show(ledger);
}

#[expect(clippy::print_stderr, reason = "the ledger is worth reading")]
fn show(ledger: &Ledger) {
    eprintln!("{ledger}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_in_ninety_seconds_of_faults() {
    let ledger = chaos::rage(&Plan { rate: 100, ..Plan::new() }).await;
    all_is_well(&ledger);
    // It must have been trouble.
    let faults = ledger.faults();
    assert!(faults.len() >= 10 && faults.values().sum::<u64>() >= 15, "{ledger}");
    assert!(ledger.deliveries() > 50_000, "{ledger}");
    // The scenarios follow in the same test: a machine with two cores has room for one cluster at a time.
    let short = Plan { time: Duration::from_secs(4), clients: 200, ..Plan::new() };
    let rolled = scenario::roll(&Plan { seed: 11, ..short.clone() }).await;
    all_is_well(&rolled);
    assert!(!rolled.caught_up(Cause::Term).is_empty(), "{rolled}");
    all_is_well(&scenario::kill(&Plan { seed: 12, ..short.clone() }).await);
    all_is_well(&scenario::storm(&Plan { seed: 13, clients: 1000, ..short.clone() }).await);
    all_is_well(&scenario::away(&Plan { seed: 14, ..short }).await);
}
