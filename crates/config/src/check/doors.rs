//! The listeners, what one client may use, and the process.
//!
//! **Lives here:** what may listen where.
//! **Called by:** `check`.
//! **Must not know:** the machine: whether a port is free or descriptors suffice is found at the start.

use std::{net::SocketAddr, num::NonZeroUsize, thread::available_parallelism};

use carillon_auth::Origins;

use crate::{
    config::{Admin, Api, Client, Node, Public},
    reader::Reader,
};

/// As the table of keys says: the node has no more.
const WORKERS_MAX: NonZeroUsize = NonZeroUsize::new(64).expect("64 is not 0");

pub(super) fn public(reader: &mut Reader) -> Option<Public> {
    let listen = reader.address("public.listen");
    let max_connections = reader.count("public.max_connections");
    let handshake_timeout = reader.duration("public.handshake_timeout");
    let accept_rate = reader.count("public.accept_rate");
    Some(Public {
        listen: listen?,
        max_connections: max_connections?,
        handshake_timeout: handshake_timeout?,
        accept_rate: accept_rate?,
    })
}

pub(super) fn api(reader: &mut Reader) -> Option<Api> {
    let listen = reader.address("api.listen");
    let deadline = reader.duration("api.deadline");
    let body_max_bytes = reader.size("api.body_max");
    let max_connections = reader.count("api.max_connections");
    let pusher_on_public = reader.flag("api.pusher_on_public");
    if listen.is_some_and(|listen| !listen.ip().is_loopback()) && nobody_publishes(reader) {
        reader.fault(
            "api.listen",
            "other machines can reach this address, and without a key none could publish: add [[keys]], or keys of \
             [[apps]], or listen on 127.0.0.1",
        );
    }
    Some(Api {
        listen: listen?,
        deadline: deadline?,
        body_max_bytes: body_max_bytes?,
        max_connections: max_connections?,
        pusher_on_public: pusher_on_public?,
    })
}

/// Says whether there is no key at all.
fn nobody_publishes(reader: &Reader) -> bool {
    let of_apps =
        |at: &String| ["keys", "keys_file"].iter().any(|key| reader.is_given(&format!("{at}.{key}")));
    reader.values.list("keys").is_empty() && !reader.values.list("apps").iter().any(of_apps)
}

pub(super) fn admin(reader: &mut Reader) -> Option<Admin> {
    let listen = reader.address("admin.listen");
    let exposed = reader.flag("admin.exposed");
    if listen.is_some_and(|listen| !listen.ip().is_loopback()) && exposed == Some(false) {
        reader.fault(
            "admin.listen",
            "other machines can reach this address, and it asks for no key: listen on 127.0.0.1, or set \
             admin.exposed = true where the network keeps strangers out",
        );
    }
    Some(Admin { listen: listen? })
}

pub(super) fn client(reader: &mut Reader) -> Option<Client> {
    let heartbeat = reader.duration("client.heartbeat");
    let pong_timeout = reader.duration("client.pong_timeout");
    let frame_max_bytes = reader.size("client.frame_max");
    let channels_max = reader.count("client.channels_max");
    let outbox_max_bytes = reader.size("client.outbox_max");
    let connection_age_max = reader.duration("client.connection_age_max");
    let allowed_origins = origins(reader, "client.allowed_origins");
    Some(Client {
        heartbeat: heartbeat?,
        pong_timeout: pong_timeout?,
        frame_max_bytes: frame_max_bytes?,
        channels_max: channels_max?,
        outbox_max_bytes: outbox_max_bytes?,
        connection_age_max: connection_age_max?,
        allowed_origins: allowed_origins?,
    })
}

fn origins(reader: &mut Reader, path: &str) -> Option<Origins> {
    let texts = reader.texts(path)?;
    let read = Origins::read(&texts).map_err(|(text, fault)| format!("`{text}` {fault}"));
    read.map_err(|fault| reader.fault(path, fault)).ok()
}

pub(super) fn node(reader: &mut Reader) -> Option<Node> {
    let workers = reader.count("node.workers");
    let drain = reader.duration("node.drain");
    let grace = reader.duration("node.grace");
    // The system may not say how many cores there are; one is always there.
    let cores = || available_parallelism().unwrap_or(NonZeroUsize::MIN).min(WORKERS_MAX);
    let workers = if reader.is_given("node.workers") { workers } else { Some(cores()) };
    Some(Node { workers: workers?, drain: drain?, grace: grace? })
}

/// Two listeners cannot share a port. Port 0 is one that the system chooses.
pub(super) fn apart(reader: &mut Reader, doors: [(&'static str, Option<SocketAddr>); 3]) {
    let clash = |a: SocketAddr, b: SocketAddr| {
        let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() != 0 && a.port() == b.port() && same_ip
    };
    let mut seen: Vec<(&str, SocketAddr)> = Vec::new();
    for (door, listen) in doors {
        // A fault of the address itself was told before.
        let Some(listen) = listen else { continue };
        if let Some((other, _)) = seen.iter().find(|(_, taken)| clash(*taken, listen)) {
            let text = format!("{other} has this port already; give each listener its own");
            reader.fault(door, text);
        }
        seen.push((door, listen));
    }
}
