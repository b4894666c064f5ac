//! API keys: `crl_<app>_<key id>_<secret>`.
//!
//! **Lives here:** their shape, their ring, what each allows and how fast.
//! **Called by:** `api` at every request, `config` to fill the ring, `cli` to make a key.
//! **Must not know:** the secrets. The configuration carries their SHA-256; a secret is 256 random bits, so a slow
//! hash would protect nothing.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    fmt,
    num::NonZeroU32,
    sync::Arc,
    time::Instant,
};

use carillon_model::{BadText, ChannelName, ChannelPattern};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

mod bucket;

use bucket::Bucket;
pub use bucket::TooFast;

/// What every key begins with, so that secret scanners find one that leaked.
const PREFIX: &str = "crl_";

/// Letters of a secret. 43 letters of 62 carry 256 bits.
const SECRET_LETTERS: usize = 43;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The one key of development mode.
const DEV: &str = "dev";

/// Which key: application and key id, shown as `<app>_<id>`. Not secret.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// Names the key `id` of the application `app`: 1 to 32 characters of `[a-z0-9-]` each.
    ///
    /// # Errors
    /// [`BadText`] says which of the two breaks the rule.
    pub fn new(app: &str, id: &str) -> Result<Self, BadText> {
        let rule = "has 1 to 32 characters of a-z, 0-9 and `-`";
        if !is_word(app) {
            return Err(BadText { what: "an application's name", rule });
        }
        if !is_word(id) {
            return Err(BadText { what: "a key id", rule });
        }
        Ok(Self(format!("{app}_{id}").into()))
    }

    /// Returns the name of the application.
    #[must_use]
    pub fn app(&self) -> &str {
        self.0.split_once('_').map_or("", |(app, _)| app)
    }
}

fn is_word(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(legal)
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for KeyId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What the README and the quickstart write.
const EXAMPLE_HASH: &str = "1b2c3d4e5f60718293a4b5c6d7e8f9000112233445566778899aabbccddeeff0";

/// The SHA-256 of a key's secret part: what the configuration holds. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`BadText`] when the text is anything else.
    pub fn from_hex(text: &str) -> Result<Self, BadText> {
        let bad = || BadText {
            what: "a key's sha256",
            rule: "is the 64 hexadecimal digits that `carillon key new` prints",
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut hash = [0; 32];
        if pairs.len() != hash.len() || !rest.is_empty() {
            return Err(bad());
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            let digit = |c: u8| char::from(c).to_digit(16).and_then(|d| u8::try_from(d).ok());
            *byte = digit(*high).zip(digit(*low)).map(|(h, l)| h << 4 | l).ok_or_else(bad)?;
        }
        Ok(Self(hash))
    }

    /// Says whether this stands in a documentation's example, where no secret has it: the hash of ours, or one digit
    /// all over.
    #[must_use]
    pub fn is_example(&self) -> bool {
        let digits = self.to_string();
        digits == EXAMPLE_HASH || digits.bytes().all(|digit| digits.starts_with(char::from(digit)))
    }

    fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// Compares in a time that does not depend on where the two differ.
    fn is(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

/// What a key may be used for. None implies another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// To publish.
    Publish,
    /// To read history, presence and counts.
    Read,
    /// To disconnect, subscribe and unsubscribe clients.
    Disconnect,
    /// To see nodes and change their state.
    Admin,
}

impl Scope {
    /// Every scope, in the order of the reference.
    pub const ALL: [Self; 4] = [Self::Publish, Self::Read, Self::Disconnect, Self::Admin];

    /// Returns the scope's name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Read => "read",
            Self::Disconnect => "disconnect",
            Self::Admin => "admin",
        }
    }
}

/// A key as the configuration describes it.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// Which key.
    pub id: KeyId,
    /// The hash of its secret.
    pub secret: SecretHash,
    /// What it may be used for; nothing when empty.
    pub scopes: BTreeSet<Scope>,
    /// On which channels; on none when empty. `$user:*` covers publishing to users.
    pub channels: Vec<ChannelPattern>,
    /// At most this many publications a second, with bursts of one second's worth. `None` is no limit.
    pub publishes_per_second: Option<NonZeroU32>,
}

