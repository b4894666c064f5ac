//! What a broker can do, and what it says when it cannot.
//!
//! **Lives here:** the trait and its words.
//! **Called by:** `node`; implemented by `memory` and by `broker-nats`.
//! **Must not know:** either implementation.

use std::{fmt, sync::Arc, time::Instant};

use carillon_model::{
    ChannelName, ClassName, NewMessage, Position, Publication, ReplayLimits, Since, Unrecovered,
};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::Shard;

/// Carries publications between nodes. One instance a process.
pub trait Broker: Send + Sync + fmt::Debug {
    /// Stores a message in `class` and hands it to every node. Answers after the commit; this node's
    /// [`Deliver`] may be called before or after the answer.
    ///
    /// A message whose idempotency key was stored for the same channel within the last minute is not stored again:
    /// the answer is the first one's position and `duplicate`.
    ///
    /// # Errors
    /// [`PublishError`]. Except for `TooLarge` the outcome is unknown and a retry with the same key is safe.
    fn publish<'a>(
        &'a self,
        class: &'a ClassName,
        message: NewMessage,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Published, PublishError>>;

    /// Hands a message to those nodes that listen, at most once, without a position.
    ///
    /// # Errors
    /// [`PublishError`] when it could not be handed over.
    fn publish_live(&self, message: NewMessage, deadline: Instant)
    -> BoxFuture<'_, Result<(), PublishError>>;

    /// Returns a position P of the channel such that every publication after P is given to [`Deliver`], after
    /// this call began, and what was published after `since` up to P as far as this node's memory reaches back:
    /// both at one moment. Cheap: nothing is read from elsewhere.
    ///
    /// # Errors
    /// [`AttachError`] while the broker has not been reached yet.
    fn attach(
        &self,
        class: &ClassName,
        channel: &ChannelName,
        since: Since,
        limits: ReplayLimits,
    ) -> Result<Attached, AttachError>;

    /// Reads what was published after `since` from where the broker keeps it, where memory does not reach. Readers of
    /// the same channel at the same time share one read.
    ///
    /// # Errors
    /// [`RecoverError`]; never a part of what was asked for.
    ///
    /// # Cancel safety
    /// Safe: others who share the read still get it.
    fn recover<'a>(
        &'a self,
        class: &'a ClassName,
        channel: &'a ChannelName,
        since: Since,
        limits: ReplayLimits,
    ) -> BoxFuture<'a, Result<Recovery, RecoverError>>;

    /// Returns a view of the link's state that follows every change.
    fn health(&self) -> watch::Receiver<Health>;
}

/// Where a broker brings what it receives. Implemented by `node`.
///
/// The calls come in order for each shard and must return without waiting.
pub trait Deliver: Send + Sync {
    /// Takes one publication. Publications of a channel arrive in order, without duplicates.
    fn deliver(&self, publication: Arc<Publication>);

    /// Learns that a part of the stream cannot be brought any more. What is delivered next for the affected
    /// channels follows the loss.
    fn lost(&self, lost: &Lost);

    /// Learns that messages of live channels in these shards may not have been brought. What is delivered next for
    /// these channels follows the loss, up to what is on its way at this moment.
    fn lost_live(&self, shards: &[Shard]);
}

/// A loss that the broker could not repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The class whose stream lost messages.
    pub class: ClassName,
    /// The shard that lost them: every channel in it may be affected.
    pub shard: Shard,
    /// Where the stream goes on.
    pub position: Position,
}

/// What a stored message got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its place in the stream; the first one's when it is a duplicate.
    pub position: Position,
    /// The key was stored before.
    pub duplicate: bool,
}

/// The state of the link to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It was never reached.
    Connecting {
        /// An attempt has failed: it is away, not just about to be reached.
        failed: bool,
    },
    /// All is well.
    Connected,
    /// The link is down, or what it missed is still being fetched.
    Degraded {
        /// Since when.
        since: Instant,
    },
}

/// Why a message was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker cannot be reached just now. The message was not stored.
    #[error("the broker cannot be reached")]
    Unavailable,
    /// The deadline passed before an acknowledgement came: the message may be stored, or be stored yet.
    #[error("the broker did not acknowledge in time; the outcome is unknown")]
    Unknown,
    /// The broker has no room left.
    #[error("the broker's storage is full")]
    StorageFull,
    /// The message with its envelope is larger than the broker takes.
    #[error("the message is larger than the {limit_bytes} bytes that the broker takes")]
    TooLarge {
        /// The broker's limit.
        limit_bytes: usize,
    },
}

/// Why a channel cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// The broker was not reached yet, so that no position is known.
    #[error("the broker was not reached yet")]
    Unavailable,
}

/// A channel as it stood at one moment.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Every publication after it is delivered.
    pub position: Position,
    /// What came before it.
    pub past: Past,
}

/// What a node's memory knows of a channel's past.
#[derive(Clone, Debug)]
pub enum Past {
    /// All that was published after the place that was named, up to the position; oldest first.
    Complete(Vec<Arc<Publication>>),
    /// Memory does not reach back so far: [`Broker::recover`] may.
    Older,
    /// The place is of this epoch, but after the position: another node was ahead of this one, or it is made up.
    /// [`Broker::recover`] knows which; a reader whose place it vouches for stands at that place.
    Ahead,
    /// It cannot be brought, whoever is asked.
    Gone(Unrecovered),
}

/// A channel's past, as it is kept.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// All that was published after the place that was named, up to `upto`; oldest first.
    pub publications: Vec<Arc<Publication>>,
    /// Where the list ends: ask [`Broker::attach`] for what follows.
    pub upto: Position,
}

/// Why a channel's past was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecoverError {
    /// It cannot be brought, now or later.
    #[error("it cannot be brought")]
    Gone(Unrecovered),
    /// The broker cannot be reached, is asked too much just now, or did not answer in time.
    #[error("the broker cannot be reached")]
    Unavailable,
}
