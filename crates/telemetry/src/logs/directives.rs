//! Which lines are wanted, as the operator writes it.
//!
//! **Lives here:** what a directive may be.
//! **Called by:** `logs`.
//! **Must not know:** where lines go.

use tracing_subscriber::filter::EnvFilter;

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// A text that does not say which lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDirectives {
    /// Nothing is said.
    #[error("a log level is one of off, error, warn, info, debug and trace, such as \"info\"")]
    Empty,
    /// A part is neither a level nor `target=level`.
    #[error(
        "`{part}` is no log level: write off, error, warn, info, debug or trace, or `target=level`, such as \
         \"info,carillon_node=debug\""
    )]
    Part {
        /// The part.
        part: String,
    },
}

/// Reads directives.
///
/// # Errors
/// [`BadDirectives`] for the first part that cannot be read.
pub(super) fn filter(directives: &str) -> Result<EnvFilter, BadDirectives> {
    if directives.trim().is_empty() {
        return Err(BadDirectives::Empty);
    }
    for part in directives.split(',').map(str::trim) {
        // The library takes a word that is no level for a target and shows everything of it: a typing error in the
        // level would silence the rest of the log.
        let level = part.rsplit_once('=').map_or(part, |(_target, level)| level);
        if !LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known)) {
            return Err(BadDirectives::Part { part: part.to_owned() });
        }
    }
    let bad = |_error| BadDirectives::Part { part: directives.to_owned() };
    EnvFilter::builder().parse(directives.replace(' ', "")).map_err(bad)
}
