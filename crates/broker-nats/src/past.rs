//! Reading what a channel keeps, once for all who ask for it.
//!
//! Completeness is proven, not assumed. The oldest messages go first, so whatever follows a message that is still kept
//! is kept as well. Where the message before the wanted ones is gone, the leader says, after the read, whether anything
//! that follows can have gone with it.
//!
//! **Lives here:** the read with its proof; who shares a read; windows that are kept for those who come a moment later.
//! **Called by:** `lib`, as the broker's `recover`.
//! **Must not know:** who asks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use carillon_broker::{Past, RecoverError, Recovery, Shard};
use carillon_model::{
    ChannelName, ClassName, Offset, Position, Publication, ReplayLimits, RetentionClass, Since, UnixMillis,
    Unrecovered,
};
use carillon_tasks::{Tasks, clock};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use serde_json::json;
use tokio::{
    sync::{Semaphore, oneshot},
    time::{sleep, timeout},
};

use crate::{
    api::{self, ApiError, Get, Kept, StreamInfo},
    envelope, instant, layout,
    link::{Link, jittered},
    meters::{Meters, Op},
    seat::Seat,
    subject::{self, Names},
    window::{Window, start},
};

/// Reads that may be asked of NATS at a time: each costs a stream's writer time that grows with what lies
/// between two messages of the channel.
const READS: usize = 16;
/// How long the first who asks waits for others, whose places the same read then covers.
const GATHER: Duration = Duration::from_millis(20);
/// How long who asks waits for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Messages of one question.
const PAGE: u64 = 1000;
/// Questions of one read. A channel that keeps more is answered as far as its last messages reach.
const PAGES_MAX: usize = 20;
/// How long a replica gets to catch up before it is asked again.
const LAG_PAUSE: Duration = Duration::from_millis(40);
/// For how long a window is kept: the ring does not reach back further.
const WINDOW_AGE: Duration = Duration::from_mins(2);
/// Most bytes of windows that are kept.
const WINDOWS_MAX_BYTES: usize = 16 << 20;
/// By so much may two servers differ in when they drop what is too old, with much to spare.
const MARGIN: Duration = Duration::from_secs(10);

/// Reads the past over the link.
pub(crate) struct Historian {
    source: Arc<Source>,
    shelf: Mutex<Shelf>,
    tasks: Tasks,
}

/// What a read needs.
struct Source {
    link: Link,
    names: Names,
    replicas: u8,
    turns: Semaphore,
    meters: Arc<Meters>,
}

/// Which channel's past.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) class: RetentionClass,
    pub(crate) channel: ChannelName,
    pub(crate) seat: Arc<Seat>,
}

type Key = (ClassName, ChannelName);
type Read = Shared<BoxFuture<'static, Result<Arc<Window>, RecoverError>>>;

/// What is being read, and what was.
#[derive(Default)]
struct Shelf {
    /// Reads that somebody waits for; each ends in time.
    flights: HashMap<Key, Flight>,
    windows: HashMap<Key, (Arc<Window>, Instant)>,
    /// The windows' keys, oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

/// One read, from its first asker on.
#[derive(Clone)]
struct Flight {
    /// From where it reads; `None` once it has begun and nobody can widen it.
    from: Arc<Mutex<Option<Offset>>>,
    read: Read,
}

impl Historian {
    pub(crate) fn new(link: Link, names: Names, replicas: u8, meters: Arc<Meters>, tasks: Tasks) -> Self {
        let source = Arc::new(Source { link, names, replicas, turns: Semaphore::new(READS), meters });
        Self { source, shelf: Mutex::default(), tasks }
    }

    /// Returns what follows `since`.
    ///
    /// # Cancel safety
    /// Safe: the read goes on, for the others who wait for it.
    pub(crate) async fn recover(
        &self,
        question: Question,
        since: Since,
        limits: ReplayLimits,
    ) -> Result<Recovery, RecoverError> {
        let answer = async {
            // A read that began before this question may begin too late for it; the next one does not.
            for _ in 0..3 {
                if let Some(window) = self.kept(&question, since) {
                    self.source.meters.recovered_shared.increment(1);
                    return window.answer(since, limits);
                }
                let window = self.join(&question, since).await?;
                if window.answers(since) {
                    return window.answer(since, limits);
                }
            }
            Err(RecoverError::Unavailable)
        };
        timeout(ANSWER, answer).await.unwrap_or(Err(RecoverError::Unavailable))
    }

