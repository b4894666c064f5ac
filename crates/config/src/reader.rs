//! Values are read by their path: the table says of which kind they are and within which bounds.
//!
//! **Lives here:** one reader for each kind; what a fault shows of a value.
//! **Called by:** `check`.
//! **Must not know:** what sections say of each other.

use std::{
    net::SocketAddr,
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use toml::Value;

use crate::{
    config::Secret,
    faults::{Fault, Faults, visible},
    merge::{Given, Values, Written},
    table::{self, Key, Kind, Preset},
    unit,
};

/// Reads values and keeps the faults. Every method that reads answers `None` for what is absent or at fault.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) values: Values,
    pub(crate) faults: Faults,
    /// The folder of the configuration file: what relative paths begin at.
    folder: PathBuf,
}

impl Reader {
    pub(crate) fn new(values: Values, faults: Faults, folder: &Path) -> Self {
        Self { values, faults, folder: folder.to_owned() }
    }

    /// Adds a fault of the value at `path`.
    pub(crate) fn fault(&mut self, path: &str, expectation: impl Into<String>) {
        let mut fault = Fault::new(path, expectation);
        if let Some(given) = self.values.get(path) {
            fault.variable.clone_from(&given.variable);
            fault.value = table::key_at(path).and_then(|(_, key)| shown(key, &given.value));
        } else if let Some((_, Key { preset: Preset::Is(preset), kind, .. })) = table::key_at(path) {
            fault.value = Some(format!("{} (the default)", written(kind, preset)));
        }
        self.faults.add(fault);
    }

    /// Says whether something was written at `path`.
    pub(crate) fn is_given(&self, path: &str) -> bool {
        self.values.get(path).is_some()
    }

    pub(crate) fn address(&mut self, path: &str) -> Option<SocketAddr> {
        self.get(path, |_, value| {
            let expected = "an IP address and a port are expected, such as \"127.0.0.1:8000\"";
            text(value)?.parse().map_err(|_error| expected.to_owned())
        })
    }

    pub(crate) fn duration(&mut self, path: &str) -> Option<Duration> {
        self.get(path, |key, value| {
            let Kind::Duration { min, max } = key.kind else { return Err(wrong_reader()) };
            within(unit::duration(&quantity(value)?)?, min, max, &key.kind)
        })
    }

    /// Reads a size of something that is kept in memory.
    pub(crate) fn size(&mut self, path: &str) -> Option<usize> {
        let bytes = self.size_of_storage(path)?;
        Some(usize::try_from(bytes).expect("the table's bounds of what is kept in memory fit 32 bits"))
    }

    /// Reads a size of something that is kept elsewhere.
    pub(crate) fn size_of_storage(&mut self, path: &str) -> Option<u64> {
        self.get(path, |key, value| {
            let Kind::Size { min, max } = key.kind else { return Err(wrong_reader()) };
            within(unit::size(&quantity(value)?)?, min, max, &key.kind)
        })
    }

    /// Reads a count as the type that holds it. No count of the table may be zero, and every bound fits 32 bits.
    pub(crate) fn count<N: TryFrom<NonZeroU32>>(&mut self, path: &str) -> Option<N> {
        self.get(path, |key, value| {
            let Kind::Count { min, max } = key.kind else { return Err(wrong_reader()) };
            let read = within(number(value)?, i128::from(min), i128::from(max), &key.kind)?;
            let small =
                u32::try_from(read).ok().and_then(NonZeroU32::new).and_then(|read| N::try_from(read).ok());
            small.ok_or_else(wrong_reader)
        })
    }

    pub(crate) fn flag(&mut self, path: &str) -> Option<bool> {
        self.get(path, |_, value| {
            let flag = match value {
                Written::Typed(value) => value.as_bool(),
                Written::Plain(text) => text.parse().ok(),
            };
            flag.ok_or_else(|| "true or false is expected".to_owned())
        })
    }

    /// Reads one of the table's words.
    pub(crate) fn choice(&mut self, path: &str) -> Option<&'static str> {
        self.get(path, |key, value| {
            let Kind::Choice(words) = key.kind else { return Err(wrong_reader()) };
            let text = text(value)?;
            let word = words.iter().find(|word| **word == text).copied();
            word.ok_or_else(|| format!("must be {}", bounds(&key.kind)))
        })
    }

    pub(crate) fn text(&mut self, path: &str) -> Option<String> {
        self.get(path, |key, value| short_text(key, text(value)?))
    }

    /// Reads the path of a file.
    pub(crate) fn file(&mut self, path: &str) -> Option<PathBuf> {
        self.text(path).map(|file| self.folder.join(file))
    }

    pub(crate) fn secret(&mut self, path: &str) -> Option<Secret> {
        self.get(path, |key, value| short_text(key, text(value)?)).map(Secret::new)
    }

    pub(crate) fn texts(&mut self, path: &str) -> Option<Vec<String>> {
        self.get(path, |key, value| {
            let expected = || "a list of texts is expected".to_owned();
            let list: Vec<String> = match value {
                Written::Plain(_) => text(value)?.split(',').map(|part| part.trim().to_owned()).collect(),
                Written::Typed(Value::Array(list)) => {
                    let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
                    texts.collect::<Option<_>>().ok_or_else(expected)?
                }
                Written::Typed(_) => return Err(expected()),
            };
            let (Kind::Texts { max } | Kind::Secrets { max }) = key.kind else { return Err(wrong_reader()) };
            if (1..=max).contains(&list.len()) {
                Ok(list)
            } else {
                Err(format!("must be {}", bounds(&key.kind)))
            }
        })
    }

    /// Finds what was written at `path`, or its preset, and reads it.
    fn get<T>(&mut self, path: &str, read: impl FnOnce(&Key, &Written) -> Result<T, String>) -> Option<T> {
        let Some((_, key)) = table::key_at(path) else {
            self.faults.add(Fault::new(path, wrong_reader()));
            return None;
        };
        let value = match (self.values.get(path), table::built_in(path), key.preset) {
            (Some(Given { value, .. }), _, _) => value.clone(),
            (None, Some(preset), _) | (None, None, Preset::Is(preset)) => Written::Plain(preset.to_owned()),
            (None, None, Preset::Absent) => return None,
            (None, None, Preset::Required) => {
                self.fault(path, format!("required: {}", bounds(&key.kind)));
                return None;
            }
        };
        read(key, &value).map_err(|expectation| self.fault(path, expectation)).ok()
    }
}

