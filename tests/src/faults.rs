//! The fault kit: what can go wrong between processes and with them, on purpose and by a seed.
//!
//! **Lives here:** the proxy that spoils connections, what is done to streams, the dice. Killing, stopping and
//! restarting a process is in its own harness: `nats`, `daemon`, `gateway`.
//! **Called by:** fault tests, `chaos`.
//! **Must not know:** what is tested.

pub mod cable;
pub mod dice;
pub mod streams;
