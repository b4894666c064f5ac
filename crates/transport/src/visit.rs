//! The requests of one socket.
//!
//! **Lives here:** which path leads where, what must be right before a conversation begins, what the socket becomes.
//! **Called by:** `door`.
//! **Must not know:** what was read when: that is the library's part.

use std::{
    cell::{Cell, RefCell},
    future::pending,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_dialect_native::{Named, Native, named};
use carillon_dialect_pusher::{Protocol, Refused, refused};
use carillon_model::{ErrorCode, Form, Refusal};
use carillon_node::{Opening, Place, Worker};
use carillon_session::{Dialect as _, Push, Wanted};
use carillon_tasks::clock;
use carillon_telemetry::metric;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response,
    body::{Body as _, Incoming},
    header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_PROTOCOL},
};
use tokio::{net::TcpStream, task::spawn_local};
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use crate::{
    cors::{Cors, foreign, preflight},
    door::DoorConfig,
    event,
    poll::{SETTLE_PATIENCE, poll},
    problem::{Answer, method, not_a_websocket, problem, with},
    pusher::{Caller, key_in, send_away},
    request::{self, Query, bad},
    stream::{self, StreamLink},
    websocket::{Speech, WebSocketLink},
    xhr::{self, Address, Purpose, Source},
};

/// What every browser says with every request, and nobody else (Fetch Metadata).
const FETCH_SITE: &str = "sec-fetch-site";

/// A socket whose requests led nowhere after so many times the handshake's timeout is given up.
const TIMEOUTS: u32 = 2;

/// A client that takes the answer to a poll more slowly than this, in bytes a second, is given up.
const TAKES_LEAST: u64 = 32 * 1024;

/// Largest body of a request that names channels.
const BODY_MAX_BYTES: usize = 64 * 1024;

/// Most channels of a client whose place in all of them is one text.
const CHANNELS_MAX: usize = 200;

/// The paths of those who only listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Events,
    Lines,
    Poll,
}

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        match path {
            "/v1/sse" => Some(Self::Events),
            "/v1/stream" => Some(Self::Lines),
            "/v1/poll" => Some(Self::Poll),
            _ => None,
        }
    }

    /// Returns what metrics call it.
    const fn transport(self) -> &'static str {
        match self {
            Self::Events => "sse",
            Self::Lines => "stream",
            Self::Poll => "poll",
        }
    }

    const fn methods(self) -> &'static str {
        match self {
            Self::Events | Self::Lines => "GET, POST, OPTIONS",
            Self::Poll => "GET, OPTIONS",
        }
    }
}

/// What a socket becomes.
enum Becomes {
    WebSocket(Opening, Speech),
    /// A client of the Pusher protocol that is not let in.
    Refused(Refused, Protocol),
    Stream(Opening, Form, Cors),
    /// A request of the HTTP fallback, with the head of its answer.
    Xhr(Source, String),
}

/// One socket and its requests.
pub(crate) struct Visit {
    worker: Rc<Worker>,
    config: Arc<DoorConfig>,
    place: Place,
    /// When the socket was accepted; on one that was served before, when the request came.
    began: Cell<Instant>,
    deadline: Cell<Instant>,
    /// It got what it came for: what it does later is no failed handshake.
    served: Cell<bool>,
    becomes: RefCell<Option<Becomes>>,
}

impl Visit {
    pub(crate) fn new(worker: Rc<Worker>, config: Arc<DoorConfig>, place: Place) -> Self {
        let now = clock::now();
        let visit = Self {
            worker,
            config,
            place,
            began: Cell::new(now),
            deadline: Cell::new(now),
            served: Cell::new(false),
            becomes: RefCell::default(),
        };
        visit.give(Duration::ZERO);
        visit
    }

    /// Returns when the socket is given up.
    pub(crate) fn deadline(&self) -> tokio::time::Instant {
        self.deadline.get().into()
    }

