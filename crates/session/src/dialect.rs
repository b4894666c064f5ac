//! The seam to dialects.
//!
//! **Lives here:** what a dialect can do.
//! **Called by:** `node`; implemented by the `dialect-*` crates.
//! **Must not know:** any dialect.

use carillon_model::{Publication, Refusal};

use crate::{Command, Push, Reference};

/// Turns bytes into commands, and pushes and publications into text.
pub trait Dialect: Send + Sync {
    /// Reads one frame of the client.
    ///
    /// # Errors
    /// [`Undecoded`] carries what the client is told, and by what it recognises the answer.
    fn decode(&self, frame: &str) -> Result<Command, Box<Undecoded>>;

    /// Writes what one client is told: a text, or several with a line break between them, or none where the dialect
    /// has no word for it.
    fn push(&self, push: &Push) -> String;

    /// Writes a publication, the same for every subscriber.
    fn publication(&self, publication: &Publication) -> String;
}

/// A frame that is not a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecoded {
    /// Why.
    pub refusal: Refusal,
    /// The channel that the frame named, when that is what was wrong.
    pub channel: Option<String>,
    /// The client's reference, if the frame had a readable one.
    pub reference: Option<Reference>,
}