    /// Returns a window that answers, if one is kept and memory goes on where it ends.
    fn kept(&self, question: &Question, since: Since) -> Option<Arc<Window>> {
        let mut shelf = self.lock();
        let (window, read_at) = shelf.windows.get(&question.key())?;
        let old = clock::now().saturating_duration_since(*read_at) > WINDOW_AGE;
        let attached =
            question.seat.attach(&question.channel, Since::After(window.end()), ReplayLimits::default())?;
        let goes_on = matches!(attached.past, Past::Complete(_) | Past::Ahead);
        // A place after its end is of another node, or made up: the leader must be asked.
        let reaches = start(since) <= window.upto;
        if old || !goes_on {
            shelf.remove(&question.key());
            return None;
        }
        (reaches && window.answers(since)).then(|| Arc::clone(window))
    }

    /// Joins the read that others wait for, or begins one.
    fn join(
        &self,
        question: &Question,
        since: Since,
    ) -> impl Future<Output = Result<Arc<Window>, RecoverError>> {
        let mut shelf = self.lock();
        let wanted = start(since);
        let flight =
            shelf.flights.get(&question.key()).filter(|flight| flight.read.peek().is_none()).cloned();
        if let Some(Flight { from, read }) = &flight {
            let mut from = from.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(from) = &mut *from {
                *from = wanted.min(*from);
            }
            drop(from);
            return self.land(question.key(), read.clone());
        }
        let from = Arc::new(Mutex::new(Some(wanted)));
        let (source, asked, begin) = (Arc::clone(&self.source), question.clone(), Arc::clone(&from));
        let (landed, read) = oneshot::channel();
        // A task of its own: nobody's leaving stops it while it holds its turn.
        self.tasks.spawn("nats history", async move {
            sleep(GATHER).await;
            let window = source.read(&asked, &begin).await.map(Arc::new);
            let _nobody_waits = landed.send(window).is_err();
        });
        let read = read.map(|landed| landed.unwrap_or(Err(RecoverError::Unavailable))).boxed().shared();
        shelf.flights.insert(question.key(), Flight { from, read: read.clone() });
        self.land(question.key(), read)
    }

