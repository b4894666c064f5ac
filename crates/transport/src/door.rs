//! The handshake of one socket.
//!
//! **Lives here:** HTTP/1.1 on the public listener: the WebSocket upgrade, and clear answers to everything else.
//! **Called by:** workers, for every socket that they are given.
//! **Must not know:** other connections, what sessions do.

use std::{cell::RefCell, convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use carillon_model::{ErrorCode, Refusal};
use carillon_node::{Door, Place, Worker};
use carillon_tasks::clock;
use carillon_telemetry::metric;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{
        ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    server::conn::http1,
    service::service_fn,
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, task::spawn_local, time::timeout};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::{
    page::Page,
    request::{self, SUBPROTOCOL},
    websocket::WebSocketLink,
};

/// How first requests are read.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    /// From accepting a socket to the end of its request's head.
    pub handshake_timeout: Duration,
    /// Largest frame that a client may send, in bytes.
    pub frame_max_bytes: usize,
    /// The page for trying it, where there is one.
    pub page: Option<Arc<Page>>,
}

/// Most bytes of a request's head; hyper's own least is 8 KiB.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Most header lines of a request.
const HEADERS_MAX: usize = 100;

/// A socket that did not become a WebSocket after so many times the handshake's timeout is given up.
const VISIT_TIMEOUTS: u32 = 2;

/// The only version of the WebSocket protocol (RFC 6455 §4.1).
const VERSION: &str = "13";

const WEBSOCKET: (&str, &str) = ("transport", "websocket");

/// Makes what workers call for every socket.
#[must_use]
pub fn door(config: DoorConfig) -> Door {
    Arc::new(move |worker, socket, place| {
        spawn_local(serve(Rc::clone(worker), config.clone(), socket, place));
    })
}

/// One socket, until it is upgraded or its requests are answered.
struct Visit {
    worker: Rc<Worker>,
    config: DoorConfig,
    /// Taken by the connection that the visit becomes.
    place: RefCell<Option<Place>>,
    began: std::time::Instant,
}

