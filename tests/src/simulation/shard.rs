//! One shard's task on a node, in the order of calls of `broker-nats`: feed, questions, fetches, time.
//!
//! **Lives here:** what the tracker is told and when, and what is put into the ring before it is handed on.
//! **Called by:** the node.
//! **Must not know:** who is subscribed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use carillon_broker::{Effect, Ring, RingBudget, ShardTracker, Stored};
use carillon_model::{Epoch, Offset, Position, Publication};

use super::{
    agenda::{Agenda, Event, Here, MS, NodeEvent, SECOND, ServerEvent, TailAnswer},
    bug::Bug,
};

/// How often the tail is polled, and how often while something is not as it should be.
const POLL: u64 = 2 * SECOND;
const POLL_UNSETTLED: u64 = 500 * MS;
/// For how long an answer is waited for.
const PATIENCE: u64 = 2 * SECOND;

/// What a shard hands on.
#[derive(Debug)]
pub(super) enum Brought {
    Deliver(Arc<Publication>),
    Lost(Position),
    /// For a planted bug: it goes into the ring only now.
    Late(Arc<Publication>),
}

/// The node's link to where streams are kept.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LinkState {
    pub(super) up: bool,
    pub(super) generation: u32,
}

/// What came in.
#[derive(Debug)]
pub(super) enum Heard {
    Feed { feed: u64, stored: Box<Stored> },
    Tail { ask: u64, answer: Option<TailAnswer> },
    Fetched { ask: u64, answer: Option<(Offset, Vec<Stored>)> },
    Nothing,
}

/// One shard's task.
#[derive(Debug)]
pub(super) struct Shard {
    stream: usize,
    pub(super) tracker: ShardTracker,
    pub(super) ring: Ring,
    seen: LinkState,
    passed_barrier: bool,
    proven: Option<u32>,
    feed: u64,
    feed_is_old: bool,
    /// What came on feeds, by their numbers.
    queues: BTreeMap<u64, VecDeque<Stored>>,
    asked: Option<u64>,
    poll_at: u64,
    fetching: Option<u64>,
    renew: Option<Epoch>,
    wake_at: Option<u64>,
    /// The epochs that it has followed.
    followed: Vec<Epoch>,
    /// It is in the ring and was not handed on yet.
    midway: VecDeque<Brought>,
    /// For a planted bug.
    put_off: Option<Arc<Publication>>,
}

