//! The native dialect, version 1: one JSON object a frame, for clients with no SDK.
//!
//! **Lives here:** the spelling of commands, pushes, publications and cursors.
//! **Called by:** transports, through `session`'s `Dialect`.
//! **Must not know:** sockets, framing, what commands lead to.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod cursor;
mod decode;
mod encode;
mod text;

use carillon_model::Publication;
use carillon_session::{Command, Dialect, Push, Undecoded};

pub use cursor::{CURSOR_MAX_BYTES, Cursor};
pub use decode::{Named, Place, named};
pub use text::data_of;

/// The native dialect.
#[derive(Clone, Copy, Debug)]
pub struct Native;

impl Dialect for Native {
    fn decode(&self, frame: &str) -> Result<Command, Box<Undecoded>> {
        decode::command(frame)
    }

    fn push(&self, push: &Push) -> String {
        encode::push(push)
    }

    fn publication(&self, publication: &Publication) -> String {
        encode::publication(publication)
    }
}