async fn serve(worker: Rc<Worker>, config: DoorConfig, socket: std::net::TcpStream, place: Place) {
    let Ok(socket) = TcpStream::from_std(socket) else { return };
    let began = clock::now();
    let handshake_timeout = config.handshake_timeout;
    let visit = Rc::new(Visit { worker, config, place: RefCell::new(Some(place)), began });
    let answer = service_fn(move |request| {
        let visit = Rc::clone(&visit);
        async move { Ok::<_, Infallible>(visit.answer(request)) }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(handshake_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_MAX_BYTES)
        .serve_connection(TokioIo::new(socket), answer)
        .with_upgrades();
    // The library ends a head that is slow to come, not a reader that is slow to take its answers.
    match timeout(handshake_timeout.saturating_mul(VISIT_TIMEOUTS), conversation).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => reject(if fault.is_timeout() { "timeout" } else { "bad_request" }),
        Err(_elapsed) => reject("timeout"),
    }
}

impl Visit {
    fn answer(self: Rc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/ws") => self.upgrade(request),
            (_, "/v1/ws") => {
                let refusal = Refusal::new(ErrorCode::MethodNotAllowed, "a WebSocket begins with GET");
                with(problem(&refusal), ALLOW, "GET")
            }
            (_, path) if is_publishing(path) => {
                let message = "this is the listener for clients; publishing is on the api listener (port 8001 by default)";
                problem(&Refusal::new(ErrorCode::NotFound, message))
            }
            (method, path) => {
                if let Some(file) = self.config.page.as_ref().and_then(|page| page.get(path)) {
                    return match request::foreign_host(request.headers()) {
                        Some(host) => foreign(&host),
                        None if matches!(*method, Method::GET | Method::HEAD) => file,
                        None => not_to_read(),
                    };
                }
                let shown: String = path.chars().take(64).collect();
                let message = format!("nothing is at `{shown}`; clients connect to /v1/ws");
                problem(&Refusal::new(ErrorCode::NotFound, message))
            }
        }
    }

    fn upgrade(self: Rc<Self>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = match create_response_with_body(&request, Full::<Bytes>::default) {
            Ok(response) => response,
            Err(fault) => {
                reject("bad_request");
                return not_a_websocket(request.headers(), &fault.to_string());
            }
        };
        if self.config.page.is_some()
            && let Some(origin) = request::foreign_origin(request.headers())
        {
            reject("bad_request");
            // A browser does not show the answer to anybody.
            tracing::warn!(origin, "a website of another machine was refused: this is development mode");
            return foreign(&origin);
        }
        if let Some(chosen) = request::chosen_subprotocol(request.headers())
            && let Ok(value) = HeaderValue::from_str(&chosen)
        {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
        let opening = request::opening(request.uri(), request.headers());
        let upgraded = hyper::upgrade::on(&mut request);
        spawn_local(async move {
            let Ok(upgraded) = upgraded.await else { return reject("bad_request") };
            let Some((socket, early)) = take_socket(upgraded) else { return };
            // A second upgrade of one socket cannot happen: the first one took the socket.
            let Some(place) = self.place.borrow_mut().take() else { return };
            let took = clock::now().saturating_duration_since(self.began);
            metric::HANDSHAKE_DURATION.histogram(&[WEBSOCKET]).record(took.as_secs_f64());
            let link = WebSocketLink::new(socket, early, self.config.frame_max_bytes);
            self.worker.open(Box::new(link), opening, place);
        });
        response
    }
}

/// Says whether this is a path of the publishers' listener.
fn is_publishing(path: &str) -> bool {
    path == "/v1/batch" || path == "/v1/publish" || path.starts_with("/v1/publish/")
}

/// Takes the socket back from hyper, with a copy of what was read past the handshake: even an empty part of hyper's
/// read buffer would keep all of its 8 KiB.
fn take_socket(upgraded: Upgraded) -> Option<(TcpStream, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    Some((parts.io.into_inner(), Bytes::copy_from_slice(&parts.read_buf)))
}

fn not_a_websocket(headers: &HeaderMap, fault: &str) -> Response<Full<Bytes>> {
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

/// Whoever can reach the port may do everything in development mode: websites must not, in a browser on this machine.
fn foreign(name: &str) -> Response<Full<Bytes>> {
    let message = format!(
        "`{name}` is not of this machine: in development mode only pages of localhost and 127.0.0.1 are answered"
    );
    problem(&Refusal::new(ErrorCode::Forbidden, message))
}

fn not_to_read() -> Response<Full<Bytes>> {
    let refusal = Refusal::new(ErrorCode::MethodNotAllowed, "this is a file to GET");
    with(problem(&refusal), ALLOW, "GET, HEAD")
}

fn problem(refusal: &Refusal) -> Response<Full<Bytes>> {
    problem_with(refusal.code.http_status(), refusal)
}

/// RFC 9457; the body repeats the status of the response (§3.1.3).
fn problem_with(status: u16, refusal: &Refusal) -> Response<Full<Bytes>> {
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
    with(response, CONTENT_TYPE, "application/problem+json")
}

fn with(
    mut response: Response<Full<Bytes>>,
    name: hyper::header::HeaderName,
    value: &'static str,
) -> Response<Full<Bytes>> {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}

fn reject(reason: &'static str) {
    metric::CONNECTIONS_REJECTED.counter(&[WEBSOCKET, ("reason", reason)]).increment(1);
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

    #[test]
    fn paths_of_publishers_are_known() {
        for (path, publishing) in
            [("/v1/publish", true), ("/v1/publish/news", true), ("/v1/batch", true), ("/v1/publisher", false)]
        {
            assert_eq!(is_publishing(path), publishing, "{path}");
        }
    }
}
