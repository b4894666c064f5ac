//! What the tests of the whole share: real servers, checks that run against more than one implementation.
//!
//! **Lives here:** harnesses and suites; the tests themselves are in `tests/tests`.
//! **Called by:** `cargo test -p carillon-tests`.
//! **Must not know:** anything that is not public in the crates it tests.

pub mod browser;
pub mod chaos;
pub mod checker;
pub mod client;
pub mod conformance;
pub mod curve;
pub mod daemon;
pub mod document;
pub mod faults;
pub mod front;
pub mod gateway;
pub mod healthy;
pub mod http;
pub mod listener;
pub mod nats;
pub mod nats_node;
pub mod php;
pub mod process;
pub mod prometheus;
pub mod pusher;
pub mod raw;
pub mod scenario;
pub mod simulation;
pub mod visitor;
