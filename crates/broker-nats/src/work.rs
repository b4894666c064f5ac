//! The work queue on JetStream: one stream from which work goes when it is done, one consumer for each lane.
//!
//! A consumer hands out one message and none after it until that one is acknowledged or its taker was silent for the
//! lease: so a lane has one taker, and its order stays whoever dies. A taker that wants several reads those that follow
//! the first without taking them, and removes them all at once. (Were several handed out, those that came to a node
//! that died would be given again after later ones.)
//!
//! **Lives here:** the stream, the consumers, taking and removing.
//! **Called by:** `lib`, as the broker's work queue.
//! **Must not know:** what the work is.

use std::time::{Duration, Instant};

use async_nats::{Client, Message, StatusCode};
use bytes::Bytes;
use carillon_broker::{LEASE, Lane, PublishError, Receipt, TAKE_MAX, Work, WorkError, WorkQueue};
use carillon_model::IdempotencyKey;
use futures_util::{
    StreamExt as _,
    future::{BoxFuture, FutureExt as _},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{
    NatsBroker,
    api::{self, ApiError, Get, PATIENCE},
    layout::{Layout, LayoutError, nanos},
    link::Link,
    publish::Parcel,
};

/// A consumer that nobody asks any more, as its endpoint is gone, is removed after this time.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// Tokens of an acknowledgement's subject, at least, where the server says its domain.
const ACK_LONG: usize = 11;

/// A message in a taker's hands.
struct Head {
    sequence: u64,
    ack: String,
    body: Bytes,
}

impl WorkQueue for NatsBroker {
    fn put(
        &self,
        lane: Lane,
        key: IdempotencyKey,
        body: Bytes,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        async move {
            let ready = self.ready.get().ok_or(PublishError::Unavailable)?;
            let parcel = Parcel {
                subject: self.names.work(lane),
                place: lane.to_string(),
                key: Some(key),
                payload: body,
            };
            ready.publisher.publish(parcel, deadline).await.map(drop)
        }
        .boxed()
    }

    fn take(
        &self,
        lane: Lane,
        at_most: usize,
        gather: Duration,
    ) -> BoxFuture<'_, Result<Option<Work>, WorkError>> {
        self.take_work(lane, at_most, gather).map(|taken| taken.map_err(unavailable)).boxed()
    }

    fn keep<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<(), WorkError>> {
        async move {
            let link = self.work_link()?;
            api::request(&link.ask, work.receipt.token.clone(), Bytes::from_static(b"+WPI")).await?;
            Ok(())
        }
        .map(|kept| kept.map_err(unavailable))
        .boxed()
    }

    fn done<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<(), WorkError>> {
        self.remove_work(work).map(|done| done.map_err(unavailable)).boxed()
    }
}

impl NatsBroker {
    /// Returns the link while it is up: nothing is asked of one that is not.
    fn work_link(&self) -> Result<Link, LayoutError> {
        let link = self.link.borrow().clone().filter(Link::is_up);
        link.ok_or_else(|| ApiError::Silent.into())
    }

    async fn take_work(
        &self,
        lane: Lane,
        at_most: usize,
        gather: Duration,
    ) -> Result<Option<Work>, LayoutError> {
        let link = self.work_link()?;
        let stream = self.names.work_stream();
        let head = match next(&link, &stream, lane).await {
            // The consumer, or the whole stream, is not there.
            Err(ApiError::NoResponders) => {
                self.ensure_lane(&link, lane).await?;
                next(&link, &stream, lane).await?
            }
            head => head?,
        };
        let Some(Head { sequence, ack, body }) = head else { return Ok(None) };
        let (mut bodies, mut last) = (vec![body], sequence);
        if at_most > 1 {
            let subject = self.names.work(lane);
            let count = u64::try_from(at_most - 1).unwrap_or(u64::MAX);
            let following = Get::new(sequence + 1, count, Some(&subject));
            // Without an answer the first alone is taken: it is ours already.
            let read = async || api::direct_get(&link.ask, &stream, &following).await.unwrap_or_default();
            let mut batch = read().await;
            if batch.messages.len() + 1 < at_most {
                sleep(gather).await;
                batch = read().await;
            }
            for kept in batch.messages {
                last = kept.sequence;
                bodies.push(kept.payload);
            }
        }
        Ok(Some(Work { bodies, receipt: Receipt { lane, token: ack, last } }))
    }

