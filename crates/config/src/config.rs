//! What the operator decided, typed: plain data, every value within its bounds.
//!
//! **Lives here:** one struct for each section, and the three ways to get them.
//! **Called by:** `cli` loads, `gateway` reads.
//! **Must not know:** how the values were written.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    time::Duration,
};

use carillon_auth::{KeyRecord, Origins};
use carillon_backend::Network;
use carillon_model::{App, AppKey, AppSpace, Apps, ChannelRules, Keeping, RetentionClass};
use carillon_telemetry::LogFormat;

use crate::{
    check,
    faults::{Fault, Faults},
    merge::Values,
    reader::Reader,
};

/// A configuration file cannot be larger.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// What `public.max_connections` is when it is not written.
pub const DEFAULT_MAX_CONNECTIONS: usize = 100_000;

/// The whole configuration of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients come in.
    pub public: Public,
    /// Where publishers come in.
    pub api: Api,
    /// Where probes, scrapes and operators come in.
    pub admin: Admin,
    /// What one client may use.
    pub client: Client,
    /// The process.
    pub node: Node,
    /// How clients prove who they are.
    pub auth: Auth,
    /// Which API keys there are. Their ids differ.
    pub keys: Vec<KeyRecord>,
    /// Which applications there are. Where the file names any, every API key belongs to one of them.
    pub apps: Apps,
    /// What all applications' webhooks have in common.
    pub webhooks: Webhooks,
    /// What carries publications between nodes.
    pub broker: Broker,
    /// Every class of history, used or not, by name; [`classes_in_use`](Self::classes_in_use) are those to create.
    pub history: Vec<RetentionClass>,
    /// What applies to which channels. At least one; their names differ.
    pub channels: ChannelRules,
    /// The log.
    pub log: Log,
    /// Development mode: everything on loopback and in memory, every channel public, and the API key `dev` is
    /// valid. Never set by a file.
    pub dev: bool,
}

/// `[public]`.
#[derive(Clone, Debug)]
pub struct Public {
    /// Address of the listener for clients.
    pub listen: SocketAddr,
    /// Client connections at most. Whether the process may open as many files is for the gateway to check.
    pub max_connections: NonZeroUsize,
    /// Time from accepting a socket to the end of its handshake.
    pub handshake_timeout: Duration,
    /// Connections accepted in a second at most.
    pub accept_rate: NonZeroU32,
}

/// `[api]`.
#[derive(Clone, Debug)]
pub struct Api {
    /// Address of the listener for publishers, HTTP and gRPC.
    pub listen: SocketAddr,
    /// Time in which every request is answered.
    pub deadline: Duration,
    /// Largest body of a request, in bytes.
    pub body_max_bytes: usize,
    /// Publishers' connections at most.
    pub max_connections: NonZeroUsize,
    /// Whether the REST API of applications answers on the listener for clients, too.
    pub pusher_on_public: bool,
}

/// `[webhooks]`.
#[derive(Clone, Debug)]
pub struct Webhooks {
    /// Networks that may be reached although they are not public.
    pub egress: Vec<Network>,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Address of the listener for probes and metrics. Not loopback only where the operator said so.
    pub listen: SocketAddr,
}

/// `[client]`.
#[derive(Clone, Debug)]
pub struct Client {
    /// Silence after which a ping is sent.
    pub heartbeat: Duration,
    /// Time in which a pong must come.
    pub pong_timeout: Duration,
    /// Largest frame that a client may send, in bytes.
    pub frame_max_bytes: usize,
    /// Channels that one connection may hold.
    pub channels_max: NonZeroUsize,
    /// Bytes that may wait for one connection before its overflow rule applies.
    pub outbox_max_bytes: usize,
    /// Age at which a connection is asked to move to another node.
    pub connection_age_max: Duration,
    /// Websites whose pages may connect.
    pub allowed_origins: Origins,
}

/// `[node]`.
#[derive(Clone, Debug)]
pub struct Node {
    /// Threads that own client connections.
    pub workers: NonZeroUsize,
    /// Time over which clients are sent away when the process stops.
    pub drain: Duration,
    /// Time after the drain until what still runs is cut.
    pub grace: Duration,
}

/// `[auth]`.
#[derive(Clone, Debug)]
pub struct Auth {
    /// Secret of the HS256 tokens, at least 32 bytes. `None` when no token is accepted.
    pub token_secret: Option<Secret>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must contain.
    pub audience: Option<String>,
}

