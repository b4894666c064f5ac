//! The environment: the only place of the program that reads it, and how its names stand for keys.
//!
//! **Lives here:** `CARILLON__SECTION__KEY`, and `CARILLON_KEY` of the command line.
//! **Called by:** `cli` reads; `merge` translates.
//! **Must not know:** which keys there are.

/// What every variable of ours begins with. Two underscores: a Kubernetes service called `carillon` puts
/// `CARILLON_PORT` and the like into every pod, and those are not ours.
pub(crate) const PREFIX: &str = "CARILLON__";

/// Returns the variables of this process that begin with `CARILLON__`.
///
/// What is not UTF-8 is marked with U+FFFD, which no value may contain.
#[must_use]
pub fn variables() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// Returns the API key that a command of this process publishes with. One that is empty is none.
#[must_use]
pub fn api_key() -> Option<String> {
    let key = std::env::var_os("CARILLON_KEY").map(|key| key.to_string_lossy().into_owned());
    key.filter(|key| !key.is_empty())
}

/// Returns the path of the key that a variable stands for: `CARILLON__BROKER__NATS__PREFIX` is `broker.nats.prefix`.
pub(crate) fn path(variable: &str) -> String {
    variable.trim_start_matches(PREFIX).to_ascii_lowercase().replace("__", ".")
}

/// Returns the variable that stands for the key at `path`.
pub(crate) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.to_ascii_uppercase().replace('.', "__"))
}
