//! What the API counts.
//!
//! **Lives here:** handles, made once, so that every series exists at zero and counting is one addition.
//! **Called by:** `http`, `pusher` and `grpc`.
//! **Must not know:** channels, users, or who scrapes.

use std::{collections::BTreeMap, time::Instant};

use carillon_model::{ErrorCode, Refusal};
use carillon_tasks::clock;
use carillon_telemetry::metric;
use metrics::{Counter, Gauge, Histogram};

use crate::{answer::Outcome, problem, publisher::Receipt};

/// The counters of both doors.
pub(crate) struct Meters {
    pub(crate) http: DoorMeters,
    pub(crate) grpc: DoorMeters,
    pub(crate) connections: Gauge,
    pub(crate) key_ok: Counter,
    pub(crate) key_invalid: Counter,
    pub(crate) key_denied: Counter,
}

/// The counters of one door.
pub(crate) struct DoorMeters {
    ok: Counter,
    refused: BTreeMap<&'static str, Counter>,
    class: fn(ErrorCode) -> &'static str,
    duration: Histogram,
    duplicates: Counter,
    published: Counter,
    rate_limited: Counter,
}

impl Meters {
    /// Makes the handles. The recorder must be installed before.
    pub(crate) fn new() -> Self {
        let key = |result| metric::AUTH.counter(&[("method", "key"), ("result", result)]);
        Self {
            http: DoorMeters::new("http", "2xx", http_class),
            grpc: DoorMeters::new("grpc", "ok", grpc_class),
            connections: metric::API_CONNECTIONS.gauge(&[]),
            key_ok: key("ok"),
            key_invalid: key("invalid"),
            key_denied: key("denied"),
        }
    }
}

/// Makes the counters of signed requests: good ones and others.
pub(crate) fn signatures() -> [Counter; 2] {
    ["ok", "invalid"].map(|result| metric::AUTH.counter(&[("method", "signature"), ("result", result)]))
}

impl DoorMeters {
    /// Makes those of the Pusher protocol's API.
    pub(crate) fn pusher() -> Self {
        Self::new("pusher", "2xx", http_class)
    }

    fn new(api: &'static str, ok: &'static str, class: fn(ErrorCode) -> &'static str) -> Self {
        let requests = |code| metric::PUBLISH_REQUESTS.counter(&[("api", api), ("code", code)]);
        Self {
            ok: requests(ok),
            refused: ErrorCode::ALL.into_iter().map(class).map(|name| (name, requests(name))).collect(),
            class,
            duration: metric::PUBLISH_DURATION.histogram(&[("api", api)]),
            duplicates: metric::PUBLISH_DUPLICATES.counter(&[("api", api)]),
            published: metric::MESSAGES_PUBLISHED.counter(&[("api", api)]),
            rate_limited: metric::RATE_LIMITED.counter(&[("scope", "publish")]),
        }
    }

    /// Counts one request and how long it took.
    pub(crate) fn request<T>(&self, result: &Result<T, Refusal>, started: Instant) {
        self.duration.record(clock::now().saturating_duration_since(started));
        match result {
            Ok(_) => self.ok.increment(1),
            Err(refusal) => {
                if let Some(counter) = self.refused.get((self.class)(refusal.code)) {
                    counter.increment(1);
                }
                if refusal.code == ErrorCode::RateLimited {
                    self.rate_limited.increment(1);
                }
            }
        }
    }

    /// Counts what became of each message.
    pub(crate) fn messages(&self, outcomes: &[Outcome]) {
        outcomes.iter().for_each(|outcome| self.message(&outcome.result));
    }

    /// Counts what became of one message.
    pub(crate) fn message(&self, result: &Result<Receipt, Refusal>) {
        match result {
            Ok(receipt) if receipt.duplicate => self.duplicates.increment(1),
            Ok(_) => self.published.increment(1),
            Err(_) => {}
        }
    }
}

const fn http_class(code: ErrorCode) -> &'static str {
    match code.http_status() {
        500.. => "5xx",
        _ => "4xx",
    }
}

const fn grpc_class(code: ErrorCode) -> &'static str {
    use tonic::Code;
    match problem::grpc_code(code) {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn every_series_is_there_at_zero_and_then_counts() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let meters = metrics::with_local_recorder(&recorder, Meters::new);
        let text = recorder.handle().render();
        for series in [
            r#"carillon_publish_requests_total{api="http",code="2xx"} 0"#,
            r#"carillon_publish_requests_total{api="http",code="4xx"} 0"#,
            r#"carillon_publish_requests_total{api="http",code="5xx"} 0"#,
            r#"carillon_publish_requests_total{api="grpc",code="ok"} 0"#,
            r#"carillon_publish_requests_total{api="grpc",code="invalid_argument"} 0"#,
            r#"carillon_publish_requests_total{api="grpc",code="unavailable"} 0"#,
            r#"carillon_publish_duplicates_total{api="http"} 0"#,
            r#"carillon_publish_duplicates_total{api="grpc"} 0"#,
            r#"carillon_messages_published_total{api="http"} 0"#,
            r#"carillon_messages_published_total{api="grpc"} 0"#,
            r#"carillon_rate_limited_total{scope="publish"} 0"#,
            r#"carillon_auth_total{method="key",result="invalid"} 0"#,
            "carillon_api_connections 0",
        ] {
            assert!(text.contains(series), "{series} is missing in {text}");
        }

        let outcome = |result| Outcome { channel: None, result };
        let receipt = |duplicate| outcome(Ok(Receipt { position: None, duplicate }));
        let refusal = Refusal::new(ErrorCode::RateLimited, "slow down");
        meters.http.messages(&[receipt(false), receipt(true), receipt(false), outcome(Err(refusal.clone()))]);
        meters.http.request(&Ok(()), clock::now());
        meters.http.request::<()>(&Err(refusal.clone()), clock::now());
        meters.grpc.request::<()>(&Err(refusal), clock::now());
        let text = recorder.handle().render();
        for series in [
            r#"carillon_publish_requests_total{api="http",code="2xx"} 1"#,
            r#"carillon_publish_requests_total{api="http",code="4xx"} 1"#,
            r#"carillon_publish_requests_total{api="grpc",code="resource_exhausted"} 1"#,
            r#"carillon_publish_duplicates_total{api="http"} 1"#,
            r#"carillon_messages_published_total{api="http"} 2"#,
            r#"carillon_rate_limited_total{scope="publish"} 2"#,
            r#"carillon_publish_duration_seconds_count{api="http"} 2"#,
        ] {
            assert!(text.contains(series), "{series} is missing in {text}");
        }
    }
}
