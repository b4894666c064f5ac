//! Whether the broker is as it should be: the link is up, and every shard is where its stream is.
//!
//! **Lives here:** the sum over the shards.
//! **Called by:** shards report, the link's watcher sums up, `lib` hands it out.
//! **Must not know:** why a shard is not settled.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use carillon_broker::Health;
use carillon_tasks::{Phase, Stop, clock};
use tokio::sync::{Notify, watch};

use crate::{link::View, meters::Meters};

/// What the shards report.
#[derive(Debug, Default)]
pub(crate) struct Settlements {
    /// For each shard, the generation of the link in which it is settled; 0 when it is not.
    shards: Vec<AtomicU64>,
    changed: Notify,
}

/// One shard's place in it.
#[derive(Debug)]
pub(crate) struct Settlement {
    all: Arc<Settlements>,
    index: usize,
}

impl Settlements {
    pub(crate) fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self { shards: (0..shards).map(|_| AtomicU64::new(0)).collect(), changed: Notify::new() })
    }

    pub(crate) fn place(self: &Arc<Self>, index: usize) -> Settlement {
        Settlement { all: Arc::clone(self), index }
    }

    fn are_in(&self, generation: u64) -> bool {
        self.shards.iter().all(|shard| shard.load(Ordering::Acquire) == generation)
    }

    /// Keeps `health` true until the process is cut.
    pub(crate) async fn sum_up(
        self: Arc<Self>,
        mut view: watch::Receiver<View>,
        health: watch::Sender<Health>,
        meters: Arc<Meters>,
        stop: Stop,
    ) {
        loop {
            let seen = *view.borrow_and_update();
            let well = seen.up && self.are_in(seen.generation);
            let changed = health.send_if_modified(|health| {
                let next = match (well, *health) {
                    (true, _) => Health::Connected,
                    (false, Health::Connected) => Health::Degraded { since: clock::now() },
                    (false, before @ (Health::Connecting { .. } | Health::Degraded { .. })) => before,
                };
                std::mem::replace(health, next) != next
            });
            if changed && well {
                tracing::info!("the NATS broker is connected");
            } else if changed {
                tracing::warn!("the NATS broker is degraded: what is published may be refused or late");
            }
            meters.connected.set(if well { 1.0 } else { 0.0 });
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                () = self.changed.notified() => {}
                () = stop.reached(Phase::Cut) => return,
            }
        }
    }
}

impl Settlement {
    /// Notes in which generation of the link the shard is settled, if it is.
    pub(crate) fn report(&self, generation: Option<u64>) {
        let Some(shard) = self.all.shards.get(self.index) else { return };
        let generation = generation.unwrap_or(0);
        if shard.swap(generation, Ordering::AcqRel) != generation {
            self.all.changed.notify_one();
        }
    }
}
