//! The HTTP door.
//!
//! **Lives here:** what each route reads and answers.
//! **Called by:** `serve`, once for each request.
//! **Must not know:** connections.

use std::{borrow::Cow, convert::Infallible, sync::Arc, time::Instant};

use bytes::Bytes;
use carillon_auth::Scope;
use carillon_model::{ErrorCode, Refusal};
use carillon_tasks::{Phase, Stop, clock};
use http_body_util::{Either, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Version,
    body::{Body as _, Incoming},
    header::{self, HeaderValue},
    http::request::Parts,
};
use percent_encoding::percent_decode_str;
use tonic::service::Routes;
use tower::Service as _;

use crate::{
    OPENAPI,
    answer::{self, Outcome},
    body,
    cors::Page,
    data::Data,
    form,
    intake::Intake,
    json,
    media::{Media, unsupported},
    problem,
    pusher::PusherRest,
    questions,
    request::{Members, Publish, Reach, bad},
    route::{NoRoute, Route},
};

/// What a response carries: bytes that are ready, or gRPC's stream.
pub(crate) type Body = Either<Full<Bytes>, tonic::body::Body>;

const EVENT: &str = "carillon-event";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Answers requests.
pub(crate) struct Http {
    pub(crate) intake: Arc<Intake>,
    pub(crate) pusher: PusherRest,
    pub(crate) grpc: Routes,
    pub(crate) stop: Stop,
}

