//! Stopping in the order that loses least.
//!
//! **Lives here:** what happens after SIGTERM, and after a second one.
//! **Called by:** `cli`, which waits here for the end of the process.
//! **Must not know:** what the parts do when they stop.

use std::{
    io,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use carillon_tasks::{Phase, Stopped, clock};
use carillon_telemetry::metric;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Gateway;

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop and did, with nobody left.
    Clean,
    /// It was asked to stop, and something did not end in time.
    Cut,
    /// It cannot go on; the sentence says why.
    Fatal(String),
}

/// Tasks that are left when the process is cut get this long to end.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// The signals that ask a process to stop.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them from the system: from here on, one that comes is kept until somebody waits for it. Before, it kills
    /// the process, or is lost where the process is the first one of a container.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Gateway {
    /// Serves until SIGTERM or SIGINT, then stops:
    ///
    /// 1. readiness goes, the public listener closes, gRPC health says NOT_SERVING;
    /// 2. clients are told goodbye, spread over `node.drain`, and their outboxes are emptied;
    /// 3. publishes under way are answered; then everything ends.
    ///
    /// A second signal goes to the end at once. After `node.drain` and `node.grace` what is left is cut.
    pub async fn until_stopped(mut self) -> Ended {
        tokio::select! {
            () = self.signals.next() => {}
            why = self.fatal.wait() => {
                // Clients are told goodbye all the same.
                self.node.cut();
                let workers = std::mem::take(&mut self.workers);
                let left = tokio::task::spawn_blocking(move || join_all(workers));
                let _some_stayed = tokio::time::timeout(LAST_MOMENT.saturating_mul(2), left).await.is_err();
                self.node.farewell();
                self.tasks.enter(Phase::Cut);
                let _finished = self.tasks.finished(LAST_MOMENT).await;
                return Ended::Fatal(why);
            }
        }
        let sockets = self.node.connections();
        tracing::info!(drain = ?self.drain, sockets, "stopping; a second signal cuts at once");
        self.tasks.enter(Phase::Draining);
        metric::DRAINING.gauge(&[]).set(1.0);
        let end = clock::now().checked_add(self.drain.saturating_add(self.grace));
        // A socket that comes before the drain is told goodbye; one that came after would be cut in its handshake.
        let _closed = tokio::time::timeout(LAST_MOMENT, &mut self.accepted_all).await;
        self.node.drain(self.drain);
        let workers = std::mem::take(&mut self.workers);
        let mut joined = tokio::task::spawn_blocking(move || join_all(workers));
        // What comes after the workers has its place within the grace, or half of it where the grace is short.
        let after = self.answered_within.saturating_add(LAST_MOMENT.saturating_mul(3)).min(self.grace / 2);
        let patience = end.map_or(Duration::MAX, |end| left_until(end).saturating_sub(after));
        let mut clean = tokio::select! {
            _ = &mut joined => true,
            () = self.signals.next() => false,
            () = tokio::time::sleep(patience) => false,
        };
        if !clean {
            tracing::warn!(sockets = self.node.connections(), "cutting what is left");
            self.node.cut();
            clean = tokio::time::timeout(LAST_MOMENT.saturating_mul(2), joined).await.is_ok() && clean;
        }
        self.node.farewell();
        // The broker's part ends with the cut, and with it every acknowledgement that a publisher waits for.
        let answered = tokio::time::timeout(self.answered_within, self.publishers.ended());
        clean &= answered.await.is_ok();
        self.tasks.enter(Phase::Cut);
        clean &= self.tasks.finished(LAST_MOMENT).await == Stopped::Clean;
        tracing::info!(clean, "stopped");
        if clean { Ended::Clean } else { Ended::Cut }
    }
}

fn join_all(workers: Vec<JoinHandle<()>>) {
    for worker in workers {
        if worker.join().is_err() {
            tracing::error!("a worker panicked");
        }
    }
}

fn left_until(end: Instant) -> Duration {
    end.saturating_duration_since(clock::now())
}
