//! The beginning of a conversation in the Pusher protocol.
//!
//! **Lives here:** what the URL says, who is let in, and how those are told who are not.
//! **Called by:** `visit`.
//! **Must not know:** what is said later.
//!
//! Whoever is refused gets a WebSocket all the same, and is told by its close code: to a browser a failed handshake is
//! 1006, whatever the answer was, and pusher-js tries again every second for ever.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use carillon_dialect_pusher::{Protocol, Pusher, Refused, error, refused, unknown_app};
use carillon_model::App;
use carillon_node::{Node, Opening, Place, Whose};
use carillon_session::Heartbeat;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::frame;

/// The first byte of a close frame (RFC 6455 §5.2).
const CLOSE: u8 = 0x88;

/// For how long a client that was refused may take to close its side.
const GOODBYE: Duration = Duration::from_secs(5);

/// A client's application and protocol.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) app: Arc<App>,
    pub(crate) protocol: Protocol,
}

impl Caller {
    /// Reads who calls, and decides whether it may come in.
    pub(crate) fn admit(
        node: &Node,
        place: &Place,
        key: &str,
        version: Option<&str>,
    ) -> Result<Self, (Refused, Protocol)> {
        let protocol = Protocol::read(version);
        let spoken = protocol.as_ref().map_or(Protocol::Present, |protocol| *protocol);
        let refuse = |refused| Err((refused, spoken));
        let protocol = match protocol {
            Ok(protocol) => protocol,
            Err(refused) => return refuse(refused),
        };
        if key.is_empty() {
            return refuse(refused(4005, "Path not found: connect to /app/ and the application's key"));
        }
        let Some(app) = node.app_by_key(key) else { return refuse(unknown_app(key)) };
        if !app.enabled {
            return refuse(refused(4003, "Application disabled"));
        }
        if node.is_full(app) {
            return refuse(refused(4004, "Application is over connection quota"));
        }
        if place.is_over_capacity() {
            return refuse(refused(4100, "Over capacity"));
        }
        Ok(Self { app: Arc::clone(app), protocol })
    }

    /// Returns what the client speaks.
    pub(crate) fn dialect(&self) -> &'static Pusher {
        Pusher::of(self.protocol, self.app.subscription_errors)
    }

    /// Returns what the client asks for: nothing yet.
    pub(crate) fn opening(&self) -> Opening {
        Opening {
            whose: Whose::Known(Arc::clone(&self.app)),
            token: None,
            wanted: Vec::new(),
            heartbeat: Heartbeat::Transport,
        }
    }
}

/// Returns the key in `/app/{key}`, below whatever path clients were told to use; none, but empty, where the path goes on
/// behind it.
pub(crate) fn key_in(path: &str) -> Option<&str> {
    let (_, key) = path.split_once("/app/")?;
    Some(if key.contains('/') { "" } else { key })
}

/// Tells a client that it is refused, and waits until it has closed its side: a close that is not answered counts as
/// a failure of the transport with older clients.
pub(crate) async fn send_away(mut socket: TcpStream, refused: Refused, protocol: Protocol, _place: Place) {
    let mut frames = Vec::new();
    if protocol == Protocol::Old {
        frames.extend_from_slice(&frame::text(&error(Some(refused.code), &refused.message)));
    }
    frames.extend_from_slice(&frame::close(refused.code, &refused.message));
    let ending = async {
        socket.write_all(&frames).await?;
        let mut scratch = [0; 256];
        // The answer is a close frame, which comes alone as a rule. Whatever else is said ends with the patience.
        loop {
            match socket.read(&mut scratch).await? {
                0 => return std::io::Result::Ok(()),
                _ if scratch.first() == Some(&CLOSE) => return socket.shutdown().await,
                _ => {}
            }
        }
    };
    let _gone_or_late = timeout(GOODBYE, ending).await;
}

/// Returns frames, one for each text.
pub(crate) fn frames(texts: &str) -> Bytes {
    match texts.split_once('\n') {
        None if texts.is_empty() => Bytes::new(),
        None => frame::text(texts),
        Some(_) => texts.split('\n').flat_map(|text| frame::text(text).to_vec()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_below_any_path() {
        for (path, key) in [
            ("/app/abc", Some("abc")),
            ("/ws/app/abc", Some("abc")),
            ("/app/", Some("")),
            ("/app", None),
            ("/apps/1", None),
            ("/app/abc/def", Some("")),
            ("/app/abc/", Some("")),
            ("/myapp/abc", None),
        ] {
            assert_eq!(key_in(path), key, "{path}");
        }
    }
}
