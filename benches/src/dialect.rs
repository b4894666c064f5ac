//! The protocols that clients and publishers speak, as far as benchmarks need them.
//!
//! **Lives here:** how a client subscribes in each, what it is told, how a backend publishes.
//! **Called by:** `subscribers`, `publisher`.
//! **Must not know:** sockets, what is measured.

use std::io::Write as _;

use anyhow::{Result, bail};
use carillon_tasks::clock;
use carillon_tests::{
    pusher::{DEV, hmac_sha256, md5_hex, path},
    raw::{TEXT, frame},
};

use crate::{http, payload};

/// Which protocol. With Pusher's, the application is that of development mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    /// Our own.
    #[default]
    Native,
    /// Pusher Channels.
    Pusher,
}

/// What a text of the server is to a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// A message of the run.
    Message,
    /// It is welcome, and may subscribe.
    Welcome,
    /// It is subscribed.
    Subscribed,
    /// Nothing that matters here.
    Nothing,
}

impl Dialect {
    /// Returns the path of a subscriber's WebSocket.
    #[must_use]
    pub fn path(self, channel: &str) -> String {
        match self {
            Self::Native => format!("/v1/ws?channel={channel}"),
            Self::Pusher => path(DEV.key),
        }
    }

    /// Returns the frame that subscribes; none where the path has done so.
    #[must_use]
    pub fn subscribe(self, channel: &str) -> Vec<u8> {
        match self {
            Self::Native => Vec::new(),
            Self::Pusher => {
                frame(TEXT, format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"}}}}"#))
            }
        }
    }

    /// Reads how a text of the server begins.
    ///
    /// # Errors
    ///
    /// When it has no place in a benchmark.
    pub fn read(self, text: &[u8]) -> Result<Told> {
        let beginnings: &[(&str, Told)] = match self {
            Self::Native => &[
                (r#"{"type":"message""#, Told::Message),
                (r#"{"type":"welcome""#, Told::Welcome),
                (r#"{"type":"subscribed""#, Told::Subscribed),
                (r#"{"type":"ping""#, Told::Nothing),
            ],
            Self::Pusher => &[
                (r#"{"event":"message""#, Told::Message),
                (r#"{"event":"pusher:connection_established""#, Told::Welcome),
                (r#"{"event":"pusher_internal:subscription_succeeded""#, Told::Subscribed),
                (r#"{"event":"pusher:ping""#, Told::Nothing),
            ],
        };
        let known = beginnings.iter().find(|(beginning, _)| text.starts_with(beginning.as_bytes()));
        match known {
            Some((_, told)) => Ok(*told),
            None => bail!("unexpected frame: {}", String::from_utf8_lossy(text)),
        }
    }

    /// Appends one item of a publish request: a message with a counter.
    pub fn write_item(self, channel: &str, counter: u64, size_bytes: usize, out: &mut Vec<u8>) {
        let name = match self {
            Self::Native => "",
            Self::Pusher => r#""name":"message","#,
        };
        write!(out, r#"{{{name}"channel":"{channel}","data":"#).expect("a Vec takes every byte");
        payload::write_data(counter, size_bytes, out);
        out.push(b'}');
    }

    /// Returns what stands around the items of a batch.
    #[must_use]
    pub const fn around_batch(self) -> [&'static [u8]; 2] {
        match self {
            Self::Native => [b"[", b"]"],
            Self::Pusher => [br#"{"batch":["#, b"]}"],
        }
    }

    /// Appends the request: for one message, or a batch. `key` is an API key of the native protocol.
    pub fn write_request(self, single: bool, key: &str, body: &[u8], out: &mut Vec<u8>) {
        match (self, single) {
            (Self::Native, true) => http::write_post("/v1/publish", Some(key), body, out),
            (Self::Native, false) => http::write_post("/v1/batch", Some(key), body, out),
            (Self::Pusher, true) => http::write_post(&signed("events", body), None, body, out),
            (Self::Pusher, false) => http::write_post(&signed("batch_events", body), None, body, out),
        }
    }
}

/// Returns path and query of a signed request.
fn signed(tail: &str, body: &[u8]) -> String {
    let (id, key, now) = (DEV.id, DEV.key, clock::since_1970().as_secs());
    let path = format!("/apps/{id}/{tail}");
    let digest = md5_hex(body);
    let query = format!("auth_key={key}&auth_timestamp={now}&auth_version=1.0&body_md5={digest}");
    let signature = hmac_sha256(DEV.secret, &format!("POST\n{path}\n{query}"));
    format!("{path}?{query}&auth_signature={signature}")
}