    async fn remove_work(&self, work: &Work) -> Result<(), LayoutError> {
        let link = self.work_link()?;
        let Receipt { lane, token, last } = &work.receipt;
        if work.bodies.len() > 1 {
            let upto = json!({ "filter": self.names.work(*lane), "seq": last + 1 });
            api::ask(&link.ask, format!("$JS.API.STREAM.PURGE.{}", self.names.work_stream()), &upto).await?;
        }
        // Answered, so that what follows can be taken, and nobody is given it again.
        api::request(&link.ask, token.clone(), Bytes::from_static(b"+ACK")).await?;
        Ok(())
    }

    /// Sees to the stream and to the lane's consumer.
    async fn ensure_lane(&self, link: &Link, lane: Lane) -> Result<(), LayoutError> {
        let stream = self.names.work_stream();
        Layout::work(&self.names, self.replicas).ensure(&link.ask).await?;
        let subject = self.names.work(lane);
        let create = format!("$JS.API.CONSUMER.CREATE.{stream}.{lane}.{subject}");
        let config = json!({
            "durable_name": lane.to_string(),
            "filter_subject": subject,
            "ack_policy": "explicit",
            "ack_wait": nanos(LEASE),
            "deliver_policy": "all",
            "max_ack_pending": 1,
            "max_deliver": -1,
            "inactive_threshold": nanos(FORGOTTEN),
        });
        let made = json!({ "stream_name": stream, "config": config });
        api::ask(&link.ask, create, &made).await?;
        Ok(())
    }
}

/// Asks for the lane's next message and waits for it. `None` when none came.
async fn next(link: &Link, stream: &str, lane: Lane) -> Result<Option<Head>, ApiError> {
    let asked = async {
        let client: &Client = &link.ask;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|_e| ApiError::Silent)?;
        let body = json!({ "batch": 1, "expires": nanos(TAKE_MAX) }).to_string();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{lane}");
        client.publish_with_reply(subject, inbox, body.into()).await.map_err(|_e| ApiError::Silent)?;
        let message = answers.next().await.ok_or(ApiError::Silent)?;
        read(message)
    };
    tokio::select! {
        // A leader that died does not say that the time is over.
        asked = timeout(TAKE_MAX + PATIENCE, asked) => asked.unwrap_or(Err(ApiError::Silent)),
        () = link.until(false) => Err(ApiError::Silent),
    }
}

fn read(message: Message) -> Result<Option<Head>, ApiError> {
    match message.status {
        None => {}
        Some(StatusCode::NO_RESPONDERS) => return Err(ApiError::NoResponders),
        Some(StatusCode::TIMEOUT | StatusCode::NOT_FOUND) => return Ok(None),
        Some(code) => {
            let description = message.description.unwrap_or_default();
            return Err(ApiError::Refused { code: u64::from(code.as_u16()), description });
        }
    }
    let unreadable = || ApiError::Unreadable("a message that cannot be acknowledged");
    let ack = message.reply.ok_or_else(unreadable)?.to_string();
    let sequence = sequence_in(&ack).ok_or_else(unreadable)?;
    // Copied, so that it does not keep a whole read buffer alive.
    Ok(Some(Head { sequence, ack, body: Bytes::copy_from_slice(&message.payload) }))
}

/// Reads the place in the stream from where a message is acknowledged: `$JS.ACK.<stream>.<consumer>.<deliveries>.<place
/// in the stream>.…`, or the same with a domain and an account before the stream.
fn sequence_in(ack: &str) -> Option<u64> {
    let tokens: Vec<_> = ack.split('.').collect();
    let before = if tokens.len() >= ACK_LONG { 2 } else { 0 };
    tokens.get(5 + before)?.parse().ok()
}

fn unavailable(error: LayoutError) -> WorkError {
    WorkError::Unavailable(error.to_string())
}
