//! Tasks with a name and an end, and the one place that reads the clock.
//!
//! **Lives here:** starting, counting and stopping tasks; the phases of stopping; `now`.
//! **Called by:** every crate that waits for something.
//! **Must not know:** what the tasks do.

pub mod clock;
mod stop;

pub use stop::{Phase, Stop, Stopped, Tasks};
