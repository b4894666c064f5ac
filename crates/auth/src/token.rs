//! The tokens that clients show: JSON Web Tokens signed with HS256.
//!
//! **Lives here:** which tokens are good (RFC 7519, and the advice of RFC 8725), and what a good one says.
//! **Called by:** `node`, when a client connects with a token or sends one.
//! **Must not know:** the clock, connections.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use carillon_model::{ChannelPattern, ErrorCode, Refusal, UnixMillis, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde::Deserialize;

/// Shortest secret for HS256 in bytes (RFC 7518 §3.2).
pub const SECRET_MIN_BYTES: usize = 32;

/// Longest token that is looked at, in bytes.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Most entries of a token's `channels`.
pub const GRANTS_MAX: usize = 1000;

/// Longest `info`, in bytes of JSON.
const INFO_MAX_BYTES: usize = 1024;

/// How far the issuer's clock may be ahead of ours: a fresh token's `nbf` may be this far in our future. The end of a
/// token has no leeway, since connections are closed at that very time.
const LEEWAY: Duration = Duration::from_secs(30);

/// A number of this size is no date in seconds that anybody means, and any date in milliseconds since 2001.
const MILLISECONDS: u64 = 1_000_000_000_000;

/// Checks tokens against one secret.
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
}

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: who.
    pub user: UserId,
    /// `channels`: which channels the bearer may join. None without the claim.
    pub grants: Arc<[ChannelPattern]>,
    /// `exp`, as it stands in the token.
    pub expires: UnixMillis,
    /// `app`: the id of the application whose channels it is for. Without the claim, the first.
    pub app: Option<String>,
    /// `info`: what other members of presence channels are told of the user; one JSON text.
    pub info: Option<Bytes>,
}

/// Why a token is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadToken {
    /// What the client is told: `token_expired` when only its time is over, `unauthorized` otherwise. What exactly is
    /// wrong with a forged token is none of its business.
    pub refusal: Refusal,
    /// Which check failed, for the operator; nothing of the token is in it.
    pub check: &'static str,
}

#[derive(Deserialize)]
struct RawClaims {
    sub: String,
    exp: u64,
    nbf: Option<u64>,
    #[serde(default)]
    channels: Vec<String>,
    app: Option<String>,
    info: Option<serde_json::Value>,
}

impl TokenVerifier {
    /// Makes a verifier of HS256 tokens. `secret` has at least [`SECRET_MIN_BYTES`]; `issuer` and `audience` are
    /// required of every token where they are given.
    #[must_use]
    pub fn new(secret: &[u8], issuer: Option<&str>, audience: Option<&str>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY.as_secs();
        // Time is compared below, with the caller's `now`.
        validation.validate_exp = false;
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        match audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        validation.set_required_spec_claims(&required);
        Self { key: DecodingKey::from_secret(secret), validation }
    }

    /// Checks a token and returns what it says.
    ///
    /// # Errors
    /// [`BadToken`] with a text for the client and one for the operator.
    pub fn verify(&self, token: &str, now: UnixMillis) -> Result<Claims, BadToken> {
        if token.len() > TOKEN_MAX_BYTES {
            let message = format!("a token has at most {TOKEN_MAX_BYTES} bytes");
            return Err(unauthorized("it is too long", message));
        }
        let claims = jsonwebtoken::decode::<RawClaims>(token, &self.key, &self.validation)
            .map_err(|fault| undecoded(fault.kind()))?
            .claims;
        if claims.exp >= MILLISECONDS {
            let message = "the token's time (`exp`) is in seconds since 1970; this looks like milliseconds";
            return Err(unauthorized("its time (`exp`) is in milliseconds, not in seconds", message));
        }
        let expires = UnixMillis::from_seconds(claims.exp);
        if expires <= now {
            let message = "the token's time (`exp`) is over; get a new one";
            let refusal = Refusal::new(ErrorCode::TokenExpired, message);
            return Err(BadToken { refusal, check: "its time (`exp`) is over" });
        }
        let begins = UnixMillis::from_seconds(claims.nbf.unwrap_or(0));
        if begins > now && begins.since(now) > LEEWAY {
            let check = "its time (`nbf`) has not come; do the clocks agree?";
            return Err(unauthorized(check, "the token's time (`nbf`) has not come"));
        }
        let user = UserId::new(&claims.sub).map_err(|fault| {
            unauthorized("its `sub` is no user's id", format!("the token's `sub`: {fault}"))
        })?;
        if claims.channels.len() > GRANTS_MAX {
            let message =
                format!("a token grants at most {GRANTS_MAX} patterns; use `*` to cover many channels");
            return Err(unauthorized("it grants too many patterns", message));
        }
        let grants: Result<Arc<[_]>, _> =
            claims.channels.iter().map(|pattern| ChannelPattern::new(pattern)).collect();
        let grants = grants.map_err(|fault| {
            unauthorized("its `channels` are no patterns", format!("the token's `channels`: {fault}"))
        })?;
        let info = claims.info.map(|info| info.to_string());
        if info.as_ref().is_some_and(|info| info.len() > INFO_MAX_BYTES) {
            let message = format!("the token's `info` has more than {INFO_MAX_BYTES} bytes");
            return Err(unauthorized("its `info` is too long", message));
        }
        Ok(Claims { user, grants, expires, app: claims.app, info: info.map(Bytes::from) })
    }
}

fn unauthorized(check: &'static str, message: impl Into<Cow<'static, str>>) -> BadToken {
    BadToken { refusal: Refusal::new(ErrorCode::Unauthorized, message), check }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the list is the library's; the rest is about its own parts"
)]
fn undecoded(kind: &ErrorKind) -> BadToken {
    let anybody = "the token is not valid here";
    let claims =
        "the token must be a JWT with `sub` (text), `exp` (seconds) and `channels` (a list of patterns)";
    match kind {
        ErrorKind::InvalidSignature => unauthorized("it is not signed with auth.token_secret", anybody),
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => {
            unauthorized("it is not signed with HS256", anybody)
        }
        ErrorKind::InvalidIssuer => unauthorized("its `iss` is not auth.issuer", anybody),
        ErrorKind::InvalidAudience => unauthorized("its `aud` does not contain auth.audience", anybody),
        ErrorKind::MissingRequiredClaim(_) => {
            unauthorized("it lacks `iss` or `aud`, which auth.issuer and auth.audience ask for", claims)
        }
        ErrorKind::Json(_) => {
            unauthorized("it is no JWT with `sub` (text), `exp` (seconds) and `channels` (a list)", claims)
        }
        _ => unauthorized("it is no JWT", anybody),
    }
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
