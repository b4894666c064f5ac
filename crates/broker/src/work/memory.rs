//! The embedded broker's work queue: one process, lost with it.
//!
//! **Lives here:** the lanes, who has taken from them, the keys of the last minutes.
//! **Called by:** `gateway` when no NATS is configured.
//! **Must not know:** networks.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_model::IdempotencyKey;
use carillon_tasks::clock;
use futures_util::future::{BoxFuture, FutureExt as _, ready};
use tokio::{
    sync::Notify,
    time::{sleep, timeout_at},
};

use super::{KEY_AGE, LEASE, Lane, Receipt, TAKE_MAX, Work, WorkError, WorkQueue};
use crate::PublishError;

/// Pieces of work that wait at a time, all lanes together; more is refused.
const WORKS_MAX: usize = 100_000;
/// Bytes of them, as on NATS.
const WORKS_MAX_BYTES: usize = 64 << 20;

/// Keeps work in this process's memory.
#[derive(Default)]
pub struct MemoryQueue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Those with work.
    lanes: BTreeMap<Lane, Works>,
    count: usize,
    bytes: usize,
    /// Keys of the last minutes, and in which order they came; no more than [`WORKS_MAX`].
    keys: HashSet<(Lane, IdempotencyKey)>,
    key_order: VecDeque<(Instant, Lane, IdempotencyKey)>,
    takings: u64,
}

#[derive(Default)]
struct Works {
    /// Oldest first, those that are held among them.
    waiting: VecDeque<Bytes>,
    held: Option<Held>,
}

/// The first of a lane are in somebody's hands.
struct Held {
    taking: u64,
    count: usize,
    until: Instant,
}

impl MemoryQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_in_turn(&self, lane: Lane, at_most: usize, gather: Duration) -> Option<Work> {
        let deadline = clock::now() + TAKE_MAX;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let there = self.lock().free(lane, clock::now());
            if there == 0 {
                timeout_at(deadline.into(), changed).await.ok()?;
                continue;
            }
            if there < at_most {
                sleep(gather).await;
            }
            let taken = self.lock().take(lane, at_most, clock::now());
            if taken.is_some() {
                return taken;
            }
        }
    }
}

impl WorkQueue for MemoryQueue {
    fn put(
        &self,
        lane: Lane,
        key: IdempotencyKey,
        body: Bytes,
        _deadline: Instant,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        let put = self.lock().put(lane, key, body, clock::now());
        self.changed.notify_waiters();
        ready(put).boxed()
    }

    fn take(
        &self,
        lane: Lane,
        at_most: usize,
        gather: Duration,
    ) -> BoxFuture<'_, Result<Option<Work>, WorkError>> {
        self.take_in_turn(lane, at_most, gather).map(Ok).boxed()
    }

    fn keep<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<(), WorkError>> {
        if let Some(held) = self.lock().held(&work.receipt) {
            held.until = clock::now() + LEASE;
        }
        ready(Ok(())).boxed()
    }

    fn done<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<(), WorkError>> {
        self.lock().remove(&work.receipt);
        self.changed.notify_waiters();
        ready(Ok(())).boxed()
    }
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue").field("works", &self.lock().count).finish_non_exhaustive()
    }
}

impl State {
    fn put(
        &mut self,
        lane: Lane,
        key: IdempotencyKey,
        body: Bytes,
        now: Instant,
    ) -> Result<(), PublishError> {
        while let Some((at, ..)) = self.key_order.front()
            && (*at + KEY_AGE <= now || self.key_order.len() >= WORKS_MAX)
            && let Some((_, lane, key)) = self.key_order.pop_front()
        {
            self.keys.remove(&(lane, key));
        }
        if self.keys.contains(&(lane, key.clone())) {
            return Ok(());
        }
        if self.count >= WORKS_MAX || self.bytes + body.len() > WORKS_MAX_BYTES {
            return Err(PublishError::StorageFull);
        }
        self.keys.insert((lane, key.clone()));
        self.key_order.push_back((now, lane, key));
        self.count += 1;
        self.bytes += body.len();
        self.lanes.entry(lane).or_default().waiting.push_back(body);
        Ok(())
    }

