//! What the bare server says: the same texts as the native protocol, of the same length.
//!
//! **Lives here:** the greeting, the message and the answer of a publish request.
//! **Called by:** `raw`.
//! **Must not know:** sockets.

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::frame;

/// Any moment will do; it has thirteen digits like the present one.
const TIME_MS: u64 = 1_795_205_265_123;

/// What a client is told at the start.
const WELCOME: &str = r#"{"type":"welcome","connection":"k3f9c0d1a2b3","protocol":1,"ping":25,"limits":{"frame_bytes":65536,"channels":500}}"#;
const SUBSCRIBED: &str =
    r#"{"type":"subscribed","channel":"bench","position":"k3f9-1040","recovered":false,"replayed":0}"#;

/// Appends `welcome` and `subscribed`.
pub(super) fn write_greeting(out: &mut Vec<u8>) {
    frame::write_text(WELCOME.as_bytes(), out);
    frame::write_text(SUBSCRIBED.as_bytes(), out);
}

#[derive(Deserialize)]
struct Item<'a> {
    channel: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// What becomes of one publish request.
#[derive(Debug)]
pub(super) struct Made {
    /// One frame for each message.
    pub(super) frames: Vec<Vec<u8>>,
    /// The body of the answer.
    pub(super) answer: Vec<u8>,
}

/// Numbers the messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    offset: u64,
}

impl Messages {
    /// Makes the frames of a publish or batch request.
    ///
    /// # Errors
    ///
    /// When path or body are not what the load generator sends.
    pub(super) fn frames_of(&mut self, path: &str, body: &[u8]) -> Result<Made> {
        let items: Vec<Item<'_>> = match path {
            "/v1/publish" => vec![serde_json::from_slice(body)?],
            "/v1/batch" => serde_json::from_slice(body)?,
            other => bail!("no such path: {other}"),
        };
        let mut made = Made { frames: Vec::new(), answer: b"{\"results\":[".to_vec() };
        for (index, Item { channel, data }) in items.iter().enumerate() {
            self.offset += 1;
            let id = format!("k3f9-{}", 1040 + self.offset);
            let text = format!(
                r#"{{"type":"message","channel":"{channel}","id":"{id}","data":{data},"time":{TIME_MS}}}"#
            );
            let mut one = Vec::new();
            frame::write_text(text.as_bytes(), &mut one);
            made.frames.push(one);
            if index > 0 {
                made.answer.push(b',');
            }
            made.answer.extend_from_slice(
                format!(r#"{{"channel":"{channel}","id":"{id}","stored":true,"duplicate":false}}"#)
                    .as_bytes(),
            );
        }
        made.answer.extend_from_slice(b"]}");
        Ok(made)
    }
}
