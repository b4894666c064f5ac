//! The operator's words for NATS as the broker takes them.
//!
//! **Lives here:** one configuration turned into the other.
//! **Called by:** `wiring`.
//! **Must not know:** how NATS is reached.

use carillon_broker_nats::{Config, Credentials, SUBSCRIPTION_CAPACITY, Tls, TlsMode};
use carillon_config::{Nats, NatsCredentials};
use carillon_model::RetentionClass;

/// Returns the broker's configuration; `app` is the id of the first application.
pub(crate) fn config(nats: &Nats, app: &str, classes: Vec<RetentionClass>) -> Config {
    Config {
        servers: nats.servers.clone(),
        credentials: match &nats.credentials {
            NatsCredentials::None => Credentials::None,
            NatsCredentials::File(path) => Credentials::File(path.clone()),
            NatsCredentials::User { user, password } => {
                Credentials::Password { user: user.clone(), password: password.expose().to_owned() }
            }
            NatsCredentials::Token(token) => Credentials::Token(token.expose().to_owned()),
        },
        tls: Tls {
            mode: if nats.tls { TlsMode::Required } else { TlsMode::IfAsked },
            ca: nats.ca_file.clone(),
            identity: None,
        },
        prefix: nats.prefix.clone(),
        app: app.to_owned(),
        classes,
        replicas: nats.replicas,
        node: "carillon".to_owned(),
        recent_max_bytes: nats.recent_max_bytes,
        subscription_capacity: SUBSCRIPTION_CAPACITY,
    }
}
