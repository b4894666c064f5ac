//! Answers to requests that lead to nothing.
//!
//! **Lives here:** refusals as `application/problem+json` (RFC 9457), with the headers that some of them need.
//! **Called by:** `door` and `visit`.
//! **Must not know:** why something is refused.

use bytes::Bytes;
use carillon_model::{ErrorCode, Refusal};
use http_body_util::Full;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};

use crate::request::SUBPROTOCOL;

/// The only version of the WebSocket protocol (RFC 6455 §4.1).
const VERSION: &str = "13";

/// An answer whose body is all there.
pub type Answer = Response<Full<Bytes>>;

/// Returns the answer that tells of a refusal.
pub(crate) fn problem(refusal: &Refusal) -> Answer {
    problem_with(refusal.code.http_status(), refusal)
}

/// RFC 9457; the body repeats the status of the response (§3.1.3).
fn problem_with(status: u16, refusal: &Refusal) -> Answer {
    let body = serde_json::json!({
        "type": refusal.code.type_uri(),
        "title": refusal.code.title(),
        "status": status,
        "detail": refusal.message,
        "code": refusal.code.number(),
        "error": refusal.code.name(),
        "retryable": refusal.code.is_retryable(),
    });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Some(wait) = refusal.retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    }
    with(with(response, CONTENT_TYPE, "application/problem+json"), CACHE_CONTROL, "no-store")
}

/// Returns what is told to a method that a path does not have.
pub(crate) fn method(message: &'static str, allowed: &'static str) -> Answer {
    with(problem(&Refusal::new(ErrorCode::MethodNotAllowed, message)), ALLOW, allowed)
}

/// Returns what is told to a request for `/v1/ws` that is no handshake.
pub(crate) fn not_a_websocket(headers: &HeaderMap, fault: &str) -> Answer {
    let speaks_ours = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == VERSION);
    if headers.contains_key(UPGRADE) && speaks_ours {
        let message = format!("the WebSocket handshake cannot be read: {fault}");
        return problem(&Refusal::new(ErrorCode::BadRequest, message));
    }
    let message = format!(
        "this is a WebSocket endpoint: use `new WebSocket(\"ws://…/v1/ws?channel=news\")`, subprotocol {SUBPROTOCOL}"
    );
    let refusal = Refusal::new(ErrorCode::BadRequest, message);
    let response = problem_with(StatusCode::UPGRADE_REQUIRED.as_u16(), &refusal);
    // RFC 6455 §4.2.2: whoever speaks another version is told which one is understood.
    with(with(response, UPGRADE, "websocket"), SEC_WEBSOCKET_VERSION, VERSION)
}

/// Adds a header line.
pub(crate) fn with(mut response: Answer, name: HeaderName, value: &'static str) -> Answer {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_problem_has_the_type_and_title_of_its_error() {
        let response = problem(&Refusal::new(ErrorCode::NotFound, "nothing"));
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        let body = response.into_body().collect().await.expect("it is there").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            (&body["type"], &body["title"]),
            (&"urn:carillon:error:not_found".into(), &"Not found".into())
        );
    }
}
