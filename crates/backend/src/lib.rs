//! The customer's application as it is told of things: webhooks, in order, signed, and until it has answered.
//!
//! **Lives here:** what an event is as JSON, its way into the work queue and out of it, the calls, where they may go.
//! **Called by:** `node` tells, `gateway` starts.
//! **Must not know:** when something is worth telling; how the queue keeps it.

mod call;
mod dial;
mod egress;
mod event;
mod meters;
mod misses;
mod schedule;
mod send;
mod webhooks;

pub use egress::{Egress, Network};
pub use event::Event;
pub use webhooks::{StartError, Webhooks};
