//! One shard's task: brings the tracker what the feed, the fetches and the polls say, and does what it wants.
//!
//! **Lives here:** the loop of a shard.
//! **Called by:** `start`, which starts one for each shard of each class.
//! **Must not know:** what makes a gap; that is the tracker's part.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant},
};

use async_nats::{Message, Subscriber};
use carillon_broker::{Deliver, Effect, Fingerprint, HeldLimits, Lost, Shard, ShardTracker, Stored, Tail};
use carillon_model::{ClassName, Epoch, Offset};
use carillon_tasks::{Phase, Stop, clock};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use tokio::{sync::Semaphore, time::sleep_until};

use crate::{
    api::{self, ApiError, Kept},
    envelope::{self, Garbage},
    health::Settlement,
    layout::{self, Layout, LayoutError},
    link::{Link, View, jittered},
    meters::{Meters, Op},
    repair::{self, Fetched},
    seat::Seat,
    subject::Names,
};

/// Messages that are taken from the feed before anything else is looked at.
pub(crate) const TURN: usize = 256;
/// How often the tail is polled: a lost last message is found after this time and the tracker's grace.
const POLL: Duration = Duration::from_secs(2);
/// How often while something is not as it should be.
const POLL_UNSETTLED: Duration = Duration::from_millis(500);

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

type Asked = BoxFuture<'static, Result<Answer, LayoutError>>;
type Fetching = BoxFuture<'static, Result<Fetched, ApiError>>;

/// The answer to the question about the tail.
struct Answer {
    tail: Tail,
    /// Who gave it, in a cluster.
    leader: Option<String>,
    /// The feed that was begun before the tail was asked for.
    feed: Option<Subscriber>,
}

/// The parts of the loop that change.
struct Loop {
    task: ShardTask,
    tracker: ShardTracker,
    start: StartOfSubject,
    /// The generation of the link for which the barrier was passed, if it was.
    generation: u64,
    passed_barrier: bool,
    /// The leader that has proven that the stream goes on from what was delivered, since the last interruption.
    proven: Option<Option<String>>,
    /// The stream is in another life. What the feed still has in its queue may be of the last one, so that nothing of
    /// it is taken: a feed that begins after that life has ended takes its place.
    feed_is_old: bool,
    fresh_feed: Option<Subscriber>,
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
    Tail(Result<Answer, LayoutError>),
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
            proven: None,
            feed_is_old: false,
            fresh_feed: None,
            asked: None,
            poll_at: clock::now(),
            fetching: None,
            renew: None,
            reported: String::new(),
            task: self,
        };
        loop {
            view.mark_unchanged();
            let seen = state.follow_link();
            state.ask(seen.up);
            // While a question is open, or cannot be asked, it is not time for the next.
            let poll = (seen.up && state.asked.is_none()).then_some(state.poll_at);
            let wake = [poll, state.tracker.next_deadline()].into_iter().flatten().min();
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
                Heard::Feed(messages) => {
                    // They may be the first after an interruption that nobody has spoken of yet.
                    state.follow_link();
                    messages.iter().for_each(|message| state.handle_live(message));
                }
                Heard::Time => {}
            }
            if let Some(fresh) = state.fresh_feed.take() {
                feed = fresh.ready_chunks(TURN);
            }
            state.act();
        }
    }
}

