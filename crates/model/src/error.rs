//! The one table of errors: what clients and publishers are told, and with which numbers.
//!
//! **Lives here:** names, numbers, HTTP statuses, close codes. Names and numbers are a contract: never reused.
//! **Called by:** dialects, `api` and `transport` when they answer; `session` when it refuses.
//! **Must not know:** why a particular thing failed; that is the message's part.

use std::{borrow::Cow, fmt, time::Duration};

/// What went wrong with one request, as the other side's program sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request has the wrong shape.
    BadRequest,
    /// No credentials, or wrong ones.
    Unauthorized,
    /// The token was good once.
    TokenExpired,
    /// The credentials do not allow this.
    Forbidden,
    /// No such thing here.
    NotFound,
    /// More bytes than the limit.
    TooLarge,
    /// More things than the limit.
    LimitExceeded,
    /// A frame of a type that is not known.
    UnknownType,
    /// The connection holds this subscription already.
    AlreadySubscribed,
    /// A feature that is switched off, or that this version lacks.
    NotEnabled,
    /// A body of a media type that cannot be read.
    UnsupportedMediaType,
    /// The method does not exist on this path.
    MethodNotAllowed,
    /// Too often.
    RateLimited,
    /// A fault of ours.
    Internal,
    /// Cannot be done just now; the same request may succeed later.
    Unavailable,
}

impl ErrorCode {
    /// Every code, in the order of the reference.
    pub const ALL: [Self; 15] = [
        Self::BadRequest,
        Self::Unauthorized,
        Self::TokenExpired,
        Self::Forbidden,
        Self::NotFound,
        Self::TooLarge,
        Self::LimitExceeded,
        Self::UnknownType,
        Self::AlreadySubscribed,
        Self::NotEnabled,
        Self::UnsupportedMediaType,
        Self::MethodNotAllowed,
        Self::RateLimited,
        Self::Internal,
        Self::Unavailable,
    ];

    /// Returns number, name and HTTP status.
    const fn row(self) -> (u16, &'static str, u16) {
        match self {
            Self::BadRequest => (4300, "bad_request", 400),
            Self::Unauthorized => (4301, "unauthorized", 401),
            Self::TokenExpired => (4302, "token_expired", 401),
            Self::Forbidden => (4303, "forbidden", 403),
            Self::NotFound => (4304, "not_found", 404),
            Self::TooLarge => (4305, "too_large", 413),
            Self::LimitExceeded => (4306, "limit_exceeded", 400),
            Self::UnknownType => (4307, "unknown_type", 400),
            Self::AlreadySubscribed => (4308, "already_subscribed", 409),
            Self::NotEnabled => (4309, "not_enabled", 501),
            Self::UnsupportedMediaType => (4311, "unsupported_media_type", 415),
            Self::MethodNotAllowed => (4312, "method_not_allowed", 405),
            Self::RateLimited => (4329, "rate_limited", 429),
            Self::Internal => (4350, "internal", 500),
            Self::Unavailable => (4353, "unavailable", 503),
        }
    }

    /// Returns the stable number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.row().0
    }

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().1
    }

    /// Returns the HTTP status that goes with it.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        self.row().2
    }

    /// Returns the name as people read it: the `title` of a problem (RFC 9457).
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad request",
            Self::Unauthorized => "Unauthorized",
            Self::TokenExpired => "Token expired",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::TooLarge => "Too large",
            Self::LimitExceeded => "Limit exceeded",
            Self::UnknownType => "Unknown type",
            Self::AlreadySubscribed => "Already subscribed",
            Self::NotEnabled => "Not enabled",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::MethodNotAllowed => "Method not allowed",
            Self::RateLimited => "Rate limited",
            Self::Internal => "Internal error",
            Self::Unavailable => "Unavailable",
        }
    }

    /// Returns the `type` of a problem (RFC 9457).
    #[must_use]
    pub fn type_uri(self) -> String {
        format!("urn:carillon:error:{}", self.name())
    }

    /// Says whether the same request may succeed later without a change.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited | Self::Internal | Self::Unavailable)
    }
}

/// A refusal as it is told to the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What a program decides by.
    pub code: ErrorCode,
    /// What a person reads: what is wrong and what to do.
    pub message: Cow<'static, str>,
    /// When to try again, where that makes sense.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Makes a refusal without a time to retry.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// Adds the time after which to try again.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

/// Why a connection is closed by us, told in `goodbye` and in the WebSocket close frame.
///
/// 4000 to 4099: do not come back. 4100 to 4199: come back after a second. 4200 to 4299: come back at once,
/// within the jitter of `retry_after_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The token was refused.
    Unauthorized,
    /// Nothing this connection asked for is allowed.
    Forbidden,
    /// The peer broke the dialect's rules.
    ProtocolError,
    /// The node holds as many connections as it may.
    OverCapacity,
    /// The peer reads more slowly than its channels speak.
    SlowConsumer,
    /// The token's time is over.
    TokenExpired,
    /// The node is stopping at once.
    GoingAway,
    /// The node is stopping politely.
    Draining,
    /// The node is stopping politely, and there is no other.
    Restarting,
    /// The peer did not answer a ping.
    IdleTimeout,
    /// The connection is as old as one may be; the next one may be on another node.
    MaxAge,
    /// The application ends all connections of the user.
    Terminated,
    /// The connection did not show in time who it is.
    NotAuthorized,
}

impl CloseReason {
    const fn row(self) -> (u16, &'static str) {
        match self {
            Self::Unauthorized => (4001, "unauthorized"),
            Self::Forbidden => (4003, "forbidden"),
            Self::ProtocolError => (4009, "protocol_error"),
            Self::OverCapacity => (4100, "over_capacity"),
            Self::SlowConsumer => (4101, "slow_consumer"),
            Self::TokenExpired => (4102, "token_expired"),
            Self::GoingAway => (4200, "going_away"),
            Self::Draining => (4201, "draining"),
            Self::Restarting => (4103, "restarting"),
            Self::IdleTimeout => (4202, "idle_timeout"),
            Self::MaxAge => (4203, "max_age"),
            Self::Terminated => (4004, "terminated"),
            Self::NotAuthorized => (4005, "not_authorized"),
        }
    }

    /// Returns the WebSocket close code.
    #[must_use]
    pub const fn code(self) -> u16 {
        self.row().0
    }

    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_numbers_are_never_shared() {
        let names: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        let numbers: BTreeSet<_> = ErrorCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!((names.len(), numbers.len()), (ErrorCode::ALL.len(), ErrorCode::ALL.len()));
    }
}
