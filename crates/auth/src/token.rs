//! The tokens that clients show: JSON Web Tokens signed with HS256.
//!
//! **Lives here:** which tokens are good (RFC 7519, and the advice of RFC 8725), and what a good one says.
//! **Called by:** `node`, when a client connects with a token or sends one.
//! **Must not know:** the clock, connections.

use std::{fmt, sync::Arc, time::Duration};

use carillon_model::{ChannelPattern, ErrorCode, Refusal, UnixMillis, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, errors::ErrorKind};
use serde::Deserialize;

/// Shortest secret for HS256 in bytes (RFC 7518 §3.2).
pub const SECRET_MIN_BYTES: usize = 32;

/// Longest token that is looked at, in bytes.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Most entries of a token's `channels`.
pub const GRANTS_MAX: usize = 1000;

/// How far the issuer's clock may be ahead of ours: a fresh token's `nbf` may be this far in our future. The end of a
/// token has no leeway, since connections are closed at that very time.
const LEEWAY: Duration = Duration::from_secs(30);

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
}

#[derive(Deserialize)]
struct RawClaims {
    sub: String,
    exp: u64,
    nbf: Option<u64>,
    #[serde(default)]
    channels: Vec<String>,
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
    /// The refusal for the client: `token_expired` when only its time is over, `unauthorized` otherwise. What
    /// exactly is wrong with a forged token is nobody's business.
    pub fn verify(&self, token: &str, now: UnixMillis) -> Result<Claims, Refusal> {
        if token.len() > TOKEN_MAX_BYTES {
            let message = format!("a token has at most {TOKEN_MAX_BYTES} bytes");
            return Err(Refusal::new(ErrorCode::Unauthorized, message));
        }
        let claims = jsonwebtoken::decode::<RawClaims>(token, &self.key, &self.validation)
            .map_err(|fault| unauthorized(fault.kind()))?
            .claims;
        let expires = UnixMillis::from_seconds(claims.exp);
        if expires <= now {
            return Err(Refusal::new(
                ErrorCode::TokenExpired,
                "the token's time (`exp`) is over; get a new one",
            ));
        }
        let begins = UnixMillis::from_seconds(claims.nbf.unwrap_or(0));
        if begins > now && begins.since(now) > LEEWAY {
            return Err(Refusal::new(ErrorCode::Unauthorized, "the token's time (`nbf`) has not come"));
        }
        let user = UserId::new(&claims.sub)
            .map_err(|fault| Refusal::new(ErrorCode::Unauthorized, format!("the token's `sub`: {fault}")))?;
        if claims.channels.len() > GRANTS_MAX {
            let message =
                format!("a token grants at most {GRANTS_MAX} patterns; use `*` to cover many channels");
            return Err(Refusal::new(ErrorCode::Unauthorized, message));
        }
        let grants: Result<Arc<[_]>, _> =
            claims.channels.iter().map(|pattern| ChannelPattern::new(pattern)).collect();
        let grants = grants.map_err(|fault| {
            Refusal::new(ErrorCode::Unauthorized, format!("the token's `channels`: {fault}"))
        })?;
        Ok(Claims { user, grants, expires })
    }
}

fn unauthorized(kind: &ErrorKind) -> Refusal {
    let message = if matches!(kind, ErrorKind::MissingRequiredClaim(_) | ErrorKind::Json(_)) {
        "the token must be a JWT with `sub` (text), `exp` (seconds) and `channels` (a list of patterns)"
    } else {
        "the token is not valid here"
    };
    Refusal::new(ErrorCode::Unauthorized, message)
}

impl fmt::Debug for TokenVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
