//! The rules in schedules that no real machine would play in a year; see `tests/src/simulation.rs`.
//!
//! `make sim SEEDS=100000` runs more of them, `make sim TRACE=7` shows what happens in one.

use carillon_tests::simulation::{self, Bug, Tally};

/// Schedules that are run every time.
const SCHEDULES: u64 = 600;

/// Seeds that have failed once, with what was wrong. They stay.
const REGRESSIONS: [(u64, &str); 9] = [
    (45, "who stood further than the node had got hid messages from others"),
    (101, "who stood further than the node had got hid messages from others"),
    (59, "what overflowed after the client had left the channel was not told"),
    (391, "a replay that waited for room was not woken when another had made it"),
    (1055, "a leader that was not ready counted as proof that a stream went on"),
    (49_737, "a copy that was restored twice got the same epoch twice"),
    (5638, "word of an old gap made a client deaf that had joined in a newer epoch"),
    (1_021_771, "word of an old gap moved a client that had joined in a newer epoch"),
    (3, "word of a loss stood behind word of a later overflow"),
];

/// Within so many schedules each planted bug is found.
const FOUND_WITHIN: u64 = 400;

#[test]
fn nothing_is_lost_doubled_or_reordered_without_word() {
    let mut total = Tally::default();
    for seed in 0..SCHEDULES {
        match simulation::run(seed, Bug::None) {
            Ok(tally) => total.add(&tally),
            Err(_) => panic!("{}", simulation::trace(seed, Bug::None).unwrap_err()),
        }
    }
    // What was not played was not tested.
    let played = [
        total.delivered,
        total.replayed,
        total.recovered,
        total.unrecovered,
        total.gaps,
        total.dropped,
        total.made_up,
        total.slow,
        total.too_slow,
        total.lost,
        total.rolled_back,
        total.went_back,
    ];
    assert!(!played.contains(&0), "{total:#?}");
}

#[test]
fn what_failed_once_does_not_fail_again() {
    for (seed, what) in REGRESSIONS {
        if simulation::run(seed, Bug::None).is_err() {
            panic!("{what}:\n{}", simulation::trace(seed, Bug::None).unwrap_err());
        }
    }
}

#[test]
fn a_schedule_repeats_itself() {
    for seed in 0..10 {
        let once = simulation::run(seed, Bug::None).unwrap();
        assert_eq!(simulation::run(seed, Bug::None).unwrap(), once, "seed {seed}");
    }
}

#[test]
fn every_planted_bug_is_found() {
    for bug in Bug::ALL {
        let found = (0..FOUND_WITHIN).find(|seed| simulation::run(*seed, bug).is_err());
        assert!(found.is_some(), "{bug:?} was not found in {FOUND_WITHIN} schedules");
    }
}
