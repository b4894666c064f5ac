//! One node's broker on NATS, without the rest of the node.
//!
//! **Lives here:** starting it with an inbox behind it, waiting for its health.
//! **Called by:** tests of the NATS broker.
//! **Must not know:** what the tests publish.

use std::sync::Arc;

use carillon_broker::{Broker as _, Health};
use carillon_broker_nats::{Config, Credentials, NatsBroker, SUBSCRIPTION_CAPACITY, StartError, Tls};
use carillon_model::RetentionClass;
use carillon_tasks::{Phase, Tasks};
use tokio::{runtime::Handle, sync::watch, time::timeout};

use crate::{
    conformance::{Inbox, PATIENCE},
    nats::NatsServer,
};

/// A node's broker; its tasks end when it is dropped.
#[derive(Debug)]
pub struct Node {
    /// The broker.
    pub broker: Arc<NatsBroker>,
    /// What it brought.
    pub inbox: Arc<Inbox>,
    tasks: Tasks,
}

/// Returns the usual settings.
#[must_use]
pub fn config(server: &NatsServer, classes: Vec<RetentionClass>) -> Config {
    Config {
        servers: vec![server.url()],
        credentials: Credentials::None,
        tls: Tls::default(),
        prefix: "gw".to_owned(),
        app: "main".to_owned(),
        classes,
        replicas: 1,
        node: "test".to_owned(),
        recent_max_bytes: 64 << 20,
        subscription_capacity: SUBSCRIPTION_CAPACITY,
    }
}

impl Node {
    /// Starts a broker; it may not have reached NATS yet.
    ///
    /// # Errors
    /// [`StartError`] when the settings are wrong.
    pub fn start(config: Config) -> Result<Self, StartError> {
        // A test that waits in vain shows what the broker logged; the first node of a process has set it up.
        tracing_subscriber::fmt().with_test_writer().with_ansi(false).try_init().ok();
        let (tasks, inbox) = (Tasks::new(Handle::current()), Arc::new(Inbox::default()));
        let deliver = Arc::clone(&inbox);
        let broker = NatsBroker::start(config, &tasks, deliver)?;
        Ok(Self { broker, inbox, tasks })
    }

    /// Returns the broker's health.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.broker.health()
    }

    /// Waits until the broker is connected and has all that it missed.
    ///
    /// # Panics
    /// When it takes too long, or the broker gives up.
    pub async fn connected(&self) {
        self.until("connected", |health| matches!(health, Health::Connected)).await;
    }

    /// Waits until the broker knows that something is wrong.
    ///
    /// # Panics
    /// When it takes too long, or the broker gives up.
    pub async fn degraded(&self) {
        self.until("degraded", |health| matches!(health, Health::Degraded { .. })).await;
    }

    async fn until(&self, what: &str, is: impl FnMut(&Health) -> bool) {
        let mut health = self.health();
        tokio::select! {
            waited = timeout(PATIENCE * 2, health.wait_for(is)) => {
                assert!(waited.is_ok_and(|changed| changed.is_ok()), "it is never {what}");
            }
            fatal = self.broker.fatal() => panic!("{fatal}"),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.tasks.enter(Phase::Cut);
    }
}
