//! Who is in which presence channel, and how many subscribers counted channels have, over all nodes.
//!
//! **Lives here:** the rosters under one lock, and the order of what is told of them: every change has a number, and a
//! view of a roster says up to which number it is complete.
//! **Called by:** workers for their clients, `neighbours` for what other nodes say, a task of its own for time.
//! **Must not know:** the rules of rosters: those are `presence`'s; sessions, dialects.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use carillon_broker::{Audience, Link};
use carillon_model::{ChannelKind, ChannelName, ConnectionId, Member, NodeId, UserId};
use carillon_presence::{Effect, Fact, Full, Rosters, Settings, What, Word};
use carillon_tasks::{Phase, Stop, clock};
use carillon_telemetry::metric;

use crate::{
    Router,
    neighbours::{Kind, Voice},
    node::approximately,
    tell::{Tell, Told},
};

/// How often time passes for rosters at least; they never wait for less.
const TICK: Duration = Duration::from_millis(100);

/// How often the application is told of a channel's number of subscribers at most, by webhooks.
const COUNTS_EVERY: Duration = Duration::from_secs(1);

/// A process for which no time passed for so long was stopped, or its machine was: as long as others may be silent
/// before they count as dead, less the time in which they would have spoken.
const STOOD_STILL: Duration = Duration::from_secs(4);

/// The rosters of a node.
pub(crate) struct Crowd {
    state: Mutex<State>,
    router: Arc<Router>,
    voice: Voice,
    tell: OnceLock<Arc<dyn Tell>>,
}

struct State {
    rosters: Rosters,
    /// The number of the last change.
    turn: u64,
    /// Subscriptions of this node, of channels that are counted.
    counts: HashMap<ChannelName, u32>,
    /// The last count of each channel that the application is to be told of.
    untold: BTreeMap<ChannelName, Fact>,
    told_at: Instant,
}

/// A change, for those who are told of it.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) channel: ChannelName,
    pub(crate) what: Changed,
    /// Its number.
    pub(crate) turn: u64,
}

/// What changed.
#[derive(Clone, Debug)]
pub(crate) enum Changed {
    Came(Member),
    Went(Member),
    Counted(u64),
}

/// A view of something that changes: whoever has it is told of changes with greater numbers.
#[derive(Debug)]
pub(crate) struct View<T> {
    pub(crate) what: T,
    pub(crate) turn: u64,
}

impl Crowd {
    pub(crate) fn new(me: NodeId, settings: Settings, router: Arc<Router>, voice: Voice) -> Self {
        let now = clock::now();
        let rosters = Rosters::new(me, settings, now);
        let (counts, untold) = (HashMap::new(), BTreeMap::new());
        let state = State { rosters, turn: 0, counts, untold, told_at: now };
        Self { state: Mutex::new(state), router, voice, tell: OnceLock::new() }
    }

    /// Sets who is told what webhooks may tell.
    pub(crate) fn set_tell(&self, tell: Arc<dyn Tell>) {
        let _set_once = self.tell.set(tell).is_ok();
    }

    /// Tells the application, if anybody does.
    pub(crate) fn tell(&self, channel: &ChannelName, told: Told) {
        if let Some(tell) = self.tell.get() {
            tell.tell(channel, told, None);
        }
    }

    /// Makes a connection a member, unless the channel has `members_max` others.
    pub(crate) fn join(
        &self,
        channel: &ChannelName,
        connection: ConnectionId,
        member: Member,
        members_max: usize,
    ) -> Result<(), Full> {
        self.change(|state| state.rosters.handle_join(channel, connection, member, members_max, clock::now()))
    }

    /// Ends a connection's membership, if it has one.
    pub(crate) fn leave(&self, channel: &ChannelName, connection: ConnectionId) {
        self.change(|state| state.rosters.handle_leave(channel, connection, clock::now()));
    }

    /// Counts a subscription of this node.
    pub(crate) fn count_in(&self, channel: &ChannelName) {
        self.change(|state| {
            let count = state.counts.entry(channel.clone()).or_default();
            *count = count.saturating_add(1);
            state.rosters.handle_count(channel, *count, clock::now());
        });
    }

    /// Counts the end of one.
    pub(crate) fn count_out(&self, channel: &ChannelName) {
        self.change(|state| {
            let Some(count) = state.counts.get_mut(channel) else { return };
            *count = count.saturating_sub(1);
            let left = *count;
            if left == 0 {
                state.counts.remove(channel);
            }
            state.rosters.handle_count(channel, left, clock::now());
        });
    }

    /// Returns who is in a channel, one entry for each user.
    pub(crate) fn members(&self, channel: &ChannelName) -> View<Vec<Member>> {
        let state = self.lock();
        View { what: state.rosters.members(channel).into_iter().cloned().collect(), turn: state.turn }
    }

    /// Returns what a connection is in a channel.
    pub(crate) fn member(&self, channel: &ChannelName, connection: ConnectionId) -> Option<Member> {
        self.lock().rosters.member(channel, connection).cloned()
    }

    /// Returns how many subscribers a counted channel has.
    pub(crate) fn count(&self, channel: &ChannelName) -> View<u64> {
        let state = self.lock();
        View { what: state.rosters.count(channel), turn: state.turn }
    }

