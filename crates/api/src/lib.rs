//! The publish API of backends: HTTP and gRPC on one port, and the REST API of the Pusher protocol.
//!
//! **Lives here:** routes, one validated request type, one table of errors, keys at the door, serving and stopping.
//! **Called by:** `gateway`, which gives it a listener, the keys, a [`Publisher`] and [`Channels`]; `transport` asks [`PusherRest`].
//! **Must not know:** clients, dialects, which broker, or where the configuration came from.
#![deny(clippy::indexing_slicing)]

mod answer;
mod body;
mod channels;
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
mod pusher;
mod questions;
mod request;
mod route;
mod serve;

pub use channels::{Cached, Channels};
pub use config::Config;
pub use publisher::{Publisher, Receipt};
pub use pusher::PusherRest;
pub use serve::{InUse, Parts, serve};

/// The contract in OpenAPI 3.1, as it is served.
pub const OPENAPI: &str = include_str!("../openapi.yaml");