/// A key that is live, with the state of its rate.
#[derive(Debug)]
pub struct Key {
    record: KeyRecord,
    bucket: Option<Bucket>,
}

/// What a valid key may not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The key lacks the scope.
    #[error("the API key `{key}` does not have the scope `{}`; add it to the key's `scopes`", scope.name())]
    Scope {
        /// Which key.
        key: KeyId,
        /// What it would have needed.
        scope: Scope,
    },
    /// None of the key's patterns covers the channel.
    #[error(
        "the API key `{key}` does not cover the channel `{channel}`; add a pattern to the key's `channels`"
    )]
    Channel {
        /// Which key.
        key: KeyId,
        /// The channel that was asked for.
        channel: ChannelName,
    },
}

impl Key {
    fn new(record: KeyRecord) -> Self {
        let bucket = record.publishes_per_second.map(Bucket::new);
        Self { record, bucket }
    }

    /// Returns which key this is.
    #[must_use]
    pub const fn id(&self) -> &KeyId {
        &self.record.id
    }

    /// Checks that the key has `scope`, whatever the channel.
    ///
    /// # Errors
    /// [`Denied::Scope`].
    pub fn has(&self, scope: Scope) -> Result<(), Denied> {
        if self.record.scopes.contains(&scope) {
            Ok(())
        } else {
            Err(Denied::Scope { key: self.id().clone(), scope })
        }
    }

    /// Checks that the key has `scope` on `channel`.
    ///
    /// # Errors
    /// [`Denied`] says which of the two is missing.
    pub fn allows(&self, scope: Scope, channel: &ChannelName) -> Result<(), Denied> {
        self.has(scope)?;
        if self.record.channels.iter().any(|pattern| pattern.covers(channel)) {
            Ok(())
        } else {
            Err(Denied::Channel { key: self.id().clone(), channel: channel.clone() })
        }
    }

    /// Takes one publication from the key's rate, or says how long to wait.
    ///
    /// # Errors
    /// [`TooFast`] with the time until the next one is allowed.
    pub fn take(&self, now: Instant) -> Result<(), TooFast> {
        self.bucket.as_ref().map_or(Ok(()), |bucket| bucket.take(now))
    }

    /// Charges `more` publications beyond the one that [`Key::take`] let in. What exceeds the rate is owed: later
    /// requests wait until it is paid, so that a batch larger than the rate passes, but not two.
    pub fn charge(&self, more: u32, now: Instant) {
        if let Some(bucket) = &self.bucket {
            bucket.charge(more, now);
        }
    }
}

/// Why no key was found. The texts are for the person whose request was refused; an unknown id and a wrong secret
/// read the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no `Authorization` header.
    #[error("no API key; send the header `Authorization: Bearer crl_…`")]
    Missing,
    /// What was sent does not look like a key.
    #[error(
        "the Authorization header holds no API key; it reads `Bearer ` and then the key as `carillon key new` \
         printed it: crl_<app>_<key id>_<secret>"
    )]
    Malformed,
    /// It looks like a key, but is none of ours.
    #[error("the API key is not known here; check that all of it was copied and that it was not removed")]
    Unknown,
    /// Any of these, in development mode.
    #[error(
        "this gateway runs in development mode, where the API key is `dev`: send `Authorization: Bearer dev`"
    )]
    Development,
}

/// Two records with one id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two API keys have the id `{0}`; give each its own, also while one replaces the other")]
pub struct SameId(pub KeyId);

/// Every live key of this node.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: HashMap<KeyId, Arc<Key>>,
    dev: Option<Arc<Key>>,
}

