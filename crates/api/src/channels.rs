//! The seam between the API and what the nodes know of their channels.
//!
//! **Lives here:** the trait that answers questions, the questions and the answers.
//! **Called by:** `questions` and `pusher`; implemented beside the node.
//! **Must not know:** HTTP, keys, how nodes ask each other.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_model::{AppSpace, ChannelName, Member, Refusal, UserId};
use futures_util::future::BoxFuture;

/// Knows the channels of all nodes.
pub trait Channels: Send + Sync + 'static {
    /// Asks every node, or returns what they said within the last second. One that is silent is left out of the
    /// answer, which says so; no answer is later than `deadline`.
    fn ask(&self, question: Question, deadline: Instant) -> BoxFuture<'_, Findings>;

    /// Returns the members of a channel, on all nodes. From memory.
    fn members(&self, channel: &ChannelName) -> Vec<Member>;

    /// Returns the last event of a channel that keeps it. `Unavailable` when it cannot be read by `deadline`.
    fn cached<'a>(
        &'a self,
        channel: &'a ChannelName,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Option<Cached>, Refusal>>;
}

/// What every node is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// How many subscriptions channels have whose names begin so.
    Counts {
        /// Of which application.
        app: AppSpace,
        /// The beginning of the names.
        prefix: String,
    },
    /// How many subscriptions one channel has.
    Count(ChannelName),
    /// How many each of these has, all of one application.
    Each(AppSpace, Vec<ChannelName>),
    /// How many connections an application has.
    Connections(AppSpace),
    /// End the connections that are signed in as a user; answered with how many there were.
    Terminate(AppSpace, UserId),
}

/// What the nodes know that have answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Subscriptions by channel, for [`Question::Counts`] and [`Question::Each`]; none of them is 0.
    pub channels: BTreeMap<String, u64>,
    /// Everything together.
    pub total: u64,
    /// Nodes that have answered.
    pub answered: usize,
    /// Nodes that there are.
    pub of: usize,
}

/// The last event of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// One JSON text, as of [`NewMessage::data`](carillon_model::NewMessage::data).
    pub data: Bytes,
    /// How long it will be kept, if no other comes.
    pub expires_in: Duration,
}
