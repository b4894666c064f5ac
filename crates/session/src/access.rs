//! Who a client is, and what it may join.
//!
//! **Lives here:** the decision over a channel's rule and a client's grants.
//! **Called by:** `node`, when a session wants to join.
//! **Must not know:** tokens, signatures.

use std::{sync::Arc, time::Instant};

use carillon_model::{
    Access, ChannelName, ChannelPattern, ChannelRule, ErrorCode, Refusal, UnixMillis, UserId,
};

/// What a good token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub user: UserId,
    /// Which channels the bearer may join.
    pub grants: Arc<[ChannelPattern]>,
    /// When the token ends, for the client.
    pub expires: UnixMillis,
    /// When the token ends, on the node's own clock.
    pub expires_at: Instant,
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
    match (rule.access, identity) {
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
