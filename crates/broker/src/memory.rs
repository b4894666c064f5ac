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
    RetentionClass, Since, UnixMillis, Unrecovered,
};
use carillon_tasks::clock;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    AttachError, Attached, Broker, Deliver, Health, Past, PublishError, Published, RecoverError, Recovery,
    SHARDS, Shard,
};

/// For how long an idempotency key is remembered, as on JetStream.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(1);

/// Keeps history in this process's memory, and loses it with the process.
///
/// Offsets are counted per shard, so they are sparse along a channel, as they are on NATS.
pub struct MemoryBroker {
    classes: HashMap<ClassName, Vec<Mutex<ShardLog>>>,
    deliver: Arc<dyn Deliver>,
    health: watch::Sender<Health>,
}

impl MemoryBroker {
    /// Makes an empty broker. `life` must differ from that of every earlier process. Each shard makes an epoch of its
    /// own of it: a place of one channel means nothing in the shard of another.
    #[must_use]
    pub fn new(life: Epoch, classes: &[RetentionClass], deliver: Arc<dyn Deliver>) -> Self {
        let shard = |class: &RetentionClass, index: u16| {
            let epoch = Epoch::from_bits(xxh3_64(format!("{life}/{}/{index}", class.name).as_bytes()));
            Mutex::new(ShardLog::new(epoch, class.clone()))
        };
        let shards = |class: &RetentionClass| (0..SHARDS).map(|index| shard(class, index)).collect();
        Self {
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
                return Published { position: shard.at(first), duplicate: true };
            }
            let position = shard.at(shard.head.next());
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
        limits: ReplayLimits,
    ) -> Result<Attached, AttachError> {
        let millis = u64::try_from(clock::since_1970().as_millis()).unwrap_or(u64::MAX);
        let attached = self.with_shard(class, channel, |shard| {
            shard.expire(UnixMillis::new(millis));
            let position = shard.at(shard.head);
            let past = shard.past(channel, since, position, limits);
            Attached { position, past: past.map_or_else(Past::Gone, Past::Complete) }
        });
        attached.ok_or(AttachError::Unavailable)
    }

    /// Everything that is kept is in memory: there is nothing to add to what `attach` said.
    fn recover<'a>(
        &'a self,
        class: &'a ClassName,
        channel: &'a ChannelName,
        since: Since,
        limits: ReplayLimits,
    ) -> BoxFuture<'a, Result<Recovery, RecoverError>> {
        let recovery = match self.attach(class, channel, since, limits) {
            Ok(Attached { position: upto, past: Past::Complete(publications) }) => {
                Ok(Recovery { publications, upto })
            }
            Ok(Attached { past: Past::Gone(reason), .. }) => Err(RecoverError::Gone(reason)),
            Ok(Attached { past: Past::Older | Past::Ahead, .. }) | Err(AttachError::Unavailable) => {
                Err(RecoverError::Unavailable)
            }
        };
        ready(recovery).boxed()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

/// One shard of one class: a counter, and what is kept of its channels.
struct ShardLog {
    epoch: Epoch,
    class: RetentionClass,
    head: Offset,
    channels: HashMap<ChannelName, Kept>,
    /// The latest of what was dropped of channels of which nothing is kept.
    forgotten: Dropped,
    /// Every publication that is kept, oldest first, and some that were trimmed by count: what expires next.
    order: VecDeque<(UnixMillis, Offset, ChannelName)>,
    /// How many publications are kept, and what they cost.
    count: usize,
    bytes: u64,
    keys: HashMap<(ChannelName, IdempotencyKey), Offset>,
    key_order: VecDeque<(UnixMillis, ChannelName, IdempotencyKey)>,
}

/// What is kept of one channel.
#[derive(Debug, Default)]
struct Kept {
    list: VecDeque<Arc<Publication>>,
    dropped: Dropped,
}

/// The latest publication that was dropped: what follows it is all there.
#[derive(Clone, Copy, Debug)]
struct Dropped {
    offset: Offset,
    time: Option<UnixMillis>,
}

impl Default for Dropped {
    fn default() -> Self {
        Self { offset: Offset::ZERO, time: None }
    }
}

/// What a kept publication costs besides its data: its indexes, its empty frames and the allocations' own words.
const OVERHEAD_BYTES: u64 = 640;

