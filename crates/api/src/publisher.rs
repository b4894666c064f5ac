//! The seam between the API and the node.
//!
//! **Lives here:** the trait that takes accepted messages.
//! **Called by:** `intake` and `pusher`; implemented beside the node.
//! **Must not know:** HTTP, gRPC, keys.

use std::time::Instant;

use carillon_model::{NewMessage, Position, Refusal};
use futures_util::future::BoxFuture;

/// Takes accepted messages to the broker. The channel's rule, the message's size and the state of the broker are
/// checked here, not before.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes `message` and answers when the broker has it, or refuses by `deadline`. A refusal with
    /// `Unavailable` may mean that the outcome is unknown.
    ///
    /// Messages of one channel reach the broker in the order of the calls' first polls.
    fn publish(&self, message: NewMessage, deadline: Instant) -> BoxFuture<'_, Result<Receipt, Refusal>>;

    /// Says whether the channel's rule takes `message`, as [`publish`](Self::publish) would before it asks the broker.
    ///
    /// # Errors
    /// The refusal that it would give.
    fn check(&self, message: &NewMessage) -> Result<(), Refusal>;
}

/// What the broker said of a message it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its place in the channel's stream: the message is stored. `None` on a channel without history.
    pub position: Option<Position>,
    /// The idempotency key was used before; the position is the first message's.
    pub duplicate: bool,
}