/// `[broker]`.
#[derive(Clone, Debug)]
pub enum Broker {
    /// In this process: one node, nothing kept when it ends.
    Memory,
    /// NATS with JetStream.
    Nats(Nats),
}

/// `[broker.nats]`.
#[derive(Clone, Debug)]
pub struct Nats {
    /// Addresses of servers, each `nats://host:port` or `tls://host:port`. At least one.
    pub servers: Vec<String>,
    /// How we say who we are.
    pub credentials: NatsCredentials,
    /// First token of every subject and the beginning of every stream's name.
    pub prefix: String,
    /// Copies of every stream: 1 or 3.
    pub replicas: u8,
    /// Memory for the last minutes of all channels with history, in bytes.
    pub recent_max_bytes: usize,
    /// Encryption is required of every server.
    pub tls: bool,
    /// Certificates of the authority that signed the servers' certificates, where the system's do not do.
    pub ca_file: Option<PathBuf>,
}

/// How we say who we are to NATS.
#[derive(Clone, Debug)]
pub enum NatsCredentials {
    /// Not at all.
    None,
    /// By a `.creds` file.
    File(PathBuf),
    /// By name and password.
    User {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// By a token.
    Token(Secret),
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines are wanted; checked.
    pub directives: String,
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(crate) const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text, for the one who needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What `carillon dev` runs with.
const DEV: &str = r#"
[public]
listen = "127.0.0.1:8000"

[api]
pusher_on_public = true

[node]
drain = "0s"

[[channels]]
name = "all"
match = "*"
history = "short"
auth = "public"
"#;

impl Broker {
    /// Returns the word that the configuration has for it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Nats(_) => "nats",
        }
    }
}

impl Config {
    /// Reads the file at `path`, where there is one, and what `env` says; the environment wins.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn load(
        path: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let Some(path) = path else { return Self::from_text("environment", "", env) };
        let name = path.display().to_string();
        let folder = path.parent().unwrap_or(Path::new(""));
        match read(path, FILE_MAX_BYTES) {
            Ok(text) => Self::from_file(&name, folder, &text, env),
            Err(error) => Err(Faults::one(&name, Fault::new("the file", format!("cannot be read: {error}")))),
        }
    }

    /// Reads `text` as the file called `name`, and what `env` says; the environment wins. Relative paths are those of
    /// the working directory.
    ///
    /// # Errors
    /// Every fault at once.
    pub fn from_text(
        name: &str,
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        Self::from_file(name, Path::new(""), text, env)
    }

    fn from_file(
        name: &str,
        folder: &Path,
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Faults> {
        let mut faults = Faults::none(name);
        match Values::merge(text, env, &mut faults) {
            Ok(values) => check::config(Reader::new(values, faults, folder)),
            Err(fault) => Err(Faults::one(name, fault)),
        }
    }

    /// Returns the configuration of development mode, with what `env` changes of it.
    ///
    /// # Errors
    /// Every fault of `env` at once.
    pub fn dev(env: impl IntoIterator<Item = (String, String)>) -> Result<Self, Faults> {
        let config = Self::from_text("environment", DEV, env)?;
        // Not in the text: a secret that everybody knows is refused there.
        let key = AppKey { key: "dev-key".to_owned(), secret: "dev-secret".to_owned() };
        let app = App { keys: vec![key], client_events: true, ..App::bare("1", AppSpace::default()) };
        Ok(Self { dev: true, apps: Apps::new(vec![app]), ..config })
    }

    /// Returns the classes that a channel may be kept in, by name: those that the broker must keep.
    #[must_use]
    pub fn classes_in_use(&self) -> Vec<RetentionClass> {
        let used = |class: &&RetentionClass| {
            self.channels.keepings().any(|keeping| match keeping {
                Keeping::Live => false,
                Keeping::Durable(name) => *name == class.name,
            })
        };
        self.history.iter().filter(used).cloned().collect()
    }
}

/// Reads a text of at most `max_bytes`.
pub(crate) fn read(path: &Path, max_bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(max_bytes + 1).read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > max_bytes {
        return Err(io::Error::other(format!("it is larger than {}", crate::unit::show_size(max_bytes))));
    }
    Ok(text)
}
