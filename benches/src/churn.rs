//! Users who come to a presence channel and go again, all the time, over several nodes on a real NATS.
//!
//! **Lives here:** the options and the report, the run: everybody moves, everybody stops, everybody agrees.
//! **Called by:** the binary `churn`.
//! **Must not know:** how nodes keep their rosters the same.

mod member;
mod roster;
mod words;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use carillon_tasks::clock;
use carillon_tests::{
    gateway::Gateway,
    pusher::{Cluster, FIRST, Socket},
    raw::eventually,
};
use futures_util::future::try_join_all;
use tokio::task::JoinSet;

pub use self::words::Words;
use self::{
    member::{Member, Pace},
    roster::{VISITOR, agrees, ask_until, watch},
    words::Ear,
};
use crate::load::round;

const CHANNEL: &str = "presence-churn";
/// As many users as a roster has room for, unless the application says otherwise.
const USERS_MAX: usize = 100;

/// The options of one run.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    about = "Lets users come to a presence channel and go on several nodes; prints one line of JSON; fails when a \
             node tells of somebody who came twice or went twice"
)]
pub struct Options {
    /// Gateways.
    #[arg(long, default_value_t = 3)]
    pub nodes: usize,
    /// Users who come and go, on each gateway.
    #[arg(long, default_value_t = 20)]
    pub members: usize,
    /// Joins and leaves a second, all gateways together.
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// How long they do.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
}

/// What was measured.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// Gateways.
    pub nodes: usize,
    /// Joins and leaves.
    pub changes: u64,
    /// Seconds in which they were made.
    pub seconds: f64,
    /// The same per second.
    pub changes_per_s: f64,
    /// From the last change to the last node whose watcher has been told of everything, in milliseconds.
    pub watchers_agree_ms: f64,
    /// From the last change to the last node that tells whoever joins there the true roster, in milliseconds.
    pub joiners_agree_ms: f64,
    /// Who was told to come or go a second time, by a watcher's list.
    pub faults: u64,
    /// What the nodes said to each other meanwhile.
    pub words: Words,
    /// Words of any kind for each join or leave, heartbeats included.
    pub words_per_change: f64,
    /// Bytes of them.
    pub bytes_per_change: f64,
}

/// Runs.
///
/// # Errors
///
/// When the options make no sense, or the rosters do not agree in 30 s.
///
/// # Panics
///
/// When a gateway or nats-server does not start, or treats a client in another way than the protocol says.
pub async fn run(options: &Options) -> Result<Report> {
    ensure!(options.nodes > 0 && options.members > 0 && options.rate > 0.0, "nobody would come");
    ensure!(options.nodes * options.members < USERS_MAX, "a roster has room for {USERS_MAX} users");
    let cluster = Cluster::start(options.nodes);
    cluster.ready().await;
    all_show(&cluster.nodes, "carillon_nodes").await;
    let ear = Ear::open(&cluster.nats.url()).await?;

    let mut tasks = JoinSet::new();
    let (mut watchers, mut visitors, mut members) = (Vec::new(), Vec::new(), Vec::new());
    for node in &cluster.nodes {
        watchers.push(watch(Socket::open(node.public, &FIRST).await, &mut tasks).await);
        visitors.push(Socket::open(node.public, &FIRST).await);
    }
    // One on each node, and again: neighbours in time are on different nodes.
    for number in 0..options.nodes * options.members {
        let node = &cluster.nodes[number % options.nodes];
        members.push(Member::new(Socket::open(node.public, &FIRST).await, format!("user-{number}")));
    }
    all_show(&cluster.nodes, "carillon_presence_members").await;

    let words = ear.words(&cluster.nodes).await;
    let start = clock::now();
    let pace = Pace::new(options.rate, members.len(), start, Duration::from_secs_f64(options.seconds));
    let mut moving = JoinSet::new();
    for (number, member) in members.into_iter().enumerate() {
        moving.spawn(member.come_and_go(pace.of(number)));
    }
    // Who has stopped is still connected: the list ends with this run.
    let stopped = moving.join_all().await;
    let last = stopped.iter().map(|member| member.last).max().context("somebody moved")?;
    let here = stopped.iter().filter(|member| member.is_here).map(|member| member.user.clone());
    let here: BTreeSet<String> = here.chain([VISITOR.to_owned()]).collect();

    let (watched, asked) = tokio::try_join!(
        try_join_all(watchers.iter_mut().map(|watcher| agrees(watcher, &here))),
        try_join_all(visitors.into_iter().map(|visitor| ask_until(visitor, &here))),
    )?;
    let words = ear.words(&cluster.nodes).await - words;
    let changes: u64 = stopped.iter().map(|member| member.changes).sum();
    let all_changes = changes + asked.iter().map(|(_, changes)| changes).sum::<u64>();
    let each = |total: u64| round(total as f64 / all_changes as f64);
    let seconds = (last - start).as_secs_f64();
    let ms = |at: Option<Instant>| round((at.unwrap_or(last) - last).as_secs_f64() * 1e3);
    Ok(Report {
        nodes: options.nodes,
        changes,
        seconds: round(seconds),
        changes_per_s: round(changes as f64 / seconds),
        watchers_agree_ms: ms(watched.into_iter().max()),
        joiners_agree_ms: ms(asked.iter().map(|(at, _)| *at).max()),
        faults: watchers.iter().map(|watcher| watcher.borrow().faults).sum(),
        words_per_change: each(words.sent),
        bytes_per_change: each(words.bytes),
        words,
    })
}

/// Waits until every node shows as many of something as there are nodes.
async fn all_show(nodes: &[Gateway], series: &str) {
    for node in nodes {
        let shows = || async { (node.metric(series).await == nodes.len() as f64).then_some(()) };
        eventually(series, shows).await;
    }
}
