//! The streams: one for each shard of each class and one for work, and what their configuration says.
//!
//! **Lives here:** the layout, comparing it with what is there, the epoch of a stream.
//! **Called by:** `lib` at the start, `receive` when a stream has vanished or went backwards.
//! **Must not know:** messages.

use std::time::Duration;

use async_nats::Client;
use carillon_broker::{Fingerprint, KEY_AGE, SHARDS, Shard, Tail};
use carillon_model::{Epoch, Offset, RetentionClass};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Fatal,
    api::{self, ApiError, StreamInfo},
    subject::{self, Names},
};

/// The version of the layout: subjects, escaping, hash.
const LAYOUT: &str = "1";
const LAYOUT_KEY: &str = "carillon-layout";
const SHARDS_KEY: &str = "carillon-shards";
/// Counts how often the stream went backwards.
const GENERATION_KEY: &str = "carillon-generation";
/// For how long an idempotency key is remembered, unless the class keeps messages for less.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(1);

/// Work that nobody has done for so long is given up: its application was not there for twice as long as it is tried.
const WORK_AGE: Duration = Duration::from_mins(10);
/// Bytes of work that waits: some 200,000 events.
const WORK_MAX_BYTES: u64 = 64 << 20;

/// A stream, as it should be.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) stream: String,
    config: Value,
}

