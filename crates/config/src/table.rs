//! The table of keys: what may be written, what it means, what it is when it is not written.
//!
//! **Lives here:** every section and key, with kind, bounds and default.
//! **Called by:** `merge` to know keys, `reader` to read them, `reference` to print them.
//! **Must not know:** the types that values become.
//!
//! A key that is not here cannot be written or read, so that reference and behaviour cannot differ.

mod sections;

use std::time::Duration;

pub(crate) use sections::SECTIONS;

/// A part of the file.
pub(crate) struct Section {
    /// Its path, such as `broker.nats`.
    pub(crate) path: &'static str,
    pub(crate) shape: Shape,
    pub(crate) doc: &'static str,
    pub(crate) keys: &'static [Key],
}

/// How often a section may be written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Once: `[client]`.
    Once,
    /// Once for each name that the operator gives: `[history.short]`.
    Named,
    /// Any number of times, in order: `[[channels]]`. Only in the file.
    List,
}

/// One key.
pub(crate) struct Key {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) kind: Kind,
    pub(crate) preset: Preset,
}

/// What a value is.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// IP address and port.
    Address,
    /// Number and unit of time.
    Duration { min: Duration, max: Duration },
    /// Number and unit of bytes.
    Size { min: u64, max: u64 },
    /// Whole number.
    Count { min: u64, max: u64 },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text, not empty, at most so many bytes.
    Text { max_bytes: usize },
    /// As `Text`; never shown.
    Secret { max_bytes: usize },
    /// List of texts, at least one.
    Texts { max: usize },
    /// As `Texts`; never shown.
    Secrets { max: usize },
}

/// What a key is when it is not written.
#[derive(Clone, Copy)]
pub(crate) enum Preset {
    /// An error.
    Required,
    /// Absent; the doc says what that means.
    Absent,
    /// This, as the environment would write it.
    Is(&'static str),
}

/// The classes of history that exist without being written: name, `max_age`, `max_messages`, `max_bytes`.
pub(crate) const CLASSES: [(&str, [&str; 3]); 3] =
    [("short", ["10m", "100", "64MiB"]), ("long", ["24h", "1000", "1GiB"]), (CACHE, ["30m", "1", "64MiB"])];

/// The class of cache channels whose rule keeps nothing.
pub(crate) const CACHE: &str = "cache";

/// Returns the section that `path` is an instance of: `history.short` of `history`, `channels[2]` of `channels`.
pub(crate) fn section(path: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|section| match section.shape {
        Shape::Once => path == section.path,
        Shape::Named => {
            let name = path.strip_prefix(section.path).and_then(|rest| rest.strip_prefix('.'));
            name.is_some_and(|name| !name.is_empty() && !name.contains('.'))
        }
        Shape::List => {
            path.strip_prefix(section.path).is_some_and(|rest| rest.starts_with('[') && rest.ends_with(']'))
        }
    })
}

/// Returns the key at `path`, such as `client.heartbeat`, `history.short.max_age` or `channels[2].match`.
pub(crate) fn key_at(path: &str) -> Option<(&'static Section, &'static Key)> {
    let (within, name) = path.rsplit_once('.')?;
    let section = section(within)?;
    section.keys.iter().find(|key| key.name == name).map(|key| (section, key))
}

/// Returns what a key of a built-in class of history is when it is not written.
pub(crate) fn built_in(path: &str) -> Option<&'static str> {
    let (class, key) = path.strip_prefix("history.")?.split_once('.')?;
    let (_, presets) = CLASSES.iter().find(|(name, _)| *name == class)?;
    let [max_age, max_messages, max_bytes] = presets;
    match key {
        "max_age" => Some(max_age),
        "max_messages" => Some(max_messages),
        "max_bytes" => Some(max_bytes),
        _ => None,
    }
}
