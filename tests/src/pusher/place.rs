//! A gateway that is attacked.
//!
//! **Lives here:** two clients that do nothing wrong, to be asked after every attack.
//! **Called by:** tests that attack the Pusher dialect.
//! **Must not know:** the attacks.

use super::{DEV, Rest, Socket};
use crate::{gateway::Gateway, healthy::Healthy};

/// A gateway, and two clients of it that do nothing wrong.
#[derive(Debug)]
pub struct Place {
    /// The gateway, in development mode.
    pub gateway: Gateway,
    native: Healthy,
    /// The client of the Pusher dialect.
    pub pusher: Socket,
    count: u64,
}

impl Place {
    /// Starts a gateway; `environment` changes its configuration.
    pub async fn new(environment: &[(&str, &str)]) -> Self {
        let gateway = Gateway::dev(environment);
        gateway.ready().await;
        let native = Healthy::new(&gateway).await;
        let mut pusher = Socket::open(gateway.public, &DEV).await;
        pusher.subscribe("private-healthy").await;
        Self { gateway, native, pusher, count: 0 }
    }

    /// Connects somebody.
    pub async fn socket(&self) -> Socket {
        Socket::open(self.gateway.public, &DEV).await
    }

    /// Returns a backend.
    #[must_use]
    pub const fn rest(&self) -> Rest {
        self.gateway.rest(&DEV)
    }

    /// Checks that those who did nothing are served, and that somebody new is.
    ///
    /// # Panics
    /// When one is not.
    pub async fn check(&mut self) {
        self.count += 1;
        let mut fresh = self.socket().await;
        fresh.subscribe("private-healthy").await;
        let data = self.count.to_string();
        self.rest().trigger("private-healthy", "x", &data).await;
        self.pusher.hears("private-healthy", "x", &data).await;
        fresh.hears("private-healthy", "x", &data).await;
        fresh.leave().await;
        self.native.check(&self.gateway).await;
    }
}
