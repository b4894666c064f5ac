//! Signatures of the Pusher protocol: who holds an application's secret has allowed this.
//!
//! **Lives here:** what clients show to join guarded channels and to sign in, socket ids as they are signed; signed
//! REST requests in `request`.
//! **Called by:** `node` and `dialect-pusher` for clients, `api` for backends, `backend` to sign webhooks.
//! **Must not know:** what is done with it.

use carillon_model::{App, Apps, BadText, ConnectionId};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

mod request;

pub use request::{BadRequestSignature, SignedHead, verify_head};

/// More characters of a text that was sent are not repeated to whoever sent it.
const ECHO_MAX_CHARS: usize = 2000;

/// Enough to tell one key from another, and too little of a secret that nobody knows to be one.
const SHOWN_MAX_BYTES: usize = 8;

/// Signs `text`: HMAC-SHA256 as 64 hexadecimal digits in lower case. Webhooks carry that of their body.
#[must_use]
pub fn sign(secret: &str, text: &[u8]) -> String {
    let mut signer = signer(secret);
    signer.update(text);
    hex(&signer.finalize().into_bytes())
}

/// Returns what is signed for a connection to join `channel`.
#[must_use]
pub fn channel_text(socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    match channel_data {
        Some(data) => format!("{socket_id}:{channel}:{data}"),
        None => format!("{socket_id}:{channel}"),
    }
}

/// Returns what is signed for a connection to sign in as a user.
#[must_use]
pub fn user_text(socket_id: &str, user_data: &str) -> String {
    format!("{socket_id}::user::{user_data}")
}

/// Signs that a connection may join `channel`, as a backend does.
#[must_use]
pub fn channel_signature(secret: &str, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
    sign(secret, channel_text(socket_id, channel, channel_data).as_bytes())
}

/// Why an `auth` allows nothing. The texts are for the client, and are those of the protocol. The right signature is
/// never in them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAuth {
    /// There is no `:` in it.
    #[error("Invalid format: auth must have the format key:signature")]
    Format,
    /// The key is none of the application's.
    #[error("Invalid key in subscription auth data: '{key}'")]
    Key {
        /// The key that was sent.
        key: String,
    },
    /// The signature is not that of the text.
    #[error("Invalid signature: Expected HMAC SHA256 hex digest of {signed}, but got {given}")]
    Signature {
        /// What should have been signed.
        signed: String,
        /// The signature that was sent.
        given: String,
    },
}

impl BadAuth {
    /// Says which check failed, for the operator; nothing of what was sent is in it.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::Format => "its `auth` is not `key:signature`",
            Self::Key { .. } => "its app key is unknown, or another application's",
            Self::Signature { .. } => "it is not signed with the key's secret, or for another connection",
        }
    }
}

/// Checks `auth`, which reads `key:signature`, against what it should have signed. Compares in a time that does not
/// depend on where two signatures differ.
///
/// # Errors
/// [`BadAuth`], with at most 2000 characters of what was sent.
pub fn verify_auth(app: &App, auth: &str, signed: &str) -> Result<(), BadAuth> {
    let (key, given) = auth.split_once(':').ok_or(BadAuth::Format)?;
    let Some(secret) = app.secret_of(key) else { return Err(BadAuth::Key { key: echo(key) }) };
    if same(&sign(secret, signed.as_bytes()), given.as_bytes()) {
        Ok(())
    } else {
        Err(BadAuth::Signature { signed: echo(signed), given: echo(given) })
    }
}

/// Returns the connection's id as Pusher clients know it: two whole numbers with a point between them.
#[must_use]
pub fn socket_id(connection: ConnectionId) -> String {
    let (high, low) = connection.halves();
    format!("{high}.{low}")
}

/// Reads a socket id. One of the right shape that no connection of ours can have is `None`.
///
/// # Errors
/// [`BadText`] when it is not digits, a point and digits.
pub fn read_socket_id(text: &str) -> Result<Option<ConnectionId>, BadText> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let Some((high, low)) = text.split_once('.').filter(|(high, low)| digits(high) && digits(low)) else {
        return Err(BadText {
            what: "a socket id",
            rule: "is digits, a point and digits, such as 131160.155806628",
        });
    };
    // With zeros in front it is another text than the one that we gave, and than the one that was signed.
    let part = |part: &str| part.parse::<u32>().ok().filter(|_| part.len() == 1 || !part.starts_with('0'));
    Ok(part(high).zip(part(low)).map(|(high, low)| ConnectionId::from_halves(high, low)))
}

/// Returns what the log may have of a key that no application has: its beginning. Where a secret was put in the key's
/// place, or an API key, or key and secret together, it says only that.
#[must_use]
pub fn shown_key(apps: &Apps, key: &str) -> String {
    let mut known = apps.all().iter().flat_map(|app| &app.keys);
    if known.any(|known| same(&known.secret, key.as_bytes())) {
        return "(a secret, which is no key)".to_owned();
    }
    let is_word = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if !is_word || key.starts_with("crl_") {
        return "(no application's key looks like it)".to_owned();
    }
    match key.get(..SHOWN_MAX_BYTES) {
        Some(start) if start != key => format!("{start}…"),
        Some(_) | None => key.to_owned(),
    }
}

fn signer(secret: &str) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a secret of any length")
}

/// Compares in a time that does not depend on where the two differ.
fn same(right: &str, given: &[u8]) -> bool {
    right.as_bytes().ct_eq(given).into()
}

fn hex(bytes: &[u8]) -> String {
    let nibbles = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.filter_map(|nibble| char::from_digit(u32::from(nibble), 16)).collect()
}

fn echo(text: &str) -> String {
    text.chars().take(ECHO_MAX_CHARS).collect()
}

#[cfg(test)]
mod tests;
