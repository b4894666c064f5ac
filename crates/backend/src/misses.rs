//! Cache channels that were found empty a moment ago.
//!
//! **Lives here:** which of those who find one empty at the same time is the first.
//! **Called by:** `webhooks`, on this node; the work queue does it for all nodes, a second at a time.
//! **Must not know:** who is told.

use std::{collections::HashMap, time::Duration};

use carillon_model::{ChannelName, UnixMillis};

/// What counts as the same time.
const SAME: Duration = Duration::from_secs(1);
/// Channels that are remembered; those beyond are told each time.
const MISSES_MAX: usize = 10_000;

/// When each was found empty.
#[derive(Debug, Default)]
pub(crate) struct Misses(HashMap<ChannelName, UnixMillis>);

impl Misses {
    /// Notes that a channel was found empty. Returns whether that is news.
    pub(crate) fn note(&mut self, channel: &ChannelName, now: UnixMillis) -> bool {
        let is_fresh = |at: UnixMillis| now.since(at) < SAME;
        if self.0.get(channel).is_some_and(|at| is_fresh(*at)) {
            return false;
        }
        if self.0.len() >= MISSES_MAX {
            self.0.retain(|_, at| is_fresh(*at));
        }
        if self.0.len() < MISSES_MAX {
            self.0.insert(channel.clone(), now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(misses: &mut Misses, name: &str, at: u64) -> bool {
        misses.note(&ChannelName::new(name).expect("a test uses good names"), UnixMillis::new(at))
    }

    #[test]
    fn a_channel_that_several_find_empty_is_news_once_a_second() {
        let mut misses = Misses::default();
        for (name, at, news) in [
            ("a", 1500, true),
            ("a", 1500, false),
            ("b", 1600, true),
            ("a", 2499, false),
            ("a", 2500, true),
            ("a", 2501, false),
        ] {
            assert_eq!(note(&mut misses, name, at), news, "{name} at {at}");
        }
    }

    #[test]
    fn so_many_are_remembered_and_the_rest_is_news() {
        let mut misses = Misses::default();
        for n in 0..MISSES_MAX {
            assert!(note(&mut misses, &n.to_string(), 0));
        }
        assert!(note(&mut misses, "more", 999) && note(&mut misses, "more", 999));
        assert!(!note(&mut misses, "0", 999));
        assert!(note(&mut misses, "more", 1000) && !note(&mut misses, "more", 1000));
        assert_eq!(misses.0.len(), 1, "the old ones made room");
    }
}
