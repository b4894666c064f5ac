//! `carillon key new`.
//!
//! **Lives here:** what is shown of a new key.
//! **Called by:** `main`.
//! **Must not know:** how keys are made.

use std::process::ExitCode;

use anyhow::Context as _;
use carillon_auth::{KeyId, keys};

use crate::say;

/// Makes a key of an application and prints it with the configuration that lets it in.
pub(crate) fn new(app: &str, id: &str) -> anyhow::Result<ExitCode> {
    let key_id = KeyId::new(app, id).context("this cannot be a key's id")?;
    let key = keys::generate(&key_id)?;
    say(&format!(
        "{}\n\nKeep the line above secret: it is shown only now. Add this to the configuration:\n\n\
         [[keys]]\nid = \"{key_id}\"\nsecret_sha256 = \"{}\"\nscopes = [\"publish\"]\nchannels = [\"*\"]",
        key.text, key.secret
    ));
    Ok(ExitCode::SUCCESS)
}
