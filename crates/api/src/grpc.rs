//! The gRPC door.
//!
//! **Lives here:** the publish service, health and reflection.
//! **Called by:** `serve` makes the routes, `http` hands requests to them.
//! **Must not know:** connections.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_auth::{Key, Scope};
use carillon_model::{ErrorCode, Refusal};
use carillon_tasks::{Phase, Stop, clock};
use futures_util::{StreamExt as _, future::ready, stream, stream::BoxStream};
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap, service::Routes};
use tonic_health::server::{HealthReporter, health_reporter};

use crate::{
    answer::{Outcome, Target},
    config::{LIST_MAX, STREAM_IN_FLIGHT},
    data::Data,
    intake::{Intake, unix_now},
    problem,
    proto::{
        self, PublishBatchRequest, PublishRequest, PublishResponse, PublishResult,
        publish_service_server::{PublishService, PublishServiceServer},
    },
    request::{Members, Publish, Reach, bad},
};

/// Makes the gRPC routes, and what tells health checks that the node is stopping.
pub(crate) async fn routes(intake: &Arc<Intake>, stop: &Stop) -> (Routes, HealthReporter) {
    let (reporter, health) = health_reporter();
    reporter.set_serving::<PublishServiceServer<Door>>().await;
    let door = Door { intake: Arc::clone(intake), stop: stop.clone() };
    let publish =
        PublishServiceServer::new(door).max_decoding_message_size(intake.config.batch_body_max_bytes);
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (newest, older) = (reflection().build_v1(), reflection().build_v1alpha());
    let routes = Routes::new(publish)
        .add_service(health)
        .add_service(newest.expect("the descriptors were compiled with this program"))
        .add_service(older.expect("the descriptors were compiled with this program"));
    (routes.prepare(), reporter)
}

/// Tells health checks that no new work is wanted here.
pub(crate) async fn not_serving(reporter: &HealthReporter) {
    reporter.set_not_serving::<PublishServiceServer<Door>>().await;
    reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
}

/// The publish service.
#[derive(Clone)]
pub(crate) struct Door {
    intake: Arc<Intake>,
    stop: Stop,
}

#[tonic::async_trait]
impl PublishService for Door {
    type PublishStreamStream = BoxStream<'static, Result<PublishResult, Status>>;

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let started = clock::now();
        let publishing = async {
            let key = self.admit(request.metadata(), started)?;
            let deadline = self.deadline(request.metadata(), started);
            let publish = Publish::new(members(request.get_ref())?, Reach::Many)?;
            self.intake.publish(key, publish, deadline).await
        };
        let result = publishing.await;
        self.answer(result, started)
    }

    async fn publish_batch(
        &self,
        request: Request<PublishBatchRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        let started = clock::now();
        let publishing = async {
            let key = self.admit(request.metadata(), started)?;
            let deadline = self.deadline(request.metadata(), started);
            let items = &request.get_ref().items;
            if items.len() > LIST_MAX {
                return Err(Refusal::new(
                    ErrorCode::LimitExceeded,
                    format!(
                        "a batch has at most {LIST_MAX} items; nothing was published, send several batches"
                    ),
                ));
            }
            let read = |item: &PublishRequest| Publish::new(members(item)?, Reach::One);
            self.intake.batch(key, items.iter().map(read).collect(), deadline).await
        };
        let result = publishing.await;
        self.answer(result, started)
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let key = self.key(request.metadata());
        let key = key.map_err(|refusal| {
            self.intake.meters.grpc.request::<()>(&Err(refusal.clone()), clock::now());
            problem::status(&refusal)
        })?;
        let (key, door, stop) = (Arc::clone(key), self.clone(), self.stop.clone());
        let end = grpc_timeout(request.metadata()).and_then(|wait| clock::now().checked_add(wait));
        let drained = async move { stop.reached(Phase::Draining).await };
        let results = request
            .into_inner()
            .take_until(drained)
            .map(move |item| {
                let (door, key) = (door.clone(), Arc::clone(&key));
                async move { Ok(door.streamed(&key, &item?, end).await) }
            })
            .buffered(STREAM_IN_FLIGHT);
        let stop = self.stop.clone();
        let last_word = stream::once(ready(())).filter_map(move |()| {
            let stopping = stop.phase() >= Phase::Draining;
            ready(stopping.then(|| {
                Err(problem::status(&Refusal::new(
                    ErrorCode::Unavailable,
                    "this node is stopping; open the stream again and send what has no result yet",
                )))
            }))
        });
        Ok(Response::new(results.chain(last_word).boxed()))
    }
}

