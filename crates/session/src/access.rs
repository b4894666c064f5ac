//! Who a client is, and what it may join.
//!
//! **Lives here:** the decision over a channel's rule and a client's grants.
//! **Called by:** `node`, when a session wants to join.
//! **Must not know:** tokens, signatures.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use carillon_model::{
    Access, ChannelKind, ChannelName, ChannelPattern, ChannelRule, ErrorCode, Refusal, UnixMillis, UserId,
};

/// Who a client has shown to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user: UserId,
    /// What the application says of the user: one JSON text.
    pub info: Option<Bytes>,
    /// Which channels the client may join.
    pub grants: Arc<[ChannelPattern]>,
    /// When that ends.
    pub expiry: Option<Expiry>,
}

/// The end of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// For the client.
    pub time: UnixMillis,
    /// On the node's own clock.
    pub at: Instant,
}

/// Decides whether a client may join `channel`, and returns the rule that lets it.
///
/// # Errors
/// The refusal that the client is told.
pub fn may_subscribe<'a>(
    channel: &ChannelName,
    rule: Option<&'a ChannelRule>,
    identity: Option<&Identity>,
) -> Result<&'a ChannelRule, Refusal> {
    let Some(rule) = rule else {
        let message = format!("no channel rule covers `{channel}`; the operator adds one under [[channels]]");
        return Err(Refusal::new(ErrorCode::NotFound, message));
    };
    // Applications count on these names being guarded, whatever else the operator lets everybody join.
    let access = if ChannelKind::of(channel).guarded { Access::Token } else { rule.access };
    match (access, identity) {
        (Access::Public, _) => Ok(rule),
        (Access::Token, None) => {
            let message = format!("`{channel}` needs a token; connect with one or send `authenticate` first");
            Err(Refusal::new(ErrorCode::Unauthorized, message))
        }
        (Access::Token, Some(identity)) if identity.grants.iter().any(|grant| grant.covers(channel)) => {
            Ok(rule)
        }
        (Access::Token, Some(_)) => {
            let message = format!("no grant in the token's `channels` covers `{channel}`");
            Err(Refusal::new(ErrorCode::Forbidden, message))
        }
    }
}
