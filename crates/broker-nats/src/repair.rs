//! Fetching a range of a stream that the feed did not bring.
//!
//! **Lives here:** what a batch proves: which messages are gone for ever, and which a lagging replica lacks.
//! **Called by:** `receive`, when a tracker asks.
//! **Must not know:** the tracker's rules.

use async_nats::Client;
use carillon_model::Offset;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::api::{self, ApiError, Get, Kept};

/// Shards that fetch at a time: after an interruption all of them have something to fetch, and each batch may take
/// 8 MiB of memory.
pub(crate) const FETCHES: usize = 8;

/// What a fetch brought.
pub(crate) struct Fetched {
    /// All that the stream keeps up to here is in `messages`; what is not is gone.
    pub(crate) upto: Offset,
    /// In order.
    pub(crate) messages: Vec<Kept>,
}

/// Fetches `from` to `to`, ends included, or a part from the beginning. Waits for its turn.
pub(crate) async fn fetch(
    client: &Client,
    turns: &Semaphore,
    stream: &str,
    from: Offset,
    to: Offset,
) -> Result<Fetched, ApiError> {
    let (from, to) = (from.get(), to.get());
    // Every turn ends, as every question has its deadline.
    let _turn = turns.acquire().await.map_err(|_e| ApiError::Silent)?;
    let count = to.saturating_sub(from).saturating_add(1);
    let mut batch = api::direct_get(client, stream, &Get::new(from, count, None)).await?;
    let last = batch.messages.last().map(|kept| kept.sequence);
    let reached = last.is_some_and(|last| last >= to);
    batch.messages.retain(|kept| kept.sequence <= to);
    let upto = if reached {
        to
    } else if batch.more {
        last.ok_or(ApiError::Unreadable("a batch that ends before it begins"))?
    } else {
        // The replica has no more. It may lag behind the leader, who alone knows what is gone.
        let next = last.map_or(from, |last| last.saturating_add(1));
        let which = json!({ "seq": next, "next_by_subj": ">" });
        match api::leader_sequence(client, stream, &which).await? {
            Some(sequence) if sequence <= to => last.ok_or(ApiError::Unreadable("a replica that lags"))?,
            Some(_) | None => to,
        }
    };
    Ok(Fetched { upto: Offset::new(upto), messages: batch.messages })
}
