//! How conversations end, and why some do not begin.
//!
//! **Lives here:** close codes and their texts; which versions of the protocol are spoken.
//! **Called by:** transports.
//! **Must not know:** close frames.
//!
//! Clients decide by the code's hundred: 4000 to 4099 they do not come back, 4100 to 4199 after a second, 4200 to 4299 at
//! once. A code from 4300 on would keep pusher-js away for good and is never used to close.

use carillon_model::CloseReason;

/// The versions of the protocol, as far as they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 4 and 5.
    Old,
    /// 6 and 7.
    Present,
}

/// Why a client is sent away before a word is said: a close code, and a text that pusher-js shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The close code.
    pub code: u16,
    /// The reason.
    pub message: String,
}

impl Protocol {
    /// Reads the version that a client names.
    ///
    /// # Errors
    /// [`Refused`] when it names none, or one that is not spoken here.
    pub fn read(version: Option<&str>) -> Result<Self, Refused> {
        match version {
            None => Err(refused(4008, "No protocol version supplied: add protocol=7 to the URL")),
            Some("4" | "5") => Ok(Self::Old),
            Some("6" | "7") => Ok(Self::Present),
            Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                Err(refused(4007, "Unsupported protocol version: versions 5 to 7 are spoken here"))
            }
            Some(_) => Err(refused(4006, "Invalid version string format: protocol is a number such as 7")),
        }
    }
}

/// Makes a refusal.
#[must_use]
pub fn refused(code: u16, message: &str) -> Refused {
    Refused { code, message: message.to_owned() }
}

/// Refuses a key that no application has.
#[must_use]
pub fn unknown_app(key: &str) -> Refused {
    let shown: String = key.chars().take(40).collect();
    let message = format!("App key {shown} not in this cluster. Did you forget to specify the cluster?");
    Refused { code: 4001, message }
}

/// Returns the code and the text with which a conversation is closed.
#[must_use]
pub const fn close(reason: CloseReason) -> (u16, &'static str) {
    match reason {
        CloseReason::Unauthorized | CloseReason::Forbidden | CloseReason::TokenExpired => {
            (4009, "Connection not authorized")
        }
        CloseReason::NotAuthorized => (4009, "Connection not authorized within timeout"),
        CloseReason::Terminated => (4009, "Connection terminated by the application"),
        CloseReason::ProtocolError => (4009, "Too many messages that cannot be read"),
        CloseReason::OverCapacity => (4100, "Over capacity"),
        CloseReason::SlowConsumer => (4100, "Messages are read more slowly than they are published"),
        // Nobody listens for a moment. Refused once, pusher-js waits for 15 s.
        CloseReason::Restarting => (4100, "Server is restarting; connect again in a second"),
        CloseReason::GoingAway | CloseReason::Draining => (4200, "Server is restarting; connect again"),
        CloseReason::MaxAge => (4200, "Connection is old; connect again"),
        CloseReason::IdleTimeout => (4201, "Pong reply not received in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_5_to_7_are_spoken() {
        let code = |version| Protocol::read(version).map_err(|refused| refused.code);
        assert_eq!(code(Some("7")), Ok(Protocol::Present));
        assert_eq!(code(Some("5")), Ok(Protocol::Old));
        for (version, expected) in [
            (None, 4008),
            (Some("3"), 4007),
            (Some("8"), 4007),
            (Some(""), 4006),
            (Some("x"), 4006),
            (Some("7.0"), 4006),
            (Some("-7"), 4006),
        ] {
            assert_eq!(code(version), Err(expected), "{version:?}");
        }
    }
}