/// Waits for an answer that is on its way; for ever when none is.
pub(crate) async fn answer<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
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
    fn follow_link(&mut self) -> View {
        let seen = self.task.link.now();
        if seen.generation == self.generation && seen.up {
            return seen;
        }
        if seen.generation != self.generation {
            self.generation = seen.generation;
            self.passed_barrier = false;
            self.poll_at = clock::now();
        }
        self.proven = None;
        self.tracker.handle_interrupted();
        // Whatever was asked on the old link is not answered any more.
        self.asked = None;
        if self.fetching.take().is_some() {
            self.tracker.handle_fetch_failed(clock::now());
        }
        seen
    }

    /// Asks for the tail when it is time to.
    fn ask(&mut self, up: bool) {
        if !up || self.asked.is_some() || self.poll_at > clock::now() {
            return;
        }
        self.tracker.handle_asked();
        let (link, layout) = (self.task.link.clone(), Arc::clone(&self.task.layout));
        let barrier = (!self.passed_barrier || self.feed_is_old).then(|| self.task.names.barrier());
        let (renew, proven) = (self.renew, self.proven.clone());
        let names = &self.task.names;
        let anew = self.feed_is_old.then(|| names.feed_all(&self.task.class, self.task.shard));
        let life = self.tracker.position().map(|position| position.epoch);
        let witnesses: Vec<_> = self.tracker.witnesses().map(Offset::get).collect();
        let question = async move {
            let feed = match anew {
                Some(subject) => Some(link.hear(subject).await?),
                None => None,
            };
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
            let mut tail = layout::tail(&layout.stream, &info);
            let leader = info.cluster.leader;
            if life != Some(tail.epoch) {
                tail.kept = kept(&link, &layout.stream, &[], tail).await?;
            } else if proven.as_ref() != Some(&leader) {
                tail.kept = kept(&link, &layout.stream, &witnesses, tail).await?;
            }
            Ok(Answer { tail, leader, feed })
        };
        self.asked = Some(question.boxed());
    }

    fn handle_tail(&mut self, answer: Result<Answer, LayoutError>) {
        let now = clock::now();
        match answer {
            Ok(Answer { tail, leader, feed }) => {
                self.passed_barrier = true;
                self.reported.clear();
                let before = self.tracker.position().map(|position| position.epoch);
                if feed.is_some() {
                    self.fresh_feed = feed;
                    self.feed_is_old = false;
                } else if before.is_some_and(|before| before != tail.epoch) {
                    self.feed_is_old = true;
                    self.poll_at = now;
                    return;
                }
                self.renew = None;
                self.tracker.handle_tail(tail, now);
                // Not by an answer that the tracker did not believe, such as that of a leader that is not ready.
                self.proven = self.tracker.is_settled().then_some(leader);
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
                let read =
                    |kept: Kept| self.read(kept.sequence, &self.start.stored, &kept.subject, &kept.payload);
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
        if self.feed_is_old {
            return;
        }
        let Some(sequence) = message.headers.as_ref().and_then(api::sequence) else {
            // Somebody published to where only the server republishes: it has no place in the stream.
            self.task.meters.poison.increment(1);
            return;
        };
        let stored = self.read(sequence, &self.start.feed, &message.subject, &message.payload);
        self.tracker.handle_live(stored);
    }

    /// Reads a message, which may not be ours.
    fn read(&self, sequence: u64, start: &str, subject: &str, payload: &[u8]) -> Stored {
        let channel = subject.strip_prefix(start).and_then(|place| self.task.names.channel(place));
        let channel = channel.filter(|channel| Shard::of(channel) == self.task.shard);
        let read = channel.ok_or(Garbage::Subject).and_then(|channel| envelope::decode(channel, payload));
        if let Err(garbage) = &read {
            self.task.meters.poison.increment(1);
            tracing::debug!(stream = self.task.layout.stream, %garbage, "a message cannot be read");
        }
        let print = layout::print(subject, payload);
        Stored { offset: Offset::new(sequence), print, message: read.ok().map(|(message, _stamp)| message) }
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
                    self.task.seat.push(&publication, now);
                    self.task.deliver.deliver(publication);
                }
                Effect::Lost { position } => {
                    self.task.seat.lost(position);
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
                Effect::WentBack(epoch) => {
                    self.renew = Some(epoch);
                    self.feed_is_old = true;
                    // Every node finds this out, and the first gives the stream its new epoch.
                    self.poll_at = self.poll_at.min(now + jittered(POLL_UNSETTLED));
                }
            }
        }
        // Messages that cannot be read are passed without an effect.
        let recent_bytes = self.task.seat.settle(self.tracker.position(), now);
        self.task.meters.recent_bytes.set(recent_bytes as f64);
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

/// Gets the first of these messages that the leader still keeps; without any, the last that it has stored.
async fn kept(
    link: &Link,
    stream: &str,
    witnesses: &[u64],
    tail: Tail,
) -> Result<Option<(Offset, Fingerprint)>, ApiError> {
    let last = [tail.last.get()];
    let places = if witnesses.is_empty() { &last } else { witnesses };
    // The first message is 1; a stream that is new stands at 0.
    let there = tail.first.get().max(1)..=tail.last.get();
    for &sequence in places.iter().filter(|at| there.contains(at)) {
        if let Some(kept) = api::leader_message(&link.ask, stream, sequence).await? {
            return Ok(Some((Offset::new(sequence), layout::print(&kept.subject, &kept.payload))));
        }
    }
    Ok(None)
}
