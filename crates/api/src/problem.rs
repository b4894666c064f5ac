//! Refusals as HTTP and gRPC tell them.
//!
//! **Lives here:** RFC 9457 problems, and the one table from our codes to gRPC's.
//! **Called by:** `http`, `pusher`, `answer` and `grpc`.
//! **Must not know:** why something was refused.

use std::{fmt::Write as _, time::Duration};

use carillon_model::{ErrorCode, Refusal};
use hyper::header::{HeaderMap, HeaderValue, RETRY_AFTER as RETRY_AFTER_HEADER};
use tonic::{Code, Status, metadata::MetadataValue};

/// When to try again if nobody knows better.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Metadata that carries the error's stable name.
pub(crate) const ERROR_KEY: &str = "carillon-error";
const RETRY_KEY: &str = "carillon-retry-after-ms";

/// Appends the problem document of `refusal`.
pub(crate) fn write(out: &mut String, refusal: &Refusal) {
    let code = refusal.code;
    let written = write!(
        out,
        r#"{{"type":"{uri}","title":"{title}","status":{status},"detail":{detail},"code":{number},"error":"{name}","retryable":{retryable}"#,
        uri = code.type_uri(),
        name = code.name(),
        title = code.title(),
        status = code.http_status(),
        detail = serde_json::Value::from(refusal.message.as_ref()),
        number = code.number(),
        retryable = code.is_retryable(),
    );
    written.expect("a String takes every write");
    if let Some(wait) = retry_after(refusal) {
        write!(out, r#","retry_after_ms":{}"#, wait.as_millis()).expect("a String takes every write");
    }
    out.push('}');
}

/// Returns when to try again, for the errors that say so.
pub(crate) fn retry_after(refusal: &Refusal) -> Option<Duration> {
    match refusal.code {
        ErrorCode::RateLimited | ErrorCode::Unavailable => Some(refusal.retry_after.unwrap_or(RETRY_AFTER)),
        ErrorCode::BadRequest
        | ErrorCode::Unauthorized
        | ErrorCode::TokenExpired
        | ErrorCode::Forbidden
        | ErrorCode::NotFound
        | ErrorCode::TooLarge
        | ErrorCode::LimitExceeded
        | ErrorCode::UnknownType
        | ErrorCode::AlreadySubscribed
        | ErrorCode::NotEnabled
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::MethodNotAllowed
        | ErrorCode::Internal => refusal.retry_after,
    }
}

/// Tells in the headers of an answer when to try again.
pub(crate) fn say_when(headers: &mut HeaderMap, refusal: &Refusal) {
    if let Some(wait) = retry_after(refusal) {
        let seconds = wait.as_millis().div_ceil(1000).clamp(1, 3600);
        headers.insert(RETRY_AFTER_HEADER, HeaderValue::from(u16::try_from(seconds).unwrap_or(1)));
    }
}

/// Returns the gRPC status that tells `refusal`.
pub(crate) fn status(refusal: &Refusal) -> Status {
    let mut status = Status::new(grpc_code(refusal.code), refusal.message.as_ref());
    let metadata = status.metadata_mut();
    let _none_before = metadata.insert(ERROR_KEY, MetadataValue::from_static(refusal.code.name()));
    if let Some(wait) = retry_after(refusal) {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let _none_before = metadata.insert(RETRY_KEY, MetadataValue::from(millis));
    }
    status
}

/// Returns the gRPC code of an error.
pub(crate) const fn grpc_code(code: ErrorCode) -> Code {
    match code {
        ErrorCode::BadRequest
        | ErrorCode::TooLarge
        | ErrorCode::LimitExceeded
        | ErrorCode::UnknownType
        | ErrorCode::UnsupportedMediaType => Code::InvalidArgument,
        ErrorCode::Unauthorized | ErrorCode::TokenExpired => Code::Unauthenticated,
        ErrorCode::Forbidden => Code::PermissionDenied,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::AlreadySubscribed => Code::AlreadyExists,
        ErrorCode::NotEnabled | ErrorCode::MethodNotAllowed => Code::Unimplemented,
        ErrorCode::RateLimited => Code::ResourceExhausted,
        ErrorCode::Internal => Code::Internal,
        ErrorCode::Unavailable => Code::Unavailable,
    }
}
