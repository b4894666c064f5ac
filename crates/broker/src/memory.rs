//! The embedded broker: one process, nothing to install.
//!
//! **Lives here:** shards with one counter each, per-channel history with its limits, the idempotency window.
//! **Called by:** `gateway` when no NATS is configured.
//! **Must not know:** networks.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use carillon_model::{
    ChannelName, ClassName, Epoch, IdempotencyKey, NewMessage, Offset, Position, Publication, ReplayLimits,
    RetentionClass, Since, UnixMillis,
};
use carillon_tasks::clock;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::sync::watch;

use crate::{
    AttachError, Attached, Broker, Deliver, Health, HistoryError, HistoryPage, Page, Past, PublishError,
    Published, RecoverError, Recovery, SHARDS, Shard,
};

/// For how long an idempotency key is remembered, as on JetStream.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(1);

/// Keeps history in this process's memory, and loses it with the process.
///
/// Offsets are counted per shard, so they are sparse along a channel, as they are on NATS.
pub struct MemoryBroker {
    epoch: Epoch,
    classes: HashMap<ClassName, Vec<Mutex<ShardLog>>>,
    deliver: Arc<dyn Deliver>,
    health: watch::Sender<Health>,
}

impl MemoryBroker {
    /// Makes an empty broker. `epoch` must differ from that of every earlier process.
    #[must_use]
    pub fn new(epoch: Epoch, classes: &[RetentionClass], deliver: Arc<dyn Deliver>) -> Self {
        let shards =
            |class: &RetentionClass| (0..SHARDS).map(|_| Mutex::new(ShardLog::new(class.clone()))).collect();
        Self {
            epoch,
            classes: classes.iter().map(|class| (class.name.clone(), shards(class))).collect(),
            deliver,
            health: watch::Sender::new(Health::Connected),
        }
    }

    /// Runs `work` on the shard of `channel`.
    fn with_shard<T>(
        &self,
        class: &ClassName,
        channel: &ChannelName,
        work: impl FnOnce(&mut ShardLog) -> T,
    ) -> Option<T> {
        let shard = self.classes.get(class)?.get(usize::from(Shard::of(channel).index()))?;
        Some(work(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    const fn at(&self, offset: Offset) -> Position {
        Position { epoch: self.epoch, offset }
    }
}

impl Broker for MemoryBroker {
    fn publish<'a>(
        &'a self,
        class: &'a ClassName,
        message: NewMessage,
        _deadline: Instant,
    ) -> BoxFuture<'a, Result<Published, PublishError>> {
        let channel = message.channel.clone();
        let published = self.with_shard(class, &channel, |shard| {
            shard.expire(message.time);
            if let Some(first) = shard.duplicate_of(&message) {
                return Published { position: self.at(first), duplicate: true };
            }
            let position = self.at(shard.head.next());
            let publication = Arc::new(Publication::new(message, Some(position)));
            shard.keep(position.offset, Arc::clone(&publication));
            // Under the shard's lock, so that deliveries leave in the order of offsets.
            self.deliver.deliver(publication);
            Published { position, duplicate: false }
        });
        ready(published.ok_or(PublishError::Unavailable)).boxed()
    }

    fn publish_live(
        &self,
        message: NewMessage,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        self.deliver.deliver(Arc::new(Publication::new(message, None)));
        ready(Ok(())).boxed()
    }

    fn attach(
        &self,
        class: &ClassName,
        channel: &ChannelName,
        since: Since,
        _limits: ReplayLimits,
    ) -> Result<Attached, AttachError> {
        let past = if since == Since::Now { Past::Complete(Vec::new()) } else { Past::Older };
        self.with_shard(class, channel, |shard| Attached { position: self.at(shard.head), past })
            .ok_or(AttachError::Unavailable)
    }

    fn recover<'a>(
        &'a self,
        _class: &'a ClassName,
        _channel: &'a ChannelName,
        _since: Since,
        _limits: ReplayLimits,
    ) -> BoxFuture<'a, Result<Recovery, RecoverError>> {
        ready(Err(RecoverError::Unavailable)).boxed()
    }

    fn history<'a>(
        &'a self,
        class: &'a ClassName,
        channel: &'a ChannelName,
        page: Page,
    ) -> BoxFuture<'a, Result<HistoryPage, HistoryError>> {
        let millis = u64::try_from(clock::since_1970().as_millis()).unwrap_or(u64::MAX);
        let read = self.with_shard(class, channel, |shard| {
            shard.expire(UnixMillis::new(millis));
            let head = self.at(shard.head);
            let after = match page.after {
                Some(position) if position.epoch != self.epoch => {
                    return Err(HistoryError::EpochChanged { head });
                }
                Some(position) => position.offset,
                None => Offset::ZERO,
            };
            let limit = usize::from(page.limit);
            let mut publications: Vec<_> = shard.after(channel, after).take(limit + 1).cloned().collect();
            let more = publications.len() > limit;
            publications.truncate(limit);
            Ok(HistoryPage { publications, head, more })
        });
        ready(read.unwrap_or(Err(HistoryError::Unavailable))).boxed()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// One shard of one class: a counter, and what is kept of its channels.
