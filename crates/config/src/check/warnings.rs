//! What may run and was hardly meant.
//!
//! **Lives here:** the sentences of `carillon check`, and of the log at the start.
//! **Called by:** `cli`.
//! **Must not know:** how the values were written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use carillon_auth::KeyRecord;
use carillon_backend::Egress;
use carillon_model::App;

use super::broker::host_and_port;
use crate::config::Config;

impl Config {
    /// Returns what may run and was hardly meant, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let examples = self.keys.iter().filter(|key| key.secret.is_example()).map(of_an_example);
        let egress = Egress::new(self.webhooks.egress.clone());
        let unreachable = self.apps.all().iter().flat_map(|app| never_called(app, &egress));
        examples.chain(unreachable).collect()
    }
}

fn of_an_example(key: &KeyRecord) -> String {
    format!(
        "the secret_sha256 of the key `{}` is an example: no API key fits it; `carillon key new` makes one",
        key.id
    )
}

/// Names the hosts of an application's webhooks that are addresses which may not be called. What a name's addresses are
/// is known when it is called.
fn never_called(app: &App, egress: &Egress) -> impl Iterator<Item = String> {
    let hosts = app.webhooks.iter().map(|hook| host_of(&hook.url));
    hosts.filter_map(|host| {
        let network = missing_network(host, egress)?;
        Some(format!(
            "a webhook of the application `{}` leads to `{host}`, which is not in the Internet, and is never sent; \
             to allow it, add \"{network}\" to `egress` under [webhooks]",
            app.id
        ))
    })
}

/// Returns the host of a URL that was checked.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    host_and_port(rest.split(['/', '?']).next().unwrap_or_default()).0
}

/// Returns the network that must be allowed for an address to be called, if it is one and is not allowed.
fn missing_network(host: &str, egress: &Egress) -> Option<String> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address.to_canonical()],
        Err(_name) if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_name) => return None,
    };
    if addresses.iter().any(|address| egress.allows(*address)) {
        return None;
    }
    let first = addresses.first()?;
    Some(format!("{first}/{}", if first.is_ipv4() { 32 } else { 128 }))
}
