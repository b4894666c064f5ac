//! What the operator decides about channels.
//!
//! **Lives here:** the rule of a channel, and how the first match is found.
//! **Called by:** `config` makes rules, `node` asks them at every publish and subscribe.
//! **Must not know:** who asks.

use crate::{ChannelKind, ChannelName, ChannelPattern, ClassName, Keeping};

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
pub struct ChannelRules {
    rules: Vec<ChannelRule>,
    /// How cache channels are kept whose rule keeps nothing.
    cache: Option<Keeping>,
}

impl ChannelRules {
    /// Takes the rules in the order in which they are tried.
    #[must_use]
    pub const fn new(rules: Vec<ChannelRule>) -> Self {
        Self { rules, cache: None }
    }

    /// Keeps cache channels in `class` where their rule keeps nothing.
    #[must_use]
    pub fn with_cache(self, class: ClassName) -> Self {
        Self { cache: Some(Keeping::Durable(class)), ..self }
    }

    /// Returns the first rule that covers `channel`.
    #[must_use]
    pub fn find(&self, channel: &ChannelName) -> Option<&ChannelRule> {
        self.rules.iter().find(|rule| rule.pattern.covers(channel))
    }

    /// Returns how the publications of `channel` are kept. `None` where no rule covers it.
    #[must_use]
    pub fn keeping(&self, channel: &ChannelName) -> Option<&Keeping> {
        self.find(channel).map(|rule| self.keeping_of(rule, channel))
    }

    /// The same where the channel's rule is known.
    #[must_use]
    pub fn keeping_of<'a>(&'a self, rule: &'a ChannelRule, channel: &ChannelName) -> &'a Keeping {
        match (&rule.keeping, &self.cache) {
            (Keeping::Live, Some(cache)) if ChannelKind::of(channel).cache => cache,
            (keeping, _) => keeping,
        }
    }

    /// Returns every way in which a channel may be kept, some more than once.
    pub fn keepings(&self) -> impl Iterator<Item = &Keeping> {
        let live = self.rules.iter().any(|rule| rule.keeping == Keeping::Live);
        self.rules.iter().map(|rule| &rule.keeping).chain(self.cache.as_ref().filter(|_| live))
    }

    /// Returns the rules in their order.
    #[must_use]
    pub fn as_slice(&self) -> &[ChannelRule] {
        &self.rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, keeping: Keeping) -> ChannelRule {
        ChannelRule {
            name: pattern.to_owned(),
            pattern: ChannelPattern::new(pattern).unwrap(),
            keeping,
            access: Access::Public,
            overflow: Overflow::Close,
            message_max_bytes: 1024,
        }
    }

    #[test]
    fn a_cache_channel_is_kept_although_its_rule_keeps_nothing() {
        let class = |name: &str| ClassName::new(name).unwrap();
        let durable = |name: &str| Keeping::Durable(class(name));
        let rules = ChannelRules::new(vec![rule("*.kept", durable("short")), rule("*cache*", Keeping::Live)]);
        let keeping =
            |rules: &ChannelRules, name: &str| rules.keeping(&ChannelName::new(name).unwrap()).cloned();
        assert_eq!(keeping(&rules, "cache-a"), Some(Keeping::Live));
        assert_eq!(rules.keepings().count(), 2);
        let rules = rules.with_cache(class("cache"));
        for name in ["cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a"] {
            assert_eq!(keeping(&rules, name), Some(durable("cache")), "{name}");
        }
        assert_eq!(keeping(&rules, "cache-a.kept"), Some(durable("short")));
        assert_eq!(keeping(&rules, "cachefoo"), Some(Keeping::Live));
        assert_eq!(keeping(&rules, "news"), None);
        assert!(rules.keepings().any(|keeping| *keeping == durable("cache")));
        let all_kept = ChannelRules::new(vec![rule("*", durable("short"))]).with_cache(class("cache"));
        assert!(all_kept.keepings().all(|keeping| *keeping == durable("short")));
    }
}
