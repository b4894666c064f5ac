//! The cluster under test: three gateways, three nats-servers, a cable wherever two of them or a client meet.
//!
//! **Lives here:** starting, stopping, spoiling and mending its parts; knowing when all is well.
//! **Called by:** `nemesis`, scenarios.
//! **Must not know:** clients, publishers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use carillon_tasks::clock;
use tokio::{
    net::TcpStream,
    sync::Mutex as AsyncMutex,
    task::block_in_place,
    time::{sleep, timeout},
};

use crate::{
    daemon::{Daemon, Folder, Net},
    faults::{
        cable::{Cable, Weather},
        streams::Streams,
    },
    http::{self, Answer},
    nats::{NatsServer, NatsVersion},
};

use super::{plan::Plan, publisher::DATA_MAX, world::Node};

/// Gateways, and nats-servers.
pub(super) const NODES: usize = 3;

/// How long the cluster may take until it is well again: elections, copies that catch up, on a machine that is shared.
const WELL: Duration = Duration::from_secs(120);

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What nodes take to stop, at most.
const DRAIN: Duration = Duration::from_secs(3);
const GRACE: Duration = Duration::from_secs(30);

/// The classes of history, and their streams: nothing is deleted from the first.
pub(super) const RISKY_STREAMS: &str = "gw_risky_";
const STREAMS: &str = "gw_";

pub(super) struct Stand {
    binary: PathBuf,
    config: PathBuf,
    net: Net,
    pub(super) key: String,
    gateways: [AsyncMutex<Option<Daemon>>; NODES],
    /// Between clients and nodes: the public listener, the API.
    streets: Vec<[Cable; 2]>,
    /// Between nodes and NATS, by node and server.
    buses: Vec<Vec<Cable>>,
    nats: Vec<Mutex<NatsServer>>,
    pub(super) streams: Streams,
    /// Removed last.
    folder: Folder,
}

impl Stand {
    /// Starts everything and waits until it is well.
    pub(super) async fn start(plan: &Plan, more: &str) -> Self {
        let folder = Folder::new("chaos");
        // Whatever is built meanwhile.
        let binary = folder.path().join("carillon");
        let copied =
            fs::hard_link(&plan.binary, &binary).or_else(|_far| fs::copy(&plan.binary, &binary).map(drop));
        copied.unwrap_or_else(|fault| panic!("{}: {fault}", plan.binary.display()));
        let ports = [8000, 8001, 9000].into_iter().flat_map(|port| [(1, port), (2, port), (3, port)]);
        let net = Net::free(&ports.collect::<Vec<_>>());
        let grace = "lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"500ms\"";
        let nats = NatsServer::cluster_with(NatsVersion::Newest, "no_advertise: true", grace);
        let urls: Vec<_> = nats.iter().map(NatsServer::url).collect();
        let streams = Streams::on(&urls).await;
        let (mut streets, mut buses) = (Vec::new(), Vec::new());
        for number in 0..NODES {
            let seed = plan.seed.wrapping_mul(100).wrapping_add(number as u64);
            let last = last(number);
            let street = Cable::seeded(net.at(last, 8000), seed).await;
            streets.push([street, Cable::seeded(net.at(last, 8001), seed + 10).await]);
            let mut bus = Vec::new();
            for (server, seed) in nats.iter().zip(seed + 20..) {
                bus.push(Cable::seeded(server.address(), seed).await);
            }
            buses.push(bus);
        }
        let (key, config) = configuration(&binary, more);
        let config = folder.write("carillon.toml", &config);
        let nats = nats.into_iter().map(Mutex::new).collect();
        let gateways = [const { AsyncMutex::const_new(None) }; NODES];
        let stand = Self { binary, config, net, key, gateways, streets, buses, nats, streams, folder };
        for number in 0..NODES {
            stand.start_node(number).await;
        }
        stand.is_well().await;
        stand
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        let node = |(number, [public, api]): (usize, &[Cable; 2])| {
            let at = |port| self.net.at(last(number), port);
            Node { public: [at(8000), public.address()], api: [at(8001), api.address()], admin: at(9000) }
        };
        self.streets.iter().enumerate().map(node).collect()
    }

    /// Starts a node that is not there.
    pub(super) async fn start_node(&self, number: usize) {
        let at = |port| self.net.at(last(number), port).to_string();
        let servers: Vec<_> =
            self.buses[number].iter().map(|cable| format!("nats://{}", cable.address())).collect();
        let mut command = Command::new(&self.binary);
        command.args(["serve", "--config"]).arg(&self.config).envs([
            ("CARILLON__PUBLIC__LISTEN", at(8000)),
            ("CARILLON__API__LISTEN", at(8001)),
            ("CARILLON__ADMIN__LISTEN", at(9000)),
            ("CARILLON__BROKER__NATS__SERVERS", servers.join(",")),
        ]);
        let daemon = Daemon::start(&format!("node-{number}"), &mut command, &self.folder);
        *self.gateways[number].lock().await = Some(daemon);
    }

