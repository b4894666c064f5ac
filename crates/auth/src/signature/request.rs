//! Requests that a backend has signed.
//!
//! **Lives here:** the order of the checks, what exactly is signed, and the texts of the refusals: those of the Pusher
//! protocol.
//! **Called by:** `api`, for each request of the Pusher REST API.
//! **Must not know:** HTTP, what the request asks for.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use carillon_model::{App, Apps, UnixMillis};
use hmac::Mac as _;
use md5::{Digest as _, Md5};
use percent_encoding::percent_decode;

use super::{ECHO_MAX_CHARS, hex, same, signer};

/// The last second that a date is written of, that of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

/// The one parameter that is not signed.
const SIGNATURE: &[u8] = b"auth_signature";

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Why a request is not taken as an application's: always answered with 401. The texts are for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequestSignature {
    /// No key is named.
    #[error("Missing parameter: auth_key")]
    KeyMissing,
    /// The key is nobody's, or another application's than the one in the path.
    #[error("Unknown auth_key")]
    KeyUnknown {
        /// The beginning of what was sent. It may be a secret: [`shown_key`](super::shown_key) says what of it is for the log.
        key: String,
    },
    /// No version is named.
    #[error("Version required")]
    VersionMissing,
    /// The version is not 1.0.
    #[error("Version not supported")]
    VersionUnknown,
    /// No time is named.
    #[error("Timestamp required")]
    TimeMissing,
    /// The time is no number of seconds.
    #[error("Invalid timestamp: auth_timestamp is a whole number of seconds since 1970")]
    TimeUnreadable,
    /// The time is too far from ours.
    #[error(
        "Timestamp expired: Given timestamp ({}) not within {}s of server time ({})",
        date(*.given), .skew.as_secs(), date(*.now)
    )]
    TimeExpired {
        /// The request's time in seconds since 1970.
        given: u64,
        /// How far it may be from ours.
        skew: Duration,
        /// Our time in seconds since 1970.
        now: u64,
    },
    /// The signature is not that of the request.
    #[error(
        "Invalid signature: you should have sent HmacSHA256Hex({signed:?}, your_secret_key), but you sent {given:?}"
    )]
    Signature {
        /// What should have been signed.
        signed: String,
        /// The signature that was sent; empty when there was none.
        given: String,
    },
    /// There is a body, and its MD5 was not signed.
    #[error("Missing parameter: body_md5")]
    DigestMissing,
    /// The body is not the one whose MD5 was signed.
    #[error("Invalid body_md5: it is not the MD5 of the body")]
    DigestWrong,
}

impl BadRequestSignature {
    /// Says which check failed, for the operator; nothing of what was sent is in it.
    #[must_use]
    pub const fn check(&self) -> &'static str {
        match self {
            Self::KeyMissing => "it has no `auth_key`",
            Self::KeyUnknown { .. } => "unknown app key, or another application's than the path's",
            Self::VersionMissing | Self::VersionUnknown => "its `auth_version` is not 1.0",
            Self::TimeMissing | Self::TimeUnreadable => "its `auth_timestamp` is no number of seconds",
            Self::TimeExpired { .. } => "its `auth_timestamp` is too far from our time; do the clocks agree?",
            Self::Signature { .. } => "it is not signed with the key's secret",
            Self::DigestMissing | Self::DigestWrong => "its `body_md5` is not that of its body",
        }
    }
}

/// A request whose head an application has signed. What it says of the body is not checked yet.
#[derive(Debug)]
pub struct SignedHead<'a, 'q> {
    /// Whose request it is. Whether the application is switched on was not looked at.
    pub app: &'a Arc<App>,
    digest: Option<Cow<'q, [u8]>>,
}

/// Checks that the holder of an application's key sent this request, as far as that is known without its body: nobody
/// else's body need be read.
///
/// `path` is what the client signed, from `/apps/` on and still percent-encoded; `query` is as it was received. `app_id`
/// is that of the path; without it the key alone names the application.
///
/// The rules are those of pusher-signature's `authenticate`.
///
/// # Errors
/// [`BadRequestSignature`], the first of its kinds that applies.
pub fn verify_head<'a, 'q>(
    apps: &'a Apps,
    app_id: Option<&str>,
    method: &str,
    path: &str,
    query: &'q str,
    now: UnixMillis,
) -> Result<SignedHead<'a, 'q>, BadRequestSignature> {
    let mut parameters = Parameters::read(query);
    let key = parameters.get(b"auth_key").ok_or(BadRequestSignature::KeyMissing)?;
    let key = String::from_utf8_lossy(key);
    let app = app_id.map_or_else(|| apps.by_key(&key), |id| apps.by_id(id));
    let (app, secret) = app
        .and_then(|app| Some((app, app.secret_of(&key)?)))
        .ok_or_else(|| BadRequestSignature::KeyUnknown { key: key.chars().take(ECHO_MAX_CHARS).collect() })?;
    match parameters.get(b"auth_version") {
        None => return Err(BadRequestSignature::VersionMissing),
        Some(b"1.0") => {}
        Some(_) => return Err(BadRequestSignature::VersionUnknown),
    }
    in_time(parameters.get(b"auth_timestamp"), now, app.limits.clock_skew)?;
    parameters.verify(secret, method, path, query)?;
    Ok(SignedHead { app, digest: parameters.take(b"body_md5") })
}