impl Door {
    fn key(&self, metadata: &MetadataMap) -> Result<&Arc<Key>, Refusal> {
        let authorization = metadata.get("authorization").map(|value| value.as_encoded_bytes());
        self.intake.key(authorization, Scope::Publish)
    }

    fn admit(&self, metadata: &MetadataMap, now: Instant) -> Result<&Arc<Key>, Refusal> {
        let key = self.key(metadata)?;
        Intake::admit(key, now)?;
        Ok(key)
    }

    /// Returns the earlier of the caller's deadline and ours.
    fn deadline(&self, metadata: &MetadataMap, now: Instant) -> Instant {
        let ours = self.intake.config.deadline;
        now + grpc_timeout(metadata).map_or(ours, |theirs| theirs.min(ours))
    }

    fn answer(
        &self,
        result: Result<Vec<Outcome>, Refusal>,
        started: Instant,
    ) -> Result<Response<PublishResponse>, Status> {
        self.intake.meters.grpc.request(&result, started);
        match result {
            Ok(outcomes) => {
                self.intake.meters.grpc.messages(&outcomes);
                let results = outcomes.into_iter().map(PublishResult::from).collect();
                Ok(Response::new(PublishResponse { results }))
            }
            Err(refusal) => Err(problem::status(&refusal)),
        }
    }

    /// Publishes one request of a stream.
    async fn streamed(&self, key: &Key, item: &PublishRequest, end: Option<Instant>) -> PublishResult {
        let now = clock::now();
        let ours = now + self.intake.config.deadline;
        let deadline = end.map_or(ours, |end| end.min(ours));
        let read = || {
            Intake::admit(key, now)?;
            Publish::new(members(item)?, Reach::One)
        };
        let outcome = self.intake.item(key, read(), unix_now(), deadline).await;
        let meters = &self.intake.meters.grpc;
        meters.request(&outcome.result, now);
        meters.messages(std::slice::from_ref(&outcome));
        outcome.into()
    }
}

/// Reads `grpc-timeout`: up to 8 digits and a unit.
fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = if digits.len() <= 8 { digits.parse().ok()? } else { return None };
    match unit {
        "H" => Some(Duration::from_secs(value.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(value.saturating_mul(60))),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

fn members(request: &PublishRequest) -> Result<Members<'_>, Refusal> {
    let said = |text: &'_ str| !text.is_empty();
    let text = |value| Some(value).filter(|text: &&String| said(text)).map(|text| text.as_str().into());
    let list = |values| {
        Some(values)
            .filter(|list: &&Vec<String>| !list.is_empty())
            .map(|list| list.iter().map(|text| text.as_str().into()).collect())
    };
    let data = match &request.data {
        Some(proto::publish_request::Data::Json(json)) => Data::from_json(json)?,
        Some(proto::publish_request::Data::Text(text)) => Data::from_text(text),
        Some(proto::publish_request::Data::Binary(bytes)) => Data::from_binary(bytes),
        None => return Err(bad("`data` is missing; set one of `json`, `text` and `binary`")),
    };
    Ok(Members {
        channel: text(&request.channel),
        channels: list(&request.channels),
        user: text(&request.user),
        event: text(&request.event),
        data: Some(data),
        id: text(&request.id),
        exclude: list(&request.exclude),
    })
}

impl From<Outcome> for PublishResult {
    fn from(outcome: Outcome) -> Self {
        let (channel, user) = match outcome.target() {
            Target::Channel(name) => (name.to_owned(), String::new()),
            Target::User(name) => (String::new(), name.to_owned()),
            Target::Unread => (String::new(), String::new()),
        };
        let mut told = Self { channel, user, ..Self::default() };
        match outcome.result {
            Ok(receipt) => {
                told.stored = receipt.position.is_some();
                told.id = receipt.position.map(|position| position.to_string()).unwrap_or_default();
                told.duplicate = receipt.duplicate;
            }
            Err(refusal) => told.error = Some(error(&refusal)),
        }
        told
    }
}

fn error(refusal: &Refusal) -> proto::PublishError {
    let wait = problem::retry_after(refusal).unwrap_or_default();
    proto::PublishError {
        code: refusal.code.number().into(),
        error: refusal.code.name().to_owned(),
        detail: refusal.message.to_string(),
        retryable: refusal.code.is_retryable(),
        retry_after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
    }
}
