//! Reading a page of a channel's history.
//!
//! **Lives here:** the read, and the proof that it is complete up to the head that it names.
//! **Called by:** `lib`, as the broker's `history`.
//! **Must not know:** who asks.

use std::{sync::Arc, time::Duration};

use carillon_broker::{HistoryError, HistoryPage, Page, Shard};
use carillon_model::{ChannelName, Offset, Position, Publication, RetentionClass};
use serde_json::json;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    api::{self, ApiError, Batch, Get, PATIENCE},
    envelope,
    link::{Link, jittered},
    meters::{Meters, Op},
    subject::Names,
};

/// Reads that may be asked of NATS at a time: each costs a stream's writer time that grows with what lies
/// between two messages of the channel.
const READS: usize = 16;
/// How long a replica gets to catch up before it is asked again.
const LAG_PAUSE: Duration = Duration::from_millis(40);

/// Reads history over the link.
pub(crate) struct Historian {
    link: Link,
    names: Names,
    replicas: u8,
    turns: Semaphore,
    meters: Arc<Meters>,
}

impl Historian {
    pub(crate) fn new(link: Link, names: Names, replicas: u8, meters: Arc<Meters>) -> Self {
        Self { link, names, replicas, turns: Semaphore::new(READS), meters }
    }

    /// Reads one page. `head` is where the shard stood when the question came.
    pub(crate) async fn page(
        &self,
        class: &RetentionClass,
        channel: &ChannelName,
        page: Page,
        head: Position,
    ) -> Result<HistoryPage, HistoryError> {
        let after = match page.after {
            Some(after) if after.epoch != head.epoch => return Err(HistoryError::EpochChanged { head }),
            Some(after) => after.offset,
            None => Offset::ZERO,
        };
        if !self.link.is_up() {
            return Err(HistoryError::Unavailable);
        }
        let read = async {
            let Ok(_turn) = self.turns.acquire().await else { return Err(ApiError::Silent) };
            self.read(class, channel, after, page.limit).await
        };
        match timeout(PATIENCE, read).await.unwrap_or(Err(ApiError::Silent)) {
            Ok(batch) => Ok(self.to_page(channel, batch, page.limit, head)),
            Err(error) => {
                self.meters.failed(Op::History);
                tracing::debug!(%error, "history could not be read");
                Err(HistoryError::Unavailable)
            }
        }
    }

    async fn read(
        &self,
        class: &RetentionClass,
        channel: &ChannelName,
        after: Offset,
        limit: u16,
    ) -> Result<Batch, ApiError> {
        let shard = Shard::of(channel);
        let stream = self.names.stream(&class.name, shard);
        let subject = self.names.stored(&class.name, shard, &crate::subject::encode(channel));
        // One more than asked for says whether more follow.
        let get = Get::new(after.next().get(), u64::from(limit) + 1, Some(&subject));
        loop {
            let batch = api::direct_get(&self.link.ask, &stream, &get).await?;
            if self.replicas == 1 || batch.more || batch.messages.len() > usize::from(limit) {
                return Ok(batch);
            }
            // A replica may lag; the leader knows which is the last.
            let which = json!({ "last_by_subj": subject });
            let last = api::leader_sequence(&self.link.ask, &stream, &which).await?;
            let read = batch.messages.last().map_or(after.get(), |kept| kept.sequence);
            if last.is_none_or(|last| last <= read) {
                return Ok(batch);
            }
            sleep(jittered(LAG_PAUSE)).await;
        }
    }

    /// Makes the page of what was read. Messages that cannot be read are left out.
    fn to_page(&self, channel: &ChannelName, batch: Batch, limit: u16, head: Position) -> HistoryPage {
        let limit = usize::from(limit);
        let more = batch.more || batch.messages.len() > limit;
        let mut publications = Vec::with_capacity(batch.messages.len().min(limit));
        let mut read = head.offset;
        for kept in batch.messages.into_iter().take(limit) {
            let offset = Offset::new(kept.sequence);
            // The read is newer than the head that the feed has brought: a page is complete up to its end.
            read = read.max(offset);
            match envelope::decode(channel.clone(), &kept.payload) {
                Ok(message) => {
                    let position = Some(Position { offset, ..head });
                    publications.push(Arc::new(Publication::new(message, position)));
                }
                Err(garbage) => {
                    self.meters.poison.increment(1);
                    tracing::debug!(%garbage, "a kept message cannot be read");
                }
            }
        }
        HistoryPage { publications, head: Position { offset: read, ..head }, more }
    }
}
