//! Gateways that serve the applications of the tests.
//!
//! **Lives here:** the configuration, one gateway alone, two on a real NATS; both shared by tests that run at one time.
//! **Called by:** tests of the Pusher dialect.
//! **Must not know:** what the tests do with them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{App, Rest};
use crate::{
    gateway::Gateway,
    nats::{NatsServer, NatsVersion},
    raw::eventually,
};

/// The application of development mode.
pub const DEV: App = App { id: "1", key: "dev-key", secret: "dev-secret" };
/// The first of the applications: client events are on.
pub const FIRST: App = App { id: "7001", key: "0f1e2d3c4b5a69788796", secret: "8d7c2a914bb0f5e36a17" };
/// Has no switch on, and says nothing of refused subscriptions but the error.
pub const PLAIN: App = App { id: "7002", key: "1a2b3c4d5e6f70819203", secret: "c0a3be58d17f4e2996b4" };
/// Tells subscribers how many they are; client events are on.
pub const COUNTED: App = App { id: "7003", key: "2c4e6f80a1b3d5f71928", secret: "5e9f03d6a8b1472cc7e0" };
/// Tells users who is online.
pub const WATCHED: App = App { id: "7004", key: "3d5f718293a4c6e8fa0b", secret: "f4b7d10e6c2359a88e41" };
/// Is not served.
pub const OFF: App = App { id: "7005", key: "4e60728394b5d7f90b1c", secret: "27d9e4f1a06b8c53b92f" };
/// Has room for two connections.
pub const NARROW: App = App { id: "7006", key: "5f718394a5c6e80a1c2d", secret: "a1c8f2e70d5b4936be18" };
/// Wants to know within a second who connects.
pub const SHORT_OF_TIME: App =
    App { id: "7007", key: "6a829304b5d6f91b2d3e", secret: "e63b0a7f92c41d58f05a" };
/// Has limits of its own.
pub const SMALL: App = App { id: "7008", key: "7b93a415c6e70a2c3e4f", secret: "90fd4c2b7e1a8653d7bc" };

/// Says what is on in each application, in the order of the configuration.
const APPS: [(App, &str); 8] = [
    (FIRST, "client_events = true"),
    (PLAIN, "subscription_errors = false"),
    (COUNTED, "client_events = true\nsubscription_count = true"),
    (WATCHED, "watchlist = true"),
    (OFF, "enabled = false"),
    (NARROW, "max_connections = 2"),
    (SHORT_OF_TIME, "authorize_within = \"1s\""),
    (
        SMALL,
        "client_events = true\nevent_data_max = \"2KiB\"\nchannels_per_event = 3\nevents_per_batch = 2\n\
         channel_name_max = 40\npresence_members_max = 2\nclient_event_rate = 3",
    ),
];

/// The second key of [`FIRST`].
pub const SECOND_KEY: App = App { id: FIRST.id, key: "9c0d1e2f3a4b5c6d7e8f", secret: "4b1d7e0fa92c86359ce2" };

/// Returns the configuration of a gateway that serves all applications and every channel.
#[must_use]
pub fn configuration() -> String {
    let keys = |app: App| match app == FIRST {
        true => vec![app, SECOND_KEY],
        false => vec![app],
    };
    let texts = |app: App| {
        let keys = keys(app);
        let texts: Vec<_> = keys.iter().map(|app| format!("\"{}:{}\"", app.key, app.secret)).collect();
        texts.join(", ")
    };
    let app = |(app, switches): (App, &str)| {
        format!("[[apps]]\nid = \"{}\"\nkeys = [{}]\n{switches}\n", app.id, texts(app))
    };
    let apps: String = APPS.into_iter().map(app).collect();
    format!(
        "{apps}[[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n[node]\nworkers = 2\ndrain = \"1s\"\n"
    )
}

/// A server that those who want it at one time share. It ends with the last of them, since nothing ends what is static.
#[derive(Debug)]
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    /// Makes a place for a server.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// Returns the server, or starts it.
    #[must_use]
    pub fn get(&self, start: impl FnOnce() -> T) -> Arc<T> {
        // Whoever failed to start it has said so; the next one tries.
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        place.upgrade().unwrap_or_else(|| {
            let started = Arc::new(start());
            *place = Arc::downgrade(&started);
            started
        })
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns a gateway alone, which serves all applications.
pub async fn alone() -> Arc<Gateway> {
    static ALONE: Shared<Gateway> = Shared::new();
    let gateway = ALONE.get(|| Gateway::serve(&configuration()));
    gateway.ready().await;
    gateway
}

/// Two gateways and their NATS.
#[derive(Debug)]
pub struct Cluster {
    /// The gateways.
    pub nodes: Vec<Gateway>,
    /// What is between them.
    pub nats: NatsServer,
}

impl Cluster {
    /// Starts NATS and gateways.
    #[must_use]
    pub fn start(count: usize) -> Self {
        let nats = NatsServer::start(NatsVersion::Newest);
        let nodes = (0..count).map(|_| Self::another(&nats)).collect();
        Self { nodes, nats }
    }

    /// Starts one more gateway.
    pub fn join(&mut self) {
        self.nodes.push(Self::another(&self.nats));
    }

    fn another(nats: &NatsServer) -> Gateway {
        let broker = format!(
            "[broker]\nkind = \"nats\"\n[broker.nats]\nservers = [\"{}\"]\nreplicas = 1\n",
            nats.url()
        );
        Gateway::serve(&format!("{}{broker}", configuration()))
    }

    /// Waits until every gateway is ready.
    pub async fn ready(&self) {
        for node in &self.nodes {
            node.ready().await;
        }
    }

    /// Waits until each has heard all others.
    pub async fn acquainted(&self) {
        let all = self.nodes.len() as f64;
        for node in &self.nodes {
            let hears = async || (node.metric("carillon_nodes").await >= all).then_some(());
            eventually("the nodes hear each other", hears).await;
        }
    }

    /// Returns a backend of an application at one of the gateways.
    #[must_use]
    pub fn rest(&self, node: usize, app: &App) -> Rest {
        self.nodes[node].rest(app)
    }
}

/// Returns two gateways that are ready, and have heard each other.
pub async fn cluster() -> Arc<Cluster> {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let cluster = CLUSTER.get(|| Cluster::start(2));
    cluster.ready().await;
    cluster.acquainted().await;
    cluster
}

impl Gateway {
    /// Returns a backend of an application.
    #[must_use]
    pub const fn rest(&self, app: &App) -> Rest {
        Rest::new(self.api, app)
    }
}