impl SignedHead<'_, '_> {
    /// Checks that `body` is the one that was signed. An empty one need not be.
    ///
    /// # Errors
    /// [`BadRequestSignature::DigestMissing`] and [`BadRequestSignature::DigestWrong`].
    pub fn verify_body(&self, body: &[u8]) -> Result<(), BadRequestSignature> {
        match &self.digest {
            // Some clients send that of the empty body, too.
            Some(digest) if same(&hex(&Md5::digest(body)), digest) => Ok(()),
            Some(_) => Err(BadRequestSignature::DigestWrong),
            None if body.is_empty() => Ok(()),
            None => Err(BadRequestSignature::DigestMissing),
        }
    }
}

fn in_time(given: Option<&[u8]>, now: UnixMillis, skew: Duration) -> Result<(), BadRequestSignature> {
    let digits = given.ok_or(BadRequestSignature::TimeMissing)?;
    let digits = str::from_utf8(digits).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let digits = digits.filter(|text| !text.is_empty()).ok_or(BadRequestSignature::TimeUnreadable)?;
    // More digits than a number of ours has: far in the future.
    let given = digits.parse().unwrap_or(u64::MAX);
    let now = now.get() / 1000;
    if given.abs_diff(now) < skew.as_secs() {
        return Ok(());
    }
    Err(BadRequestSignature::TimeExpired { given, skew, now })
}

type Pair<'q> = (Cow<'q, [u8]>, Cow<'q, [u8]>);

/// The parameters of a query as they are signed: decoded, names in lower case, in the order of the names' bytes,
/// without the signature.
struct Parameters<'q> {
    pairs: Vec<Pair<'q>>,
    signature: Cow<'q, [u8]>,
}

impl<'q> Parameters<'q> {
    fn read(query: &'q str) -> Self {
        let mut pairs = Vec::with_capacity(8);
        let mut signature = Cow::default();
        for (name, value) in pairs_of(query) {
            if *name == *SIGNATURE {
                signature = value;
            } else {
                pairs.push((name, value));
            }
        }
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        Self { pairs, signature }
    }

    fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.pairs.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    fn take(&mut self, name: &[u8]) -> Option<Cow<'q, [u8]>> {
        let (_, value) = self.pairs.iter_mut().find(|(known, _)| **known == *name)?;
        Some(std::mem::take(value))
    }

    /// Checks the signature against all that clients are known to sign: an array in the query is signed as it stands
    /// or as one value, and a path as it was sent or decoded.
    fn verify(&self, secret: &str, method: &str, path: &str, query: &str) -> Result<(), BadRequestSignature> {
        let is = |pairs: &[Pair<'_>], path: &[u8]| {
            let mut signer = signer(secret);
            signed(method, path, pairs, |part| signer.update(part));
            same(&hex(&signer.finalize().into_bytes()), &self.signature)
        };
        let path = path.as_bytes();
        if is(&self.pairs, path) {
            return Ok(());
        }
        let decoded: Cow<'_, [u8]> = percent_decode(path).into();
        let arrays = self.pairs.iter().any(|(name, _)| name.contains(&b'[')).then(|| joined(query));
        let either = |path| is(&self.pairs, path) || arrays.as_ref().is_some_and(|pairs| is(pairs, path));
        if either(path) || (*decoded != *path && either(&decoded)) {
            return Ok(());
        }
        let mut text = Vec::new();
        signed(method, path, &self.pairs, |part| text.extend_from_slice(part));
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Err(BadRequestSignature::Signature { signed: shown(&text), given: shown(&self.signature) })
    }
}

/// Returns the parameters with each array as one value, `k[0]=a` and `k[1]=b` as `k=a,b`, in the order in which they
/// were sent.
fn joined(query: &str) -> Vec<Pair<'_>> {
    let mut pairs: Vec<_> = pairs_of(query).filter(|(name, _)| **name != *SIGNATURE).collect();
    for (name, _) in &mut pairs {
        if let Some(index) = name.iter().position(|byte| *byte == b'[') {
            name.to_mut().truncate(index);
        }
    }
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    pairs.dedup_by(|(name, value), (first, values)| {
        let same = name == first;
        if same {
            values.to_mut().push(b',');
            values.to_mut().extend_from_slice(value);
        }
        same
    });
    pairs
}

/// Reads a query's pairs in their order.
fn pairs_of(query: &str) -> impl Iterator<Item = Pair<'_>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let mut name = decode(name);
        if name.iter().any(u8::is_ascii_uppercase) {
            name.to_mut().make_ascii_lowercase();
        }
        (name, decode(value))
    })
}

/// Says what is signed, part after part.
fn signed(method: &str, path: &[u8], pairs: &[Pair<'_>], mut say: impl FnMut(&[u8])) {
    say(method.as_bytes());
    say(b"\n");
    say(path);
    let mut between: &[u8] = b"\n";
    for (name, value) in pairs {
        say(between);
        say(name);
        say(b"=");
        say(value);
        between = b"&";
    }
}

/// Decodes as Rack and PHP do: `+` is a space.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        let spaced: Vec<u8> = text.bytes().map(|byte| if byte == b'+' { b' ' } else { byte }).collect();
        return Cow::Owned(percent_decode(&spaced).collect());
    }
    percent_decode(text.as_bytes()).into()
}

/// Writes a time as `2025-06-09T02:12:03Z`.
fn date(seconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds.min(LAST_SECOND))).unwrap_or(UNIX_EPOCH);
    let text = httpdate::fmt_http_date(time);
    let mut parts = text.split(' ').skip(1);
    let mut part = || parts.next().unwrap_or_default();
    let (day, month, year, time) = (part(), part(), part(), part());
    let month = MONTHS.iter().zip(1_u8..).find(|(name, _)| **name == month).map_or(0, |(_, number)| number);
    format!("{year}-{month:02}-{day}T{time}Z")
}

#[cfg(test)]
mod tests;
