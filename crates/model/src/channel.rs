//! Names of channels, and the patterns that rules and grants use to speak of many.
//!
//! **Lives here:** what a name may contain, how a pattern matches.
//! **Called by:** every edge that reads a name; `node` for rules, `auth` for grants.
//! **Must not know:** how a broker spells a name on its wire.

use std::{fmt, sync::Arc};

use crate::AppSpace;

/// Longest channel name in bytes of UTF-8.
pub const NAME_MAX_BYTES: usize = 200;

/// Prefix of channels that Carillon keeps for itself. Clients and publishers cannot name them.
const RESERVED: char = '$';
const OF_USER: &str = "$user:";
const OF_ONLINE: &str = "$online:";

/// The name of a channel: 1 to 200 bytes of UTF-8 without whitespace, control characters, `*` or `>`,
/// not beginning with `$`.
///
/// `*` and `>` are what patterns are made of, here and in NATS; a name that carries one is always a mistake.
/// Cheap to clone: the text is shared.
///
/// A channel belongs to one application: the same text in two applications names two channels. Whoever reads a name
/// from outside makes it with [`Self::new`], which is in the first application, and moves it with [`Self::within`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(
    /// The length of the application's id as one character, the id, the name. One text is hashed and compared faster
    /// than two, and a subscription keeps 16 bytes of it.
    Arc<str>,
);

/// Why a text is not a channel name. The message is written for the person who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChannel {
    /// The name has no characters.
    #[error("a channel name cannot be empty")]
    Empty,
    /// The name is longer than [`NAME_MAX_BYTES`].
    #[error("a channel name has at most {NAME_MAX_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Bytes of the name that was refused.
        bytes: usize,
    },
    /// The name holds a character that names cannot have.
    #[error(
        "a channel name cannot contain {character:?}: whitespace, control characters, `*` and `>` are not allowed"
    )]
    Character {
        /// The first such character.
        character: char,
    },
    /// The name is in the space that Carillon keeps for itself.
    #[error("channel names that begin with `$` are reserved")]
    Reserved,
}

impl ChannelName {
    /// Checks `text` and takes it as a channel's name.
    ///
    /// # Errors
    /// [`BadChannel`] says which rule the text breaks.
    pub fn new(text: &str) -> Result<Self, BadChannel> {
        if text.starts_with(RESERVED) {
            return Err(BadChannel::Reserved);
        }
        Self::any(text)
    }

    /// Names the channel that reaches every connection of one user, on every node.
    ///
    /// # Errors
    /// [`BadChannel`] when the user's name cannot be part of a channel name.
    pub fn of_user(user: &crate::UserId) -> Result<Self, BadChannel> {
        Self::any(&format!("{OF_USER}{user}"))
    }

    /// Names the channel whose members are the connections of one user that have signed in: who watches the user
    /// listens to it.
    ///
    /// # Errors
    /// [`BadChannel`] when the user's name cannot be part of a channel name.
    pub fn of_online(user: &crate::UserId) -> Result<Self, BadChannel> {
        Self::any(&format!("{OF_ONLINE}{user}"))
    }

    /// Returns the user whose connections this channel reaches.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.as_str().strip_prefix(OF_USER)
    }

    /// Returns the user whose signed-in connections are the members of this channel.
    #[must_use]
    pub fn online(&self) -> Option<&str> {
        self.as_str().strip_prefix(OF_ONLINE)
    }

    /// Checks a name that another node sent: reserved names are legal there.
    ///
    /// # Errors
    /// [`BadChannel`] says which rule the text breaks.
    pub fn any(text: &str) -> Result<Self, BadChannel> {
        if text.is_empty() {
            return Err(BadChannel::Empty);
        }
        if text.len() > NAME_MAX_BYTES {
            return Err(BadChannel::TooLong { bytes: text.len() });
        }
        let illegal = |c: &char| c.is_control() || c.is_whitespace() || matches!(c, '*' | '>');
        match text.chars().find(illegal) {
            Some(character) => Err(BadChannel::Character { character }),
            None => Ok(Self(Arc::from(format!("\0{text}")))),
        }
    }

    /// Returns the channel of the same name in the application `space`.
    #[must_use]
    pub fn within(&self, space: &AppSpace) -> Self {
        if self.app() == space.as_str() {
            return self.clone();
        }
        let length = char::from(u8::try_from(space.as_str().len()).unwrap_or_default());
        Self(Arc::from(format!("{length}{space}{}", self.as_str())))
    }

    /// Returns the id of the application that the channel belongs to; empty for the first.
    #[must_use]
    pub fn app(&self) -> &str {
        self.parts().0
    }

    /// Returns the name as text, without its application.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.parts().1
    }

    fn parts(&self) -> (&str, &str) {
        let length = self.0.as_bytes().first().copied().map_or(0, usize::from);
        let rest = self.0.get(1..).unwrap_or_default();
        rest.split_at_checked(length).unwrap_or(("", rest))
    }

    /// Says whether this is one of Carillon's own channels.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.as_str().starts_with(RESERVED)
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.app(), self.as_str())
    }
}

/// A pattern over channel names: literal text in which `*` stands for any run of characters, also none.
///
/// `orders.*` covers `orders.7` and `orders.7.lines`; `*` covers everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelPattern(Box<str>);

/// Why a text is not a channel pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// The pattern has no characters.
    #[error("a channel pattern cannot be empty; `*` covers every channel")]
    Empty,
    /// The pattern is too long to match any name.
    #[error("a channel pattern has at most {NAME_MAX_BYTES} bytes, this one has {bytes}")]
    TooLong {
        /// Bytes of the pattern that was refused.
        bytes: usize,
    },
    /// The pattern holds a character that no name can have.
    #[error("no channel name contains {character:?}; a pattern is literal text and `*`")]
    Character {
        /// The first such character.
        character: char,
    },
}

impl ChannelPattern {
    /// Checks `text` and takes it as a pattern.
    ///
    /// # Errors
    /// [`BadPattern`] says which rule the text breaks.
    pub fn new(text: &str) -> Result<Self, BadPattern> {
        if text.is_empty() {
            return Err(BadPattern::Empty);
        }
        if text.len() > NAME_MAX_BYTES {
            return Err(BadPattern::TooLong { bytes: text.len() });
        }
        match text.chars().find(|c| c.is_control() || c.is_whitespace() || *c == '>') {
            Some(character) => Err(BadPattern::Character { character }),
            None => Ok(Self(text.into())),
        }
    }

    /// Says whether the pattern covers `channel`.
    ///
    /// Takes time proportional to the product of both lengths at worst, 40,000 steps.
    #[must_use]
    pub fn covers(&self, channel: &ChannelName) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = channel.as_str().strip_prefix(first) else { return false };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        true
    }

    /// Returns the pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests;
