//! Questions to JetStream: about a stream, and for the messages that it keeps.
//!
//! **Lives here:** the requests and answers as they are on the wire, each with its deadline.
//! **Called by:** `layout`, `repair`, `past`, `work`.
//! **Must not know:** what the answers are used for.

use std::time::Duration;

use async_nats::{Client, HeaderMap, HeaderName, Message, Request, StatusCode, header};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::link::jittered;

/// How long a question may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait after a barrier that was not passed.
const BARRIER_RETRY: Duration = Duration::from_millis(500);
/// Most bytes of one batch.
const BATCH_MAX_BYTES: u64 = 8 << 20;
/// The end of a batch.
const END_OF_BATCH: u16 = 204;
/// The error of a message whose condition is not met.
const WRONG_LAST_SEQUENCE: u64 = 10_071;
/// The error of a stream or message that is not there.
const NOT_FOUND: u64 = 404;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("{0}")]
    NotFound(String),
    #[error("NATS refuses: {description} (error {code})")]
    Refused { code: u64, description: String },
    #[error("no answer came within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("nobody answers")]
    NoResponders,
    #[error("the answer cannot be understood: {0}")]
    Unreadable(&'static str),
}

/// An error as JetStream writes it.
#[derive(Debug, Deserialize)]
pub(crate) struct ErrorBody {
    #[serde(default)]
    pub(crate) code: u64,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

/// What a stream is. The configuration stays as it came, to be sent back with one value changed.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) config: Value,
    pub(crate) created: String,
    /// The server's time of the answer (RFC 3339).
    #[serde(default)]
    pub(crate) ts: String,
    pub(crate) state: StreamState,
    #[serde(default)]
    pub(crate) cluster: Cluster,
}

/// Who keeps a stream; a server alone does not say.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Cluster {
    #[serde(default)]
    pub(crate) leader: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct StreamState {
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    /// When the first was stored (RFC 3339).
    pub(crate) first_ts: String,
}

/// A message that the stream keeps.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
}

/// What a batch brought.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// In the order of the stream.
    pub(crate) messages: Vec<Kept>,
    /// The stream keeps more that match.
    pub(crate) more: bool,
}

/// Which messages to get.
#[derive(Debug, Serialize)]
pub(crate) struct Get<'a> {
    /// From this one on.
    pub(crate) seq: u64,
    /// At most so many.
    pub(crate) batch: u64,
    /// Only of this subject.
    #[serde(rename = "next_by_subj", skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<&'a str>,
    max_bytes: u64,
}

impl<'a> Get<'a> {
    pub(crate) const fn new(seq: u64, batch: u64, subject: Option<&'a str>) -> Self {
        Self { seq, batch, subject, max_bytes: BATCH_MAX_BYTES }
    }
}

/// Asks for a stream's configuration and state; the leader answers.
pub(crate) async fn stream_info(client: &Client, stream: &str) -> Result<StreamInfo, ApiError> {
    let answer = request(client, format!("$JS.API.STREAM.INFO.{stream}"), Bytes::new()).await?;
    parse(answer)
}

/// Makes a stream. Making it again with the same configuration is no error.
pub(crate) async fn stream_create(
    client: &Client,
    stream: &str,
    config: &Value,
) -> Result<StreamInfo, ApiError> {
    parse(request(client, format!("$JS.API.STREAM.CREATE.{stream}"), body(config)).await?)
}

/// Changes a stream's configuration.
pub(crate) async fn stream_update(
    client: &Client,
    stream: &str,
    config: &Value,
) -> Result<StreamInfo, ApiError> {
    parse(request(client, format!("$JS.API.STREAM.UPDATE.{stream}"), body(config)).await?)
}

/// Asks the leader for the sequence of one message: the first from `seq` on, or a subject's last.
pub(crate) async fn leader_sequence(
    client: &Client,
    stream: &str,
    which: &Value,
) -> Result<Option<u64>, ApiError> {
    Ok(leader_place(client, stream, which).await?.map(|(sequence, _)| sequence))
}

