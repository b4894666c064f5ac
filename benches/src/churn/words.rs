//! What nodes say to each other: counted by themselves, and overheard.
//!
//! **Lives here:** the metrics of words, the subscription that hears their bytes.
//! **Called by:** `churn`.
//! **Must not know:** what words say.

use std::ops::Sub;

use anyhow::{Context, Result};
use carillon_tests::{gateway::Gateway, http};
use futures_util::StreamExt as _;
use tokio::{sync::watch, task::JoinSet};

/// Words of all nodes together.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Words {
    /// That were sent, as the nodes count.
    pub sent: u64,
    /// That were heard, as the nodes count: one for each other node.
    pub heard: u64,
    /// That were lost before they were sent, as the nodes count.
    pub lost: u64,
    /// Of those that passed through NATS, the ones to a single node: questions, and their answers.
    pub to_one: u64,
    /// Bytes of all that passed through NATS.
    pub bytes: u64,
}

impl Sub for Words {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            heard: self.heard - earlier.heard,
            lost: self.lost - earlier.lost,
            to_one: self.to_one - earlier.to_one,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

/// Hears what passes through NATS.
#[derive(Debug)]
pub(super) struct Ear {
    overheard: watch::Receiver<Words>,
    _listening: JoinSet<()>,
}

impl Ear {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// When there is no NATS.
    pub(super) async fn open(url: &str) -> Result<Self> {
        let client = async_nats::connect(url).await.context("could not connect to NATS")?;
        let mut all = client.subscribe("*.ctl.words").await?;
        let mut one = client.subscribe("*.node.*").await?;
        client.flush().await?;
        let (tell, overheard) = watch::channel(Words::default());
        let mut listening = JoinSet::new();
        listening.spawn(async move {
            loop {
                let (word, to_one) = tokio::select! {
                    Some(word) = all.next() => (word, 0),
                    Some(word) = one.next() => (word, 1),
                    else => return,
                };
                tell.send_modify(|words| {
                    words.to_one += to_one;
                    words.bytes += word.payload.len() as u64;
                });
            }
        });
        Ok(Self { overheard, _listening: listening })
    }

    /// Returns the words up to now.
    pub(super) async fn words(&self, nodes: &[Gateway]) -> Words {
        let mut words = *self.overheard.borrow();
        for node in nodes {
            let metrics = http::get(node.admin, "/metrics").await.body;
            words.sent += sum(&metrics, "carillon_words_sent_total");
            words.heard += sum(&metrics, "carillon_words_heard_total");
            words.lost += sum(&metrics, "carillon_words_lost_total");
        }
        words
    }
}

/// Adds up all series of a counter.
fn sum(metrics: &str, name: &str) -> u64 {
    let value = |line: &str| {
        let labels = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
        labels?.rsplit(' ').next()?.parse::<u64>().ok()
    };
    metrics.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn all_series_of_one_counter_are_added_up() {
        let metrics = "# TYPE lost counter\nlost{reason=\"link\"} 2\nlost{reason=\"queue full\"} 3\nlost_more 9\nsent 4\n";
        assert_eq!((sum(metrics, "lost"), sum(metrics, "sent"), sum(metrics, "none")), (5, 4, 0));
    }
}