impl Http {
    /// Answers one request.
    ///
    /// # Cancel safety
    /// Dropped when the client leaves: the outcome of its publish is then unknown to it.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        if is_grpc(request.headers()) {
            return Ok(self.grpc.clone().call(request).await?.map(Either::Right));
        }
        let one_by_one = request.version() < Version::HTTP_2;
        // RFC 9112 §6.1: a connection on which a length and chunks may both have been claimed is not used again.
        let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let page = Page::of(&request, &self.intake.config.page_origins);
        let mut response = match page {
            Page::Asks(_) => Response::default(),
            Page::Stranger => {
                let message = "in development mode only the page of this gateway may publish from a browser";
                refuse(&Refusal::new(ErrorCode::Forbidden, message), None)
            }
            Page::Unasked | Page::None | Page::Ours(_) if PusherRest::takes(request.uri().path()) => {
                self.pusher.serve(request).await
            }
            Page::Unasked | Page::None | Page::Ours(_) => self.route(request).await,
        };
        page.permit(response.headers_mut());
        if one_by_one && (chunked || self.stop.phase() >= Phase::Draining) {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response.map(Either::Left))
    }

    async fn route(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let started = clock::now();
        let (parts, mut body) = request.into_parts();
        let answered = match Route::find(&parts.method, parts.uri.path()) {
            Ok(Route::Contract) => return answer(StatusCode::OK, "application/yaml", OPENAPI.into()),
            Ok(Route::Ask(subject)) => {
                questions::answer(&self.intake, subject, &parts).await.map_err(|refusal| (refusal, None))
            }
            Ok(route) => match self.publish(route, &parts, &mut body, started).await {
                Ok(outcomes) => Ok(answer::json(&outcomes)),
                Err(refusal) => Err((refusal, None)),
            },
            Err(NoRoute::Path(refusal)) => Err((refusal, None)),
            Err(NoRoute::Method(refusal, allow)) => Err((refusal, Some(allow))),
        };
        let (refusal, allow) = match answered {
            Ok(json) => return answer(StatusCode::OK, "application/json", json.into()),
            Err(refused) => refused,
        };
        // A client that waits for "100 Continue" has not sent its body and need not.
        if !body.is_end_stream() && !parts.headers.contains_key(header::EXPECT) {
            let used = clock::now().saturating_duration_since(started);
            body::discard(&mut body, self.intake.config.body_timeout.saturating_sub(used)).await;
        }
        refuse(&refusal, allow)
    }

    /// Does what the three publishing routes have in common.
    async fn publish(
        &self,
        route: Route<'_>,
        parts: &Parts,
        body: &mut Incoming,
        started: Instant,
    ) -> Result<Vec<Outcome>, Refusal> {
        let result = self.read_and_publish(route, parts, body, started).await;
        let meters = &self.intake.meters.http;
        meters.request(&result, started);
        if let Ok(outcomes) = &result {
            meters.messages(outcomes);
        }
        result
    }

    async fn read_and_publish(
        &self,
        route: Route<'_>,
        parts: &Parts,
        body: &mut Incoming,
        started: Instant,
    ) -> Result<Vec<Outcome>, Refusal> {
        let intake = &self.intake;
        let config = &intake.config;
        let authorization = parts.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let key = intake.key(authorization, Scope::Publish)?;
        Intake::admit(key, started)?;
        let media = Media::of(&parts.headers)?;
        let limit = match route {
            Route::Batch => config.batch_body_max_bytes,
            Route::Publish | Route::PublishTo(_) | Route::Ask(_) | Route::Contract => {
                config.publish_body_max_bytes
            }
        };
        let (bytes, _share) = body::read(body, limit, config.body_timeout, &intake.bodies).await?;
        if bytes.is_empty() {
            return Err(bad(
                "the body is empty (in PHP, json_encode gives false for text that is not UTF-8)",
            ));
        }
        // Counted from here: a body that is slow to arrive does not use up the broker's time.
        let deadline = clock::now() + config.deadline;
        match route {
            Route::Batch => {
                let items = batch_items(media, &bytes)?;
                intake.batch(key, items, deadline).await
            }
            Route::PublishTo(channel) => {
                let publish = raw_publish(channel, parts, media, &bytes)?;
                intake.publish(key, publish, deadline).await
            }
            Route::Publish | Route::Ask(_) | Route::Contract => {
                let mut members = publish_members(media, utf8(&bytes)?)?;
                members.id = one_of("id", members.id, text_header(&parts.headers, IDEMPOTENCY_KEY)?)?;
                let publish = Publish::new(members, Reach::Many)?;
                intake.publish(key, publish, deadline).await
            }
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn publish_members(media: Media, text: &str) -> Result<Members<'_>, Refusal> {
    match media {
        Media::Json | Media::Unsaid => json::members(text),
        // What `curl -d '{"channel":…}'` sends: no form begins with a brace.
        Media::Form if text.trim_ascii_start().starts_with('{') => json::members(text),
        Media::Form => form::members(text),
        Media::Text | Media::Binary => Err(unsupported(
            "send Content-Type: application/json or application/x-www-form-urlencoded; for a raw body, \
             POST /v1/publish/{channel}",
        )),
    }
}

fn batch_items(media: Media, bytes: &[u8]) -> Result<Vec<Result<Publish, Refusal>>, Refusal> {
    match media {
        Media::Json | Media::Unsaid | Media::Form => {
            let items = json::items(utf8(bytes)?)?;
            let read = |text: &str| Publish::new(json::members(text)?, Reach::One);
            Ok(items.into_iter().map(|item| read(item.get())).collect())
        }
        Media::Text | Media::Binary => Err(unsupported("send Content-Type: application/json")),
    }
}

fn raw_publish(channel: &str, parts: &Parts, media: Media, bytes: &[u8]) -> Result<Publish, Refusal> {
    let channel = percent_decode_str(channel)
        .decode_utf8()
        .map_err(|_e| bad("the channel's name in the path is not UTF-8"))?;
    let (mut event, mut id) = (None, None);
    for pair in form::pairs(parts.uri.query().unwrap_or_default()) {
        let (name, value) = pair?;
        match name.as_ref() {
            "event" => event = one_of("event", event, Some(value))?,
            "id" => id = one_of("id", id, Some(value))?,
            _ => return Err(bad("known query parameters are `event` and `id`")),
        }
    }
    let members = Members {
        channel: Some(channel),
        event: one_of("event", event, text_header(&parts.headers, EVENT)?)?,
        id: one_of("id", id, text_header(&parts.headers, IDEMPOTENCY_KEY)?)?,
        data: Some(raw_data(media, bytes)?),
        ..Members::default()
    };
    Publish::new(members, Reach::One)
}

fn raw_data(media: Media, bytes: &[u8]) -> Result<Data, Refusal> {
    match media {
        Media::Json => Data::from_json(utf8(bytes)?),
        Media::Text => Ok(Data::from_text(utf8(bytes)?)),
        Media::Binary => Ok(Data::from_binary(bytes)),
        // Nobody chose the type: PHP streams and curl call everything a form.
        Media::Form | Media::Unsaid => match str::from_utf8(bytes) {
            Ok(text) => Data::from_json_or_text(text),
            Err(_binary) => Ok(Data::from_binary(bytes)),
        },
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Refusal> {
    str::from_utf8(bytes)
        .map_err(|_e| bad("the body is not UTF-8; in PHP, convert with mb_convert_encoding first"))
}

fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(Cow::Borrowed(text))),
        Err(_not_utf8) => Err(bad(format!("the header `{name}` is not UTF-8"))),
    }
}

/// Joins two places where one thing may be said.
fn one_of<'a>(
    what: &str,
    first: Option<Cow<'a, str>>,
    second: Option<Cow<'a, str>>,
) -> Result<Option<Cow<'a, str>>, Refusal> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => {
            Err(bad(format!("two values for `{what}` contradict each other; send one")))
        }
        (first, second) => Ok(first.or(second)),
    }
}

fn answer(status: StatusCode, media: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn refuse(refusal: &Refusal, allow: Option<&'static str>) -> Response<Full<Bytes>> {
    let mut text = String::with_capacity(256);
    problem::write(&mut text, refusal);
    let status =
        StatusCode::from_u16(refusal.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = answer(status, "application/problem+json", text.into());
    let headers = response.headers_mut();
    problem::say_when(headers, refusal);
    if refusal.code == ErrorCode::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(method) = allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(method));
    }
    response
}
