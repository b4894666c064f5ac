//! From a validated publish to the broker's answer.
//!
//! **Lives here:** the key's rights and rate, the stamp of time, the deadline.
//! **Called by:** `http` and `grpc`, which differ only in how they read and answer; `questions` for keys.
//! **Must not know:** HTTP, gRPC, JSON.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_auth::{Denied, Key, KeyRing, Scope, TooFast};
use carillon_model::{AppSpace, Apps, ChannelName, ErrorCode, NewMessage, Refusal, UnixMillis};
use carillon_tasks::clock;
use futures_util::future::join_all;

use crate::{
    answer::Outcome,
    body::Budget,
    channels::Channels,
    config::Config,
    meters::Meters,
    publisher::{Publisher, Receipt},
    request::Publish,
    serve::Parts,
};

/// What both doors share.
pub(crate) struct Intake {
    pub(crate) config: Config,
    pub(crate) meters: Meters,
    pub(crate) bodies: Budget,
    pub(crate) channels: Arc<dyn Channels>,
    keys: Arc<KeyRing>,
    apps: Apps,
    publisher: Arc<dyn Publisher>,
}

impl Intake {
    pub(crate) fn new(config: Config, parts: Parts) -> Self {
        let bodies = Budget::new(config.bodies_held_max_bytes);
        let Parts { keys, apps, publisher, channels } = parts;
        Self { config, meters: Meters::new(), bodies, channels, keys, apps, publisher }
    }

    /// Finds the key in an `Authorization` header and checks that it has `scope` at all.
    pub(crate) fn key(&self, authorization: Option<&[u8]>, scope: Scope) -> Result<&Arc<Key>, Refusal> {
        let key = self.keys.authorize(authorization).map_err(|why| {
            self.meters.key_invalid.increment(1);
            Refusal::new(ErrorCode::Unauthorized, why.to_string())
        })?;
        key.has(scope).map_err(|denied| {
            self.meters.key_denied.increment(1);
            forbidden(denied)
        })?;
        self.meters.key_ok.increment(1);
        Ok(key)
    }

    /// Returns the application whose channels the key is for: its own, or the first where none is configured.
    pub(crate) fn space(&self, key: &Key) -> &AppSpace {
        &self.apps.by_id(key.id().app()).unwrap_or_else(|| self.apps.first()).space
    }

    /// Takes one publication from the key's rate, before the body is read.
    pub(crate) fn admit(key: &Key, now: Instant) -> Result<(), Refusal> {
        key.take(now).map_err(|TooFast { wait }| {
            Refusal::new(ErrorCode::RateLimited, "the API key's rate is used up; slow down or send batches")
                .retry_after(wait)
        })
    }

    /// Publishes to every channel of `publish`: one outcome each, or the first refusal when no channel took it.
    /// Nothing is published unless the key covers all of them.
    pub(crate) async fn publish(
        &self,
        key: &Key,
        publish: Publish,
        deadline: Instant,
    ) -> Result<Vec<Outcome>, Refusal> {
        for channel in &publish.channels {
            key.allows(Scope::Publish, channel).map_err(forbidden)?;
        }
        let publish = publish.within(self.space(key));
        let time = unix_now();
        if let [channel] = publish.channels.as_slice() {
            let receipt =
                hand_over(&*self.publisher, publish.message(channel.clone(), time), deadline).await?;
            return Ok(vec![Outcome { channel: publish.channels.into_iter().next(), result: Ok(receipt) }]);
        }
        charge_rest(key, publish.channels.len());
        let outcomes = join_all(publish.channels.iter().map(|channel| {
            let message = publish.message(channel.clone(), time);
            self.outcome(channel.clone(), message, deadline)
        }))
        .await;
        unless_all(outcomes, |_refusal| true)
    }

    /// Publishes the items of a batch, in order: one outcome each. When none was accepted and trying again may help
    /// every one, the refusal is the first of theirs, so that a retry on 503 or 429 also works for batches.
    pub(crate) async fn batch(
        &self,
        key: &Key,
        items: Vec<Result<Publish, Refusal>>,
        deadline: Instant,
    ) -> Result<Vec<Outcome>, Refusal> {
        charge_rest(key, items.len());
        let time = unix_now();
        let outcomes = join_all(items.into_iter().map(|item| self.item(key, item, time, deadline))).await;
        unless_all(outcomes, |refusal| refusal.code.is_retryable())
    }

    /// Publishes one item, which names one channel.
    pub(crate) async fn item(
        &self,
        key: &Key,
        item: Result<Publish, Refusal>,
        time: UnixMillis,
        deadline: Instant,
    ) -> Outcome {
        let publish = match item {
            Ok(publish) => publish,
            Err(refusal) => return Outcome { channel: None, result: Err(refusal) },
        };
        let publish = publish.within(self.space(key));
        let Some(channel) = publish.channels.first().cloned() else {
            let refusal = Refusal::new(ErrorCode::Internal, "the item lost its channel");
            return Outcome { channel: None, result: Err(refusal) };
        };
        if let Err(denied) = key.allows(Scope::Publish, &channel) {
            return Outcome { channel: Some(channel), result: Err(forbidden(denied)) };
        }
        let message = publish.message(channel.clone(), time);
        self.outcome(channel, message, deadline).await
    }

    async fn outcome(&self, channel: ChannelName, message: NewMessage, deadline: Instant) -> Outcome {
        Outcome { channel: Some(channel), result: hand_over(&*self.publisher, message, deadline).await }
    }
}

/// Publishes one message, and refuses when there is no answer by `deadline`.
pub(crate) async fn hand_over(
    publisher: &dyn Publisher,
    message: NewMessage,
    deadline: Instant,
) -> Result<Receipt, Refusal> {
    match tokio::time::timeout_at(deadline.into(), publisher.publish(message, deadline)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Refusal::new(
            ErrorCode::Unavailable,
            "the broker did not answer in time, the outcome is unknown; try again with the same `id`",
        )
        .retry_after(Duration::from_secs(1))),
    }
}

/// Returns the present as publications are stamped with it.
pub(crate) fn unix_now() -> UnixMillis {
    UnixMillis::new(u64::try_from(clock::since_1970().as_millis()).unwrap_or(u64::MAX))
}

/// Charges what a request publishes beyond the first message.
fn charge_rest(key: &Key, messages: usize) {
    let rest = u32::try_from(messages.saturating_sub(1)).unwrap_or(u32::MAX);
    if rest > 0 {
        key.charge(rest, clock::now());
    }
}

/// Returns the first refusal if every outcome is one that counts; else the outcomes.
fn unless_all(outcomes: Vec<Outcome>, counts: impl Fn(&Refusal) -> bool) -> Result<Vec<Outcome>, Refusal> {
    let refused = |outcome: &Outcome| outcome.result.as_ref().is_err_and(&counts);
    match outcomes.first() {
        Some(Outcome { result: Err(first), .. }) if outcomes.iter().all(refused) => Err(first.clone()),
        Some(_) | None => Ok(outcomes),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function of errors")]
pub(crate) fn forbidden(denied: Denied) -> Refusal {
    Refusal::new(ErrorCode::Forbidden, denied.to_string())
}
