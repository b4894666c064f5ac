//! A client that does nothing wrong, to be asked after every attack.
//!
//! **Lives here:** one subscriber and the count of what it was sent; what a process uses of memory.
//! **Called by:** tests that attack a gateway.
//! **Must not know:** the attacks.

use std::fs;

use serde_json::json;

use crate::{client::Client, gateway::Gateway};

/// The channel of healthy clients.
const CHANNEL: &str = "health";

/// One healthy client.
#[derive(Debug)]
pub struct Healthy {
    client: Client,
    count: u64,
}

impl Healthy {
    /// Connects to a gateway in development mode and subscribes.
    pub async fn new(gateway: &Gateway) -> Self {
        Self { client: Client::subscribed(&gateway.ws(""), &[CHANNEL]).await, count: 0 }
    }

    /// Checks that the old connection is served, and that a new one is.
    ///
    /// # Panics
    /// When one is not.
    pub async fn check(&mut self, gateway: &Gateway) {
        self.count += 1;
        let mut fresh = Client::subscribed(&gateway.ws(""), &[CHANNEL]).await;
        let answer = gateway.publish(&json!({"channel": CHANNEL, "data": self.count})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(self.client.data().await, self.count, "the old connection is served, in order");
        assert_eq!(fresh.data().await, self.count, "a new connection is served");
        assert!(!gateway.log().contains("panicked"), "nothing on the way was a surprise");
    }
}

impl Gateway {
    /// Returns the bytes of memory that the process has resident.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib << 10
    }
}
