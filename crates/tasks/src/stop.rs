//! Stopping in phases.
//!
//! **Lives here:** who is running, and how far the process is on its way out.
//! **Called by:** `gateway` starts the phases; every long-lived task watches them.
//! **Must not know:** what is drained, or how long it should take.

use std::{future::Future, time::Duration};

use tokio::{runtime::Handle, sync::watch};
use tokio_util::task::TaskTracker;

/// How far the process is on its way out. Phases only move forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Serving.
    Running,
    /// Readiness is gone and clients are asked to move; work in hand is finished.
    Draining,
    /// Everything ends now.
    Cut,
}

/// What a task watches to learn that it should end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<Phase>);

impl Stop {
    /// Returns the present phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until the process is in `phase` or past it.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub async fn reached(&self, phase: Phase) {
        let mut watched = self.0.clone();
        // An error means that the process is past every phase.
        let _past_every_phase = watched.wait_for(|now| *now >= phase).await.is_err();
    }
}

/// How stopping ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Every task ended by itself.
    Clean,
    /// Time ran out with tasks still running.
    Cut {
        /// How many.
        tasks: usize,
    },
}

/// The process's tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    phase: watch::Sender<Phase>,
    runtime: Handle,
}

impl Tasks {
    /// Makes a set of tasks that run on `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { tracker: TaskTracker::new(), phase: watch::Sender::new(Phase::Running), runtime }
    }

    /// Starts a task. `name` appears in logs when the task panics.
    pub fn spawn<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = self.tracker.track_future(task);
        self.runtime.spawn(async move {
            let guard = Named(name);
            task.await;
            std::mem::forget(guard);
        });
    }

    /// Returns what tasks watch.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop(self.phase.subscribe())
    }

    /// Moves the process forward to `phase`; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let forward = phase > *now;
            if forward {
                *now = phase;
            }
            forward
        });
    }

    /// Returns how many tasks are running.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Waits until every task has ended, for at most `patience`.
    ///
    /// # Cancel safety
    /// Safe: tasks go on when the future is dropped.
    pub async fn finished(&self, patience: Duration) -> Stopped {
        self.tracker.close();
        match tokio::time::timeout(patience, self.tracker.wait()).await {
            Ok(()) => Stopped::Clean,
            Err(_elapsed) => Stopped::Cut { tasks: self.running() },
        }
    }
}

/// Says in the log which task panicked.
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.0, "a task panicked; its work ends here");
        }
    }
}
