//! The link to what carries publications.
//!
//! **Lives here:** which links are too open to start with.
//! **Called by:** `check`.
//! **Must not know:** how a broker connects.

use std::net::IpAddr;

use crate::{
    config::{Broker, Nats, NatsCredentials},
    reader::Reader,
};

pub(super) fn broker(reader: &mut Reader) -> Option<Broker> {
    let kind = reader.choice("broker.kind");
    // Also read when it is not used: what is written there may be at fault.
    let nats = nats(reader, kind == Some("nats"));
    match kind? {
        "nats" => nats.map(Broker::Nats),
        _ => Some(Broker::Memory),
    }
}

fn nats(reader: &mut Reader, used: bool) -> Option<Nats> {
    let servers = servers(reader);
    let credentials = credentials(reader);
    let prefix = prefix(reader);
    let replicas = replicas(reader);
    let recent_max_bytes = reader.size("broker.nats.recent_max");
    let tls = reader.flag("broker.nats.tls");
    let ca_file = reader.file("broker.nats.ca_file");
    let insecure = reader.flag("broker.nats.insecure");
    let nats = Nats {
        servers: servers?,
        credentials: credentials?,
        prefix: prefix?,
        replicas: replicas?,
        recent_max_bytes: recent_max_bytes?,
        tls: tls?,
        ca_file,
    };
    if used && !insecure? {
        guarded(reader, &nats);
    }
    Some(nats)
}

/// A link to another machine must be encrypted and say who we are.
fn guarded(reader: &mut Reader, nats: &Nats) {
    let Some(open) = nats.servers.iter().find(|server| !is_loopback(server)) else { return };
    let unless = "or set broker.nats.insecure = true where the network keeps strangers out";
    if !nats.tls && nats.servers.iter().any(|server| !is_loopback(server) && !server.starts_with("tls://")) {
        let text = format!("{open} is on another machine: set broker.nats.tls = true, {unless}");
        reader.fault("broker.nats.servers", text);
    }
    match nats.credentials {
        NatsCredentials::None => {
            let text = format!(
                "{open} is on another machine: give credentials_file, or user and password, or token, {unless}"
            );
            reader.fault("broker.nats.servers", text);
        }
        NatsCredentials::File(_) | NatsCredentials::User { .. } | NatsCredentials::Token(_) => {}
    }
}

fn servers(reader: &mut Reader) -> Option<Vec<String>> {
    let path = "broker.nats.servers";
    let servers = reader.texts(path)?;
    let at_fault = servers.iter().find_map(|server| address_fault(server));
    match at_fault {
        Some(expectation) => reader.fault(path, expectation),
        None => return Some(servers),
    }
    None
}

/// Says what is wrong with a server's address. The address is not repeated: it may hold a password.
fn address_fault(server: &str) -> Option<&'static str> {
    let Some((_scheme, rest)) =
        server.split_once("://").filter(|(scheme, _)| matches!(*scheme, "nats" | "tls"))
    else {
        return Some("each server is nats://host:port or tls://host:port");
    };
    if rest.contains('@') {
        return Some("an address holds no password: write broker.nats.user and broker.nats.password");
    }
    let (host, port) = host_and_port(rest);
    let host_is_good =
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b));
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    (!host_is_good || !port_is_good).then_some("each server is nats://host:port or tls://host:port")
}

/// Splits `host:port`, where the host may be an IPv6 address in brackets.
pub(super) fn host_and_port(rest: &str) -> (&str, Option<&str>) {
    if let Some((host, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, after.strip_prefix(':').or((!after.is_empty()).then_some(after)));
    }
    rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)))
}

fn is_loopback(server: &str) -> bool {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let (host, _) = host_and_port(rest);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn credentials(reader: &mut Reader) -> Option<NatsCredentials> {
    let file = reader.file("broker.nats.credentials_file");
    let user = reader.text("broker.nats.user");
    let password = reader.secret("broker.nats.password");
    let token = reader.secret("broker.nats.token");
    match (file, user, password, token) {
        (None, None, None, None) => Some(NatsCredentials::None),
        (Some(file), None, None, None) => Some(NatsCredentials::File(file)),
        (None, Some(user), Some(password), None) => Some(NatsCredentials::User { user, password }),
        (None, None, None, Some(token)) => Some(NatsCredentials::Token(token)),
        (file, user, password, token) => {
            let ways = [file.is_some(), user.is_some() || password.is_some(), token.is_some()];
            if ways.into_iter().filter(|way| *way).count() > 1 {
                reader.fault("broker.nats", "give one of credentials_file, user with password, and token");
            } else {
                reader.fault(
                    "broker.nats",
                    "user and password go together; one of them is missing or at fault",
                );
            }
            None
        }
    }
}

fn prefix(reader: &mut Reader) -> Option<String> {
    let path = "broker.nats.prefix";
    let prefix = reader.text(path)?;
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if prefix.bytes().all(legal) {
        return Some(prefix);
    }
    reader.fault(path, "a prefix has 1 to 32 characters of a-z, 0-9 and `-`");
    None
}

fn replicas(reader: &mut Reader) -> Option<u8> {
    let path = "broker.nats.replicas";
    match reader.count::<u32>(path)? {
        1 => Some(1),
        3 => Some(3),
        _two => {
            reader.fault(path, "must be 1 or 3: two copies survive no more than one");
            None
        }
    }
}
