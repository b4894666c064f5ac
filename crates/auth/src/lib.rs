//! Who may do what: API keys of backends, tokens of clients, signatures of applications, websites in browsers.
//!
//! **Lives here:** how credentials are read and compared, and what they allow. Rules only: the time comes in as an
//! argument, and randomness is used for nothing but making a new key.
//! **Called by:** `api` for publishers, `node` for clients, `cli` to make a key.
//! **Must not know:** sockets, headers other than the one value it is given, configuration files.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod keys;
mod origin;
mod signature;
mod token;

pub use keys::{
    Denied, FreshKey, Key, KeyError, KeyId, KeyRecord, KeyRing, NoRandomness, SameId, Scope, SecretHash,
    TooFast,
};
pub use origin::{Allowed, BadOrigin, Origins};
pub use signature::{
    BadAuth, BadRequestSignature, SignedHead, channel_signature, channel_text, read_socket_id, shown_key,
    sign, socket_id, user_text, verify_auth, verify_head,
};
pub use token::{BadToken, Claims, GRANTS_MAX, SECRET_MIN_BYTES, TOKEN_MAX_BYTES, TokenVerifier};
