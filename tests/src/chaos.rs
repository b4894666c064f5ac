//! The whole under faults: a cluster of real processes, clients that check, and a nemesis; and what came of it.
//!
//! **Lives here:** the course of a run: start, faults, healing, the last messages, the audit.
//! **Called by:** the program `chaos` and `tests/chaos.rs`.
//! **Must not know:** the gateway's insides.

mod client;
mod content;
mod crowd;
pub mod ledger;
mod nemesis;
pub mod plan;
mod publisher;
pub mod scenario;
mod speech;
mod stand;
mod wire;
mod world;

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{crowd::Crowd, ledger::Ledger, nemesis::Done, plan::Plan, stand::Stand, world::World};

pub use self::world::Cause;

/// Names of a plan's channels: first those of which nothing is deleted.
fn channels(plan: &Plan) -> Vec<String> {
    let (safe, risky) = plan.channels;
    let names = |class: &'static str, count| (0..count).map(move |number| format!("{class}.{number}"));
    names("safe", safe).chain(names("risky", risky)).collect()
}

#[expect(clippy::print_stderr, reason = "a run that ends before its ledger can be done again")]
fn show(plan: &Plan) {
    let Plan { seed, clients, publishers, rate, time, .. } = plan;
    let seconds = time.as_secs();
    eprintln!("seed={seed} seconds={seconds} clients={clients} publishers={publishers} rate={rate}");
}

/// Each client and each cable needs descriptors, and the usual limit is 1024.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let _as_before = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).is_err();
}

/// How soon a node gives up clients that do not answer: soon enough to see it in a run, or so late that a busy machine
/// does not.
const IMPATIENT: &str = "[client]\nheartbeat = \"2s\"\npong_timeout = \"3s\"\n";
const PATIENT: &str = "[client]\nheartbeat = \"2s\"\npong_timeout = \"1m\"\n";

/// Starts a cluster, and everybody who uses it.
async fn begin(plan: &Plan, more: &str) -> (Stand, Arc<World>, Crowd) {
    show(plan);
    raise_descriptors();
    let stand = Stand::start(plan, more).await;
    let world = Arc::new(World::new(plan.seed, channels(plan), stand.nodes(), stand.key.clone()));
    let crowd = Crowd::start(&world, plan).await;
    (stand, world, crowd)
}

/// Heals everything, lets everybody see the end, and audits.
async fn end(plan: &Plan, stand: &Stand, world: &Arc<World>, crowd: Crowd, faults: Vec<Done>) -> Ledger {
    let faulty_ms = world.at_ms();
    stand.mend();
    stand.is_well().await;
    let (run, outcome) = crowd.end(world).await;
    tokio::task::block_in_place(|| Ledger::new(plan, world, run, outcome, faults, faulty_ms))
}

/// Faults by chance for as long as is planned.
pub async fn rage(plan: &Plan) -> Ledger {
    let (stand, world, crowd) = begin(plan, IMPATIENT).await;
    let faults = nemesis::rage(&stand, &world, plan.time).await;
    let ledger = end(plan, &stand, &world, crowd, faults).await;
    ledger.keep("rage", stand.folder());
    ledger
}
