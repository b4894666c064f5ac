//! Idempotency keys of live messages.
//!
//! **Lives here:** which (channel, key) pairs this node handed on within the last minute. Channels with history
//! need none of this: their broker remembers.
//! **Called by:** the router for what arrives, `publish` for what leaves.
//! **Must not know:** publishers.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use carillon_model::{ChannelName, IdempotencyKey};

/// For how long a key is remembered.
const WINDOW: Duration = Duration::from_mins(1);

/// Most keys that are remembered; past it the oldest is forgotten early.
const KEYS_MAX: usize = 1 << 17;

type Key = (ChannelName, IdempotencyKey);

/// The keys of the last minute.
#[derive(Debug, Default)]
pub(crate) struct RecentKeys(Mutex<Keys>);

#[derive(Debug, Default)]
struct Keys {
    known: HashSet<Key>,
    order: VecDeque<(Instant, Key)>,
}

impl RecentKeys {
    /// Says whether the pair is new, and remembers it.
    pub(crate) fn is_first(&self, channel: &ChannelName, key: &IdempotencyKey, now: Instant) -> bool {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while keys.order.len() >= KEYS_MAX
            || keys.order.front().is_some_and(|(then, _)| now.saturating_duration_since(*then) > WINDOW)
        {
            if let Some((_, oldest)) = keys.order.pop_front() {
                keys.known.remove(&oldest);
            }
        }
        let pair = (channel.clone(), key.clone());
        let first = keys.known.insert(pair.clone());
        if first {
            keys.order.push_back((now, pair));
        }
        first
    }

    /// Forgets a pair that came to nothing, so that a retry is first again.
    pub(crate) fn forget(&self, channel: &ChannelName, key: &IdempotencyKey) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (channel.clone(), key.clone());
        if keys.known.remove(&pair)
            && let Some(place) = keys.order.iter().rposition(|(_, known)| *known == pair)
        {
            // It was remembered a moment ago, so it is near the end.
            keys.order.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use carillon_tasks::clock;

    use super::*;

    #[test]
    fn a_key_is_first_once_a_minute_in_each_channel() {
        let keys = RecentKeys::default();
        let (a, b) = (ChannelName::new("a").unwrap(), ChannelName::new("b").unwrap());
        let key = IdempotencyKey::new("k").unwrap();
        let now = clock::now();
        assert!(keys.is_first(&a, &key, now));
        assert!(!keys.is_first(&a, &key, now + WINDOW));
        assert!(keys.is_first(&b, &key, now));
        assert!(keys.is_first(&a, &key, now + WINDOW + Duration::from_millis(1)));
        keys.forget(&b, &key);
        assert!(keys.is_first(&b, &key, now));
    }
}
