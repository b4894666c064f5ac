//! One worker's table of channels, and the bounded queue of every session.
//!
//! **Lives here:** who on this worker is subscribed to what, frames that are made once and shared, outboxes.
//! **Called by:** `node`'s workers.
//! **Must not know:** sockets, clocks, what a frame says.

mod channels;
mod delivery;
mod outbox;

pub use channels::{Channels, Joined, Left, Line, Seat, SessionKey, Stand, Subscriber, UNTOLD};
pub use delivery::{Delivery, Render};
pub use outbox::{Offered, Origin, Outbox};
