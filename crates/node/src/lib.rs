//! One process's rules joined: publications in, frames out.
//!
//! **Lives here:** publishing, which worker wants which channel, the workers and their loop: the only place that
//! waits for clients.
//! **Called by:** `transport` brings connections, `gateway` wires it to a broker and to the API.
//! **Must not know:** HTTP, WebSocket framing, any dialect, which broker it is.

mod connection;
mod crowd;
mod dice;
mod interest;
mod link;
mod mailbox;
mod neighbours;
mod node;
mod publish;
mod reader;
mod recent;
mod relay;
mod router;
mod shown;
mod survey;
mod tell;
mod wheel;
mod worker;

pub use link::{Heard, Lead, Link, Received, Said};
pub use neighbours::Neighbours;
pub use node::{Door, Node, NodeConfig, POLITE_RESERVE, Parts, Place, STALLED};
pub use publish::Receipt;
pub use relay::Relay;
pub use router::Router;
pub use tell::{Tell, Told};
pub use worker::{Guest, Opening, Whose, Worker};
