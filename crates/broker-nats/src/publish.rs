//! Publishing: many at a time, each answered by its acknowledgement or by its deadline.
//!
//! **Lives here:** what waits for an acknowledgement, retries under the same id, what an error means.
//! **Called by:** `lib`, as the broker's `publish` and `publish_live`.
//! **Must not know:** shards' positions, feeds.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, Message, StatusCode, Subscriber, header};
use bytes::Bytes;
use carillon_broker::{PublishError, SHARDS, Shard};
use carillon_model::{IdempotencyKey, NewMessage};
use carillon_tasks::{Phase, Stop, clock};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, oneshot},
    time::{sleep, timeout, timeout_at},
};

use crate::{
    api::ErrorBody,
    envelope::{self, Stamp},
    link::{Link, jittered},
    meters::{Meters, Op},
};

/// Publications that may wait for an acknowledgement at a time; more wait for their turn.
const IN_FLIGHT: usize = 1024;
/// A leader that has just lost its office never answers.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);
/// An election takes seconds, in which everything is refused at once.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(800);
/// How long a link that went down in mid-publish may take to be back, before the caller is told.
const LINK_GRACE: Duration = Duration::from_millis(200);
/// What subject, id and headers may take of the server's limit of one message.
const HEADER_ROOM: usize = 2048;

/// JetStream's errors that mean that there is no room.
const INSUFFICIENT_RESOURCES: u64 = 10_023;
const MEMORY_EXCEEDED: u64 = 10_028;
const STORAGE_EXCEEDED: u64 = 10_047;
const MESSAGE_TOO_LARGE: u64 = 10_054;
const STORE_FAILED: u64 = 10_077;

/// What to publish, and where.
pub(crate) struct Parcel {
    pub(crate) subject: String,
    /// The channel's application and token: ids are remembered by stream, not by channel.
    pub(crate) place: String,
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) payload: Bytes,
}

/// A stored message's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) sequence: u64,
    pub(crate) duplicate: bool,
}

/// Publishes on the link.
pub(crate) struct Publisher {
    link: Link,
    meters: Arc<Meters>,
    turns: Semaphore,
    /// Who waits for which acknowledgement; at most [`IN_FLIGHT`].
    waiting: Mutex<HashMap<u64, oneshot::Sender<Message>>>,
    next: AtomicU64,
    inbox: String,
    /// How many live messages were handed to each shard. Held while one is handed over, so that they leave in the
    /// order in which they are counted, and one that was not handed over is not counted.
    live: [AsyncMutex<u64>; SHARDS as usize],
    /// Names this process among publishers, and makes the ids of messages without a key unlike those of every other process.
    nonce: NonZeroU64,
}

/// How one attempt ended.
enum Attempt {
    Stored(Ack),
    Refused(PublishError),
    /// Not stored; another attempt may succeed.
    NotYet,
    /// Nobody knows.
    Silent,
}

#[derive(Deserialize)]
struct AckBody {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ErrorBody>,
}

impl Publisher {
    /// Makes a publisher, and what its acknowledgements come from; give that to [`Self::run`].
    pub(crate) async fn new(
        link: Link,
        meters: Arc<Meters>,
    ) -> Result<(Self, Subscriber), async_nats::SubscribeError> {
        let inbox = link.ask.new_inbox();
        let acks = link.ask.subscribe(format!("{inbox}.*")).await?;
        let publisher = Self {
            link,
            meters,
            turns: Semaphore::new(IN_FLIGHT),
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            inbox,
            live: Default::default(),
            nonce: NonZeroU64::new(getrandom::u64().unwrap_or_else(|_e| nanos_since_1970()))
                .unwrap_or(NonZeroU64::MIN),
        };
        Ok((publisher, acks))
    }

    /// Hands acknowledgements to those who wait for them, until the process is cut.
    pub(crate) async fn run(self: Arc<Self>, mut acks: Subscriber, stop: Stop) {
        loop {
            let message = tokio::select! {
                message = acks.next() => message,
                () = stop.reached(Phase::Cut) => return,
            };
            let Some(message) = message else { return };
            let id = message.subject.rsplit('.').next().and_then(|id| id.parse().ok());
            let waiter = id.and_then(|id: u64| self.waiting().remove(&id));
            if let Some(waiter) = waiter
                && waiter.send(message).is_err()
            {
                tracing::debug!("an acknowledgement came too late");
            }
        }
    }

    /// Stores a message; see [`carillon_broker::Broker::publish`].
    pub(crate) async fn publish(&self, parcel: Parcel, deadline: Instant) -> Result<Ack, PublishError> {
        let start = clock::now();
        let published = self.try_publish(parcel, deadline).await;
        self.meters.publish_seconds.record(clock::now().duration_since(start));
        if let Err(error) = &published {
            self.meters.failed(Op::Publish);
            tracing::debug!(%error, "a publication was not acknowledged");
        }
        published
    }

