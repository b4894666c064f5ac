//! The log: lines to standard error that never hold up who writes them.
//!
//! **Lives here:** text and JSON, which lines are wanted, the global subscriber.
//! **Called by:** `gateway`, once a process; `config` checks directives.
//! **Must not know:** what is logged.

mod directives;
mod queue;

use std::{
    io::{self, IsTerminal},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tracing_subscriber::{
    Layer, filter::EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt,
};

pub use directives::BadDirectives;
use queue::Queue;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: time, level, target, message, fields. Coloured on a terminal.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The log of this process.
#[derive(Debug)]
pub struct Logs(Arc<Queue>);

/// Why the log cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The directives cannot be read.
    #[error(transparent)]
    Directives(#[from] BadDirectives),
    /// The process has a log.
    #[error("the log began already; begin it once a process")]
    Twice,
    /// The thread that writes did not start.
    #[error("the thread that writes the log did not start")]
    Thread(#[source] io::Error),
}

/// The queue of the process's log, for its count of dropped lines.
static PROCESS: OnceLock<Arc<Queue>> = OnceLock::new();

/// Begins the process's log: lines as `format`, those that `directives` want, to standard error.
///
/// Lines wait in a queue of 8192 lines and 4 MiB at most, and a thread writes them. When standard error takes them
/// more slowly than they come, those that find the queue full are dropped and counted.
///
/// # Errors
/// [`LogsError`] when the directives cannot be read, or the process has a log.
pub fn logs(format: LogFormat, directives: &str) -> Result<Logs, LogsError> {
    let filter = directives::filter(directives)?;
    let queue = Arc::new(Queue::default());
    if PROCESS.set(queue.clone()).is_err() {
        return Err(LogsError::Twice);
    }
    queue.write_to(io::stderr()).map_err(LogsError::Thread)?;
    let began = subscriber(format, filter, queue.clone(), io::stderr().is_terminal()).try_init();
    began.map_err(|_error| LogsError::Twice)?;
    Ok(Logs(queue))
}

/// Says whether `directives` can be read, without beginning a log.
///
/// # Errors
/// [`BadDirectives`] says which part cannot.
pub fn check_directives(directives: &str) -> Result<(), BadDirectives> {
    directives::filter(directives).map(drop)
}

/// Returns how many lines of the process's log were dropped.
pub(crate) fn dropped() -> u64 {
    PROCESS.get().map_or(0, |queue| queue.dropped())
}

impl Logs {
    /// Waits until every line so far is written, for at most `patience`. Blocks: call it last, before the process
    /// ends. Says whether all were written.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        self.0.flushed(patience)
    }
}

fn subscriber(
    format: LogFormat,
    filter: EnvFilter,
    queue: Arc<Queue>,
    colours: bool,
) -> impl tracing::Subscriber + Send + Sync {
    let lines = tracing_subscriber::fmt::layer().with_writer(Lines(queue)).with_ansi(colours);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines)
}

/// Makes writers that put each line on the queue.
struct Lines(Arc<Queue>);

/// Takes one line: the layer writes each with one call.
struct Line<'a>(&'a Queue);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let (text, end) =
            line.split_last_chunk::<1>().filter(|(_, end)| *end == b"\n").unwrap_or((line, b"\n"));
        if text.contains(&b'\n') {
            // A value with a line break in it must not pass for a line of ours.
            let parts: Vec<_> = text.split(|byte| *byte == b'\n').collect();
            self.0.offer(&[&parts.join(&b"\\n"[..]), end.as_slice()].concat());
        } else {
            self.0.offer(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
