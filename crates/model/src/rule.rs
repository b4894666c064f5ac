//! What the operator decides about channels.
//!
//! **Lives here:** the rule of a channel, and how the first match is found.
//! **Called by:** `config` makes rules, `node` asks them at every publish and subscribe.
//! **Must not know:** who asks.

use crate::{ChannelName, ChannelPattern, Keeping};

/// What applies to the channels that a pattern covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelRule {
    /// What logs and metrics call the rule. Unique.
    pub name: String,
    /// Which channels it is about.
    pub pattern: ChannelPattern,
    /// Whether and how long publications are kept.
    pub keeping: Keeping,
    /// Who may subscribe.
    pub access: Access,
    /// What happens to a reader that is too slow.
    pub overflow: Overflow,
    /// Largest data of one message in bytes, at most [`MESSAGE_HARD_MAX_BYTES`].
    pub message_max_bytes: usize,
}

/// No rule can allow a message larger than this.
pub const MESSAGE_HARD_MAX_BYTES: usize = 1 << 20;

/// Who may subscribe to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Public,
    /// Whoever brings a token with a grant that covers the channel.
    Token,
}

/// What happens when a session reads more slowly than its channels speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// Close the session with 4101; it comes back and recovers. The default.
    Close,
    /// Drop the oldest of the channel's messages that wait for it, and tell it of the gap.
    DropOldest,
    /// Keep only the newest of the channel's messages that wait for it, and tell it of the gap. For channels whose
    /// latest value replaces the rest.
    Latest,
}

/// The rules of a node, in the operator's order.
#[derive(Clone, Debug, Default)]
pub struct ChannelRules(Vec<ChannelRule>);

impl ChannelRules {
    /// Takes the rules in the order in which they are tried.
    #[must_use]
    pub const fn new(rules: Vec<ChannelRule>) -> Self {
        Self(rules)
    }

    /// Returns the first rule that covers `channel`.
    #[must_use]
    pub fn find(&self, channel: &ChannelName) -> Option<&ChannelRule> {
        self.0.iter().find(|rule| rule.pattern.covers(channel))
    }

    /// Returns the rules in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[ChannelRule] {
        &self.0
    }
}
