//! One shard's task: brings the tracker what the feed, the fetches and the polls say, and does what it wants.
//!
//! **Lives here:** the loop of a shard, and the loop of the live channels.
//! **Called by:** `lib`, which starts one for each shard of each class.
//! **Must not know:** what makes a gap; that is the tracker's part.

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::{Message, Subscriber};
use carillon_broker::{Deliver, Effect, HeldLimits, Lost, Shard, ShardTracker, Stored, Tail};
use carillon_model::{ClassName, Epoch, NewMessage, Offset, Position, Publication};
use carillon_tasks::{Phase, Stop, clock};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use tokio::{sync::Semaphore, time::sleep_until};

use crate::{
    api::{self, ApiError},
    envelope::{self, Garbage},
    health::Settlement,
    layout::{self, Layout, LayoutError},
    link::{Link, jittered},
    meters::{Meters, Op},
    repair::{self, Fetched},
    subject::{self, Names},
};

/// Messages that are taken from the feed before anything else is looked at.
const TURN: usize = 256;
/// How often the tail is polled: a lost last message is found after this time and the tracker's grace.
const POLL: Duration = Duration::from_secs(2);
/// How often while something is not as it should be.
const POLL_UNSETTLED: Duration = Duration::from_millis(500);

/// Where a shard stands, for those who attach.
#[derive(Debug, Default)]
pub(crate) struct Seat(Mutex<Option<Position>>);

impl Seat {
    pub(crate) fn position(&self) -> Option<Position> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, position: Option<Position>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }
}

/// What a shard's task needs.
pub(crate) struct ShardTask {
    pub(crate) class: ClassName,
    pub(crate) shard: Shard,
    pub(crate) seat: Arc<Seat>,
    pub(crate) layout: Arc<Layout>,
    pub(crate) names: Names,
    pub(crate) link: Link,
    /// Turns to fetch, shared by all shards.
    pub(crate) fetches: Arc<Semaphore>,
    pub(crate) deliver: Arc<dyn Deliver>,
    pub(crate) settlement: Settlement,
    pub(crate) meters: Arc<Meters>,
    /// How long to wait before the second poll, so that the shards' polls do not come all at once.
    pub(crate) stagger: Duration,
}

type Asked = BoxFuture<'static, Result<Tail, LayoutError>>;
type Fetching = BoxFuture<'static, Result<Fetched, ApiError>>;

/// The parts of the loop that change.
struct Loop {
    task: ShardTask,
    tracker: ShardTracker,
    start: StartOfSubject,
    /// The generation of the link for which the barrier was passed, if it was.
    generation: u64,
    passed_barrier: bool,
    asked: Option<Asked>,
    poll_at: Instant,
    fetching: Option<Fetching>,
    /// The stream went backwards in this life: it needs another.
    renew: Option<Epoch>,
    reported: String,
}

struct StartOfSubject {
    feed: String,
    stored: String,
}

/// What the loop heard.
enum Heard {
    Link,
    Tail(Result<Tail, LayoutError>),
    Fetched(Result<Fetched, ApiError>),
    Feed(Vec<Message>),
    Time,
    End,
}

