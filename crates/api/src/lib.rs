//! The publish API of backends: HTTP and gRPC on one port.
//!
//! **Lives here:** routes, one validated request type, one table of errors, keys at the door, serving and stopping.
//! **Called by:** `gateway`, which gives it a listener, the keys and a [`Publisher`].
//! **Must not know:** clients, dialects, which broker, or where the configuration came from.
#![deny(clippy::indexing_slicing)]

mod answer;
mod body;
mod config;
mod cors;
mod data;
mod form;
mod grpc;
mod http;
mod intake;
mod json;
mod media;
mod meters;
mod problem;
pub mod proto;
mod publisher;
mod request;
mod route;
mod serve;

pub use config::Config;
pub use publisher::{Publisher, Receipt};
pub use serve::{InUse, serve};

/// The contract in OpenAPI 3.1, as it is served.
pub const OPENAPI: &str = include_str!("../openapi.yaml");
