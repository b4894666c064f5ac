//! What the beginning of a channel's name says of it, as in the Pusher protocol.
//!
//! **Lives here:** the prefixes and what each means.
//! **Called by:** `node` when somebody joins or publishes, dialects, the API.
//! **Must not know:** signatures, caches, rosters.

use crate::ChannelName;

/// What a channel's name says of it. A name that only resembles a prefix, such as `privateer`, says nothing.
#[expect(clippy::struct_excessive_bools, reason = "names combine them freely")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelKind {
    /// Joining needs the application's permission.
    pub guarded: bool,
    /// Who joins is a member, and the members are told to each other.
    pub presence: bool,
    /// Its data is unreadable to us.
    pub encrypted: bool,
    /// Its last event is kept for those who join.
    pub cache: bool,
}

impl ChannelKind {
    /// Reads the prefix of `channel`.
    #[must_use]
    pub fn of(channel: &ChannelName) -> Self {
        Self::of_text(channel.as_str())
    }

    /// The same of a name that was not checked.
    #[must_use]
    pub fn of_text(name: &str) -> Self {
        let (rest, guarded, presence, encrypted) = if let Some(rest) = name.strip_prefix("private-encrypted-")
        {
            (rest, true, false, true)
        } else if let Some(rest) = name.strip_prefix("private-") {
            (rest, true, false, false)
        } else if let Some(rest) = name.strip_prefix("presence-") {
            (rest, true, true, false)
        } else {
            (name, false, false, false)
        };
        Self { guarded, presence, encrypted, cache: rest.starts_with("cache-") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides_and_a_resemblance_does_not() {
        let kind = |name: &str| {
            let kind = ChannelKind::of_text(name);
            (kind.guarded, kind.presence, kind.encrypted, kind.cache)
        };
        for (name, expected) in [
            ("news", (false, false, false, false)),
            ("cache-news", (false, false, false, true)),
            ("private-a", (true, false, false, false)),
            ("private-cache-a", (true, false, false, true)),
            ("private-encrypted-a", (true, false, true, false)),
            ("private-encrypted-cache-a", (true, false, true, true)),
            ("presence-a", (true, true, false, false)),
            ("presence-cache-a", (true, true, false, true)),
            ("privateer", (false, false, false, false)),
            ("cachefoo", (false, false, false, false)),
            ("Private-a", (false, false, false, false)),
        ] {
            assert_eq!(kind(name), expected, "{name}");
        }
    }
}
