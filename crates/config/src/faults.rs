//! What is wrong with a configuration, all of it, for the person who wrote it.
//!
//! **Lives here:** the list and its layout.
//! **Called by:** `merge`, `reader` and `check` add; `cli` prints.
//! **Must not know:** what is right.

use std::fmt;

/// Columns that what was written may take before the expectations stand out of line.
const LEFT_MAX_COLUMNS: usize = 48;

/// A longer path is cut.
const PATH_MAX_CHARS: usize = 120;

/// Returns the character, or a mark where it would not be printed as one.
pub(crate) fn visible(character: char) -> char {
    if character.is_control() { '\u{fffd}' } else { character }
}

/// Everything that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    name: String,
    list: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, such as `client.heartbeat`; or where else to look.
    pub path: String,
    /// What was written, as it may be shown. `None` where it is a secret or not to the point.
    pub value: Option<String>,
    /// What is expected instead.
    pub expectation: String,
    /// The environment variable, where the value came from there.
    pub variable: Option<String>,
}

impl Fault {
    pub(crate) fn new(path: impl Into<String>, expectation: impl Into<String>) -> Self {
        // A name in quotes may hold anything; what is printed keeps to its line.
        let path: String = path.into().chars().take(PATH_MAX_CHARS).map(visible).collect();
        Self { path, value: None, expectation: expectation.into(), variable: None }
    }

    fn left(&self) -> String {
        match &self.value {
            Some(value) => format!("{} = {value}", self.path),
            None => self.path.clone(),
        }
    }
}

impl Faults {
    pub(crate) fn none(name: &str) -> Self {
        Self { name: name.to_owned(), list: Vec::new() }
    }

    pub(crate) fn one(name: &str, fault: Fault) -> Self {
        Self { name: name.to_owned(), list: vec![fault] }
    }

    pub(crate) fn add(&mut self, fault: Fault) {
        self.list.push(fault);
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the faults in the order in which they were found.
    #[must_use]
    pub fn as_slice(&self) -> &[Fault] {
        &self.list
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.list.len();
        write!(f, "{}: {count} {}", self.name, if count == 1 { "fault" } else { "faults" })?;
        let widths = self.list.iter().map(|fault| fault.left().chars().count());
        let column = widths.filter(|width| *width <= LEFT_MAX_COLUMNS).max().unwrap_or_default();
        for fault in &self.list {
            write!(f, "\n  {:column$}   {}", fault.left(), fault.expectation)?;
            if let Some(variable) = &fault.variable {
                write!(f, " (from {variable})")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
