//! The seam between the API and what the nodes know of their channels.
//!
//! **Lives here:** the trait that answers questions, and what a channel keeps.
//! **Called by:** `questions` and `pusher`; implemented beside the node.
//! **Must not know:** HTTP, keys, how nodes ask each other.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_model::{ChannelName, Findings, Member, Question, Refusal};
use futures_util::future::BoxFuture;

/// Knows the channels of all nodes.
pub trait Channels: Send + Sync + 'static {
    /// Asks every node, or returns what they said within the last second. One that is silent is left out of the
    /// answer, which says so; no answer is later than `deadline`.
    fn ask(&self, question: Question, deadline: Instant) -> BoxFuture<'_, Arc<Findings>>;

    /// Returns the members of a channel, on all nodes. From memory.
    fn members(&self, channel: &ChannelName) -> Vec<Member>;

    /// Returns the last event of a channel that keeps it. `Unavailable` when it cannot be read by `deadline`.
    fn cached<'a>(
        &'a self,
        channel: &'a ChannelName,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Option<Cached>, Refusal>>;
}

/// The last event of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// One JSON text, as of [`NewMessage::data`](carillon_model::NewMessage::data).
    pub data: Bytes,
    /// How long it will be kept, if no other comes.
    pub expires_in: Duration,
}
