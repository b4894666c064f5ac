//! The only file where parts meet.
//!
//! **Lives here:** every part made from the configuration, in the order of their needs.
//! **Called by:** `cli`.
//! **Must not know:** how any part works.

use std::{io, net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use carillon_api::{InUse, PusherRest};
use carillon_auth::{KeyRing, SameId, TokenVerifier};
use carillon_backend::{Egress, Webhooks};
use carillon_broker::{Alone, Broker, Listen, MemoryBroker, MemoryQueue, WorkQueue};
use carillon_broker_nats::{Fatal, NatsBroker};
use carillon_config::{Broker as BrokerConfig, Config};
use carillon_model::{Epoch, NodeId};
use carillon_node::{Neighbours, Node, NodeConfig, Parts, Relay, Router};
use carillon_session::Limits;
use carillon_tasks::Tasks;
use carillon_telemetry::{Metrics, metric};
use carillon_transport::{
    AcceptConfig, Asset, BACKLOG, DoorConfig, Fallback, Here, Page, Renderer, Rest, accept, door,
};
use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::oneshot,
};

use crate::{
    admin, channels::NodeChannels, descriptors, publisher::NodePublisher, stopping::Signals, telling::Telling,
};

/// A process that serves.
#[derive(Debug)]
pub struct Gateway {
    pub(crate) node: Arc<Node>,
    pub(crate) workers: Vec<JoinHandle<()>>,
    pub(crate) tasks: Tasks,
    pub(crate) publishers: InUse,
    /// Ends when the public listener is closed and every socket of it is with a worker.
    pub(crate) accepted_all: oneshot::Receiver<()>,
    /// How long a request of a publisher takes at most.
    pub(crate) answered_within: Duration,
    pub(crate) drain: Duration,
    pub(crate) grace: Duration,
    pub(crate) fatal: FatalWatch,
    pub(crate) signals: Signals,
    addresses: Addresses,
}

/// Where a process listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// For clients.
    pub public: SocketAddr,
    /// For publishers.
    pub api: SocketAddr,
    /// For probes and metrics.
    pub admin: SocketAddr,
}

