//! Publishing: from an accepted message to the broker's acknowledgement.
//!
//! **Lives here:** the channel rule's checks, and what a publisher is told when the broker says no.
//! **Called by:** the API, and whatever else publishes.
//! **Must not know:** HTTP, gRPC, which broker it is.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_broker::{Past, PublishError, RecoverError};
use carillon_model::{
    ChannelKind, ChannelName, ErrorCode, IdempotencyKey, Keeping, NewMessage, Position, Publication, Refusal,
    ReplayLimits, Since,
};
use carillon_tasks::clock;

use crate::{Node, recent::RecentKeys};

/// What a publisher gets for an accepted message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its place in the stream; `None` on a channel without history.
    pub position: Option<Position>,
    /// The same key was accepted before.
    pub duplicate: bool,
}

/// Largest message to one user, for whose channel there is no rule.
const USER_MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// What is left of a publisher's time for a refusal, when the broker is not reached within it.
const TO_REFUSE: Duration = Duration::from_millis(100);

/// When to try again after the broker was away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Node {
    /// Publishes one message. Answers when the broker has it.
    ///
    /// # Errors
    /// The refusal for the publisher. `unavailable` means that the outcome is unknown: a retry with the same id is
    /// safe.
    ///
    /// # Cancel safety
    /// Not safe: when the future is dropped, the outcome is unknown.
    pub async fn publish(&self, message: NewMessage, deadline: Instant) -> Result<Receipt, Refusal> {
        let keeping = self.keeping_of(&message)?;
        self.hand_over(message, keeping, deadline).await
    }

    /// Says whether the channel's rule takes a message, before anybody is asked.
    ///
    /// # Errors
    /// The refusal that [`Self::publish`] would give.
    pub fn check(&self, message: &NewMessage) -> Result<(), Refusal> {
        self.keeping_of(message).map(|_keeping| ())
    }

    /// Publishes a client's own event, which never stands for what the application keeps in a cache channel.
    ///
    /// # Errors
    /// As of [`Self::publish`].
    pub(crate) async fn publish_of_client(
        &self,
        message: NewMessage,
        deadline: Instant,
    ) -> Result<Receipt, Refusal> {
        let keeping = match self.keeping_of(&message)? {
            Keeping::Durable(_) if ChannelKind::of(&message.channel).cache => Keeping::Live,
            keeping @ (Keeping::Live | Keeping::Durable(_)) => keeping,
        };
        self.hand_over(message, keeping, deadline).await
    }

    /// Returns the newest publication of a channel that is kept.
    ///
    /// # Errors
    /// The refusal when those who keep it cannot be asked.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub async fn newest(&self, channel: &ChannelName) -> Result<Option<Arc<Publication>>, Refusal> {
        let Some(Keeping::Durable(class)) = self.router().rules().keeping(channel) else { return Ok(None) };
        let (since, limits) = (Since::Last(1), ReplayLimits::default());
        let unavailable =
            |_fault| Refusal::new(ErrorCode::Unavailable, "what the channel keeps cannot be read; retry");
        let attached = self.broker().attach(class, channel, since, limits);
        let list = match attached.map_err(|fault| unavailable(fault.to_string()))?.past {
            Past::Complete(list) => list,
            Past::Older | Past::Ahead => {
                let read = self.broker().recover(class, channel, since, limits).await;
                match read {
                    Ok(recovery) => recovery.publications,
                    Err(RecoverError::Gone(_)) => Vec::new(),
                    Err(RecoverError::Unavailable) => return Err(unavailable(String::new())),
                }
            }
            Past::Gone(_) => Vec::new(),
        };
        Ok(list.last().cloned())
    }

    async fn hand_over(
        &self,
        message: NewMessage,
        keeping: Keeping,
        deadline: Instant,
    ) -> Result<Receipt, Refusal> {
        // A node that has just started listens, and proxies send it publishers: the broker is there in a moment.
        self.broker_was_tried(deadline.checked_sub(TO_REFUSE).unwrap_or(deadline)).await;
        if self.router().ready(deadline).await.is_none() {
            let message = "the node cannot send as fast as is published; nothing was stored, retry";
            return Err(Refusal::new(ErrorCode::Unavailable, message).retry_after(RETRY_AFTER));
        }
        match keeping {
            Keeping::Live => self.publish_live(message, deadline).await,
            Keeping::Durable(class) => self
                .broker()
                .publish(&class, message, deadline)
                .await
                .map(|stored| Receipt { position: Some(stored.position), duplicate: stored.duplicate }),
        }
        .map_err(|fault| refuse(&fault))
    }

    /// The broker does not remember the keys of live messages, so this node does; other nodes leave out a second
    /// one when it reaches them.
    async fn publish_live(&self, message: NewMessage, deadline: Instant) -> Result<Receipt, PublishError> {
        let receipt = |duplicate| Receipt { position: None, duplicate };
        let Some(key) = message.id.clone() else {
            return self.broker().publish_live(message, deadline).await.map(|()| receipt(false));
        };
        let channel = message.channel.clone();
        if !self.accepted().is_first(&channel, &key, clock::now()) {
            return Ok(receipt(true));
        }
        // Dropped with this future, too: a publisher that gave up must be able to retry.
        let mut unless_handed = Forget { keys: Some(self.accepted()), channel, key };
        self.broker().publish_live(message, deadline).await?;
        unless_handed.keys = None;
        Ok(receipt(false))
    }

    fn keeping_of(&self, message: &NewMessage) -> Result<Keeping, Refusal> {
        let channel = &message.channel;
        let (keeping, max_bytes) = if channel.is_reserved() {
            (Keeping::Live, USER_MESSAGE_MAX_BYTES)
        } else {
            let rule = self.router().rules().find(channel).ok_or_else(|| {
                let message =
                    format!("no channel rule covers `{channel}`; the operator adds one under [[channels]]");
                Refusal::new(ErrorCode::NotFound, message)
            })?;
            let keeping = self.router().rules().keeping(channel).unwrap_or(&rule.keeping);
            (keeping.clone(), rule.message_max_bytes)
        };
        let bytes = message.data_bytes();
        if bytes > max_bytes {
            let message =
                format!("the data has {bytes} bytes, and messages to `{channel}` have at most {max_bytes}");
            return Err(Refusal::new(ErrorCode::TooLarge, message));
        }
        Ok(keeping)
    }
}