impl ShardTask {
    /// Follows the shard until the process is cut.
    pub(crate) async fn run(self, feed: Subscriber, stop: Stop) {
        let mut view = self.link.view();
        let start = StartOfSubject {
            feed: self.names.feed_start(&self.class, self.shard),
            stored: self.names.stored_start(&self.class, self.shard),
        };
        let mut feed = feed.ready_chunks(TURN);
        let mut state = Loop {
            tracker: ShardTracker::new(HeldLimits::default()),
            start,
            generation: view.borrow().generation,
            passed_barrier: false,
            asked: None,
            poll_at: clock::now(),
            fetching: None,
            renew: None,
            reported: String::new(),
            task: self,
        };
        loop {
            let seen = *view.borrow_and_update();
            state.follow_link(seen.up, seen.generation);
            state.ask(seen.up);
            let wake = state.tracker.next_deadline().map_or(state.poll_at, |at| at.min(state.poll_at));
            let wake = if seen.up { Some(wake) } else { state.tracker.next_deadline() };
            let heard = tokio::select! {
                biased;
                // 1. The end.
                () = stop.reached(Phase::Cut) => Heard::End,
                // 2. The link: what it says decides what the rest is worth.
                changed = view.changed() => if changed.is_ok() { Heard::Link } else { Heard::End },
                // 3. Answers, which unblock what is held.
                tail = answer(&mut state.asked) => Heard::Tail(tail),
                fetched = answer(&mut state.fetching) => Heard::Fetched(fetched),
                // 4. The feed.
                messages = feed.next() => messages.map_or(Heard::End, Heard::Feed),
                // 5. Time.
                () = until(wake) => Heard::Time,
            };
            match heard {
                Heard::End => return,
                Heard::Link => {}
                Heard::Tail(tail) => state.handle_tail(tail),
                Heard::Fetched(fetched) => state.handle_fetched(fetched),
                Heard::Feed(messages) => messages.iter().for_each(|message| state.handle_live(message)),
                Heard::Time => {}
            }
            state.act();
        }
    }
}

/// Waits for an answer that is on its way; for ever when none is.
async fn answer<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    let answer = match slot {
        Some(future) => future.await,
        None => pending().await,
    };
    *slot = None;
    answer
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

impl Loop {
    fn follow_link(&mut self, up: bool, generation: u64) {
        if generation == self.generation && up {
            return;
        }
        if generation != self.generation {
            self.generation = generation;
            self.passed_barrier = false;
            self.poll_at = clock::now();
        }
        self.tracker.handle_interrupted();
        // Whatever was asked on the old link is not answered any more.
        self.asked = None;
        if self.fetching.take().is_some() {
            self.tracker.handle_fetch_failed(clock::now());
        }
    }

    /// Asks for the tail when it is time to.
    fn ask(&mut self, up: bool) {
        if !up || self.asked.is_some() || self.poll_at > clock::now() {
            return;
        }
        self.tracker.handle_asked();
        let (link, layout) = (self.task.link.clone(), Arc::clone(&self.task.layout));
        let barrier = (!self.passed_barrier).then(|| self.task.names.barrier());
        let renew = self.renew;
        let question = async move {
            if let Some(subject) = barrier {
                // What is published after this is on the feed, or comes before the tail that is asked for next.
                api::barrier(&link.feed, subject).await?;
            }
            if let Some(epoch) = renew {
                layout.renew(&link.ask, epoch).await?;
            }
            let info = match api::stream_info(&link.ask, &layout.stream).await {
                Err(ApiError::NotFound(_)) => layout.ensure(&link.ask).await?,
                other => other?,
            };
            Ok(layout::tail(&layout.stream, &info))
        };
        self.asked = Some(question.boxed());
    }

    fn handle_tail(&mut self, tail: Result<Tail, LayoutError>) {
        let now = clock::now();
        match tail {
            Ok(tail) => {
                self.passed_barrier = true;
                self.renew = None;
                self.reported.clear();
                self.tracker.handle_tail(tail, now);
            }
            Err(error) => {
                self.task.meters.failed(Op::Poll);
                let error = error.to_string();
                if error != self.reported {
                    tracing::warn!(stream = self.task.layout.stream, %error, "a stream cannot be polled");
                    self.reported = error;
                }
            }
        }
        let settled = self.tracker.is_settled() && self.reported.is_empty();
        let pause =
            if settled { POLL + std::mem::take(&mut self.task.stagger) } else { jittered(POLL_UNSETTLED) };
        self.poll_at = now + pause;
    }

    fn handle_fetched(&mut self, fetched: Result<Fetched, ApiError>) {
        match fetched {
            Ok(fetched) => {
                let read = |kept: api::Kept| {
                    let offset = Offset::new(kept.sequence);
                    Stored { offset, message: self.read(&self.start.stored, &kept.subject, &kept.payload) }
                };
                let messages = fetched.messages.into_iter().map(read).collect();
                self.tracker.handle_fetched(fetched.upto, messages);
            }
            Err(error) => {
                self.task.meters.failed(Op::Fetch);
                tracing::debug!(stream = self.task.layout.stream, %error, "a range could not be fetched");
                self.tracker.handle_fetch_failed(clock::now());
            }
        }
    }