/// Why a process cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is taken, or not ours.
    #[error("cannot listen on {address} ({key})")]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gave no signals.
    #[error("the system gives no signals")]
    Signals(#[source] io::Error),
    /// The system gave no randomness.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
    /// The system gave no threads.
    #[error("the workers cannot be started")]
    Workers(#[source] io::Error),
    /// Two API keys have one id.
    #[error("two API keys have the same id")]
    Keys(#[source] SameId),
    /// A webhook cannot work.
    #[error("webhooks cannot be started")]
    Webhooks(#[source] carillon_backend::StartError),
    /// The broker's settings cannot be used.
    #[error("the broker cannot be started")]
    Broker(#[source] carillon_broker_nats::StartError),
}

/// Waits for the broker to say that it can never work.
#[derive(Debug)]
pub(crate) enum FatalWatch {
    /// The embedded broker always works.
    Never,
    Nats(Arc<NatsBroker>),
}

impl FatalWatch {
    pub(crate) async fn wait(&self) -> String {
        match self {
            Self::Never => std::future::pending().await,
            Self::Nats(broker) => {
                let why: Fatal = broker.fatal().await;
                why.to_string()
            }
        }
    }
}

impl Gateway {
    /// Makes every part and starts it. `page` is the page for trying it, where there is one; it may publish.
    ///
    /// # Errors
    /// [`StartError`] says which part of the configuration cannot be had. A broker that is away is no error.
    pub async fn start(
        config: &Config,
        metrics: Metrics,
        tasks: Tasks,
        page: Option<&'static [Asset]>,
    ) -> Result<Self, StartError> {
        // Before anything that would have to be stopped in order.
        let signals = Signals::new().map_err(StartError::Signals)?;
        let public = listen("public.listen", config.public.listen)?;
        let api = listen("api.listen", config.api.listen)?;
        let admin = listen("admin.listen", config.admin.listen)?;
        let addresses = Addresses {
            public: address(&public, config.public.listen),
            api: address(&api, config.api.listen),
            admin: address(&admin, config.admin.listen),
        };
        let router = Arc::new(Router::new(config.node.workers.get(), config.channels.clone()));
        let (broker, fatal) = broker(config, &router, &tasks)?;
        let (neighbours, fallback) = neighbours(&router, &fatal, &tasks)?;
        let health = broker.health();
        tell(config, &neighbours, &fatal, &tasks)?;
        let node = Node::new(Parts {
            config: node_config(config),
            router,
            broker,
            render: Arc::new(Renderer),
            apps: config.apps.clone(),
            neighbours,
            tokens: tokens(config),
            seed: getrandom::u64().map_err(StartError::Random)?,
        });
        let api_config = api_config(config, page.map_or_else(Vec::new, |_assets| origins(addresses.public)));
        let api_parts = api_parts(config, &node)?;
        let door = door(DoorConfig {
            handshake_timeout: config.public.handshake_timeout,
            frame_max_bytes: config.client.frame_max_bytes,
            origins: config.client.allowed_origins.clone(),
            rest: config.api.pusher_on_public.then(|| rest(&api_config, &api_parts)),
            fallback,
            page: page.map(|assets| Page::new(assets, here(config, addresses.api))),
        });
        let workers = node.start_workers(&door).map_err(StartError::Workers)?;
        tasks.spawn("metrics upkeep", metrics.upkeep(tasks.stop()));
        let look = admin::Admin { node: Arc::clone(&node), metrics, broker: health, stop: tasks.stop() };
        admin::serve(admin, look, &tasks);
        let publishers = carillon_api::serve(api, api_config, api_parts, &tasks).await;
        let rate = AcceptConfig { rate: config.public.accept_rate.get() };
        let (accepting, accepted_all) = oneshot::channel::<()>();
        let doors = accept(public, rate, Arc::clone(&node), tasks.stop());
        tasks.spawn("accept", async move {
            doors.await;
            drop(accepting);
        });
        let (drain, grace) = (config.node.drain, config.node.grace);
        let answered_within = config.api.deadline;
        Ok(Self {
            node,
            workers,
            tasks,
            publishers,
            accepted_all,
            answered_within,
            drain,
            grace,
            fatal,
            signals,
            addresses,
        })
    }

    /// Returns where the process listens: the ports that were found where the configuration says 0.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        self.addresses
    }
}

fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let listening = socket.and_then(|socket| {
        // As a process that is started again needs it, whose last connections the system has not forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    });
    listening.map_err(|source| StartError::Listen { key, address, source })
}

fn address(listener: &TcpListener, configured: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(configured)
}

fn broker(
    config: &Config,
    router: &Arc<Router>,
    tasks: &Tasks,
) -> Result<(Arc<dyn Broker>, FatalWatch), StartError> {
    let classes = config.classes_in_use();
    let deliver = Arc::clone(router);
    match &config.broker {
        BrokerConfig::Memory => {
            let epoch = Epoch::from_bits(getrandom::u64().map_err(StartError::Random)?);
            metric::BROKER_CONNECTED.gauge(&[("broker", "memory")]).set(1.0);
            Ok((Arc::new(MemoryBroker::new(epoch, &classes, deliver)), FatalWatch::Never))
        }
        BrokerConfig::Nats(nats) => {
            let nats = crate::nats::config(nats, &config.apps.first().id, classes);
            let broker = NatsBroker::start(nats, tasks, deliver).map_err(StartError::Broker)?;
            Ok((Arc::clone(&broker) as Arc<dyn Broker>, FatalWatch::Nats(broker)))
        }
    }
}

/// Joins the cluster, if there is one, with everybody who hears its words.
fn neighbours(
    router: &Arc<Router>,
    broker: &FatalWatch,
    tasks: &Tasks,
) -> Result<(Arc<Neighbours>, Arc<Fallback>), StartError> {
    let me = NodeId::from_bits(getrandom::u64().map_err(StartError::Random)?);
    let neighbours = match broker {
        FatalWatch::Never => Neighbours::none(me, router, tasks),
        FatalWatch::Nats(_) => Neighbours::new(me, router, tasks),
    };
    let fallback = Fallback::new(&neighbours, tasks.stop());
    neighbours.join(match broker {
        FatalWatch::Never => Arc::new(Alone::new(me)),
        FatalWatch::Nats(broker) => {
            neighbours.set_relay(Arc::clone(&fallback) as Arc<dyn Relay>);
            broker.cluster(me, Arc::clone(&neighbours) as Arc<dyn Listen>)
        }
    });
    Ok((neighbours, fallback))
}

/// Has applications told what they want to be told.
fn tell(
    config: &Config,
    neighbours: &Neighbours,
    broker: &FatalWatch,
    tasks: &Tasks,
) -> Result<(), StartError> {
    let queue: Arc<dyn WorkQueue> = match broker {
        FatalWatch::Never => Arc::new(MemoryQueue::default()),
        FatalWatch::Nats(broker) => Arc::clone(broker) as Arc<dyn WorkQueue>,
    };
    let egress = Egress::new(config.webhooks.egress.clone());
    let webhooks = Webhooks::start(&config.apps, &queue, egress, tasks).map_err(StartError::Webhooks)?;
    if config.apps.all().iter().any(|app| !app.webhooks.is_empty()) {
        neighbours.set_tell(Arc::new(Telling(webhooks)));
    }
    Ok(())
}

fn api_parts(config: &Config, node: &Arc<Node>) -> Result<carillon_api::Parts, StartError> {
    let (rules, classes) = (config.channels.clone(), config.history.clone());
    Ok(carillon_api::Parts {
        keys: Arc::new(keys(config)?),
        apps: config.apps.clone(),
        publisher: Arc::new(NodePublisher(Arc::clone(node))),
        channels: Arc::new(NodeChannels { node: Arc::clone(node), rules, classes }),
    })
}

/// Returns the REST API of applications for the listener for clients.
fn rest(config: &carillon_api::Config, parts: &carillon_api::Parts) -> Rest {
    let rest = Arc::new(PusherRest::new(config, parts));
    let takes = config.body_timeout.saturating_add(config.deadline);
    let answer = move |request| {
        let rest = Arc::clone(&rest);
        async move { rest.serve(request).await }.boxed()
    };
    Rest { takes, answer: Arc::new(answer) }
}

fn node_config(config: &Config) -> NodeConfig {
    NodeConfig {
        limits: Limits {
            heartbeat: config.client.heartbeat,
            pong_timeout: config.client.pong_timeout,
            frame_max_bytes: config.client.frame_max_bytes,
            channels_max: config.client.channels_max.get(),
        },
        outbox_max_bytes: config.client.outbox_max_bytes,
        connections_max: descriptors::clients_that_fit(
            config.public.max_connections.get(),
            config.api.max_connections.get(),
        ),
        connection_age_max: match &config.broker {
            BrokerConfig::Memory => None,
            BrokerConfig::Nats(_) => Some(config.client.connection_age_max),
        },
    }
}

fn tokens(config: &Config) -> Option<TokenVerifier> {
    let secret = config.auth.token_secret.as_ref()?;
    let (issuer, audience) = (config.auth.issuer.as_deref(), config.auth.audience.as_deref());
    Some(TokenVerifier::new(secret.expose().as_bytes(), issuer, audience))
}

fn keys(config: &Config) -> Result<KeyRing, StartError> {
    if config.dev {
        return Ok(KeyRing::dev());
    }
    KeyRing::new(config.keys.clone()).map_err(StartError::Keys)
}

fn here(config: &Config, api: SocketAddr) -> Here {
    let called = std::env::args_os().next().map(|name| name.to_string_lossy().into_owned());
    Here {
        api,
        key: "dev",
        program: called.unwrap_or_else(|| "carillon".to_owned()),
        version: env!("CARGO_PKG_VERSION"),
        broker: config.broker.kind(),
    }
}

/// Returns the names under which a browser on this machine finds the page.
fn origins(public: SocketAddr) -> Vec<String> {
    let hosts = [public.to_string(), format!("localhost:{}", public.port())];
    // Browsers leave the port of the scheme itself out.
    hosts.map(|host| format!("http://{}", host.strip_suffix(":80").unwrap_or(&host))).to_vec()
}

fn api_config(config: &Config, page_origins: Vec<String>) -> carillon_api::Config {
    carillon_api::Config {
        publish_body_max_bytes: config.api.body_max_bytes,
        batch_body_max_bytes: config.api.body_max_bytes.saturating_mul(4),
        deadline: config.api.deadline,
        connections_max: config.api.max_connections.get(),
        page_origins,
        ..carillon_api::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_as_browsers_write_them() {
        let of = |public: &str| origins(public.parse().unwrap());
        assert_eq!(of("127.0.0.1:8080"), ["http://127.0.0.1:8080", "http://localhost:8080"]);
        assert_eq!(of("127.0.0.1:80"), ["http://127.0.0.1", "http://localhost"]);
        assert_eq!(of("[::1]:80"), ["http://[::1]", "http://localhost"]);
    }
}