    /// Waits for a read, and puts what it brought on the shelf.
    async fn land(&self, key: Key, read: Read) -> Result<Arc<Window>, RecoverError> {
        let result = read.clone().await;
        let mut shelf = self.lock();
        if shelf.flights.get(&key).is_some_and(|flight| flight.read.ptr_eq(&read)) {
            shelf.flights.remove(&key);
            if let Ok(window) = &result {
                shelf.keep(key, Arc::clone(window), clock::now());
            }
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question {
    fn key(&self) -> Key {
        (self.class.name.clone(), self.channel.clone())
    }
}

impl Shelf {
    fn keep(&mut self, key: Key, window: Arc<Window>, now: Instant) {
        self.remove(&key);
        self.bytes += window.bytes();
        self.order.push_back(key.clone());
        self.windows.insert(key, (window, now));
        while self.bytes > WINDOWS_MAX_BYTES
            && let Some(oldest) = self.order.front().cloned()
        {
            self.remove(&oldest);
        }
        // What nobody asks for any more goes as well.
        while let Some(oldest) = self.order.front().cloned()
            && self.windows.get(&oldest).is_none_or(|(_, at)| now.saturating_duration_since(*at) > WINDOW_AGE)
        {
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some((window, _)) = self.windows.remove(key) {
            self.bytes -= window.bytes();
        }
        self.order.retain(|other| other != key);
    }
}

/// What was read, before it is proven.
struct Raw {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The last message that was read and is not in `kept`, as more than is replayed follow it.
    left_out: Option<u64>,
}

impl Source {
    async fn read(&self, question: &Question, from: &Mutex<Option<Offset>>) -> Result<Window, RecoverError> {
        let Ok(_turn) = self.turns.acquire().await else { return Err(RecoverError::Unavailable) };
        let Some(from) = from.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Err(RecoverError::Unavailable);
        };
        let Some(head) = question.seat.position().filter(|_| self.link.is_up()) else {
            return Err(RecoverError::Unavailable);
        };
        self.meters.recovered_read.increment(1);
        self.read_from(question, from, head).await.map_err(|error| {
            self.meters.failed(Op::History);
            tracing::debug!(%error, "history could not be read");
            RecoverError::Unavailable
        })
    }

    async fn read_from(&self, question: &Question, from: Offset, head: Position) -> Result<Window, ApiError> {
        let Question { class, channel, .. } = question;
        let shard = Shard::of(channel);
        let stream = self.names.stream(&class.name, shard);
        let subject = self.names.stored(&class.name, shard, &subject::encode(channel));
        let mut raw = self.pages(&stream, &subject, from).await?;
        // The message before the wanted ones, by the same replica that has them.
        let witness = raw.kept.front().is_some_and(|first| first.sequence == from.get());
        if witness {
            raw.kept.pop_front();
        }
        let info = api::stream_info(&self.link.ask, &stream).await?;
        let first = if witness { None } else { self.first_kept(&stream, &subject).await? };
        let proof = Proof { class, from, witness, info: &info, first };
        let (floor, beneath) = match raw.left_out {
            Some(last) => (Offset::new(last), Unrecovered::Limit),
            None => (proof.floor(&raw), Unrecovered::Expired),
        };
        let last = raw.kept.back().map_or(0, |kept| kept.sequence);
        let last_of_stream = Offset::new(info.state.last_seq);
        // A place past the end of the stream is nobody's.
        let vouched = if from <= last_of_stream { from } else { Offset::ZERO };
        let upto = head.offset.max(Offset::new(last)).max(vouched);
        let epoch = layout::epoch(&stream, &info);
        let position = |sequence| Position { epoch, offset: Offset::new(sequence) };
        let list =
            raw.kept.iter().filter_map(|kept| self.publication(channel, kept, position(kept.sequence)));
        let list: Vec<_> = list.collect();
        let since = if raw.left_out.is_none() { proof.complete_since(&raw, &list) } else { None };
        if epoch != head.epoch {
            return Err(ApiError::Unreadable("a stream that was made anew"));
        }
        Ok(Window { epoch, from, floor, beneath, since, list, upto })
    }

    /// Reads all that a channel keeps from a place on, and keeps the last of it.
    async fn pages(&self, stream: &str, subject: &str, from: Offset) -> Result<Raw, ApiError> {
        let limits = ReplayLimits::default();
        let mut raw = Raw { kept: VecDeque::new(), bytes: 0, left_out: None };
        let mut next = from.get().max(1);
        let mut last = None;
        for _ in 0..PAGES_MAX {
            let batch = api::direct_get(&self.link.ask, stream, &Get::new(next, PAGE, Some(subject))).await?;
            let full = u64::try_from(batch.messages.len()).is_ok_and(|count| count >= PAGE);
            let more = batch.more || full;
            let mut messages = batch.messages.into_iter();
            // A page begins with the last message of the one before, or what lay between may have gone meanwhile.
            if last.is_some() && messages.next().map(|kept| kept.sequence) != last {
                return Err(ApiError::Unreadable("a channel that is trimmed faster than it is read"));
            }
            for kept in messages {
                next = kept.sequence;
                last = Some(kept.sequence);
                raw.bytes += kept.payload.len();
                raw.kept.push_back(kept);
            }
            // One more than is replayed: the place that was asked for may be among them.
            while raw.kept.len() > limits.messages + 1 || raw.bytes > 2 * limits.bytes {
                let Some(dropped) = raw.kept.pop_front() else { break };
                raw.bytes -= dropped.payload.len();
                raw.left_out = Some(dropped.sequence);
            }
            if more {
                continue;
            }
            if self.replicas == 1 {
                return Ok(raw);
            }
            // A replica may lag; the leader knows which is the last.
            let which = json!({ "last_by_subj": subject });
            let newest = api::leader_sequence(&self.link.ask, stream, &which).await?;
            if newest.is_none_or(|newest| last.map_or(newest < next, |last| newest <= last)) {
                return Ok(raw);
            }
            sleep(jittered(LAG_PAUSE)).await;
        }
        Err(ApiError::Unreadable("a channel that keeps more than can be read"))
    }

    /// Asks the leader for the oldest message that the channel keeps.
    async fn first_kept(&self, stream: &str, subject: &str) -> Result<Option<(u64, String)>, ApiError> {
        let which = json!({ "seq": 1, "next_by_subj": subject });
        api::leader_place(&self.link.ask, stream, &which).await
    }

    fn publication(&self, channel: &ChannelName, kept: &Kept, at: Position) -> Option<Arc<Publication>> {
        match envelope::decode(channel.clone(), &kept.payload) {
            Ok((message, _stamp)) => Some(Arc::new(Publication::new(message, Some(at)))),
            Err(garbage) => {
                self.meters.poison.increment(1);
                tracing::debug!(%garbage, "a kept message cannot be read");
                None
            }
        }
    }
}

/// What is known of a read, and of its stream at a moment after it.
struct Proof<'a> {
    class: &'a RetentionClass,
    from: Offset,
    /// The message at `from` is the channel's and was there.
    witness: bool,
    info: &'a StreamInfo,
    /// The oldest that the channel keeps, by the leader, and when it was stored.
    first: Option<(u64, String)>,
}

impl Proof<'_> {
    /// Returns after which offset the read has everything of the channel.
    fn floor(&self, raw: &Raw) -> Offset {
        let first_read = raw.kept.front().map_or(u64::MAX, |kept| kept.sequence);
        if self.witness || self.from.get() >= self.info.state.last_seq {
            return self.from;
        }
        // Whatever follows a message that is kept is kept: the oldest go first.
        if self.first.as_ref().is_some_and(|(first, at)| *first <= self.from.get() && self.stays(at)) {
            return self.from;
        }
        // Nothing of the stream after this went for its age or for room, and of the channel nothing for its number.
        let full = raw.kept.len() >= usize::try_from(self.class.max_messages).unwrap_or(usize::MAX);
        let gone = self.info.state.first_seq.saturating_sub(1);
        if !full && (gone == 0 || self.stays(&self.info.state.first_ts)) {
            return self.from.max(Offset::new(gone));
        }
        // The oldest that was read is there for certain; what was before it may have been more.
        Offset::new(first_read.min(self.info.state.last_seq))
    }

    /// Returns from which time on the read has everything that was accepted.
    fn complete_since(&self, raw: &Raw, list: &[Arc<Publication>]) -> Option<UnixMillis> {
        let after = |time: UnixMillis, spare: Duration| {
            let spare = u64::try_from(spare.as_millis()).unwrap_or(u64::MAX);
            UnixMillis::new(time.get().saturating_add(spare))
        };
        if self.from != Offset::ZERO {
            None
        } else if raw.kept.len() >= usize::try_from(self.class.max_messages).unwrap_or(usize::MAX) {
            // Those that went for their number were accepted before the oldest that is left.
            list.first().map(|oldest| after(oldest.message.time, Duration::from_millis(1)))
        } else if self.info.state.first_seq <= 1 {
            Some(UnixMillis::new(0))
        } else {
            // Those that went for their age were stored before the oldest of the stream, by a clock that is not ours.
            instant::read(&self.info.state.first_ts).map(|oldest| after(oldest, MARGIN))
        }
    }

    /// Says whether a message that was stored at `at` stays for a while, on every server.
    fn stays(&self, at: &str) -> bool {
        let margin = MARGIN.min(self.class.max_age / 4);
        match (instant::read(at), instant::read(&self.info.ts)) {
            (Some(at), Some(now)) => now.since(at) + margin < self.class.max_age,
            (None, _) | (_, None) => false,
        }
    }
}
