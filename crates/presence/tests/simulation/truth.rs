//! What is true, and what the application was told of it.

use std::collections::{BTreeMap, BTreeSet};

use carillon_model::{ChannelName, UserId};
use carillon_presence::{Fact, What};

/// Shorter gaps are never told, longer ones always; in between it depends on who sees what when.
const SURELY_HELD: u64 = 2_500;
const SURELY_TOLD: u64 = 3_500;

/// Nodes that start at the same time tell nothing before they know each other, and then perhaps the same.
const STARTED: u64 = 22_000;

/// Of whom something is told: a user of a channel, or the channel's subscribers.
pub(crate) type Topic = (ChannelName, Option<UserId>);

/// When another node begins to tell, it tells the last facts again. Two joins at a time are in one order here and in the
/// other there, so that the fact may have another key.
const TAKEN_OVER: u64 = 22_000;

/// What is there, over all nodes, and since when it was there or not.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// How many entries there are of a topic.
    entries: BTreeMap<Topic, u64>,
    /// When the last entry went.
    ended: BTreeMap<Topic, u64>,
    /// How many times it surely has begun, and may have begun.
    begun: BTreeMap<Topic, (u64, u64)>,
}

impl Truth {
    pub(crate) fn add(&mut self, topic: &Topic, now: u64) {
        let entries = self.entries.entry(topic.clone()).or_default();
        *entries += 1;
        if *entries == 1 {
            let gap = self.ended.get(topic).map_or(u64::MAX, |ended| now - ended);
            let (least, most) = self.begun.entry(topic.clone()).or_default();
            *least += u64::from(gap > SURELY_TOLD && now > STARTED);
            *most += u64::from(gap > SURELY_HELD);
        }
    }

    pub(crate) fn remove(&mut self, topic: &Topic, now: u64) {
        let entries = self.entries.get_mut(topic).expect("it was added");
        *entries -= 1;
        if *entries == 0 {
            self.entries.remove(topic);
            self.ended.insert(topic.clone(), now);
        }
    }

    pub(crate) fn forget_reserved(&mut self) {
        self.entries.retain(|(channel, _), _| !channel.is_reserved());
        self.begun.retain(|(channel, _), _| !channel.is_reserved());
    }

    pub(crate) fn users(&self, channel: &ChannelName) -> Vec<UserId> {
        let users = self.entries.keys().filter(|(of, user)| of == channel && user.is_some());
        users.filter_map(|(_, user)| user.clone()).collect()
    }
}

/// What the application has heard.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    keys: BTreeSet<String>,
    /// What was told more than once, after all nodes had started.
    pub(crate) repeated: Vec<String>,
    /// When nodes started or stopped, and how many times.
    changed_at: u64,
    changes: u64,
    believed: BTreeSet<Topic>,
    begun: BTreeMap<Topic, u64>,
    /// What was told though it was believed already, or ended though it had not begun.
    pub(crate) absurd: Vec<String>,
}

impl Heard {
    pub(crate) fn node_changes(&mut self, now: u64) {
        self.changed_at = now;
        self.changes += 1;
    }

    pub(crate) fn hear(&mut self, fact: Fact, now: u64) {
        if !self.keys.insert(fact.key.clone()) {
            if now > STARTED {
                self.repeated.push(fact.key);
            }
            return;
        }
        let (topic, begins) = match fact.what {
            What::Occupied => ((fact.channel, None), true),
            What::Vacated => ((fact.channel, None), false),
            What::Came(member) => ((fact.channel, Some(member.user)), true),
            What::Went(member) => ((fact.channel, Some(member.user)), false),
            What::Counted(_) => return,
        };
        let is_news = if begins { self.believed.insert(topic.clone()) } else { self.believed.remove(&topic) };
        if !is_news && now > self.changed_at + TAKEN_OVER {
            self.absurd.push(format!("{} of {topic:?}", fact.key));
        }
        if begins && is_news {
            *self.begun.entry(topic).or_default() += 1;
        }
    }

    /// Says where the application believes something else than what is true.
    pub(crate) fn compare(&self, truth: &Truth) -> Result<(), String> {
        let is: BTreeSet<&Topic> = truth.entries.keys().collect();
        let believed: BTreeSet<&Topic> = self.believed.iter().collect();
        if is == believed {
            return Ok(());
        }
        let (missing, stale): (Vec<_>, Vec<_>) =
            (is.difference(&believed).collect(), believed.difference(&is).collect());
        Err(format!("the application was not told of {missing:?}, nor of the end of {stale:?}"))
    }

    /// Says where something was told more or fewer times than it happened.
    pub(crate) fn compare_counts(&self, truth: &Truth) -> Result<(), String> {
        if let Some(absurd) = self.absurd.first() {
            return Err(format!("told twice: {absurd}"));
        }
        for (topic, (least, most)) in &truth.begun {
            let told = self.begun.get(topic).copied().unwrap_or(0);
            if !(*least..=*most + self.changes).contains(&told) {
                return Err(format!("{topic:?} began {least} to {most} times, told {told} times"));
            }
        }
        Ok(())
    }
}