/// Why a stream is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error(transparent)]
    Fatal(#[from] Fatal),
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl Layout {
    /// The stream of one shard of one class.
    pub(crate) fn new(names: &Names, class: &RetentionClass, shard: Shard, replicas: u8) -> Self {
        let stream = names.stream(&class.name, shard);
        let stored = names.stored_all(&class.name, shard);
        let config = json!({
            "name": stream,
            "subjects": [stored],
            "republish": { "src": stored, "dest": names.feed_all(&class.name, shard) },
            "storage": "file",
            "retention": "limits",
            "discard": "old",
            "allow_direct": true,
            "num_replicas": replicas,
            "max_age": nanos(class.max_age),
            "max_msgs_per_subject": class.max_messages,
            // NATS reserves what is named here; a number that it cannot hold means no limit.
            "max_bytes": i64::try_from(class.max_bytes).unwrap_or(-1),
            "max_msgs": -1,
            "duplicate_window": nanos(DUPLICATE_WINDOW.min(class.max_age)),
            "metadata": { LAYOUT_KEY: LAYOUT, SHARDS_KEY: SHARDS.to_string() },
        });
        Self { stream, config }
    }

    /// The stream of the work queue: what is done is gone, and what is too much is refused.
    pub(crate) fn work(names: &Names, replicas: u8) -> Self {
        let stream = names.work_stream();
        let config = json!({
            "name": stream,
            "subjects": [names.work_all()],
            "storage": "file",
            "retention": "workqueue",
            "discard": "new",
            "allow_direct": true,
            "num_replicas": replicas,
            "max_age": nanos(WORK_AGE),
            "max_msgs_per_subject": -1,
            "max_bytes": WORK_MAX_BYTES,
            "max_msgs": -1,
            "duplicate_window": nanos(KEY_AGE),
            "metadata": { LAYOUT_KEY: LAYOUT, SHARDS_KEY: SHARDS.to_string() },
        });
        Self { stream, config }
    }

    /// Makes the stream, or sees that it is as it should be. Limits that the operator changed are changed.
    pub(crate) async fn ensure(&self, client: &Client) -> Result<StreamInfo, LayoutError> {
        let found = match api::stream_info(client, &self.stream).await {
            Ok(found) => found,
            Err(ApiError::NotFound(_)) => {
                tracing::debug!(stream = self.stream, "making a stream");
                match api::stream_create(client, &self.stream, &self.config).await {
                    Ok(made) => made,
                    // Another node was faster, with other limits.
                    Err(ApiError::Refused { code: NAME_IN_USE, .. }) => {
                        api::stream_info(client, &self.stream).await?
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        self.compare(&found)?;
        let changed = self.changed(&found.config);
        if changed.is_empty() {
            return Ok(found);
        }
        let mut config = found.config;
        for key in &changed {
            if let (Some(slot), Some(value)) = (config.get_mut(*key), self.config.get(*key)) {
                *slot = value.clone();
            }
        }
        let updated = api::stream_update(client, &self.stream, &config).await?;
        tracing::info!(stream = self.stream, ?changed, "a stream was changed");
        Ok(updated)
    }

    /// Gives the stream another generation, and so another epoch, unless another node just did.
    pub(crate) async fn renew(&self, client: &Client, seen: Epoch) -> Result<(), ApiError> {
        let found = api::stream_info(client, &self.stream).await?;
        if epoch(&self.stream, &found) != seen {
            return Ok(());
        }
        // Not one more: a copy that is restored twice would be given the same generation twice.
        let millis = u64::try_from(carillon_tasks::clock::since_1970().as_millis()).unwrap_or(u64::MAX);
        let next = generation(&found).saturating_add(1).max(millis);
        let mut config = found.config;
        if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert(GENERATION_KEY.to_owned(), Value::String(next.to_string()));
        }
        api::stream_update(client, &self.stream, &config).await?;
        tracing::error!(stream = self.stream, "the stream went backwards; it has a new epoch");
        Ok(())
    }

    /// Refuses a stream that cannot be used, however its limits are.
    fn compare(&self, found: &StreamInfo) -> Result<(), Fatal> {
        let paths = [
            format!("/metadata/{LAYOUT_KEY}"),
            format!("/metadata/{SHARDS_KEY}"),
            "/subjects".to_owned(),
            "/republish/src".to_owned(),
            "/republish/dest".to_owned(),
            "/allow_direct".to_owned(),
            "/retention".to_owned(),
            "/discard".to_owned(),
        ];
        for path in paths {
            let (wanted, there) = (self.config.pointer(&path), found.config.pointer(&path));
            if wanted != there {
                let show =
                    |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
                return Err(Fatal::Layout {
                    stream: self.stream.clone(),
                    setting: path.trim_start_matches('/').replace('/', "."),
                    found: show(there),
                    expected: show(wanted),
                });
            }
        }
        Ok(())
    }

    fn changed(&self, found: &Value) -> Vec<&'static str> {
        let keys = ["num_replicas", "max_age", "max_msgs_per_subject", "max_bytes", "duplicate_window"];
        keys.into_iter().filter(|key| self.config.get(key) != found.get(key)).collect()
    }
}

/// Returns the bytes of disk that a server sets aside for the streams of classes.
pub(crate) fn set_aside(classes: &[RetentionClass]) -> u64 {
    let each = classes.iter().map(|class| class.max_bytes.saturating_mul(u64::from(SHARDS)));
    each.fold(0, u64::saturating_add)
}

/// Writes a time as JetStream does.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The error of a stream whose name is taken by one with another configuration.
const NAME_IN_USE: u64 = 10_058;

fn generation(info: &StreamInfo) -> u64 {
    let text = info.config.pointer(&format!("/metadata/{GENERATION_KEY}")).and_then(Value::as_str);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Returns the life that a stream is in: its creation alone is not enough after a restore.
pub(crate) fn epoch(stream: &str, info: &StreamInfo) -> Epoch {
    Epoch::from_bits(xxh3_64(format!("{stream}/{}/{}", info.created, generation(info)).as_bytes()))
}

/// Returns what a stream's state says to its tracker.
pub(crate) fn tail(stream: &str, info: &StreamInfo) -> Tail {
    Tail {
        epoch: epoch(stream, info),
        first: Offset::new(info.state.first_seq),
        last: Offset::new(info.state.last_seq),
        kept: None,
    }
}

/// Returns the fingerprint of a message, which is the same where it is stored and where it is republished.
pub(crate) fn print(subject: &str, payload: &[u8]) -> Fingerprint {
    Fingerprint::of(subject::tail(subject), payload)
}