    /// Gives the socket as long as any has, and some more.
    fn give(&self, more: Duration) {
        let time = self.config.handshake_timeout.saturating_mul(TIMEOUTS).saturating_add(more);
        let now = clock::now();
        self.deadline.set(now.checked_add(time).unwrap_or(now));
    }

    /// Says whether the last request is answered by a stream.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(*self.becomes.borrow(), Some(Becomes::Stream(..) | Becomes::Xhr(..)))
    }

    /// Says whether a request led somewhere.
    pub(crate) const fn was_served(&self) -> bool {
        self.served.get()
    }

    /// Gives the socket to the worker, with what was read past the request, or back if nothing more is to be done.
    pub(crate) fn open(&self, socket: TcpStream, early: Bytes) -> Option<TcpStream> {
        match self.becomes.take() {
            None => return Some(socket),
            Some(Becomes::WebSocket(opening, speech)) => {
                self.shake("websocket");
                let link = WebSocketLink::new(socket, early, self.config.frame_max_bytes, speech);
                self.worker.open(Box::new(link), opening, self.place.clone());
            }
            Some(Becomes::Refused(refused, protocol)) => {
                reject("websocket", "denied");
                spawn_local(send_away(socket, refused, protocol, self.place.clone()));
            }
            Some(Becomes::Stream(opening, form, cors)) => {
                self.shake(if form == Form::NativeLine { "stream" } else { "sse" });
                let link = StreamLink::new(socket, form, &joined(&opening), &cors);
                self.worker.open(Box::new(link), opening, self.place.clone());
            }
            Some(Becomes::Xhr(source, head)) => {
                spawn_local(xhr::stream(socket, head, source, self.place.clone()));
            }
        }
        None
    }

    /// Notes that a handshake is over.
    fn shake(&self, transport: &'static str) {
        let took = clock::now().saturating_duration_since(self.began.get());
        metric::HANDSHAKE_DURATION.histogram(&[("transport", transport)]).record(took.as_secs_f64());
    }

    /// Answers a request. One that is answered by a stream gets no answer here: whoever drives this takes the socket.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if let Some(endpoint) = Endpoint::at(path) {
            return self.listen(endpoint, request).await;
        }
        if let Some(address) = Address::at(path) {
            return self.fall_back(&address, request).await;
        }
        match (request.method(), path) {
            (&Method::GET, "/v1/ws") => self.upgrade(&request),
            (_, "/v1/ws") => method("a WebSocket begins with GET", "GET"),
            (&Method::GET, path) if key_in(path).is_some() => self.upgrade(&request),
            (_, path) if self.config.rest.is_some() && is_rest(path) => self.ask_rest(request).await,
            (_, path) if is_rest(path) => {
                let message = "this is the listener for clients; the REST API of applications is on the api listener (port 8001 by default), and here with `pusher_on_public = true` under [api]";
                problem(&Refusal::new(ErrorCode::NotFound, message))
            }
            (_, path) if is_publishing(path) => {
                let message = "this is the listener for clients; publishing is on the api listener (port 8001 by default)";
                problem(&Refusal::new(ErrorCode::NotFound, message))
            }
            (asked, path) => {
                if let Some(file) = self.config.page.as_ref().and_then(|page| page.get(path)) {
                    return match request::foreign_host(request.headers()) {
                        Some(host) => problem(&foreign(&host)),
                        None if matches!(*asked, Method::GET | Method::HEAD) => file,
                        None => method("this is a file to GET", "GET, HEAD"),
                    };
                }
                let shown: String = path.chars().take(64).collect();
                let message = format!(
                    "nothing is at `{shown}`; clients connect to /v1/ws, or listen at /v1/sse, /v1/stream or /v1/poll"
                );
                problem(&Refusal::new(ErrorCode::NotFound, message))
            }
        }
    }

    fn upgrade(&self, request: &Request<Incoming>) -> Answer {
        let headers = request.headers();
        let mut response = match create_response_with_body(request, Full::<Bytes>::default) {
            Ok(response) => response,
            Err(fault) => {
                reject("websocket", "bad_request");
                return not_a_websocket(headers, &fault.to_string());
            }
        };
        if let Some(key) = key_in(request.uri().path()) {
            *self.becomes.borrow_mut() = Some(self.call(key, request));
            return response;
        }
        if let Err(refusal) = self.website(headers) {
            reject("websocket", "denied");
            return problem(&refusal);
        }
        if let Some(chosen) = request::chosen_subprotocol(headers)
            && let Ok(value) = HeaderValue::from_str(&chosen)
        {
            response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, value);
        }
        let opening = request::opening(request.uri(), headers);
        *self.becomes.borrow_mut() = Some(Becomes::WebSocket(opening, Speech::Native));
        response
    }

    /// Decides on a client of the Pusher protocol.
    fn call(&self, key: &str, request: &Request<Incoming>) -> Becomes {
        let query = Query::of(request.uri());
        let caller = Caller::admit(self.worker.node(), &self.place, key, query.first("protocol"));
        match (caller, self.website(request.headers())) {
            (Ok(caller), Ok(())) => Becomes::WebSocket(caller.opening(), Speech::Pusher(caller.dialect())),
            (Ok(caller), Err(refusal)) => Becomes::Refused(refused(4009, &refusal.message), caller.protocol),
            (Err((refused, protocol)), _) => Becomes::Refused(refused, protocol),
        }
    }

    /// Looks at the website that a WebSocket is opened from.
    fn website(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let development = self.config.page.is_some();
        // Names that lead here are no matter: a browser says with every handshake from where it comes.
        if let Some(origin) = request::foreign_origin(headers).filter(|_| development) {
            // A browser does not show the answer to anybody.
            tracing::warn!(origin, "a website of another machine was refused: this is development mode");
            return Err(foreign(&origin));
        }
        Cors::check(headers, &self.config.origins, false).map(|_cors| ())
    }

    /// Has a backend's request answered that came to the listener for clients.
    async fn ask_rest(&self, request: Request<Incoming>) -> Answer {
        let Some(rest) = &self.config.rest else { return problem(&Refusal::new(ErrorCode::NotFound, "")) };
        // Everybody knows the secret of development mode: a website must not use it. Backends may call this machine what
        // they like; only browsers are held to its names.
        let from_page = request.headers().contains_key(FETCH_SITE);
        let website = request::foreign_origin(request.headers())
            .or_else(|| request::foreign_host(request.headers()).filter(|_| from_page));
        if let (Some(website), Some(_development)) = (website, &self.config.page) {
            return problem(&foreign(&website));
        }
        self.served.set(true);
        self.give(rest.takes);
        let answer = (rest.answer)(request).await;
        // Backends keep their connections.
        self.give(self.config.handshake_timeout);
        answer
    }

    /// Answers a request of the HTTP fallback of the Pusher protocol. A stream that begins is not answered here.
    async fn fall_back(&self, address: &Address, request: Request<Incoming>) -> Answer {
        let cors = match Cors::check(request.headers(), &self.config.origins, self.config.page.is_some()) {
            Ok(cors) => cors,
            Err(refusal) => {
                reject("xhr", "denied");
                return problem(&refusal);
            }
        };
        let answer = match *request.method() {
            Method::OPTIONS => preflight("POST, OPTIONS"),
            Method::POST => self.relay(address, request, &cors).await,
            _ => method("this is an endpoint to POST to", "POST, OPTIONS"),
        };
        self.served.set(true);
        self.give(Duration::from_secs(answer.body().size_hint().lower() / TAKES_LEAST));
        cors.apply(answer)
    }

    async fn relay(&self, address: &Address, request: Request<Incoming>, cors: &Cors) -> Answer {
        let (head, body) = request.into_parts();
        let frame_max_bytes = self.config.frame_max_bytes;
        let body = match Limited::new(body, xhr::body_max_bytes(frame_max_bytes)).collect().await {
            Ok(body) => body.to_bytes(),
            Err(fault) if fault.is::<LengthLimitError>() => {
                let refusal = Refusal::new(ErrorCode::TooLarge, "the body is larger than a frame may be");
                return with(problem(&refusal), CONNECTION, "close");
            }
            Err(_broken) => return problem(&bad("the body cannot be read".to_owned())),
        };
        self.give(xhr::PATIENCE);
        if address.purpose == Purpose::Send {
            return self.config.fallback.send(&self.worker, address, &body, frame_max_bytes).await;
        }
        if self.was_served() {
            self.began.set(clock::now());
        }
        let query = Query::of(&head.uri);
        let version = query.first("protocol");
        let source = self.config.fallback.receive(&self.worker, &self.place, address, version).await;
        if source.is_ok() {
            self.shake("xhr");
        }
        match source {
            Err(refused) => {
                reject("xhr", "denied");
                xhr::turn_away(&refused)
            }
            Ok(source) if address.purpose == Purpose::Poll => xhr::poll(source).await,
            Ok(source) => {
                *self.becomes.borrow_mut() = Some(Becomes::Xhr(source, stream::head(xhr::MEDIA, cors)));
                pending().await
            }
        }
    }

    async fn listen(&self, endpoint: Endpoint, request: Request<Incoming>) -> Answer {
        let transport = endpoint.transport();
        if self.was_served() {
            self.began.set(clock::now());
        }
        let cors = match Cors::check(request.headers(), &self.config.origins, self.config.page.is_some()) {
            Ok(cors) => cors,
            Err(refusal) => {
                reject(transport, "denied");
                return problem(&refusal);
            }
        };
        let answer = match *request.method() {
            Method::OPTIONS => Ok(preflight(endpoint.methods())),
            Method::POST if endpoint != Endpoint::Poll => self.begin(endpoint, request, &cors).await,
            Method::GET => self.begin(endpoint, request, &cors).await,
            _ => Ok(method("this is an endpoint to GET", endpoint.methods())),
        };
        let answer = answer.unwrap_or_else(|refusal| {
            reject(transport, reason(refusal.code));
            if endpoint == Endpoint::Events && refusal.code.is_retryable() {
                passing_trouble(refusal)
            } else {
                problem(&refusal)
            }
        });
        cors.apply(answer)
    }

    /// Begins to listen. A stream that begins is not answered here.
    async fn begin(
        &self,
        endpoint: Endpoint,
        request: Request<Incoming>,
        cors: &Cors,
    ) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let named =
            if head.method == Method::POST { Some(body_of(&head.headers, body).await?) } else { None };
        let query = Query::of(&head.uri);
        let opening = request::listening(&query, &head.headers, named);
        if endpoint != Endpoint::Lines && opening.wanted.len() > CHANNELS_MAX {
            let message = format!(
                "a client that only listens has at most {CHANNELS_MAX} channels here; a WebSocket or /v1/stream has more"
            );
            return Err(Refusal::new(ErrorCode::LimitExceeded, message));
        }
        // Read before anything is joined.
        let form = match endpoint {
            Endpoint::Lines => Form::NativeLine,
            Endpoint::Poll => Form::NativePoll,
            Endpoint::Events if query.is_raw()? => Form::NativeSseRaw,
            // The publication's own id is the place of a client that has no other channel.
            Endpoint::Events if opening.wanted.len() == 1 => Form::NativeSse,
            Endpoint::Events => Form::NativeSseBare,
        };
        if endpoint != Endpoint::Poll {
            self.worker.screen(&opening, &self.place)?;
            *self.becomes.borrow_mut() = Some(Becomes::Stream(opening, form, cors.clone()));
            return pending().await;
        }
        let wish = query.wish(&head.headers)?;
        self.worker.screen(&opening, &self.place)?;
        self.shake(endpoint.transport());
        let (link, waiting) = poll(&joined(&opening), wish);
        self.give(wish.timeout.max(SETTLE_PATIENCE));
        self.worker.open(Box::new(link), opening, self.place.clone());
        let answer = waiting.answer().await;
        self.served.set(true);
        let bytes = answer.body().size_hint().lower();
        self.give(Duration::from_secs(bytes / TAKES_LEAST));
        Ok(answer)
    }
}

