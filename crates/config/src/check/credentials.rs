//! Tokens of clients and keys of publishers.
//!
//! **Lives here:** which secrets are too weak to start with.
//! **Called by:** `check`.
//! **Must not know:** how tokens and keys are verified.

use std::collections::{BTreeMap, BTreeSet};

use carillon_auth::{KeyId, KeyRecord, Scope, SecretHash};
use carillon_model::ChannelPattern;

use crate::{
    config::{self, Auth, Secret},
    reader::Reader,
};

/// Shorter secrets of HS256 can be guessed from one token (RFC 7518, 3.2). One of fewer different characters was typed,
/// not drawn: 32 hexadecimal digits have 14 on average.
const LEAST: Least = Least { bytes: 32, characters: 8 };
/// A larger file is not a secret.
pub(super) const SECRET_FILE_MAX_BYTES: u64 = 4096;

/// What examples and templates carry in the place of a secret, in lower case.
const SAMPLES: &[&str] =
    &["changeme", "change-me", "change_me", "your-256-bit", "at-least-256-bit", "your-secret", "your_secret"];

/// The least that a secret has.
pub(super) struct Least {
    pub(super) bytes: usize,
    /// How many of its characters differ.
    pub(super) characters: usize,
}

pub(super) fn auth(reader: &mut Reader) -> Option<Auth> {
    let token_secret = token_secret(reader);
    let issuer = reader.text("auth.issuer");
    let audience = reader.text("auth.audience");
    Some(Auth { token_secret, issuer, audience })
}

fn token_secret(reader: &mut Reader) -> Option<Secret> {
    let (at, in_file) = ("auth.token_secret", "auth.token_secret_file");
    let given = reader.secret(at);
    let file = reader.file(in_file);
    if reader.is_given(at) && reader.is_given(in_file) {
        reader.fault(in_file, "auth.token_secret is there too; write one of the two");
        return None;
    }
    let (path, secret) = match file {
        None => (at, given?),
        Some(file) => match config::read(&file, SECRET_FILE_MAX_BYTES) {
            Ok(text) => (in_file, Secret::new(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(error) => {
                reader.fault(in_file, format!("cannot be read: {error}"));
                return None;
            }
        },
    };
    match weakness(secret.expose(), &LEAST) {
        Some(weakness) => reader.fault(path, weakness),
        None => return Some(secret),
    }
    None
}

/// Says why a secret must not be used.
pub(super) fn weakness(secret: &str, least: &Least) -> Option<String> {
    let bytes = secret.len();
    let lower = secret.to_ascii_lowercase();
    let characters: BTreeSet<_> = secret.chars().collect();
    let drawn = "draw one with `openssl rand -base64 48`";
    let repeats =
        |unit: &usize| secret.as_bytes().chunks(*unit).all(|part| secret.as_bytes().starts_with(part));
    if SAMPLES.iter().any(|sample| lower.contains(sample))
        || ["secret", "password", "test"].contains(&&*lower)
    {
        Some(format!("this is a sample, not a secret; {drawn}"))
    } else if bytes < least.bytes {
        Some(format!("a secret has at least {} bytes, this one has {bytes}; {drawn}", least.bytes))
    } else if characters.len() < least.characters || (1..=bytes / 2).any(|unit| repeats(&unit)) {
        Some(format!("this text repeats itself and can be guessed; {drawn}"))
    } else {
        None
    }
}

pub(super) fn keys(reader: &mut Reader) -> Option<Vec<KeyRecord>> {
    let sections = reader.values.list("keys");
    let mut seen = BTreeMap::new();
    let mut keys = Vec::new();
    for at in &sections {
        let Some(key) = key(reader, at) else { continue };
        if let Some(first) = seen.insert(key.id.clone(), at) {
            reader.fault(&format!("{at}.id"), format!("{first} has this id; ids are unique"));
        }
        keys.push(key);
    }
    // Fewer means that one was at fault, and the fault was told.
    (keys.len() == sections.len()).then_some(keys)
}

fn key(reader: &mut Reader, at: &str) -> Option<KeyRecord> {
    let path = |key: &str| format!("{at}.{key}");
    let id = reader.text(&path("id")).and_then(|text| {
        let expected =
            "must be an application and a key id with `_` between them, such as \"shop_web\"; each";
        let Some((app, id)) = text.split_once('_') else {
            reader.fault(&path("id"), format!("{expected} has 1 to 32 characters of a-z, 0-9 and `-`"));
            return None;
        };
        let id = KeyId::new(app, id);
        id.map_err(|error| reader.fault(&path("id"), format!("{expected} {}", error.rule))).ok()
    });
    let secret = reader.secret(&path("secret_sha256")).and_then(|secret| {
        let hash = SecretHash::from_hex(secret.expose());
        hash.map_err(|error| reader.fault(&path("secret_sha256"), error.to_string())).ok()
    });
    let scopes = each(reader, &path("scopes"), |word| {
        let scope = Scope::ALL.into_iter().find(|scope| scope.name() == word);
        let known = Scope::ALL.map(Scope::name).join(", ");
        scope.ok_or_else(|| format!("`{word}` is no scope; the scopes are {known}"))
    });
    let channels =
        each(reader, &path("channels"), |text| ChannelPattern::new(text).map_err(|error| error.to_string()));
    let publishes_per_second = reader.count(&path("rate"));
    Some(KeyRecord {
        id: id?,
        secret: secret?,
        scopes: scopes?.into_iter().collect(),
        channels: channels?,
        publishes_per_second,
    })
}

/// Reads every text of a list; the first that cannot be read is the fault.
pub(super) fn each<T>(
    reader: &mut Reader,
    path: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let texts = reader.texts(path)?;
    let all: Result<Vec<T>, String> = texts.iter().map(|text| read(text)).collect();
    all.map_err(|expectation| reader.fault(path, expectation)).ok()
}
