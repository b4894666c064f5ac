//! Lines between those who log and the thread that writes.
//!
//! **Lives here:** the bounds, what is dropped, the thread.
//! **Called by:** `logs`.
//! **Must not know:** what a line says.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Lines that wait at most.
pub(super) const LINES_MAX: usize = 8192;
/// Bytes that wait at most, all lines together; a longer line never enters.
pub(super) const BYTES_MAX: usize = 4 << 20;

/// A bounded queue of lines. A line that finds it full is dropped and counted.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// A line came.
    arrived: Condvar,
    /// The last line was written.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// The thread holds a line that is not written yet.
    writing: bool,
}

impl Queue {
    /// Takes a line, or drops and counts it. Never waits for the writer.
    pub(super) fn offer(&self, line: &[u8]) {
        let mut waiting = self.waiting();
        if waiting.lines.len() >= LINES_MAX || waiting.bytes.saturating_add(line.len()) > BYTES_MAX {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.into());
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Returns how many lines were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until no line is left, for at most `patience`; says whether that came to pass.
    pub(super) fn flushed(&self, patience: Duration) -> bool {
        let left = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        let waited = self.emptied.wait_timeout_while(self.waiting(), patience, left);
        let (_waiting, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// Starts the thread that writes lines to `sink`; it lives as long as the process.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub(super) fn write_to(self: &Arc<Self>, mut sink: impl Write + Send + 'static) -> io::Result<()> {
        let queue = Arc::clone(self);
        let thread = std::thread::Builder::new().name("log".to_owned());
        thread.spawn(move || {
            loop {
                let line = queue.take();
                // A log that cannot be written has nowhere to say so but the count.
                if sink.write_all(&line).and_then(|()| sink.flush()).is_err() {
                    queue.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        })?;
        Ok(())
    }

    /// Waits for the next line and takes it.
    fn take(&self) -> Box<[u8]> {
        let mut waiting = self.waiting();
        waiting.writing = false;
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes = waiting.bytes.saturating_sub(line.len());
                waiting.writing = true;
                return line;
            }
            self.emptied.notify_all();
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A thread that panicked while it held the lock left no half-made state behind: every change is one push or pop.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