    /// Returns how much can be taken from a lane.
    fn free(&self, lane: Lane, now: Instant) -> usize {
        let free = |works: &&Works| works.held.as_ref().is_none_or(|held| held.until <= now);
        self.lanes.get(&lane).filter(free).map_or(0, |works| works.waiting.len())
    }

    fn take(&mut self, lane: Lane, at_most: usize, now: Instant) -> Option<Work> {
        let count = self.free(lane, now).min(at_most);
        let works = self.lanes.get_mut(&lane).filter(|_| count > 0)?;
        self.takings += 1;
        works.held = Some(Held { taking: self.takings, count, until: now + LEASE });
        let bodies = works.waiting.iter().take(count).cloned().collect();
        Some(Work { bodies, receipt: Receipt { lane, token: String::new(), last: self.takings } })
    }

    /// Returns what a taker holds, unless it was given to another meanwhile.
    fn held(&mut self, receipt: &Receipt) -> Option<&mut Held> {
        self.lanes.get_mut(&receipt.lane)?.held.as_mut().filter(|held| held.taking == receipt.last)
    }

    fn remove(&mut self, receipt: &Receipt) {
        let Some(count) = self.held(receipt).map(|held| held.count) else { return };
        let Some(works) = self.lanes.get_mut(&receipt.lane) else { return };
        let bytes: usize = works.waiting.drain(..count).map(|body| body.len()).sum();
        works.held = None;
        if works.waiting.is_empty() {
            self.lanes.remove(&receipt.lane);
        }
        self.count -= count;
        self.bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Shard;

    fn lane(endpoint: u64) -> Lane {
        Lane::new(endpoint, Shard::all().next().unwrap())
    }

    fn key(text: &str) -> IdempotencyKey {
        IdempotencyKey::new(text).unwrap()
    }

    #[test]
    fn work_that_nobody_keeps_is_given_to_the_next_and_the_first_cannot_remove_it() {
        let (mut state, start) = (State::default(), clock::now());
        for text in ["a", "b", "c"] {
            state.put(lane(1), key(text), Bytes::from(text), start).unwrap();
        }
        let first = state.take(lane(1), 2, start).unwrap();
        assert_eq!(first.bodies, ["a", "b"]);
        let late = start + LEASE;
        assert!(state.take(lane(1), 2, late - Duration::from_millis(1)).is_none());
        let second = state.take(lane(1), 1, late).unwrap();
        assert_eq!(second.bodies, ["a"]);
        state.remove(&first.receipt);
        assert_eq!((state.count, state.bytes), (3, 3), "it is not the first one's any more");
        state.remove(&second.receipt);
        assert_eq!(state.take(lane(1), 9, late).unwrap().bodies, ["b", "c"]);
    }

    #[test]
    fn a_key_is_put_once_for_its_lane_and_for_a_while() {
        let (mut state, start) = (State::default(), clock::now());
        for (endpoint, at, count) in [(1, start, 1), (1, start, 1), (2, start, 2), (1, start + KEY_AGE, 3)] {
            state.put(lane(endpoint), key("k"), Bytes::from("x"), at).unwrap();
            assert_eq!(state.count, count);
        }
        assert_eq!((state.keys.len(), state.key_order.len()), (1, 1));
    }

    #[test]
    fn the_newest_is_refused_when_it_is_full_and_taken_when_there_is_room() {
        let (mut state, now) = (State::default(), clock::now());
        let half = Bytes::from(vec![0; WORKS_MAX_BYTES / 2]);
        state.put(lane(1), key("a"), half.clone(), now).unwrap();
        state.put(lane(1), key("b"), half, now).unwrap();
        assert_eq!(state.put(lane(2), key("c"), Bytes::from("x"), now), Err(PublishError::StorageFull));
        let work = state.take(lane(1), 1, now).unwrap();
        state.remove(&work.receipt);
        assert_eq!(state.put(lane(2), key("c"), Bytes::from("x"), now), Ok(()));
        assert_eq!(state.count, 2, "the key of what was refused was not remembered");
        for n in 0..WORKS_MAX - 2 {
            state.put(lane(3), key(&n.to_string()), Bytes::new(), now).unwrap();
        }
        assert_eq!(state.put(lane(3), key("d"), Bytes::new(), now), Err(PublishError::StorageFull));
    }
}
