//! Benchmarks: a load generator, the physical limit to compare with, and the comparison.
//!
//! **Lives here:** everything the binaries `load`, `rawsend`, `barehyper`, `compare` and `churn` share.
//! **Called by:** those binaries and the smoke tests.
//! **Must not know:** the gateway's insides: it is driven as a process, over its sockets.
//!
//! Ratios of one alternating run carry over to other machines; microseconds do not.

pub mod dialect;
pub mod frame;
pub mod http;
pub mod payload;

pub mod histogram;
pub mod ledger;
pub mod poller;
pub mod process;

pub mod publisher;
pub mod subscribers;

pub mod load;

pub mod hyper_answer;
pub mod raw;

pub mod churn;
pub mod compare;
pub mod server;
