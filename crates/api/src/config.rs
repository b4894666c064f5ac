//! The limits of the API, with their defaults.
//!
//! **Lives here:** what an operator may change, and what is fixed because nobody needs to.
//! **Called by:** `gateway` fills it; every module reads it.
//! **Must not know:** files.

use std::time::Duration;

/// Most items in a batch, channels in a request, or excluded connections.
pub(crate) const LIST_MAX: usize = 100;

/// Most messages of one gRPC stream that wait for their result.
pub(crate) const STREAM_IN_FLIGHT: usize = 64;

/// What the API takes, and how long it waits.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest body of a publish, in bytes. Default 1 MiB and 16 KiB for what surrounds the data.
    pub publish_body_max_bytes: usize,
    /// Largest body of a batch, in bytes. Default 4 MiB.
    pub batch_body_max_bytes: usize,
    /// Most bytes of HTTP bodies held at a time by all requests; beyond it 503. Default 128 MiB.
    pub bodies_held_max_bytes: usize,
    /// How long a body may take to arrive. Default 10 s.
    pub body_timeout: Duration,
    /// How long the first request of a connection may take to begin. Default 10 s.
    pub first_request_timeout: Duration,
    /// How long an HTTP/1 connection may wait for its next request. Default 75 s.
    pub keep_alive: Duration,
    /// How long a publish may take before its outcome is unknown. Default 1 s.
    pub deadline: Duration,
    /// Most connections; further ones wait in the kernel's queue. Default 4096.
    pub connections_max: usize,
    /// Origins whose pages may publish from a browser, such as `http://127.0.0.1:8000`. Default none: keys are not for
    /// browsers.
    pub page_origins: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            publish_body_max_bytes: (1 << 20) + (16 << 10),
            batch_body_max_bytes: 4 << 20,
            bodies_held_max_bytes: 128 << 20,
            body_timeout: Duration::from_secs(10),
            first_request_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(75),
            deadline: Duration::from_secs(1),
            connections_max: 4096,
            page_origins: Vec::new(),
        }
    }
}
