//! The labels that metrics have, each with every value it can take.
//!
//! **Lives here:** closed sets. Nothing that a client or a publisher chooses can become a label's value.
//! **Called by:** `metric`; whoever needs the label of a close reason.
//! **Must not know:** which metric has which label.

use carillon_model::CloseReason;

/// A label and the values it can take.
#[derive(Debug)]
pub struct Label {
    /// Its name in the exposition.
    pub name: &'static str,
    /// Every value. Empty for the two labels of `carillon_build_info`, which are written once at the start.
    pub values: &'static [&'static str],
}

/// How frames move.
pub static TRANSPORT: Label =
    Label { name: "transport", values: &["websocket", "sse", "stream", "poll", "xhr"] };
/// How a session speaks.
pub static PROTOCOL: Label = Label { name: "protocol", values: &["native", "pusher"] };
/// The door by which a publisher came.
pub static API: Label = Label { name: "api", values: &["http", "grpc", "pusher"] };
/// Which broker.
pub static BROKER: Label = Label { name: "broker", values: &["memory", "nats"] };
/// What was asked of the broker.
pub static BROKER_OP: Label = Label {
    name: "op",
    values: &["connect", "fetch", "history", "layout", "poll", "publish", "publish_live", "server"],
};
/// Why a word to other nodes was lost: too many waited, the link was away, or it was larger than the broker takes.
pub static WORD_LOST: Label = Label { name: "reason", values: &["queue_full", "link", "too_large"] };
/// How a request to an application ended.
pub static WEBHOOK_RESULT: Label =
    Label { name: "result", values: &["ok", "status", "timeout", "forbidden", "unreachable"] };
/// Why an application was not told of an event: it did not accept it in time, too many waited, the work queue could not
/// be reached in time, or the queue held what no node has written.
pub static WEBHOOK_DROPPED: Label =
    Label { name: "reason", values: &["refused", "queue_full", "unavailable", "unreadable"] };
/// When live messages were lost: while the link was away, or because a queue was full or a publisher's link failed.
pub static LIVE_LOST: Label = Label { name: "reason", values: &["interrupted", "missing"] };
/// Why a connection ended; [`close_reason`] gives the value for our own reasons.
pub static CLOSED: Label = Label {
    name: "reason",
    values: &[
        "client",
        "idle",
        "auth_expired",
        "unauthorized",
        "over_capacity",
        "slow_consumer",
        "protocol_error",
        "drain",
        "max_age",
        "terminated",
        "error",
    ],
};
/// Why a connection was refused before it was open.
pub static REJECTED: Label = Label { name: "reason", values: &["limit", "bad_request", "denied", "timeout"] };
/// How a request to subscribe ended.
pub static SUBSCRIBED: Label = Label { name: "result", values: &["ok", "denied", "limit", "error"] };
/// What became of a past that a client asked for.
pub static RECOVERED: Label =
    Label { name: "result", values: &["ok", "epoch", "expired", "limit", "unavailable"] };
/// The doors that speak HTTP.
pub static API_HTTP: Label = Label { name: "api", values: &["http", "pusher"] };
/// How a publish by HTTP ended.
pub static HTTP_CLASS: Label = Label { name: "code", values: &["2xx", "4xx", "5xx"] };
/// The gRPC door alone.
pub static API_GRPC: Label = Label { name: "api", values: &["grpc"] };
/// How a publish by gRPC ended: the codes that our errors have.
pub static GRPC_CODE: Label = Label {
    name: "code",
    values: &[
        "ok",
        "invalid_argument",
        "unauthenticated",
        "permission_denied",
        "not_found",
        "already_exists",
        "unimplemented",
        "resource_exhausted",
        "internal",
        "unavailable",
    ],
};
/// Why a message that was accepted did not reach somebody.
pub static DROPPED: Label = Label { name: "reason", values: &["slow_consumer", "overflow", "queue_full"] };
/// What was shown to prove who somebody is.
pub static AUTH_METHOD: Label = Label { name: "method", values: &["token", "key", "signature", "anonymous"] };
/// What came of it.
pub static AUTH_RESULT: Label = Label { name: "result", values: &["ok", "invalid", "expired", "denied"] };
/// What came too often.
pub static RATE_SCOPE: Label = Label { name: "scope", values: &["publish"] };
/// The release that runs.
pub static VERSION: Label = Label { name: "version", values: &[] };
/// The commit that the release was made from.
pub static REVISION: Label = Label { name: "revision", values: &[] };

/// Returns the value of [`CLOSED`] for a connection that we close.
///
/// A peer that leaves by itself is `client`; a broken socket is `error`.
#[must_use]
pub const fn close_reason(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Unauthorized | CloseReason::Forbidden | CloseReason::NotAuthorized => "unauthorized",
        CloseReason::ProtocolError => "protocol_error",
        CloseReason::OverCapacity => "over_capacity",
        CloseReason::SlowConsumer => "slow_consumer",
        CloseReason::TokenExpired => "auth_expired",
        CloseReason::GoingAway | CloseReason::Draining | CloseReason::Restarting => "drain",
        CloseReason::IdleTimeout => "idle",
        CloseReason::MaxAge => "max_age",
        CloseReason::Terminated => "terminated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_close_reason_is_a_value() {
        for reason in [
            CloseReason::Unauthorized,
            CloseReason::Forbidden,
            CloseReason::ProtocolError,
            CloseReason::OverCapacity,
            CloseReason::SlowConsumer,
            CloseReason::TokenExpired,
            CloseReason::GoingAway,
            CloseReason::Draining,
            CloseReason::Restarting,
            CloseReason::Terminated,
            CloseReason::NotAuthorized,
            CloseReason::IdleTimeout,
            CloseReason::MaxAge,
        ] {
            assert!(CLOSED.values.contains(&close_reason(reason)), "{reason:?}");
        }
    }
}