/// The data is there once more for each form that somebody wanted: few channels are heard in more than three.
fn cost(publication: &Publication) -> u64 {
    let data = u64::try_from(publication.message.data.len()).unwrap_or(u64::MAX);
    data.saturating_mul(4).saturating_add(OVERHEAD_BYTES)
}

impl ShardLog {
    fn new(epoch: Epoch, class: RetentionClass) -> Self {
        Self {
            epoch,
            class,
            head: Offset::ZERO,
            channels: HashMap::new(),
            forgotten: Dropped::default(),
            order: VecDeque::new(),
            count: 0,
            bytes: 0,
            keys: HashMap::new(),
            key_order: VecDeque::new(),
        }
    }

    const fn at(&self, offset: Offset) -> Position {
        Position { epoch: self.epoch, offset }
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
        let dropped = self.forgotten;
        let kept =
            self.channels.entry(channel.clone()).or_insert_with(|| Kept { list: VecDeque::new(), dropped });
        kept.list.push_back(publication);
        if kept.list.len() > usize::try_from(self.class.max_messages).unwrap_or(usize::MAX) {
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
            let oldest = channels.get(channel).and_then(|kept| kept.list.front()?.position);
            oldest.is_some_and(|oldest| *offset >= oldest.offset)
        });
    }

    fn drop_oldest(&mut self, channel: &ChannelName) {
        let Some(kept) = self.channels.get_mut(channel) else { return };
        if let Some(dropped) = kept.list.pop_front() {
            self.bytes = self.bytes.saturating_sub(cost(&dropped));
            self.count = self.count.saturating_sub(1);
            let offset = dropped.position.map_or(kept.dropped.offset, |position| position.offset);
            let time = kept.dropped.time.max(Some(dropped.message.time));
            kept.dropped = Dropped { offset, time };
        }
        if kept.list.is_empty() {
            self.forgotten.offset = self.forgotten.offset.max(kept.dropped.offset);
            self.forgotten.time = self.forgotten.time.max(kept.dropped.time);
            self.channels.remove(channel);
        }
    }

    /// Drops the oldest publication of the shard, if it is still kept.
    fn drop_front(&mut self) {
        let Some((_, offset, channel)) = self.order.pop_front() else { return };
        let oldest = self.channels.get(&channel).and_then(|kept| kept.list.front());
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

    /// Returns all of a channel that follows `since`, or why it cannot be had.
    fn past(
        &self,
        channel: &ChannelName,
        since: Since,
        head: Position,
        limits: ReplayLimits,
    ) -> Result<Vec<Arc<Publication>>, Unrecovered> {
        let nothing = Kept { list: VecDeque::new(), dropped: self.forgotten };
        let Kept { list, dropped } = self.channels.get(channel).unwrap_or(&nothing);
        let from = match since {
            Since::Now => list.len(),
            Since::After(after) if after.epoch != head.epoch || after.offset > head.offset => {
                return Err(Unrecovered::Epoch);
            }
            Since::After(after) if after.offset < dropped.offset => return Err(Unrecovered::Expired),
            Since::After(after) => {
                list.partition_point(|kept| kept.position.is_some_and(|at| at.offset <= after.offset))
            }
            Since::Oldest => 0,
            Since::Last(count) => list.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX)),
            Since::Time(time) if dropped.time.is_some_and(|last| last >= time) => {
                return Err(Unrecovered::Expired);
            }
            // Times need not rise as offsets do.
            Since::Time(time) => list.iter().position(|kept| kept.message.time >= time).unwrap_or(list.len()),
        };
        let past: Vec<_> = list.range(from..).cloned().collect();
        let bytes: usize = past.iter().map(|publication| publication.message.data.len()).sum();
        if past.len() > limits.messages || bytes > limits.bytes {
            return Err(Unrecovered::Limit);
        }
        Ok(past)
    }
}

/// Entries of trimmed publications that are not worth a look.
const ORDER_SLACK: usize = 1024;

/// Most idempotency keys that a shard remembers; past it the oldest is forgotten before its window ends.
/// Reached at more than 2,000 keyed publications a second to one shard.
const KEYS_MAX: usize = 1 << 17;

#[cfg(test)]
mod tests;
