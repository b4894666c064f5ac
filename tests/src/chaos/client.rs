//! A client that checks: it stays whatever happens, comes back elsewhere, and writes down what it saw.
//!
//! **Lives here:** its life from connection to connection, back-off, where it stands, how long it takes to catch up.
//! **Called by:** `chaos` starts them; `speech` reads for them.
//! **Must not know:** what was done to whom, but for naming the cause of a disconnect.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use carillon_model::Position;
use carillon_tasks::clock;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    checker::{Event, Past, Reason, Seen, Story},
    faults::dice::Dice,
};

use super::{
    content,
    plan::Transport,
    world::{Cause, Farewell, World},
};

/// What a client waits when its connection broke, at most, the first time and after many.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(400), Duration::from_secs(5));

/// What a client waits after a close with 41xx, at least.
const SECOND: Duration = Duration::from_secs(1);

/// What an EventSource waits when it was not told.
const RETRY: Duration = Duration::from_secs(2);

/// How a connection ended, or did not begin.
#[derive(Debug)]
pub(super) enum End {
    /// The client has seen all that there is.
    Finished,
    /// The server said goodbye, and when to come back.
    Polite(u16, Option<Duration>),
    /// The connection broke.
    Abnormal,
    /// Nothing came for too long.
    Silence,
    /// There was no connection, or no welcome.
    NotBegun,
    /// The server refused, and may have said when to come back.
    Refused(String, Option<Duration>),
}

/// What a text that was heard asks the client to do.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing.
    Nothing,
    /// It was taken off a channel, as it asked.
    Left(u16),
    /// The connection will be ended.
    Goodbye(u16, Option<Duration>),
    /// Something it asked for was refused.
    Refused(String, Option<Duration>),
}

/// What is still to come until everything that was missed was read.
#[derive(Debug)]
struct Behind {
    /// Why, and since when. `None` at the first connection.
    since: Option<(Cause, Instant)>,
    /// Messages to come; `None` while it is not known how many.
    owed: BTreeMap<u16, Option<u32>>,
}

#[derive(Debug)]
pub(super) struct Client {
    pub(super) world: Arc<World>,
    pub(super) transport: Transport,
    pub(super) story: Story,
    pub(super) dice: Dice,
    /// Where it stands.
    pub(super) stands: BTreeMap<u16, Position>,
    /// What it was told to come back with, where one text stands for all channels.
    pub(super) cursor: Option<String>,
    /// What an EventSource waits.
    pub(super) retry: Duration,
    node: usize,
    /// Straight, or through the cable of its node.
    way: usize,
    connected: bool,
    behind: Option<Behind>,
    failures: u32,
    settled: bool,
}

impl Client {
    pub(super) fn new(
        world: &Arc<World>,
        number: usize,
        transport: Transport,
        spoilt: bool,
        channels: Vec<u16>,
    ) -> Self {
        let name = format!("client {number} ({})", transport.name());
        Self {
            world: Arc::clone(world),
            transport,
            story: Story { name, channels, events: Vec::new() },
            dice: Dice::of(world.seed, 1000 + number as u64),
            stands: BTreeMap::new(),
            cursor: None,
            retry: RETRY,
            node: number % world.nodes.len(),
            way: usize::from(spoilt),
            connected: false,
            behind: None,
            failures: 0,
            settled: false,
        }
    }

