//! The REST API of the Pusher protocol, `/apps/{id}/…`.
//!
//! **Lives here:** who asks, and from a request to its answer. Answers are exact to the key: clients of others compare.
//! **Called by:** `http`, and by `transport` where the public listener answers it, too.
//! **Must not know:** listeners, native clients' API keys.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_auth::{BadRequestSignature, shown_key, verify_head};
use carillon_model::{App, AppLimits, Apps, ChannelName, ErrorCode, Refusal};
use carillon_tasks::clock;
use carillon_telemetry::Refused;
use http_body_util::Full;
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Body,
    header::{self, HeaderValue},
    http::request::Parts as Head,
};
use metrics::Counter;

use crate::{
    body::{self, Budget},
    channels::Channels,
    config::Config,
    intake::unix_now,
    meters::{DoorMeters, signatures},
    problem,
    publisher::Publisher,
    route::NoRoute,
    serve::Parts,
};

mod events;
mod questions;
mod route;

use route::Route;

/// No body is larger, whatever the limits of applications are.
const BODY_MAX_BYTES: usize = 16 << 20;

/// What one byte of a text may become in JSON: `\u0000`.
const ESCAPED: usize = 6;

/// What surrounds the data of an event: names, channel, socket id, punctuation.
const AROUND_DATA_BYTES: usize = 2048;

/// How many nodes have answered, where some were silent: `2/3`.
const NODES: &str = "carillon-nodes";

/// Answers requests of the REST API.
pub struct PusherRest {
    apps: Apps,
    publisher: Arc<dyn Publisher>,
    channels: Arc<dyn Channels>,
    deadline: Duration,
    body_timeout: Duration,
    bodies: Budget,
    meters: DoorMeters,
    signed: Counter,
    forged: Counter,
    refused: Refused,
}

/// An answer that is not a refusal: one JSON object.
struct Answer {
    json: String,
    /// How many nodes of how many know of what it says.
    nodes: Option<(usize, usize)>,
}

impl From<String> for Answer {
    fn from(json: String) -> Self {
        Self { json, nodes: None }
    }
}

impl PusherRest {
    /// Makes an API for the applications of `parts`, within the limits of `config`.
    #[must_use]
    pub fn new(config: &Config, parts: &Parts) -> Self {
        let [signed, forged] = signatures();
        Self {
            apps: parts.apps.clone(),
            publisher: Arc::clone(&parts.publisher),
            channels: Arc::clone(&parts.channels),
            deadline: config.deadline,
            body_timeout: config.body_timeout,
            bodies: Budget::new(config.bodies_held_max_bytes),
            meters: DoorMeters::pusher(),
            signed,
            forged,
            refused: Refused::default(),
        }
    }

    /// Says whether a request for `path` is one of this API.
    #[must_use]
    pub fn takes(path: &str) -> bool {
        Route::signed_part(path).is_some()
    }

    /// Returns how large a body may be that is worth reading, in bytes: that of the largest batch.
    fn body_max_bytes(&self) -> usize {
        let largest = |limits: &AppLimits| {
            let event = limits.event_data_bytes.saturating_mul(ESCAPED).saturating_add(AROUND_DATA_BYTES);
            let channels =
                limits.channels_per_event.saturating_mul(limits.channel_name_bytes.saturating_add(8));
            event.saturating_mul(limits.events_per_batch).max(event.saturating_add(channels))
        };
        let all = self.apps.all().iter().map(|app| largest(&app.limits));
        all.max().unwrap_or_default().min(BODY_MAX_BYTES)
    }

    /// Answers one request. Its body is read when it is known who has sent it, within the limits of the configuration.
    ///
    /// # Cancel safety
    /// When the future is dropped, the outcome of what was to be published is unknown.
    pub async fn serve<B: Body<Data = Bytes> + Unpin>(&self, request: Request<B>) -> Response<Full<Bytes>> {
        let started = clock::now();
        let (parts, mut body) = request.into_parts();
        let (answered, allow) = match Route::find(&parts.method, parts.uri.path()) {
            Err(NoRoute::Path(refusal)) => (Err(refusal), None),
            Err(NoRoute::Method(refusal, allow)) => (Err(refusal), Some(allow)),
            Ok((app_id, route)) => {
                let answered = self.answer(app_id, route, &parts, &mut body).await;
                if matches!(route, Route::Events | Route::BatchEvents) {
                    self.meters.request(&answered, started);
                }
                (answered, None)
            }
        };
        let refusal = match answered {
            Ok(answer) => return accept(answer),
            Err(refusal) => refusal,
        };
        // A client that waits for "100 Continue" has not sent its body and need not.
        if !body.is_end_stream() && !parts.headers.contains_key(header::EXPECT) {
            let used = clock::now().saturating_duration_since(started);
            body::discard(&mut body, self.body_timeout.saturating_sub(used)).await;
        }
        refuse(&refusal, allow)
    }