impl KeyRing {
    /// Takes the keys that are live. Several at once are how a key is replaced without a gap.
    ///
    /// # Errors
    /// [`SameId`] when two records share an id.
    pub fn new(records: Vec<KeyRecord>) -> Result<Self, SameId> {
        let mut keys = HashMap::with_capacity(records.len());
        for record in records {
            let id = record.id.clone();
            if keys.insert(id.clone(), Arc::new(Key::new(record))).is_some() {
                return Err(SameId(id));
            }
        }
        Ok(Self { keys, dev: None })
    }

    /// Makes the ring of development mode: the literal key `dev`, which may do everything.
    ///
    /// # Panics
    /// Never: its own texts are legal.
    #[must_use]
    pub fn dev() -> Self {
        let record = KeyRecord {
            id: KeyId(DEV.into()),
            secret: SecretHash::of(DEV),
            scopes: Scope::ALL.into(),
            channels: vec![ChannelPattern::new("*").expect("a star is a pattern")],
            publishes_per_second: None,
        };
        Self { keys: HashMap::new(), dev: Some(Arc::new(Key::new(record))) }
    }

    /// Finds the key in the value of an `Authorization` header.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn authorize(&self, authorization: Option<&[u8]>) -> Result<&Arc<Key>, KeyError> {
        let found = bearer(authorization).and_then(|text| self.find(text));
        found.map_err(|error| if self.dev.is_some() { KeyError::Development } else { error })
    }

    /// Finds the key that `text` is.
    ///
    /// # Errors
    /// [`KeyError`]; never `Missing` or `Development`.
    pub fn find(&self, text: &str) -> Result<&Arc<Key>, KeyError> {
        if let Some(dev) = &self.dev
            && text == DEV
        {
            return Ok(dev);
        }
        let (id, secret) = text.strip_prefix(PREFIX).and_then(split).ok_or(KeyError::Malformed)?;
        let given = SecretHash::of(secret);
        match self.keys.get(id) {
            Some(key) if key.record.secret.is(&given) => Ok(key),
            Some(_) | None => Err(KeyError::Unknown),
        }
    }
}

/// Returns what an `Authorization` header bears.
fn bearer(authorization: Option<&[u8]>) -> Result<&str, KeyError> {
    let header = authorization.ok_or(KeyError::Missing)?;
    let (scheme, text) = header.split_at_checked(7).ok_or(KeyError::Malformed)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(KeyError::Malformed);
    }
    str::from_utf8(text.trim_ascii()).map_err(|_e| KeyError::Malformed)
}

/// Splits `<app>_<id>_<secret>` into `<app>_<id>` and the secret.
fn split(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.rsplit_once('_')?;
    let (app, key) = id.split_once('_')?;
    let shaped = is_word(app)
        && is_word(key)
        && secret.len() == SECRET_LETTERS
        && secret.bytes().all(|b| b.is_ascii_alphanumeric());
    shaped.then_some((id, secret))
}

/// A key that was just made. The only place where its text exists: show it once.
pub struct FreshKey {
    /// What the publisher sends.
    pub text: String,
    /// What the configuration holds.
    pub secret: SecretHash,
}

impl fmt::Debug for FreshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FreshKey(…)")
    }
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source failed: {0}")]
pub struct NoRandomness(getrandom::Error);

/// Makes the key `id` with a new secret.
///
/// # Errors
/// [`NoRandomness`] when the system has none.
pub fn generate(id: &KeyId) -> Result<FreshKey, NoRandomness> {
    let mut secret = String::with_capacity(SECRET_LETTERS);
    let mut bytes = [0; 64];
    while secret.len() < SECRET_LETTERS {
        getrandom::fill(&mut bytes).map_err(NoRandomness)?;
        // 6 bits of each byte; the 2 values beyond the alphabet are thrown away, so every letter is as likely.
        let letters = bytes.iter().filter_map(|byte| BASE62.get(usize::from(byte >> 2)));
        let missing = SECRET_LETTERS.saturating_sub(secret.len());
        secret.extend(letters.take(missing).copied().map(char::from));
    }
    Ok(FreshKey { text: format!("{PREFIX}{id}_{secret}"), secret: SecretHash::of(&secret) })
}

#[cfg(test)]
mod tests;