    /// Says whether a user is in a channel.
    pub(crate) fn is_here(&self, channel: &ChannelName, user: &UserId) -> View<bool> {
        let state = self.lock();
        View { what: state.rosters.is_here(channel, user), turn: state.turn }
    }

    /// Returns the nodes that are alive, this one among them.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.lock().rosters.nodes().collect()
    }

    /// Takes a word of another node.
    pub(crate) fn hear(&self, from: NodeId, word: &[u8]) {
        match Word::decode(word) {
            Ok(word) => {
                self.change(|state| state.rosters.handle_word(from, word, clock::now()));
                self.answer();
            }
            Err(garbage) => tracing::debug!(%garbage, %from, "a node's word about rosters cannot be read"),
        }
    }

    /// Learns how the link to other nodes stands.
    pub(crate) fn link(&self, link: Link) {
        let link = match link {
            Link::Up => carillon_presence::Link::Up,
            Link::Down => carillon_presence::Link::Down,
        };
        self.change(|state| state.rosters.handle_link(link, clock::now()));
    }

    /// Says goodbye to the other nodes: this one's members leave at once.
    pub(crate) fn farewell(&self) {
        self.change(|state| state.rosters.handle_farewell(clock::now()));
    }

    /// Lets time pass, until the process is cut.
    pub(crate) async fn run(&self, stop: Stop) {
        let mut interval = tokio::time::interval(TICK);
        let mut before = clock::now();
        loop {
            tokio::select! {
                () = stop.reached(Phase::Cut) => return,
                _tick = interval.tick() => {}
            }
            let now = clock::now();
            let stood_still = now.saturating_duration_since(before) > STOOD_STILL;
            before = now;
            self.change(|state| {
                if stood_still {
                    // It was this process that was silent, not the others: their words are waiting to be heard.
                    state.rosters.handle_link(carillon_presence::Link::Down, now);
                    state.rosters.handle_link(carillon_presence::Link::Up, now);
                }
                if state.rosters.next_deadline().is_some_and(|deadline| deadline <= now) {
                    state.rosters.handle_timeout(now);
                }
                if now.saturating_duration_since(state.told_at) >= COUNTS_EVERY {
                    state.told_at = now;
                    std::mem::take(&mut state.untold).into_values().for_each(|fact| self.report(fact));
                }
            });
            self.answer();
        }
    }

    /// Shows how much is remembered; called before each scrape.
    pub(crate) fn show(&self) {
        let state = self.lock();
        let nodes = state.rosters.nodes().count();
        metric::NODES.gauge(&[]).set(approximately(nodes));
        metric::PRESENCE_MEMBERS.gauge(&[]).set(approximately(state.rosters.entries()));
        metric::PRESENCE_WAITING.gauge(&[]).set(approximately(state.rosters.waiting()));
    }

    /// Changes the rosters and carries out what they decide, all under the lock: words and changes leave in the order
    /// in which they were made.
    fn change<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let answer = act(&mut state);
        while let Some(effect) = state.rosters.next_effect() {
            match effect {
                Effect::Say(audience, word) => {
                    let audience = match audience {
                        carillon_presence::Audience::All => Audience::All,
                        carillon_presence::Audience::Node(node) => Audience::Node(node),
                    };
                    self.voice.say(audience, Kind::Roster, &word.encode());
                }
                Effect::Added { channel, member } => {
                    self.spread(&mut state.turn, channel, Changed::Came(member));
                }
                Effect::Removed { channel, member } => {
                    self.spread(&mut state.turn, channel, Changed::Went(member));
                }
                Effect::Counted { channel, count } => {
                    self.spread(&mut state.turn, channel, Changed::Counted(count));
                }
                // Those of presence channels are told one by one.
                Effect::Told(Fact { channel, what: what @ What::Counted(_), key }) => {
                    if !ChannelKind::of(&channel).presence {
                        state.untold.insert(channel.clone(), Fact { channel, what, key });
                    }
                }
                Effect::Told(fact) => self.report(fact),
            }
        }
        answer
    }

    /// Says what other nodes have asked for, as much as there may be now. Each piece has the lock for itself, and becomes
    /// bytes without it: joins and heartbeats come in between.
    fn answer(&self) {
        loop {
            let answer = self.lock().rosters.next_answer(clock::now());
            let Some((whom, word)) = answer else { return };
            self.voice.say(Audience::Node(whom), Kind::Roster, &word.encode());
        }
    }

    fn spread(&self, turn: &mut u64, channel: ChannelName, what: Changed) {
        *turn = turn.saturating_add(1);
        self.router.change(&Arc::new(Change { channel, what, turn: *turn }));
    }

    fn report(&self, fact: Fact) {
        let Some(tell) = self.tell.get() else { return };
        let Fact { channel, what, key } = fact;
        let told = match what {
            What::Occupied => Told::Occupied,
            What::Vacated => Told::Vacated,
            What::Came(member) => Told::Came(member),
            What::Went(member) => Told::Went(member),
            What::Counted(count) => Told::Counted(count),
        };
        tell.tell(&channel, told, Some(key));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crowd").finish_non_exhaustive()
    }
}