impl Shard {
    pub(super) fn new(stream: usize, feed: u64, budget: &Arc<RingBudget>, agenda: &Agenda) -> Self {
        Self {
            stream,
            tracker: ShardTracker::new(agenda.plan.held),
            ring: Ring::new(Arc::clone(budget)),
            seen: LinkState::default(),
            passed_barrier: false,
            proven: None,
            feed,
            feed_is_old: false,
            queues: BTreeMap::new(),
            asked: None,
            poll_at: agenda.now,
            fetching: None,
            renew: None,
            wake_at: None,
            followed: Vec::new(),
            midway: VecDeque::new(),
            put_off: None,
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.passed_barrier && self.tracker.is_settled() && self.fetching.is_none()
    }

    /// Says whether it knows an epoch as one that is over.
    pub(super) fn has_left(&self, epoch: Option<Epoch>) -> bool {
        let now = self.tracker.position().map(|position| position.epoch);
        epoch != now && self.followed.iter().any(|followed| Some(*followed) == epoch)
    }

    /// Takes what came in and goes on from there; what it hands on is given to `bring`.
    pub(super) fn hear(
        &mut self,
        here: Here,
        link: LinkState,
        heard: Heard,
        agenda: &mut Agenda,
        bring: &mut dyn FnMut(Brought, &mut Agenda),
    ) {
        if !matches!(heard, Heard::Nothing) {
            // The task does one thing after another.
            self.act(here, agenda, false, bring);
        }
        self.follow(link, agenda);
        match heard {
            Heard::Feed { feed, stored } => self.queues.entry(feed).or_default().push_back(*stored),
            Heard::Tail { ask, answer } if self.asked == Some(ask) => {
                self.asked = None;
                self.handle_tail(answer, agenda);
            }
            Heard::Fetched { ask, answer } if self.fetching == Some(ask) => {
                self.fetching = None;
                match answer {
                    Some((upto, messages)) => self.tracker.handle_fetched(upto, messages),
                    None => self.tracker.handle_fetch_failed(agenda.instant()),
                }
            }
            Heard::Tail { .. } | Heard::Fetched { .. } | Heard::Nothing => {}
        }
        let queued: Vec<_> =
            self.queues.get_mut(&self.feed).map(std::mem::take).into_iter().flatten().collect();
        for stored in queued.into_iter().filter(|_| !self.feed_is_old) {
            self.tracker.handle_live(stored);
        }
        self.act(here, agenda, true, bring);
        self.ask(here, link, agenda);
        let wake = self.tracker.next_deadline().map(|at| agenda.micros(at));
        let wake = if link.up && self.asked.is_none() {
            Some(wake.map_or(self.poll_at, |at| at.min(self.poll_at)))
        } else {
            wake
        };
        self.wake_at = self.wake_at.filter(|at| *at > agenda.now);
        if let Some(at) = wake.map(|at| at.max(agenda.now + 1))
            && self.wake_at.is_none_or(|known| at < known)
        {
            self.wake_at = Some(at);
            agenda.on(at, Event::Node(here, NodeEvent::Wake { stream: self.stream }));
        }
    }

    fn follow(&mut self, link: LinkState, agenda: &Agenda) {
        if link.generation == self.seen.generation && link.up {
            self.seen = link;
            return;
        }
        let changed = link.generation != self.seen.generation || self.seen.up;
        self.seen = link;
        if changed {
            self.passed_barrier = false;
            self.poll_at = agenda.now;
        }
        self.proven = None;
        if agenda.bug != Bug::BelieveFeed {
            self.tracker.handle_interrupted();
        }
        self.asked = None;
        if self.fetching.take().is_some() {
            self.tracker.handle_fetch_failed(agenda.instant());
        }
    }

    fn ask(&mut self, here: Here, link: LinkState, agenda: &mut Agenda) {
        if !link.up || self.asked.is_some() || self.poll_at > agenda.now {
            return;
        }
        self.tracker.handle_asked();
        let ask = agenda.number();
        self.asked = Some(ask);
        let question = ServerEvent::Tail {
            stream: self.stream,
            ask,
            hear: self.feed_is_old.then(|| agenda.number()),
            renew: self.renew.filter(|_| agenda.bug != Bug::KeepEpoch),
            proven: self.proven,
            witnesses: self.tracker.witnesses().collect(),
        };
        let delay = agenda.draw(5 * MS);
        agenda.later(delay, Event::Server(here, question));
        let nothing = NodeEvent::Tail { stream: self.stream, ask, answer: None };
        agenda.later(PATIENCE, Event::Node(here, nothing));
    }

    fn handle_tail(&mut self, answer: Option<TailAnswer>, agenda: &mut Agenda) {
        if let Some(TailAnswer { tail, leader, feed }) = answer {
            self.passed_barrier = true;
            let before = self.tracker.position().map(|position| position.epoch);
            if let Some(feed) = feed {
                self.queues.remove(&self.feed);
                self.feed = feed;
                self.feed_is_old = false;
            } else if before.is_some_and(|before| before != tail.epoch) {
                self.feed_is_old = true;
                self.poll_at = agenda.now;
                return;
            }
            self.renew = None;
            self.tracker.handle_tail(tail, agenda.instant());
            // Not by an answer that the tracker did not believe.
            self.proven = self.tracker.is_settled().then_some(leader);
        }
        let pause = if self.tracker.is_settled() { POLL } else { POLL_UNSETTLED };
        self.poll_at = agenda.now + pause + agenda.draw(pause / 10);
    }

    /// Does what the tracker wants; with pauses, if it may.
    fn act(
        &mut self,
        here: Here,
        agenda: &mut Agenda,
        pauses: bool,
        bring: &mut dyn FnMut(Brought, &mut Agenda),
    ) {
        let now = agenda.instant();
        if self.tracker.next_deadline().is_some_and(|at| at <= now) {
            self.tracker.handle_timeout(now);
        }
        loop {
            if let Some(Brought::Late(publication)) = self.midway.front() {
                self.ring.push(Arc::clone(publication), now);
                self.midway.pop_front();
            } else if let Some(brought) = self.midway.pop_front() {
                bring(brought, agenda);
            } else if let Some(effect) = self.tracker.next_effect() {
                self.carry_out(here, effect, agenda);
            } else {
                break;
            }
            let pause = agenda.plan.faults.pause;
            if pauses && agenda.chance(pause) {
                let delay = agenda.draw(agenda.plan.faults.pause_max);
                agenda.later(delay, Event::Node(here, NodeEvent::Wake { stream: self.stream }));
                return;
            }
        }
        if let Some(position) = self.tracker.position() {
            self.ring.advance(position);
        }
        self.ring.trim(now);
    }

    fn carry_out(&mut self, here: Here, effect: Effect, agenda: &mut Agenda) {
        match effect {
            Effect::Deliver(publication) => {
                agenda.note(|| format!("{here:?} delivers {:?}", publication.position));
                let after = self.put_off.take();
                if after.is_none() && agenda.has(Bug::SwapTwo, 10) {
                    self.put_off = Some(publication);
                } else if !agenda.has(Bug::SkipSequence, 10) {
                    self.bring(publication, agenda);
                }
                if let Some(publication) = after {
                    self.bring(publication, agenda);
                }
            }
            Effect::Lost { position } => {
                agenda.note(|| format!("{here:?} lost up to {position}"));
                agenda.tally.lost += 1;
                self.ring.lost(position);
                if agenda.bug != Bug::LoseInSilence {
                    self.midway.push_back(Brought::Lost(position));
                }
            }
            Effect::Fetch { from, to } => {
                let ask = agenda.number();
                self.fetching = Some(ask);
                let delay = agenda.draw(5 * MS);
                let question = ServerEvent::Fetch { stream: self.stream, ask, from, to };
                agenda.later(delay, Event::Server(here, question));
                let nothing = NodeEvent::Fetched { stream: self.stream, ask, answer: None };
                agenda.later(PATIENCE, Event::Node(here, nothing));
            }
            Effect::Epoch(epoch) => {
                agenda.note(|| format!("{here:?} follows {} in {epoch}", self.stream));
                self.followed.push(epoch);
            }
            Effect::WentBack(epoch) => {
                agenda.note(|| format!("{here:?} says {} went back in {epoch}", self.stream));
                agenda.tally.went_back += 1;
                self.renew = Some(epoch);
                self.feed_is_old = true;
                self.poll_at = self.poll_at.min(agenda.now + agenda.draw(POLL_UNSETTLED));
            }
        }
    }

    /// Remembers a publication, then hands it on: who attaches in between has it already.
    fn bring(&mut self, publication: Arc<Publication>, agenda: &Agenda) {
        if agenda.bug == Bug::RememberLate {
            self.midway.push_back(Brought::Deliver(Arc::clone(&publication)));
            self.midway.push_back(Brought::Late(publication));
        } else {
            self.ring.push(Arc::clone(&publication), agenda.instant());
            self.midway.push_back(Brought::Deliver(publication));
        }
    }
}
