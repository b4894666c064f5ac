//! What the operator says about NATS.
//!
//! **Lives here:** the typed settings, and what can be wrong with them before anything is connected.
//! **Called by:** `gateway`, which fills them from the configuration file.
//! **Must not know:** the configuration file.

use std::{fmt, path::PathBuf, time::Duration};

use async_nats::{ConnectOptions, ServerAddr};
use carillon_model::RetentionClass;

/// How to reach NATS, and what to keep there.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses such as `nats://10.0.0.1:4222` or `tls://nats.example.com`. At least one.
    pub servers: Vec<String>,
    /// Who we are.
    pub credentials: Credentials,
    /// How the connection is encrypted.
    pub tls: Tls,
    /// First token of every subject and of the names of streams: letters, digits and `-`.
    pub prefix: String,
    /// The application whose channels these are: letters, digits and `-`.
    pub app: String,
    /// The classes of history. Each has a stream for every shard.
    pub classes: Vec<RetentionClass>,
    /// How many servers keep each stream: 1 or 3.
    pub replicas: u8,
    /// What NATS calls this node's connections.
    pub node: String,
    /// Bytes of memory for the last minutes of all shards together.
    pub recent_max_bytes: usize,
    /// Messages that may wait for one shard's task; what is more is dropped by the library, and fetched again. Live ones
    /// are told as lost.
    pub subscription_capacity: usize,
}

/// The default of [`Config::subscription_capacity`].
pub const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// How a node proves who it is.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// A `.creds` file with a JWT and a seed.
    File(PathBuf),
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token.
    Token(String),
    /// The seed of an nkey.
    Nkey(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::File(_) => "File",
            Self::Password { .. } => "Password",
            Self::Token(_) => "Token",
            Self::Nkey(_) => "Nkey",
        })
    }
}

/// How the connection to NATS is encrypted.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Whether a connection without encryption is acceptable.
    pub mode: TlsMode,
    /// A PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of our certificate and its key, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// When a connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// When the server or its address (`tls://`) asks for it.
    #[default]
    IfAsked,
    /// Always.
    Required,
    /// Always, and before the server says anything.
    First,
}

/// Why a broker cannot be started with these settings.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to connect to.
    #[error("no NATS server is configured")]
    NoServer,
    /// An address cannot be understood.
    #[error("`{server}` is not the address of a NATS server, such as `nats://10.0.0.1:4222`")]
    Server {
        /// The address.
        server: String,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// The prefix or the application cannot be part of a subject.
    #[error("`{name}` cannot be part of a NATS subject: letters, digits and `-` can, at most 32 of them")]
    Name {
        /// The name.
        name: String,
    },
    /// NATS keeps one, three or five copies.
    #[error("{replicas} replicas are configured; a stream has 1 or 3")]
    Replicas {
        /// The number.
        replicas: u8,
    },
    /// The credentials file cannot be read.
    #[error("the NATS credentials file {path} cannot be used")]
    CredentialsFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The library's default of a minute would take three to notice a dead peer.
const PING: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Config {
    /// Checks what can be checked without a network.
    pub(crate) fn check(&self) -> Result<Vec<ServerAddr>, StartError> {
        if self.servers.is_empty() {
            return Err(StartError::NoServer);
        }
        if !matches!(self.replicas, 1 | 3) {
            return Err(StartError::Replicas { replicas: self.replicas });
        }
        let token = |name: &str| {
            let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            !name.is_empty() && name.len() <= 32 && name.bytes().all(legal)
        };
        if let Some(name) = [&self.prefix, &self.app].into_iter().find(|name| !token(name)) {
            return Err(StartError::Name { name: name.clone() });
        }
        let parse = |server: &String| {
            server.parse().map_err(|source| StartError::Server { server: server.clone(), source })
        };
        self.servers.iter().map(parse).collect()
    }

    /// Makes the options that both connections share.
    pub(crate) fn options(&self) -> Result<ConnectOptions, StartError> {
        let mut options = ConnectOptions::new()
            .name(&self.node)
            .ping_interval(PING)
            .connection_timeout(CONNECT_TIMEOUT)
            .custom_inbox_prefix(format!("_INBOX_{}", self.prefix))
            .reconnect_delay_callback(crate::link::reconnect_delay);
        options = match &self.credentials {
            Credentials::None => options,
            Credentials::File(path) => {
                let fault = |source| StartError::CredentialsFile { path: path.clone(), source };
                let text = std::fs::read_to_string(path).map_err(fault)?;
                options.credentials(&text).map_err(fault)?
            }
            Credentials::Password { user, password } => {
                options.user_and_password(user.clone(), password.clone())
            }
            Credentials::Token(token) => options.token(token.clone()),
            Credentials::Nkey(seed) => options.nkey(seed.clone()),
        };
        options = match self.tls.mode {
            TlsMode::IfAsked => options,
            TlsMode::Required => options.require_tls(true),
            TlsMode::First => options.require_tls(true).tls_first(),
        };
        if let Some(ca) = &self.tls.ca {
            options = options.add_root_certificates(ca.clone());
        }
        if let Some((certificate, key)) = &self.tls.identity {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        Ok(options)
    }
}
