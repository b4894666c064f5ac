//! The API as a backend meets it: real sockets, the real memory broker.
#![expect(clippy::unwrap_used, reason = "tests")]

mod applications;
mod contract;
mod grpc;
mod harness;
mod hostile;
mod http;
mod stopping;