/// Returns the channels that will be joined if their rules allow it.
fn joined(opening: &Opening) -> Vec<Wanted> {
    opening.wanted.iter().filter_map(|wanted| wanted.as_ref().ok().cloned()).collect()
}

/// Reads a body that names channels.
async fn body_of(headers: &HeaderMap, body: Incoming) -> Result<Named, Refusal> {
    let is_json =
        |media: &HeaderValue| media.to_str().is_ok_and(|media| media.starts_with("application/json"));
    if !headers.get(CONTENT_TYPE).is_none_or(is_json) {
        let message = "the body is JSON: send `Content-Type: application/json`";
        return Err(Refusal::new(ErrorCode::UnsupportedMediaType, message));
    }
    let body = Limited::new(body, BODY_MAX_BYTES).collect().await.map_err(|fault| {
        if fault.is::<LengthLimitError>() {
            Refusal::new(ErrorCode::TooLarge, format!("the body has at most {BODY_MAX_BYTES} bytes"))
        } else {
            bad("the body cannot be read".to_owned())
        }
    })?;
    let body = body.to_bytes();
    let text = std::str::from_utf8(&body).map_err(|_fault| bad("the body is not UTF-8".to_owned()))?;
    named(text)
}

/// A browser gives up for good when it is told so by a status; it is told to come back instead (HTML standard, §9.2.2).
fn passing_trouble(refusal: Refusal) -> Answer {
    let retry_after = refusal.retry_after;
    let text = Native.push(&Push::Error { refusal, channel: None, reference: None });
    let answer = Response::new(Full::new(Bytes::from(event::goodbye(&text, retry_after))));
    let answer =
        with(with(answer, CONTENT_TYPE, "text/event-stream"), CACHE_CONTROL, "no-store, no-transform");
    with(answer, CONNECTION, "close")
}

