//! The rows of the table of keys.
//!
//! **Lives here:** every section and key, and nothing else.
//! **Called by:** `table`.
//! **Must not know:** how rows are read.

use std::time::Duration;

use super::{Key, Kind, Preset, Section, Shape};

const fn key(name: &'static str, kind: Kind, preset: Preset, doc: &'static str) -> Key {
    Key { name, doc, kind, preset }
}

const fn time(min: Duration, max: Duration) -> Kind {
    Kind::Duration { min, max }
}

const fn count(min: u64, max: u64) -> Kind {
    Kind::Count { min, max }
}

const fn size(min: u64, max: u64) -> Kind {
    Kind::Size { min, max }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const TEXT: Kind = Kind::Text { max_bytes: 256 };
const FILE: Kind = Kind::Text { max_bytes: 4096 };

use Kind::{Address, Choice, Flag, Secrets, Texts};
use Preset::{Absent, Is, Required};

/// Every section, in the order of the reference.
pub(crate) static SECTIONS: &[Section] = &[
    Section {
        path: "public",
        shape: Shape::Once,
        doc: "The listener for clients.",
        keys: &[
            key("listen", Address, Is("0.0.0.0:8000"), "Address and port on which clients connect."),
            key(
                "max_connections",
                count(1, 10_000_000),
                Is("100000"),
                "Client connections at most; further ones are refused. Each needs a file descriptor: where the process \
                 may have too few, the number is lowered to what fits: the metric `carillon_connections_limit` shows \
                 it, and the log says so at the start where this is not the default or fewer than 1000 fit.",
            ),
            key(
                "handshake_timeout",
                time(secs(1), secs(60)),
                Is("10s"),
                "Time in which a client that has connected must finish its handshake.",
            ),
            key(
                "accept_rate",
                count(1, 1_000_000),
                Is("2000"),
                "Connections accepted in a second at most; the others wait. Evens out a storm of reconnects.",
            ),
        ],
    },
    Section {
        path: "api",
        shape: Shape::Once,
        doc: "The listener for publishers: HTTP and gRPC on one port.",
        keys: &[
            key(
                "listen",
                Address,
                Is("127.0.0.1:8001"),
                "Address and port on which backends publish. Beyond this machine only with at least one API key, or an application with keys.",
            ),
            key(
                "deadline",
                time(Duration::from_millis(10), secs(30)),
                Is("1s"),
                "Time in which every request is answered, if only with `unavailable`.",
            ),
            key("body_max", size(KIB, 16 * MIB), Is("1MiB"), "Largest body of a request."),
            key(
                "max_connections",
                count(1, 1_000_000),
                Is("4096"),
                "Connections of publishers at most; further ones are refused.",
            ),
            key(
                "pusher_on_public",
                Flag,
                Is("false"),
                "Whether the REST API of applications, `/apps/…`, answers on the public listener, too. Laravel and \
                 Pusher's SDKs have one host for it and for clients. `carillon dev` has it on.",
            ),
        ],
    },
    Section {
        path: "admin",
        shape: Shape::Once,
        doc: "The listener for probes and metrics.",
        keys: &[
            key(
                "listen",
                Address,
                Is("127.0.0.1:9000"),
                "Address and port for `/livez`, `/readyz` and `/metrics`.",
            ),
            key(
                "exposed",
                Flag,
                Is("false"),
                "Must be true when the address is not loopback: whoever reaches it reads metrics without a key. In \
                 Kubernetes probes and scrapes need it; a network policy then guards the port.",
            ),
        ],
    },
    Section {
        path: "client",
        shape: Shape::Once,
        doc: "What one client connection may use.",
        keys: &[
            key(
                "heartbeat",
                time(secs(1), secs(300)),
                Is("25s"),
                "Silence after which a client is pinged. Shorter finds dead peers sooner and wakes phones more often; \
                 proxies commonly cut after 60s of silence.",
            ),
            key(
                "pong_timeout",
                time(secs(1), secs(300)),
                Is("10s"),
                "Time in which a pinged client must answer before it is closed.",
            ),
            key("frame_max", size(KIB, MIB), Is("64KiB"), "Largest frame that a client may send."),
            key(
                "channels_max",
                count(1, 10_000),
                Is("500"),
                "Channels that one connection may subscribe to.",
            ),
            key(
                "outbox_max",
                size(64 * KIB, 64 * MIB),
                Is("1MiB"),
                "Bytes that may wait for a client that reads slowly; then its channel's `overflow` applies.",
            ),
            key(
                "connection_age_max",
                time(secs(10), secs(30 * 86_400)),
                Is("30m"),
                "Age at which a client is asked to connect again at once, less a random part of up to a fifth, so that \
                 new nodes fill. Does nothing with the embedded broker: there is no other node to move to.",
            ),
            key(
                "allowed_origins",
                Texts { max: 100 },
                Is("*"),
                "Websites whose pages may connect, such as `https://example.com` or, by whole labels, \
                 `https://*.example.com`; `*` alone allows all. Others get 403. Clients that are no browsers name no \
                 website and are not held back by this.",
            ),
        ],
    },
    Section {
        path: "node",
        shape: Shape::Once,
        doc: "The process.",
        keys: &[
            key(
                "workers",
                count(1, 64),
                Absent,
                "Threads that serve client connections. When absent: one for each core, 64 at most.",
            ),
            key(
                "drain",
                time(Duration::ZERO, secs(600)),
                Is("30s"),
                "Time over which clients are asked to move when the process stops. Where there is no other node, they are \
                 back soonest with `0s`.",
            ),
            key(
                "grace",
                time(Duration::ZERO, secs(600)),
                Is("15s"),
                "Time after the drain until everything that still runs is cut. `terminationGracePeriodSeconds` must \
                 be longer than both together.",
            ),
        ],
    },
    Section {
        path: "auth",
        shape: Shape::Once,
        doc: "Tokens of clients: JSON Web Tokens, HS256.",
        keys: &[
            key(
                "token_secret",
                Kind::Secret { max_bytes: 1024 },
                Absent,
                "Secret that the application signs tokens with, at least 32 bytes. When absent, and no file is \
                 given, no token is accepted.",
            ),
            key(
                "token_secret_file",
                FILE,
                Absent,
                "File that holds the secret; a relative path begins at the folder of the configuration file. Line \
                 breaks at its end are left out. Instead of `token_secret`.",
            ),
            key("issuer", TEXT, Absent, "What a token's `iss` must be. When absent it is not looked at."),
            key(
                "audience",
                TEXT,
                Absent,
                "What a token's `aud` must contain. When absent it is not looked at.",
            ),
        ],
    },
    Section {
        path: "keys",
        shape: Shape::List,
        doc: "API keys of publishers. `carillon key new` makes one, with `--app` one of an application.",
        keys: &[
            key(
                "id",
                Kind::Text { max_bytes: 65 },
                Required,
                "Application and key id, such as `shop_web`: the two words after `crl_` in the key. Unique. Where there \
                 are `[[apps]]`, the application is one of theirs, and the key is for its channels.",
            ),
            key(
                "secret_sha256",
                Kind::Secret { max_bytes: 64 },
                Required,
                "SHA-256 of the key's last part, as 64 hexadecimal digits. The key itself is not written here.",
            ),
            key(
                "scopes",
                Texts { max: 4 },
                Required,
                "What the key may be used for: `publish`, `read`, `disconnect`, `admin`. None implies another.",
            ),
            key(
                "channels",
                Texts { max: 100 },
                Required,
                "Patterns of the channels on which it may, such as `orders.*`; `*` is every channel.",
            ),
            key("rate", count(1, 1_000_000), Absent, "Publications a second at most. When absent: no limit."),
        ],
    },
    Section {
        path: "apps",
        shape: Shape::List,
        doc: "Applications, each with channels of its own: the same name in two applications is two channels. Clients \
              and backends of the Pusher protocol name an application by its key. Native clients, and API keys of no \
              other, belong to the first. Without any there is one, `main`, that Pusher clients cannot use.",
        keys: &[
            key(
                "id",
                Kind::Text { max_bytes: 32 },
                Required,
                "What it is called in paths, in API keys and in the broker: `a-z`, `0-9` and `-`. Unique. To rename an \
                 application, or to put another first, is to lose what was kept of its channels.",
            ),
            key(
                "keys",
                Secrets { max: 16 },
                Absent,
                "Its keys and their secrets, each `key:secret`; a key is made of letters, digits, `-` and `_`, a secret \
                 has at least 16 bytes. All are good; the first signs webhooks. When absent, and no file is given, it \
                 has no Pusher clients.",
            ),
            key(
                "keys_file",
                FILE,
                Absent,
                "File that holds them, one `key:secret` a line; a relative path begins at the folder of the \
                 configuration file. Instead of `keys`.",
            ),
            key(
                "enabled",
                Flag,
                Is("true"),
                "Whether it is served. Otherwise Pusher clients get 4003, and backends 403.",
            ),
            key(
                "client_events",
                Flag,
                Is("false"),
                "Whether clients may send `client-` events to each other on private and presence channels.",
            ),
            key(
                "subscription_count",
                Flag,
                Is("false"),
                "Whether a channel's subscribers are told how many they are.",
            ),
            key(
                "watchlist",
                Flag,
                Is("false"),
                "Whether users are told which users of their watchlist are online.",
            ),
            key(
                "subscription_errors",
                Flag,
                Is("true"),
                "Whether a refused subscription is told as `pusher:subscription_error` on the channel, too.",
            ),
            key(
                "max_connections",
                count(1, 10_000_000),
                Absent,
                "Its clients' connections to one node at most; further ones are closed with 4004. When absent: as many \
                 as the node takes.",
            ),
            key(
                "authorize_within",
                time(secs(1), secs(3600)),
                Absent,
                "Time in which a client must sign in or join a private or presence channel before it is closed with \
                 4009. When absent: never.",
            ),
            key(
                "event_data_max",
                size(64, MIB),
                Is("10KiB"),
                "Largest data of an event. The `message_max` of the channel's rule holds, too.",
            ),
            key("channels_per_event", count(1, 1000), Is("100"), "Channels of one event at most."),
            key("events_per_batch", count(1, 1000), Is("10"), "Events of one batch at most."),
            key(
                "channel_name_max",
                count(16, 200),
                Is("164"),
                "Characters of a channel's name, its prefix included, at most.",
            ),
            key(
                "presence_members_max",
                count(1, 10_000),
                Is("100"),
                "Members of a presence channel at most.",
            ),
            key(
                "presence_member_max",
                size(64, 64 * KIB),
                Is("1KiB"),
                "Largest `channel_data` of a member of a presence channel.",
            ),
            key("watchlist_max", count(1, 1000), Is("100"), "Users that one user watches at most."),
            key(
                "client_event_rate",
                count(1, 1000),
                Is("10"),
                "Client events of one connection in a second at most.",
            ),
            key(
                "clock_skew",
                time(secs(1), secs(86_400)),
                Is("10m"),
                "A backend's request whose time is as far as this from ours, or farther, is refused.",
            ),
            key(
                "webhooks",
                Texts { max: 10 },
                Absent,
                "Addresses that are told of the application's channels, each `https://…` or `http://…`. When absent: \
                 none.",
            ),
            key(
                "webhook_events",
                Texts { max: 5 },
                Absent,
                "What they are told: `channel_existence`, `presence`, `client_events`, `cache_channels`, \
                 `subscription_count`. When absent: all of it but the last.",
            ),
            key(
                "webhook_batch",
                Flag,
                Is("false"),
                "Whether several events may go in one request, half a second after the first or 50 at a time.",
            ),
        ],
    },
    Section {
        path: "webhooks",
        shape: Shape::Once,
        doc: "What all applications' webhooks have in common.",
        keys: &[key(
            "egress",
            Texts { max: 100 },
            Absent,
            "Networks, such as `10.1.0.0/16`, that webhooks may reach although they are not public. When absent: only \
             public addresses are reached.",
        )],
    },
    Section {
        path: "broker",
        shape: Shape::Once,
        doc: "What carries publications between nodes.",
        keys: &[key(
            "kind",
            Choice(&["memory", "nats"]),
            Is("memory"),
            "`memory` is for one node: its history ends with the process. `nats` is for any number of nodes.",
        )],
    },
    Section {
        path: "broker.nats",
        shape: Shape::Once,
        doc: "The link to NATS with JetStream; used with `kind = \"nats\"`.",
        keys: &[
            key(
                "servers",
                Texts { max: 32 },
                Is("nats://127.0.0.1:4222"),
                "Addresses, each `nats://host:port` or `tls://host:port`.",
            ),
            key(
                "credentials_file",
                FILE,
                Absent,
                "A `.creds` file that says who we are; a relative path begins at the folder of the configuration file.",
            ),
            key("user", TEXT, Absent, "Name, with `password`."),
            key("password", Kind::Secret { max_bytes: 1024 }, Absent, "Password of `user`."),
            key("token", Kind::Secret { max_bytes: 1024 }, Absent, "A token, instead of name and password."),
            key(
                "prefix",
                Kind::Text { max_bytes: 32 },
                Is("gw"),
                "Beginning of every subject and stream: `a-z`, `0-9` and `-`. Two clusters that share a NATS \
                 need two prefixes.",
            ),
            key(
                "replicas",
                count(1, 3),
                Is("3"),
                "Copies of every stream: 1 or 3, at most as many as there are servers.",
            ),
            key(
                "recent_max",
                size(MIB, 4096 * MIB),
                Is("64MiB"),
                "Memory for the last two minutes of all channels with history, from which clients that come back are \
                 served without a question to NATS.",
            ),
            key("tls", Flag, Is("false"), "Whether every server must encrypt, also one that is `nats://`."),
            key(
                "ca_file",
                FILE,
                Absent,
                "Certificates, as PEM, of the authority that servers' certificates are checked with; a relative path \
                 begins at the folder of the configuration file. When absent: the system's.",
            ),
            key(
                "insecure",
                Flag,
                Is("false"),
                "Must be true to reach a server on another machine without encryption or without credentials.",
            ),
        ],
    },
    Section {
        path: "history",
        shape: Shape::Named,
        doc: "Classes of history: how long and how much of a channel is kept. `short`, `long` and `cache` exist without \
              being written; a key that is written for them replaces theirs. Where an application has keys, `cache` is \
              that of cache channels whose rule names no class.",
        keys: &[
            key(
                "max_age",
                time(secs(1), secs(30 * 86_400)),
                Required,
                "Messages older than this are dropped. `short` has 10m, `long` has 24h, `cache` has 30m.",
            ),
            key(
                "max_messages",
                count(1, 100_000),
                Required,
                "Messages kept of one channel at most. `short` has 100, `long` has 1000, `cache` has 1.",
            ),
            key(
                "max_bytes",
                size(MIB, 64 * GIB),
                Is("64MiB"),
                "Bytes kept of one shard, all its channels together, at most. There are 16 shards. `long` has 1GiB.",
            ),
        ],
    },
    Section {
        path: "channels",
        shape: Shape::List,
        doc: "Rules of channels: the first whose pattern covers a channel's name applies, and a channel that none \
              covers cannot be used. At least one.",
        keys: &[
            key(
                "name",
                Kind::Text { max_bytes: 64 },
                Required,
                "What logs and metrics call the rule. Unique.",
            ),
            key(
                "match",
                Kind::Text { max_bytes: 200 },
                Required,
                "Pattern of the channels: literal text in which `*` stands for any run of characters.",
            ),
            key(
                "history",
                Kind::Text { max_bytes: 32 },
                Absent,
                "Class of history. When absent, messages reach those who listen, and are not kept.",
            ),
            key(
                "auth",
                Choice(&["public", "token"]),
                Is("token"),
                "Who may subscribe: everybody, or bearers of a token that names the channel.",
            ),
            key(
                "overflow",
                Choice(&["close", "drop_oldest", "latest"]),
                Is("close"),
                "What happens when more waits for a client than may: it is closed with 4101, comes back after a second \
                 and recovers; or the channel's oldest waiting messages are dropped; or all but its newest. What was \
                 dropped is told with a `gap` and counted.",
            ),
            key("message_max", size(64, MIB), Is("64KiB"), "Largest data of one message."),
        ],
    },
    Section {
        path: "log",
        shape: Shape::Once,
        doc: "The log, on standard error.",
        keys: &[
            key("format", Choice(&["text", "json"]), Is("text"), "`text` for people, `json` for machines."),
            key(
                "level",
                Kind::Text { max_bytes: 1024 },
                Is("info,async_nats=warn"),
                "Least level that is shown: `off`, `error`, `warn`, `info`, `debug` or `trace`; for single parts \
                 after a comma, such as `info,carillon_node=debug`.",
            ),
        ],
    },
];