    /// Lives until it has seen the end of every channel.
    pub(super) async fn live(&mut self) {
        let mut gate = self.world.gate.subscribe();
        loop {
            let _closed_for_ever = gate.wait_for(|open| *open).await.is_err();
            let end = match self.transport {
                Transport::WebSocket => self.websocket().await,
                Transport::Sse | Transport::Lines => self.listen().await,
                Transport::Poll => self.poll().await,
            };
            if matches!(end, End::Finished) {
                self.world.finished.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let wait = self.mourn(&end);
            // Another node, which its list of addresses names.
            self.node =
                (self.node + 1 + self.dice.place(self.world.nodes.len() - 1)) % self.world.nodes.len();
            sleep(wait).await;
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        let node = self.world.nodes.get(self.node)?;
        node.public.get(self.way).copied()
    }

    /// Notes how a connection ended, and returns how long to wait.
    fn mourn(&mut self, end: &End) -> Duration {
        let cause = self.world.cause(self.node);
        let farewell = match end {
            End::Polite(code, _) => Some(Farewell::Polite(*code)),
            End::Abnormal => Some(Farewell::Abnormal),
            End::Silence => Some(Farewell::Silence),
            End::Finished | End::NotBegun | End::Refused(..) => None,
        };
        if self.connected {
            self.connected = false;
            self.see(Seen::Disconnected);
            let since = self.behind.take().and_then(|behind| behind.since);
            self.behind =
                Some(Behind { since: since.or(Some((cause, clock::now()))), owed: BTreeMap::new() });
        }
        let transport = self.transport.name();
        self.world.count(|counted| {
            if let Some(farewell) = farewell {
                *counted.farewells.entry((cause, transport, farewell)).or_default() += 1;
            }
            match end {
                End::NotBegun => *counted.not_begun.entry(cause).or_default() += 1,
                End::Refused(why, _) => *counted.refusals.entry(why.clone()).or_default() += 1,
                End::Finished | End::Polite(..) | End::Abnormal | End::Silence => {}
            }
        });
        self.wait(end)
    }

    fn wait(&mut self, end: &End) -> Duration {
        if let End::Polite(code, told) = end
            && self.transport != Transport::Sse
        {
            return match code {
                4200..4300 => self.dice.time(Duration::ZERO, told.unwrap_or(SECOND)),
                _ => SECOND + self.dice.time(Duration::ZERO, told.unwrap_or(SECOND)),
            };
        }
        self.failures = self.failures.saturating_add(1);
        let most = BACK_OFF.0.saturating_mul(1 << self.failures.min(6).saturating_sub(1)).min(BACK_OFF.1);
        match (self.transport, end) {
            // A browser waits what it was told, whatever happened.
            (Transport::Sse, End::Polite(..) | End::Abnormal | End::Silence | End::NotBegun) => self.retry,
            (_, End::Refused(_, Some(told))) => *told + self.dice.time(Duration::ZERO, most),
            _ => self.dice.time(Duration::ZERO, most),
        }
    }

    /// Notes that a connection has begun.
    pub(super) fn begin(&mut self) {
        self.connected = true;
        self.failures = 0;
        self.see(Seen::Connected);
        let owed = self.story.channels.iter().map(|channel| (*channel, None)).collect();
        let since = self.behind.take().and_then(|behind| behind.since);
        self.behind = Some(Behind { since, owed });
    }

    fn see(&mut self, seen: Seen) {
        self.story.events.push(Event { at_ms: self.world.at_ms(), seen });
    }

    /// Says whether it stands where every channel ends.
    pub(super) fn has_finished(&self) -> bool {
        let ends = self.world.ends.borrow();
        let Some(ends) = &*ends else { return false };
        self.connected
            && self.story.channels.iter().all(|channel| {
                let (stand, end) = (self.stands.get(channel), ends.get(usize::from(*channel)));
                stand
                    .zip(end)
                    .is_some_and(|(stand, end)| stand.epoch == end.epoch && stand.offset >= end.offset)
            })
    }

    /// Hears a text of the server.
    pub(super) fn hear(&mut self, text: &str) -> Heard {
        if let Some(seen) = content::message(&self.world, text) {
            self.see(seen);
            if let Seen::Message { what, position, .. } = seen {
                self.stands.insert(what.channel, position);
                self.catch_up(what.channel, |owed| owed.map(|count| count.saturating_sub(1)));
            }
            return Heard::Nothing;
        }
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let told = frame["retry_after_ms"].as_u64().map(Duration::from_millis);
        let channel = frame["channel"].as_str().and_then(|name| self.world.numbers.get(name).copied());
        let code = frame["code"].as_u64().and_then(|code| u16::try_from(code).ok());
        match (frame["type"].as_str(), channel) {
            (Some("welcome" | "ping"), _) => Heard::Nothing,
            (Some("goodbye"), _) => Heard::Goodbye(code.unwrap_or(0), told),
            (Some("subscribed"), Some(channel)) => self.subscribed(channel, &frame),
            (Some("gap"), Some(channel)) => {
                let position = frame["position"].as_str().and_then(|text| text.parse().ok());
                self.gap(channel, position)
            }
            (Some("unsubscribed"), Some(channel)) => {
                self.see(Seen::Unsubscribed { channel });
                match code {
                    None => Heard::Left(channel),
                    Some(_) => Heard::Refused(format!("unsubscribed: {}", frame["error"]), told),
                }
            }
            (Some("error"), _) => Heard::Refused(format!("error: {}", frame["error"]), told),
            _ => {
                self.see(Seen::Nonsense);
                Heard::Nothing
            }
        }
    }

    pub(super) fn gap(&mut self, channel: u16, position: Option<Position>) -> Heard {
        self.see(Seen::Gap { channel, position });
        if let Some(position) = position {
            self.stands.insert(channel, position);
        }
        Heard::Nothing
    }

    fn subscribed(&mut self, channel: u16, frame: &Value) -> Heard {
        let position = frame["position"].as_str().and_then(|text| text.parse().ok());
        let replayed = frame["replayed"].as_u64().and_then(|count| u32::try_from(count).ok());
        // Wherever it stood, it has asked to go on from there.
        let has_asked = self.stands.contains_key(&channel);
        let reason = match frame["reason"].as_str() {
            Some("epoch") => Some(Reason::Epoch),
            Some("expired") => Some(Reason::Expired),
            Some("limit") => Some(Reason::Limit),
            Some("unavailable") => Some(Reason::Unavailable),
            _ => None,
        };
        let past = match (frame["recovered"].as_bool(), reason, replayed) {
            (None, None, None) if !has_asked => Some(Past::NotAsked),
            (Some(true), None, Some(replayed)) => Some(Past::Recovered(replayed)),
            (Some(false), Some(reason), None) => Some(Past::Lost(reason)),
            _ => None,
        };
        let (Some(position), Some(past)) = (position, past) else {
            self.see(Seen::Nonsense);
            return Heard::Nothing;
        };
        self.see(Seen::Subscribed { channel, position, past });
        self.stands.insert(channel, position);
        let count = if let Past::Recovered(count) = past { count } else { 0 };
        self.catch_up(channel, |_| Some(count));
        Heard::Nothing
    }

    /// Notes what is still to come of a channel, and whether that was the last.
    fn catch_up(&mut self, channel: u16, change: impl FnOnce(Option<u32>) -> Option<u32>) {
        let Some(behind) = &mut self.behind else { return };
        let Some(owed) = behind.owed.get_mut(&channel) else { return };
        *owed = change(*owed);
        if behind.owed.values().any(|owed| *owed != Some(0)) {
            return;
        }
        let since = self.behind.take().and_then(|behind| behind.since);
        if let Some((cause, since)) = since {
            let transport = self.transport.name();
            let took = clock::now() - since;
            self.world.count(|counted| counted.caught_up.entry((cause, transport)).or_default().push(took));
        }
        if !std::mem::replace(&mut self.settled, true) {
            self.world.settled.fetch_add(1, Ordering::Relaxed);
        }
    }
}
