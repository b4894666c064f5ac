//! Names of channels as this protocol allows and spells them.
//!
//! **Lives here:** the character set, and the name under which a user's own channel is known.
//! **Called by:** `decode`, `encode`, the API.
//! **Must not know:** what prefixes mean: that is `model`'s `ChannelKind`.

use std::borrow::Cow;

use carillon_model::{ChannelName, UserId};

/// What the channel of one user is called.
const SERVER_TO_USER: &str = "#server-to-user-";

/// Most of a bad name that is repeated.
const SHOWN_MAX_CHARS: usize = 64;

/// A name that clients of this protocol cannot have. The message is written for the person who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Invalid channel name: '{shown}'. A name is not empty, not longer than the application allows, and made of letters, digits and _ - = @ , . ;"
)]
pub struct BadName {
    shown: String,
}

/// Reads a channel's name of at most `max_bytes`.
///
/// # Errors
/// [`BadName`] when it is empty, too long, or holds another character.
pub fn channel(text: &str, max_bytes: usize) -> Result<ChannelName, BadName> {
    let bad = || BadName { shown: text.chars().take(SHOWN_MAX_CHARS).collect() };
    if text.len() > max_bytes {
        return Err(bad());
    }
    if let Some(user) = text.strip_prefix(SERVER_TO_USER) {
        let user = UserId::new(user).map_err(|_fault| bad())?;
        return ChannelName::of_user(&user).map_err(|_fault| bad());
    }
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_=@,.;".contains(&b);
    if !text.bytes().all(legal) {
        return Err(bad());
    }
    ChannelName::new(text).map_err(|_fault| bad())
}

/// Returns the name under which clients know a channel.
#[must_use]
pub fn spell(channel: &ChannelName) -> Cow<'_, str> {
    match channel.user() {
        Some(user) => Cow::Owned(format!("{SERVER_TO_USER}{user}")),
        None => Cow::Borrowed(channel.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_small_alphabet() {
        for good in ["a", "private-a_b=c@d,e.f;g-1", &"x".repeat(164), "#server-to-user-7"] {
            assert!(channel(good, 164).is_ok(), "{good}");
        }
        for bad in
            ["", "a b", "a/b", "a:b", "ä", "#news", "$user:7", "a*", "#server-to-user-", &"x".repeat(165)]
        {
            assert!(channel(bad, 164).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_users_own_channel_reads_back_what_it_is_called() {
        let name = "#server-to-user-anna@example.com";
        let known = channel(name, 164).unwrap();
        assert_eq!((known.user(), spell(&known)), (Some("anna@example.com"), Cow::Borrowed(name)));
        assert_eq!(spell(&channel("news", 164).unwrap()), "news");
    }
}
