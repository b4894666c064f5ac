//! Whole clusters in one thread: nodes that come, stop, die and lose their link, on a network that loses and delays.
//!
//! Chance comes from a seed, time is a number, and words go through their bytes. Of every run is wanted: what a node
//! says of additions and removals is its roster at any time; when faults have ended, every node knows what is true; the
//! application was told what is true. Of runs without faults: it was told each thing once.
//!
//! `PRESENCE_SEEDS=from..to` runs others.
#![expect(
    clippy::unwrap_in_result,
    reason = "what a run expects of itself, and what it finds, are two things"
)]

use simulation::{
    plan::{Bug, Faults},
    run::run,
};

mod simulation {
    pub(crate) mod dice;
    pub(crate) mod net;
    pub(crate) mod plan;
    pub(crate) mod run;
    pub(crate) mod truth;
}

/// Runs some seeds, and says of the first that fails how to run it again.
fn seeds(count: u64, faults: Faults, bug: Bug) -> Result<(), String> {
    for seed in range(count) {
        run(seed, faults, bug).map_err(|fault| format!("seed {seed}, {faults:?}, {bug:?}: {fault}"))?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the seeds to run by hand")]
fn range(count: u64) -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("PRESENCE_SEEDS") else { return 0..count };
    let (from, to) = text.split_once("..").expect("PRESENCE_SEEDS=from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn without_faults_everything_is_told_once() -> Result<(), String> {
    seeds(50, Faults::None, Bug::None)
}

#[test]
fn while_nodes_come_and_stop_everything_is_told_once() -> Result<(), String> {
    seeds(50, Faults::Rolling, Bug::None)
}

#[test]
fn after_nodes_have_died_the_others_agree_and_the_application_knows() -> Result<(), String> {
    seeds(50, Faults::Kills, Bug::None)
}

#[test]
fn what_was_lost_is_found() -> Result<(), String> {
    seeds(50, Faults::Losses, Bug::None)
}

#[test]
fn after_links_were_interrupted_all_agree_and_the_application_knows() -> Result<(), String> {
    seeds(50, Faults::Links, Bug::None)
}

#[test]
fn after_everything_at_once_all_agree() -> Result<(), String> {
    seeds(60, Faults::All, Bug::None)
}

#[test]
fn planted_bugs_are_found() {
    for bug in Bug::ALL {
        // Most show at once; a few only when two things meet.
        let found =
            range(400).any(|seed| Faults::ALL.into_iter().any(|faults| run(seed, faults, bug).is_err()));
        assert!(found, "{bug:?} was not found");
    }
}