    /// Ends a node by a signal and waits for its end. Returns its exit code.
    pub(super) async fn end_node(&self, number: usize, signal: &str) -> Option<i32> {
        let mut gateway = self.gateways[number].lock().await;
        let daemon = gateway.as_mut().expect("the node runs");
        daemon.signal(signal);
        let code = block_in_place(|| daemon.ended(DRAIN + GRACE));
        *gateway = None;
        code
    }

    pub(super) async fn signal_node(&self, number: usize, signal: &str) {
        if let Some(daemon) = &*self.gateways[number].lock().await {
            daemon.signal(signal);
        }
    }

    /// Waits until a node is ready for clients.
    pub(super) async fn node_is_ready(&self, number: usize) {
        self.node_is(number, |answer| answer.status == 200).await;
    }

    /// Waits until a node says of itself what is awaited.
    pub(super) async fn node_is(&self, number: usize, awaited: impl Fn(&Answer) -> bool) {
        let at = self.net.at(last(number), 9000);
        let asking = async {
            // A listener that is not there yet must not fail the run.
            while TcpStream::connect(at).await.is_err() || !awaited(&http::get(at, "/readyz").await) {
                sleep(LOOK_AGAIN).await;
            }
        };
        let late = timeout(WELL, asking).await.is_err();
        assert!(!late, "node {number} is not as awaited:\n{}", self.log(number).await);
    }

    pub(super) async fn log(&self, number: usize) -> String {
        self.gateways[number].lock().await.as_ref().map(Daemon::log).unwrap_or_default()
    }

    pub(super) fn nats(&self, number: usize, change: impl FnOnce(&mut NatsServer)) {
        block_in_place(|| change(&mut self.nats[number].lock().expect("nobody panics with the lock")));
    }

    /// The cables of a node to NATS.
    pub(super) fn buses(&self, node: usize) -> &[Cable] {
        &self.buses[node]
    }

    /// The cables of a node to clients and publishers.
    pub(super) fn streets(&self, node: usize) -> &[Cable] {
        &self.streets[node]
    }

    pub(super) fn mend(&self) {
        for cable in self.buses.iter().flatten().chain(self.streets.iter().flatten()) {
            cable.set(Weather::default());
        }
    }

    /// Waits until every stream has a leader and all of its copies.
    pub(super) async fn streams_are_whole(&self) {
        let began = clock::now();
        loop {
            let why = match self.streams.list(STREAMS).await {
                Ok(streams) => {
                    let lacking = |stream: &_| {
                        let crate::faults::streams::Stream { leader, current, .. } = stream;
                        leader.is_none() || current + 1 < NODES
                    };
                    let count = streams.len();
                    let lacking: Vec<_> = streams.into_iter().filter(lacking).collect();
                    if count > 0 && lacking.is_empty() {
                        return;
                    }
                    format!("{lacking:?} of {count}")
                }
                Err(why) => why,
            };
            assert!(clock::now() - began < WELL, "the streams are not whole: {why}");
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until everything is as it should be.
    pub(super) async fn is_well(&self) {
        for number in 0..NODES {
            self.node_is_ready(number).await;
        }
        self.streams_are_whole().await;
        for number in 0..NODES {
            self.node_is_ready(number).await;
        }
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn last(number: usize) -> u8 {
    u8::try_from(number + 1).expect("there are three")
}

/// Returns a key and the configuration that all nodes share.
fn configuration(binary: &Path, more: &str) -> (String, String) {
    let made = Command::new(binary).args(["key", "new"]).output().expect("the gateway makes keys");
    let printed = String::from_utf8_lossy(&made.stdout).into_owned();
    let key = printed.lines().next().expect("the key is the first line").to_owned();
    let keys = &printed[printed.find("[[keys]]").expect("its configuration follows")..];
    let class = |name: &str| {
        format!(
            "[history.{name}]\nmax_age = \"1h\"\nmax_messages = 20000\nmax_bytes = \"64MiB\"\n\
             [[channels]]\nname = \"{name}\"\nmatch = \"{name}.*\"\nhistory = \"{name}\"\nauth = \"public\"\n\
             message_max = \"{DATA_MAX}B\"\n"
        )
    };
    let (drain, grace) = (DRAIN.as_secs(), GRACE.as_secs());
    let config = format!(
        "{keys}\n[node]\nworkers = 2\ndrain = \"{drain}s\"\ngrace = \"{grace}s\"\n\
         [broker]\nkind = \"nats\"\n[broker.nats]\nreplicas = {NODES}\n{more}\n{}{}",
        class("safe"),
        class("risky")
    );
    (key, config)
}