/// Forgets a key whose message was not handed to the broker.
struct Forget<'a> {
    keys: Option<&'a RecentKeys>,
    channel: ChannelName,
    key: IdempotencyKey,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(keys) = self.keys {
            keys.forget(&self.channel, &self.key);
        }
    }
}

/// What a publisher is told. No `_` arm: a new fault must choose its answer here.
fn refuse(fault: &PublishError) -> Refusal {
    let (code, message, wait) = match fault {
        PublishError::Unavailable => (
            ErrorCode::Unavailable,
            "the broker cannot be reached; retry with the same `id`",
            Some(RETRY_AFTER),
        ),
        PublishError::Unknown => (
            ErrorCode::Unavailable,
            "the broker did not acknowledge in time, so the outcome is unknown; a retry with the same `id` is safe",
            Some(RETRY_AFTER),
        ),
        PublishError::StorageFull => (
            ErrorCode::Unavailable,
            "the broker's storage is full; the operator must give it room",
            Some(Duration::from_secs(10)),
        ),
        PublishError::TooLarge { limit_bytes } => {
            let message = format!("the message is larger than the {limit_bytes} bytes that the broker takes");
            return Refusal::new(ErrorCode::TooLarge, message);
        }
    };
    let refusal = Refusal::new(code, message);
    match wait {
        Some(wait) => refusal.retry_after(wait),
        None => refusal,
    }
}