/// Says what a value of this kind is, bounds included.
pub(crate) fn bounds(kind: &Kind) -> String {
    match kind {
        Kind::Address => "an IP address and a port, such as \"127.0.0.1:8000\"".to_owned(),
        Kind::Duration { min, max } => {
            format!("from \"{}\" to \"{}\"", unit::show_duration(*min), unit::show_duration(*max))
        }
        Kind::Size { min, max } => {
            format!("from \"{}\" to \"{}\"", unit::show_size(*min), unit::show_size(*max))
        }
        Kind::Count { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Flag => "true or false".to_owned(),
        Kind::Choice([only]) => format!("\"{only}\""),
        Kind::Choice(words) => format!("one of \"{}\"", words.join("\", \"")),
        Kind::Text { max_bytes } | Kind::Secret { max_bytes } => format!("a text of 1 to {max_bytes} bytes"),
        Kind::Texts { max } | Kind::Secrets { max } => format!("a list of 1 to {max} texts"),
    }
}

/// Writes a preset as the file would.
pub(crate) fn written(kind: &Kind, preset: &str) -> String {
    match kind {
        Kind::Count { .. } | Kind::Flag => preset.to_owned(),
        Kind::Texts { .. } | Kind::Secrets { .. } => format!("[{preset:?}]"),
        Kind::Address
        | Kind::Duration { .. }
        | Kind::Size { .. }
        | Kind::Choice(_)
        | Kind::Text { .. }
        | Kind::Secret { .. } => format!("{preset:?}"),
    }
}

/// A longer value is cut in a fault.
const SHOWN_MAX_CHARS: usize = 40;

/// Returns what a fault may show of a value: nothing of a secret, of an API key that stands in the wrong place, or of
/// an address with a password in it.
fn shown(key: &Key, value: &Written) -> Option<String> {
    let text = match value {
        Written::Typed(value) => value.to_string(),
        Written::Plain(text) => format!("{text:?}"),
    };
    let address_with_password = text.contains("://") && text.contains('@');
    if matches!(key.kind, Kind::Secret { .. } | Kind::Secrets { .. })
        || text.contains("crl_")
        || address_with_password
    {
        return None;
    }
    let mut shown: String = text.chars().take(SHOWN_MAX_CHARS).map(visible).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Some(shown)
}

fn text(value: &Written) -> Result<&str, String> {
    match value {
        Written::Plain(text) if text.contains('\u{fffd}') => Err("the variable is not UTF-8".to_owned()),
        Written::Plain(text) | Written::Typed(Value::String(text)) => Ok(text),
        Written::Typed(_) => Err("a text in quotes is expected".to_owned()),
    }
}

/// A duration or a size; a bare number is passed on, to be told that it needs a unit.
fn quantity(value: &Written) -> Result<String, String> {
    match value {
        Written::Typed(Value::Integer(number)) => Ok(number.to_string()),
        Written::Typed(_) | Written::Plain(_) => text(value).map(str::to_owned),
    }
}

fn number(value: &Written) -> Result<i128, String> {
    match value {
        Written::Typed(Value::Integer(number)) => Ok(i128::from(*number)),
        Written::Plain(text) => text.parse().map_err(|_error| "a whole number is expected".to_owned()),
        Written::Typed(_) => Err("a whole number without quotes is expected".to_owned()),
    }
}

fn within<T: PartialOrd>(read: T, min: T, max: T, kind: &Kind) -> Result<T, String> {
    if (min..=max).contains(&read) { Ok(read) } else { Err(format!("must be {}", bounds(kind))) }
}

fn short_text(key: &Key, text: &str) -> Result<String, String> {
    let (Kind::Text { max_bytes } | Kind::Secret { max_bytes }) = key.kind else {
        return Err(wrong_reader());
    };
    if text.is_empty() || text.len() > max_bytes || text.contains(char::is_control) {
        return Err(format!("must be {} without control characters", bounds(&key.kind)));
    }
    Ok(text.to_owned())
}

/// A key that is not in the table, or is read as another kind, is a fault of ours, which the test of defaults finds.
fn wrong_reader() -> String {
    "this key is not read as the table says; this is a fault of Carillon".to_owned()
}
