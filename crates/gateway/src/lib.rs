//! The assembly of a process: parts made, joined, started, and stopped in the order that loses least.
//!
//! **Lives here:** `wiring`, the only file where parts meet; the admin listener; the order of stopping.
//! **Called by:** `cli`.
//! **Must not know:** files, command lines.

mod admin;
mod channels;
mod descriptors;
mod nats;
mod publisher;
mod stopping;
mod telling;
mod wiring;

pub use carillon_transport::Asset;
pub use stopping::Ended;
pub use wiring::{Addresses, Gateway, StartError};
