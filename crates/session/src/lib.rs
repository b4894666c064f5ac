//! One client's conversation, as rules without I/O.
//!
//! **Lives here:** what a client may say and when, what it is told, when it is pinged, when it is closed.
//! **Called by:** `node` drives a session for every connection; dialects turn bytes into its words and back.
//! **Must not know:** sockets, clocks, brokers, JSON.

mod access;
mod dialect;
mod manners;
mod session;
mod words;

pub use access::{Expiry, Identity, may_subscribe};
pub use dialect::{Dialect, Undecoded};
pub use manners::Manners;
pub use session::{Heartbeat, Limits, Session};
pub use words::{Answer, Command, Effect, Outgoing, Proof, Push, Recovered, Reference, SignIn, Wanted};