    /// Hands a message to whoever listens.
    pub(crate) async fn publish_live(
        &self,
        shard: Shard,
        subject: String,
        message: &NewMessage,
        deadline: Instant,
    ) -> Result<(), PublishError> {
        let sent = async {
            if !self.link.is_up() {
                return Err(PublishError::Unavailable);
            }
            let Some(count) = self.live.get(usize::from(shard.index())) else {
                return Err(PublishError::Unavailable);
            };
            let mut count = count.lock().await;
            let stamp = Stamp { publisher: self.nonce.get(), count: *count + 1 };
            let payload = envelope::encode(message, Some(stamp));
            self.check_size(&payload)?;
            self.link.ask.publish(subject, payload).await.map_err(|_e| PublishError::Unavailable)?;
            *count += 1;
            Ok(())
        };
        // The library's queue may be full behind a link that is dead and does not know it.
        let sent = timeout_at(deadline.into(), sent).await.unwrap_or(Err(PublishError::Unavailable));
        if sent == Err(PublishError::Unavailable) {
            self.meters.failed(Op::PublishLive);
        }
        sent
    }

    async fn try_publish(&self, parcel: Parcel, deadline: Instant) -> Result<Ack, PublishError> {
        self.check_size(&parcel.payload)?;
        if !self.link.is_up() {
            return Err(PublishError::Unavailable);
        }
        let Ok(Ok(_turn)) = timeout_at(deadline.into(), self.turns.acquire()).await else {
            return Err(PublishError::Unavailable);
        };
        let message_id = self.message_id(&parcel);
        let mut pause = BACKOFF_FIRST;
        let mut outcome = PublishError::Unavailable;
        loop {
            match self.attempt(&parcel, &message_id, deadline).await {
                Attempt::Stored(ack) => return Ok(ack),
                Attempt::Refused(error) => return Err(error),
                Attempt::NotYet => {}
                Attempt::Silent => outcome = PublishError::Unknown,
            }
            let wait = jittered(pause);
            pause = pause.saturating_mul(2).min(BACKOFF_MAX);
            if clock::now() + wait >= deadline {
                return Err(outcome);
            }
            if !self.link.is_up() && timeout(LINK_GRACE, self.link.until(true)).await.is_err() {
                return Err(outcome);
            }
            sleep(wait).await;
        }
    }

    async fn attempt(&self, parcel: &Parcel, message_id: &str, deadline: Instant) -> Attempt {
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting::new(self, sender);
        let reply = format!("{}.{}", self.inbox, waiting.id);
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, message_id);
        let (subject, payload) = (parcel.subject.clone(), parcel.payload.clone());
        let asked = async {
            let sending = self.link.ask.publish_with_reply_and_headers(subject, reply, headers, payload);
            sending.await.ok()?;
            answer.await.ok()
        };
        let until = deadline.min(clock::now() + ACK_TIMEOUT);
        let answer = tokio::select! {
            answer = timeout_at(until.into(), asked) => answer.ok().flatten(),
            // What was sent on a link that died is not answered any more.
            () = self.link.until(false) => None,
        };
        answer.map_or(Attempt::Silent, |message| self.judge(&message))
    }

    fn judge(&self, answer: &Message) -> Attempt {
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Attempt::NotYet;
        }
        let Ok(ack) = serde_json::from_slice::<AckBody>(&answer.payload) else { return Attempt::Silent };
        let Some(error) = ack.error else {
            return Attempt::Stored(Ack { sequence: ack.seq, duplicate: ack.duplicate });
        };
        match error.err_code {
            INSUFFICIENT_RESOURCES | MEMORY_EXCEEDED | STORAGE_EXCEEDED => {
                Attempt::Refused(PublishError::StorageFull)
            }
            STORE_FAILED if error.description.contains("space") || error.description.contains("maximum") => {
                Attempt::Refused(PublishError::StorageFull)
            }
            MESSAGE_TOO_LARGE => {
                Attempt::Refused(PublishError::TooLarge { limit_bytes: self.largest_bytes() })
            }
            _ => {
                tracing::debug!(
                    code = error.err_code,
                    error = error.description,
                    "JetStream refused a message"
                );
                Attempt::NotYet
            }
        }
    }

    fn largest_bytes(&self) -> usize {
        self.link.ask.max_payload().saturating_sub(HEADER_ROOM)
    }

    fn check_size(&self, payload: &Bytes) -> Result<(), PublishError> {
        let limit_bytes = self.largest_bytes();
        if payload.len() > limit_bytes { Err(PublishError::TooLarge { limit_bytes }) } else { Ok(()) }
    }

    fn message_id(&self, parcel: &Parcel) -> String {
        match &parcel.key {
            Some(key) => format!("{}:{key}", parcel.place),
            None => {
                let count = self.next.fetch_add(1, Ordering::Relaxed);
                format!("{}:~{:x}-{count:x}", parcel.place, self.nonce)
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Message>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait, given back when it is dropped.
struct Waiting<'a> {
    publisher: &'a Publisher,
    id: u64,
}

impl<'a> Waiting<'a> {
    fn new(publisher: &'a Publisher, sender: oneshot::Sender<Message>) -> Self {
        let id = publisher.next.fetch_add(1, Ordering::Relaxed);
        publisher.waiting().insert(id, sender);
        publisher.meters.pending.increment(1.0);
        Self { publisher, id }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.publisher.waiting().remove(&self.id);
        self.publisher.meters.pending.decrement(1.0);
    }
}

fn nanos_since_1970() -> u64 {
    u64::try_from(clock::since_1970().as_nanos()).unwrap_or(0)
}
