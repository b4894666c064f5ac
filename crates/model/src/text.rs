//! Short texts that publishers choose: event names and idempotency keys.
//!
//! **Lives here:** their limits.
//! **Called by:** every edge that accepts a publication.
//! **Must not know:** what the texts mean to the application.

use std::{fmt, sync::Arc};

/// A text that breaks its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {rule}")]
pub struct BadText {
    /// What the text should have been, with its article.
    pub what: &'static str,
    /// The rule, as the rest of the sentence.
    pub rule: &'static str,
}

/// The name of an event: 1 to 200 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventName(Arc<str>);

/// A key under which a publication is stored once: 1 to 128 printable ASCII characters without spaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(Arc<str>);

impl EventName {
    /// Checks `text` and takes it as an event's name.
    ///
    /// # Errors
    /// [`BadText`] when it is empty, longer than 200 bytes, or holds a control character.
    pub fn new(text: &str) -> Result<Self, BadText> {
        if text.is_empty() || text.len() > 200 || text.contains(char::is_control) {
            return Err(BadText {
                what: "an event name",
                rule: "has 1 to 200 bytes without control characters",
            });
        }
        Ok(Self(Arc::from(text)))
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl IdempotencyKey {
    /// Checks `text` and takes it as an idempotency key.
    ///
    /// # Errors
    /// [`BadText`] when it is empty, longer than 128 characters, or not printable ASCII.
    pub fn new(text: &str) -> Result<Self, BadText> {
        if text.is_empty() || text.len() > 128 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BadText {
                what: "an id",
                rule: "has 1 to 128 printable ASCII characters without spaces",
            });
        }
        Ok(Self(Arc::from(text)))
    }

    /// Returns the key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