/// The same, and when it was stored (RFC 3339).
pub(crate) async fn leader_place(
    client: &Client,
    stream: &str,
    which: &Value,
) -> Result<Option<(u64, String)>, ApiError> {
    let answer = request(client, format!("$JS.API.STREAM.MSG.GET.{stream}"), body(which)).await;
    match answer.and_then(check) {
        Ok(answer) => {
            let sequence = answer.pointer("/message/seq").and_then(Value::as_u64);
            let time = answer.pointer("/message/time").and_then(Value::as_str).unwrap_or_default();
            let sequence = sequence.ok_or(ApiError::Unreadable("a message without a sequence"))?;
            Ok(Some((sequence, time.to_owned())))
        }
        Err(ApiError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gets the message at one place from the leader, if it is still kept.
pub(crate) async fn leader_message(
    client: &Client,
    stream: &str,
    sequence: u64,
) -> Result<Option<Kept>, ApiError> {
    #[derive(Deserialize)]
    struct Answer {
        message: Stored,
    }
    #[derive(Deserialize)]
    struct Stored {
        subject: String,
        #[serde(default)]
        data: String,
    }
    let which = body(&json!({ "seq": sequence }));
    let answer =
        match request(client, format!("$JS.API.STREAM.MSG.GET.{stream}"), which).await.and_then(check) {
            Ok(answer) => answer,
            Err(ApiError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
    let unreadable = |what| move |_e| ApiError::Unreadable(what);
    let Answer { message } = Answer::deserialize(answer).map_err(unreadable("a message"))?;
    let payload = BASE64_STANDARD.decode(&message.data).map_err(|_e| ApiError::Unreadable("no base64"))?;
    Ok(Some(Kept { sequence, subject: message.subject, payload: payload.into() }))
}

/// Gets a batch of messages from whichever replica answers: one that lags does not have the latest.
pub(crate) async fn direct_get(client: &Client, stream: &str, get: &Get<'_>) -> Result<Batch, ApiError> {
    let body = serde_json::to_vec(get).map_err(|_e| ApiError::Unreadable("the question"))?;
    let collect = async {
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|_e| ApiError::Silent)?;
        client
            .publish_with_reply(format!("$JS.API.DIRECT.GET.{stream}"), inbox, body.into())
            .await
            .map_err(|_e| ApiError::Silent)?;
        let mut batch = Batch::default();
        while let Some(message) = answers.next().await {
            match message.status.map(|status| (status.as_u16(), status)) {
                Some((END_OF_BATCH, _)) => {
                    let pending = message.headers.as_ref().and_then(|h| number(h, "Nats-Num-Pending"));
                    batch.more = pending.is_some_and(|pending| pending > 0);
                    return Ok(batch);
                }
                Some((_, StatusCode::NOT_FOUND)) => return Ok(batch),
                Some((_, StatusCode::NO_RESPONDERS)) => return Err(ApiError::NoResponders),
                Some((code, _)) => {
                    let description = message.description.unwrap_or_default();
                    return Err(ApiError::Refused { code: u64::from(code), description });
                }
                None => batch.messages.push(kept(message, batch.messages.last())?),
            }
        }
        Err(ApiError::Silent)
    };
    timeout(PATIENCE, collect).await.map_err(|_elapsed| ApiError::Silent)?
}

/// Reads one message of a batch, and checks that it follows the one before: our own library could drop one.
fn kept(message: Message, before: Option<&Kept>) -> Result<Kept, ApiError> {
    let headers = message.headers.as_ref().ok_or(ApiError::Unreadable("a message without headers"))?;
    let sequence = sequence(headers).ok_or(ApiError::Unreadable("a message without a sequence"))?;
    if number(headers, "Nats-Last-Sequence") != Some(before.map_or(0, |kept| kept.sequence)) {
        return Err(ApiError::Unreadable("a batch with a hole"));
    }
    let subject = headers.get_last(header::NATS_SUBJECT).map(ToString::to_string);
    let subject = subject.ok_or(ApiError::Unreadable("a message without a subject"))?;
    Ok(Kept { sequence, subject, payload: message.payload })
}

/// Returns a message's place in its stream. The server appends its headers: a forged one comes first.
pub(crate) fn sequence(headers: &HeaderMap) -> Option<u64> {
    headers.get_last(header::NATS_SEQUENCE)?.as_str().parse().ok()
}

fn number(headers: &HeaderMap, name: &'static str) -> Option<u64> {
    headers.get_last(HeaderName::from_static(name))?.as_str().parse().ok()
}

/// Asks the JetStream API anything.
pub(crate) async fn ask(client: &Client, subject: String, question: &Value) -> Result<Value, ApiError> {
    request(client, subject, body(question)).await.and_then(check)
}

/// Sends one question and waits for its answer. The inbox is its own: one that is shared would remember every
/// question that was never answered.
pub(crate) async fn request(client: &Client, subject: String, payload: Bytes) -> Result<Bytes, ApiError> {
    let request = Request::new().payload(payload).inbox(client.new_inbox()).timeout(Some(PATIENCE));
    send(client, subject, request).await
}

async fn send(client: &Client, subject: String, request: Request) -> Result<Bytes, ApiError> {
    // The library waits without end for room in its queue while the link is down.
    match timeout(PATIENCE, client.send_request(subject, request)).await {
        Ok(Ok(message)) => Ok(message.payload),
        Ok(Err(error)) => Err(match error.kind() {
            async_nats::RequestErrorKind::NoResponders => ApiError::NoResponders,
            async_nats::RequestErrorKind::TimedOut
            | async_nats::RequestErrorKind::InvalidSubject
            | async_nats::RequestErrorKind::MaxPayloadExceeded
            | async_nats::RequestErrorKind::Other => ApiError::Silent,
        }),
        Err(_elapsed) => Err(ApiError::Silent),
    }
}

/// Tries whether a stream would store what is published to `subject`: it refuses, as the condition cannot be met.
pub(crate) async fn probe(client: &Client, subject: String) -> Result<(), ApiError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "9007199254740991");
    let request = Request::new().headers(headers).inbox(client.new_inbox()).timeout(Some(PATIENCE));
    match send(client, subject, request).await.and_then(check) {
        Err(ApiError::Refused { code: WRONG_LAST_SEQUENCE, .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(ApiError::Unreadable("a condition that cannot be met was met")),
    }
}

/// Waits until the server has worked off what was sent on this connection before.
///
/// # Errors
/// [`ApiError::Silent`] when it did not.
pub(crate) async fn barrier(client: &Client, subject: String) -> Result<(), ApiError> {
    match request(client, subject, Bytes::new()).await {
        Ok(_) | Err(ApiError::NoResponders) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Waits until the server has all our subscriptions, however often it takes to ask.
pub(crate) async fn pass_barrier(client: Client, subject: String) {
    while barrier(&client, subject.clone()).await.is_err() {
        sleep(jittered(BARRIER_RETRY)).await;
    }
}

fn body(value: &Value) -> Bytes {
    Bytes::from(value.to_string())
}

fn check(answer: Bytes) -> Result<Value, ApiError> {
    let answer: Value = serde_json::from_slice(&answer).map_err(|_e| ApiError::Unreadable("no JSON"))?;
    let Some(error) = answer.get("error") else { return Ok(answer) };
    let error =
        ErrorBody::deserialize(error).map_err(|_e| ApiError::Unreadable("an error without a code"))?;
    Err(match error.code {
        NOT_FOUND => ApiError::NotFound(error.description),
        _ => ApiError::Refused { code: error.err_code, description: error.description },
    })
}

fn parse(answer: Bytes) -> Result<StreamInfo, ApiError> {
    StreamInfo::deserialize(check(answer)?).map_err(|_e| ApiError::Unreadable("the stream's state"))
}
