//! Who shares a read of a channel's past.
//!
//! The first who asks waits a moment for others; then one read begins at the earliest place that any of them wants, and
//! answers all of them, and for a while those who come later.
//!
//! **Lives here:** the reads under way, and what was read.
//! **Called by:** `lib`, as the broker's `recover`.
//! **Must not know:** how a past is read and proven.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use carillon_broker::{Past, RecoverError, Recovery};
use carillon_model::{ChannelName, ClassName, Offset, ReplayLimits, Since, Unrecovered};
use carillon_tasks::{Tasks, clock};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{sleep, timeout},
};

use crate::{
    past::{Question, Source},
    window::{Window, start},
};

/// Reads that may be asked of NATS at a time: each costs a stream's writer time that grows with what lies
/// between two messages of the channel.
const READS: usize = 16;
/// Reads that wait for their turn; who wants another is told that there are too many.
const FLIGHTS_MAX: usize = 4096;
/// How long the first who asks waits for others.
const GATHER: Duration = Duration::from_millis(20);
/// How long who asks waits for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// For how long a window is kept: the ring does not reach back further.
const WINDOW_AGE: Duration = Duration::from_mins(2);
/// Most bytes of windows that are kept.
const WINDOWS_MAX_BYTES: usize = 16 << 20;

/// Answers whoever wants a past.
pub(crate) struct Historian {
    source: Arc<Source>,
    turns: Arc<Semaphore>,
    shelf: Arc<Mutex<Shelf>>,
    tasks: Tasks,
}

/// Which channel, and whether from its beginning: such a read may be too much, which is nobody else's fault.
type Key = (ClassName, ChannelName, bool);
type Read = Shared<BoxFuture<'static, Result<Arc<Window>, Failed>>>;

/// Why a read brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The broker did not answer, or not with what can be believed.
    Unavailable,
    /// From this place on the channel keeps more than is read.
    TooMuch(Offset),
}

impl Failed {
    /// Returns what somebody is told who wants what follows `since`: the read may have begun earlier, for another.
    const fn answer(self, since: Since) -> RecoverError {
        match self {
            Self::TooMuch(from) if start(since).get() <= from.get() => RecoverError::Gone(Unrecovered::Limit),
            Self::TooMuch(_) | Self::Unavailable => RecoverError::Unavailable,
        }
    }
}

#[derive(Default)]
struct Shelf {
    flights: HashMap<Key, Flight>,
    windows: HashMap<Key, (Arc<Window>, Instant)>,
    /// The windows' keys, oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

/// One read, from its first asker on.
struct Flight {
    /// From where it reads; `None` once it has begun and nobody can widen it.
    from: Option<Offset>,
    read: Read,
    /// Each who waits holds one: a read that nobody waits for is not begun.
    tickets: Arc<()>,
}

impl Historian {
    pub(crate) fn new(source: Source, tasks: Tasks) -> Self {
        let turns = Arc::new(Semaphore::new(READS));
        Self { source: Arc::new(source), turns, shelf: Arc::default(), tasks }
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
            // A read that began before this question may begin too late for it, or end too early; the next one does not.
            for _ in 0..3 {
                if let Some(window) = self.kept(&question, since) {
                    self.source.note_shared();
                    return window.answer(since, limits);
                }
                let (begun, _ticket, read) = self.join(&question, since)?;
                let window = read.await.map_err(|failed| failed.answer(since))?;
                let too_early = begun && start(since) > window.upto;
                if window.answers(since) && !too_early {
                    return window.answer(since, limits);
                }
            }
            Err(RecoverError::Unavailable)
        };
        timeout(ANSWER, answer).await.unwrap_or(Err(RecoverError::Unavailable))
    }

    /// Returns a window that answers, if one is kept and memory goes on where it ends.
    fn kept(&self, question: &Question, since: Since) -> Option<Arc<Window>> {
        let mut shelf = lock(&self.shelf);
        for whole in [false, true] {
            let key = key(question, whole);
            let Some((window, read_at)) = shelf.windows.get(&key) else { continue };
            let old = clock::now().saturating_duration_since(*read_at) > WINDOW_AGE;
            let end = Since::After(window.end());
            let attached = question.seat.attach(&question.channel, end, ReplayLimits::default());
            let goes_on = attached.is_some_and(|now| matches!(now.past, Past::Complete(_) | Past::Ahead));
            if old || !goes_on {
                shelf.remove(&key);
            } else if window.answers(since) && start(since) <= window.upto {
                // A place after its end is of another node, or made up: the leader must be asked.
                return Some(Arc::clone(window));
            }
        }
        None
    }

    /// Joins the read that others wait for, or begins one. Says whether it had begun before.
    fn join(&self, question: &Question, since: Since) -> Result<(bool, Arc<()>, Read), RecoverError> {
        let wanted = start(since);
        let key = key(question, wanted == Offset::ZERO);
        let mut shelf = lock(&self.shelf);
        if let Some(flight) = shelf.flights.get_mut(&key) {
            flight.from = flight.from.map(|from| from.min(wanted));
            return Ok((flight.from.is_none(), Arc::clone(&flight.tickets), flight.read.clone()));
        }
        if shelf.flights.len() >= FLIGHTS_MAX {
            return Err(RecoverError::Unavailable);
        }
        let (landed, read) = oneshot::channel();
        let read = read.map(|landed| landed.unwrap_or(Err(Failed::Unavailable))).boxed().shared();
        let tickets = Arc::new(());
        let flight = Flight { from: Some(wanted), read: read.clone(), tickets: Arc::clone(&tickets) };
        shelf.flights.insert(key.clone(), flight);
        let fly = fly(
            Arc::clone(&self.source),
            Arc::clone(&self.turns),
            Arc::clone(&self.shelf),
            question.clone(),
            key,
        );
        // A task of its own: nobody's leaving stops it while it holds its turn.
        self.tasks.spawn("nats history", async move {
            let _nobody_waits = landed.send(fly.await).is_err();
        });
        Ok((false, tickets, read))
    }
}

/// Reads once it has gathered those who ask and has its turn, and puts what it brought on the shelf.
async fn fly(
    source: Arc<Source>,
    turns: Arc<Semaphore>,
    shelf: Arc<Mutex<Shelf>>,
    question: Question,
    key: Key,
) -> Result<Arc<Window>, Failed> {
    sleep(GATHER).await;
    // Every turn ends, as every question has its deadline.
    let turn = turns.acquire().await;
    let from = {
        let mut shelf = lock(&shelf);
        let flight = shelf.flights.get_mut(&key);
        let wanted = flight.filter(|flight| Arc::strong_count(&flight.tickets) > 1);
        let Some(from) = wanted.and_then(|flight| flight.from.take()) else {
            shelf.flights.remove(&key);
            return Err(Failed::Unavailable);
        };
        from
    };
    let read = match turn {
        Ok(_turn) => source.read(&question, from).await.map(Arc::new),
        Err(_closed) => Err(Failed::Unavailable),
    };
    let mut shelf = lock(&shelf);
    shelf.flights.remove(&key);
    if let Ok(window) = &read {
        shelf.keep(key, Arc::clone(window), clock::now());
    }
    read
}

fn key(question: &Question, whole: bool) -> Key {
    (question.class.name.clone(), question.channel.clone(), whole)
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
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
            self.order.retain(|other| other != key);
        }
    }
}