struct ShardLog {
    class: RetentionClass,
    head: Offset,
    channels: HashMap<ChannelName, VecDeque<Arc<Publication>>>,
    /// Every publication that is kept, oldest first, and some that were trimmed by count: what expires next.
    order: VecDeque<(UnixMillis, Offset, ChannelName)>,
    /// How many publications are kept, and what they cost.
    count: usize,
    bytes: u64,
    keys: HashMap<(ChannelName, IdempotencyKey), Offset>,
    key_order: VecDeque<(UnixMillis, ChannelName, IdempotencyKey)>,
}

/// What a kept publication costs besides its data: its indexes and the allocations' own words.
const OVERHEAD_BYTES: u64 = 256;

fn cost(publication: &Publication) -> u64 {
    OVERHEAD_BYTES.saturating_add(u64::try_from(publication.message.data.len()).unwrap_or(u64::MAX))
}

impl ShardLog {
    fn new(class: RetentionClass) -> Self {
        Self {
            class,
            head: Offset::ZERO,
            channels: HashMap::new(),
            order: VecDeque::new(),
            count: 0,
            bytes: 0,
            keys: HashMap::new(),
            key_order: VecDeque::new(),
        }
    }

    fn duplicate_of(&self, message: &NewMessage) -> Option<Offset> {
        let id = message.id.as_ref()?;
        self.keys.get(&(message.channel.clone(), id.clone())).copied()
    }

    fn keep(&mut self, offset: Offset, publication: Arc<Publication>) {
        let message = &publication.message;
        let channel = message.channel.clone();
        self.head = offset;
        if let Some(id) = &message.id {
            self.keys.insert((channel.clone(), id.clone()), offset);
            self.key_order.push_back((message.time, channel.clone(), id.clone()));
            if self.key_order.len() > KEYS_MAX {
                self.forget_oldest_key();
            }
        }
        self.order.push_back((message.time, offset, channel.clone()));
        self.bytes = self.bytes.saturating_add(cost(&publication));
        self.count += 1;
        let kept = self.channels.entry(channel.clone()).or_default();
        kept.push_back(publication);
        if kept.len() > usize::try_from(self.class.max_messages).unwrap_or(usize::MAX) {
            self.drop_oldest(&channel);
        }
        while self.bytes > self.class.max_bytes {
            self.drop_front();
        }
        if self.order.len() > self.count.saturating_mul(2).saturating_add(ORDER_SLACK) {
            self.forget_trimmed();
        }
    }

    /// Drops the entries of what was trimmed by count. Done when they are more than what is kept, so it costs each
    /// publication a constant.
    fn forget_trimmed(&mut self) {
        let channels = &self.channels;
        self.order.retain(|(_, offset, channel)| {
            let oldest = channels.get(channel).and_then(VecDeque::front).and_then(|kept| kept.position);
            oldest.is_some_and(|oldest| *offset >= oldest.offset)
        });
    }

    fn drop_oldest(&mut self, channel: &ChannelName) {
        let Some(kept) = self.channels.get_mut(channel) else { return };
        if let Some(dropped) = kept.pop_front() {
            self.bytes = self.bytes.saturating_sub(cost(&dropped));
            self.count = self.count.saturating_sub(1);
        }
        if kept.is_empty() {
            self.channels.remove(channel);
        }
    }

    /// Drops the oldest publication of the shard, if it is still kept.
    fn drop_front(&mut self) {
        let Some((_, offset, channel)) = self.order.pop_front() else { return };
        let oldest = self.channels.get(&channel).and_then(VecDeque::front);
        if oldest.and_then(|kept| kept.position).is_some_and(|kept| kept.offset == offset) {
            self.drop_oldest(&channel);
        }
    }

    fn expire(&mut self, now: UnixMillis) {
        while self.order.front().is_some_and(|(time, ..)| now.since(*time) > self.class.max_age) {
            self.drop_front();
        }
        while self.key_order.front().is_some_and(|(time, ..)| now.since(*time) > DUPLICATE_WINDOW) {
            self.forget_oldest_key();
        }
    }

    fn forget_oldest_key(&mut self) {
        if let Some((_, channel, key)) = self.key_order.pop_front() {
            self.keys.remove(&(channel, key));
        }
    }

    fn after(&self, channel: &ChannelName, after: Offset) -> impl Iterator<Item = &Arc<Publication>> {
        let newer = move |kept: &&Arc<Publication>| kept.position.is_some_and(|at| at.offset > after);
        self.channels.get(channel).into_iter().flatten().filter(newer)
    }
}

/// Entries of trimmed publications that are not worth a look.
const ORDER_SLACK: usize = 1024;

/// Most idempotency keys that a shard remembers; past it the oldest is forgotten before its window ends.
/// Reached at more than 2,000 keyed publications a second to one shard.
const KEYS_MAX: usize = 1 << 17;

#[cfg(test)]
mod tests;