    async fn answer<B: Body<Data = Bytes> + Unpin>(
        &self,
        app_id: Option<&str>,
        route: Route<'_>,
        request: &Head,
        body: &mut B,
    ) -> Result<Answer, Refusal> {
        let path = request.uri.path();
        let path = Route::signed_part(path).unwrap_or(path);
        let query = request.uri.query().unwrap_or_default();
        let head = verify_head(&self.apps, app_id, request.method.as_str(), path, query, unix_now());
        let head = head.map_err(|why| self.forged(&why))?;
        let app = head.app;
        if !app.enabled {
            return Err(Refusal::new(
                ErrorCode::Forbidden,
                format!("The application {} is disabled", app.id),
            ));
        }
        let most = self.body_max_bytes();
        let read = body::read(body, most, self.body_timeout, &self.bodies).await;
        let (body, _share) = read
            .map_err(|refusal| if refusal.code == ErrorCode::TooLarge { too_large(most) } else { refusal })?;
        head.verify_body(&body).map_err(|why| self.forged(&why))?;
        self.signed.increment(1);
        // Counted from here: a body that is slow to arrive does not use up the broker's time.
        let now = clock::now();
        let deadline = now.checked_add(self.deadline).unwrap_or(now);
        self.go(app, route, query, &request.headers, &body, deadline).await
    }

    fn forged(&self, why: &BadRequestSignature) -> Refusal {
        self.forged.increment(1);
        if self.refused.is_due(why.check(), clock::now()) {
            let key = if let BadRequestSignature::KeyUnknown { key } = why {
                Some(shown_key(&self.apps, key))
            } else {
                None
            };
            tracing::info!(key, reason = why.check(), "a request of a backend was refused");
        }
        Refusal::new(ErrorCode::Unauthorized, why.to_string())
    }

    async fn go(
        &self,
        app: &App,
        route: Route<'_>,
        query: &str,
        headers: &HeaderMap,
        body: &[u8],
        deadline: Instant,
    ) -> Result<Answer, Refusal> {
        match route {
            Route::Events => self.event(app, headers, body, deadline).await,
            Route::BatchEvents => self.batch(app, headers, body, deadline).await,
            Route::Channels => self.list(app, query, deadline).await,
            Route::Channel(name) => self.one(app, name, query, deadline).await,
            Route::Users(name) => self.users(app, name),
            Route::Terminate(user) => self.terminate(app, user, deadline).await,
            Route::Connections => Ok(self.connections(app, deadline).await),
        }
    }
}

impl fmt::Debug for PusherRest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PusherRest").finish_non_exhaustive()
    }
}

/// Says what clients look for where the data of an event is too large.
fn too_large(most: usize) -> Refusal {
    let text =
        format!("The content of this event or batch is too large: its body has more than {most} bytes");
    Refusal::new(ErrorCode::TooLarge, text)
}

fn bad(text: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, text)
}

/// Reads the name of a channel of `app`.
fn channel_name(app: &App, text: &str) -> Result<ChannelName, Refusal> {
    let most = app.limits.channel_name_bytes;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b"-_=@,.;".contains(&b);
    if text.len() <= most
        && text.bytes().all(legal)
        && let Ok(channel) = ChannelName::new(text)
    {
        return Ok(channel.within(&app.space));
    }
    let shown: String = text.chars().take(most).collect();
    Err(bad(format!(
        "Invalid channel name: '{shown}'; a name has 1 to {most} letters, digits and characters of _-=@,.;"
    )))
}

fn accept(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(answer.json.into()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some((answered, of)) = answer.nodes.filter(|(answered, of)| answered < of)
        && let Ok(value) = HeaderValue::try_from(format!("{answered}/{of}"))
    {
        headers.insert(NODES, value);
    }
    response
}

/// Refuses in plain text: clients print it as it is.
fn refuse(refusal: &Refusal, allow: Option<&'static str>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(format!("{}\n", refusal.message).into()));
    let status = StatusCode::from_u16(refusal.code.http_status());
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    problem::say_when(headers, refusal);
    if let Some(method) = allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(method));
    }
    response
}

#[cfg(test)]
mod tests;
