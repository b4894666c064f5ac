//! The operator's file and environment, as one typed value or as every fault at once.
//!
//! **Lives here:** the table of keys, parsing, checking, the generated reference.
//! **Called by:** `cli` loads; `gateway` turns the result into the parts' own configurations.
//! **Must not know:** the parts that are configured.
//!
//! The way of a value: [`environment`] and the file → `merge` (known keys only) → `reader` (kind and bounds, by
//! `table`) → `check` (what sections say of each other) → [`Config`].

mod check;
mod config;
pub mod environment;
mod faults;
mod merge;
mod reader;
mod reference;
mod table;
mod unit;

pub use config::{
    Admin, Api, Auth, Broker, Client, Config, DEFAULT_MAX_CONNECTIONS, Log, Nats, NatsCredentials, Node,
    Public, Secret, Webhooks,
};
pub use faults::{Fault, Faults};
pub use reference::reference;