/// Says whether this is a path of the REST API of the Pusher protocol.
fn is_rest(path: &str) -> bool {
    path.contains("/apps/") || path.starts_with("/users/")
}

/// Says whether this is a path of the publishers' listener.
fn is_publishing(path: &str) -> bool {
    path == "/v1/batch" || path == "/v1/publish" || path.starts_with("/v1/publish/")
}

const fn reason(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Unauthorized | ErrorCode::TokenExpired | ErrorCode::Forbidden | ErrorCode::NotFound => {
            "denied"
        }
        ErrorCode::RateLimited | ErrorCode::Internal | ErrorCode::Unavailable => "limit",
        ErrorCode::BadRequest
        | ErrorCode::TooLarge
        | ErrorCode::LimitExceeded
        | ErrorCode::UnknownType
        | ErrorCode::AlreadySubscribed
        | ErrorCode::NotEnabled
        | ErrorCode::UnsupportedMediaType
        | ErrorCode::MethodNotAllowed => "bad_request",
    }
}

/// Counts a socket or a request that led nowhere.
pub(crate) fn reject(transport: &'static str, reason: &'static str) {
    metric::CONNECTIONS_REJECTED.counter(&[("transport", transport), ("reason", reason)]).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_publishers_are_known() {
        for (path, publishing) in
            [("/v1/publish", true), ("/v1/publish/news", true), ("/v1/batch", true), ("/v1/publisher", false)]
        {
            assert_eq!(is_publishing(path), publishing, "{path}");
        }
    }
}