    fn handle_live(&mut self, message: &Message) {
        let Some(sequence) = message.headers.as_ref().and_then(api::sequence) else {
            // Somebody published to where only the server republishes: it has no place in the stream.
            self.task.meters.poison.increment(1);
            return;
        };
        let offset = Offset::new(sequence);
        let message = self.read(&self.start.feed, &message.subject, &message.payload);
        self.tracker.handle_live(Stored { offset, message });
    }

    /// Reads a message; `None` when it is not ours.
    fn read(&self, start: &str, subject: &str, payload: &[u8]) -> Option<NewMessage> {
        let channel = subject.strip_prefix(start).and_then(subject::decode);
        let channel = channel.filter(|channel| Shard::of(channel) == self.task.shard);
        let read = channel.ok_or(Garbage::Subject).and_then(|channel| envelope::decode(channel, payload));
        match read {
            Ok(message) => Some(message),
            Err(garbage) => {
                self.task.meters.poison.increment(1);
                tracing::debug!(stream = self.task.layout.stream, %garbage, "a message cannot be read");
                None
            }
        }
    }

    /// Does what the tracker wants, and says where it stands.
    fn act(&mut self) {
        let now = clock::now();
        if self.tracker.next_deadline().is_some_and(|at| at <= now) {
            self.tracker.handle_timeout(now);
        }
        while let Some(effect) = self.tracker.next_effect() {
            match effect {
                Effect::Deliver(publication) => {
                    // First the position: who attaches in between is given this one as already delivered.
                    self.task.seat.set(publication.position);
                    self.task.deliver.deliver(publication);
                }
                Effect::Lost { position } => {
                    self.task.seat.set(Some(position));
                    let (class, shard) = (self.task.class.clone(), self.task.shard);
                    tracing::warn!(stream = self.task.layout.stream, %position, "messages were lost");
                    self.task.deliver.lost(&Lost { class, shard, position });
                }
                Effect::Fetch { from, to } => {
                    let (link, layout) = (self.task.link.clone(), Arc::clone(&self.task.layout));
                    let turns = Arc::clone(&self.task.fetches);
                    let fetch =
                        async move { repair::fetch(&link.ask, &turns, &layout.stream, from, to).await };
                    self.fetching = Some(fetch.boxed());
                }
                Effect::Epoch(epoch) => {
                    tracing::debug!(stream = self.task.layout.stream, %epoch, "following a stream");
                }
                Effect::WentBack => self.renew = self.tracker.position().map(|position| position.epoch),
            }
        }
        // Messages that cannot be read are passed without an effect.
        self.task.seat.set(self.tracker.position());
        let tally = self.tracker.take_tally();
        self.task.meters.gaps.increment(tally.gaps);
        self.task.meters.repaired.increment(tally.repaired);
        self.task.meters.duplicates.increment(tally.duplicates);
        self.task.meters.lost.increment(tally.lost);
        self.task
            .settlement
            .report((self.tracker.is_settled() && self.passed_barrier).then_some(self.generation));
    }
}

/// Brings what is published on live channels, until the process is cut.
pub(crate) async fn run_live(feed: Subscriber, deliver: Arc<dyn Deliver>, meters: Arc<Meters>, stop: Stop) {
    let mut feed = feed.ready_chunks(TURN);
    loop {
        let messages = tokio::select! {
            messages = feed.next() => messages,
            () = stop.reached(Phase::Cut) => return,
        };
        let Some(messages) = messages else { return };
        for message in messages {
            let channel = message.subject.rsplit('.').next().and_then(subject::decode);
            let read = channel
                .ok_or(Garbage::Subject)
                .and_then(|channel| envelope::decode(channel, &message.payload));
            match read {
                Ok(message) => deliver.deliver(Arc::new(Publication::new(message, None))),
                Err(garbage) => {
                    meters.poison.increment(1);
                    tracing::debug!(%garbage, "a live message cannot be read");
                }
            }
        }
    }
}
