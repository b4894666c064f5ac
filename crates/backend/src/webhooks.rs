//! Telling applications, without making anybody wait.
//!
//! **Lives here:** which webhooks want an event, the way of events into the work queue, in order and within bounds.
//! **Called by:** `gateway` starts it; `node` tells it events.
//! **Must not know:** how a request is made.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_broker::{Lane, PublishError, Shard, WorkQueue};
use carillon_model::{App, AppKey, Apps, ChannelName, IdempotencyKey, UnixMillis, WebhookEvent};
use carillon_tasks::{Phase, Stop, Tasks, clock};
use hyper::header::HeaderValue;
use rustls::RootCertStore;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::{
    Egress, Event,
    call::Caller,
    dial::{Dialer, Place, System},
    meters::Meters,
    misses::Misses,
    schedule::TRIED_FOR,
    send::{Sender, Signer, Trouble, jittered},
};

/// Events that may wait to be put into one lane; the newest is dropped.
const QUEUE: usize = 1024;
/// Bytes that they may take together, all lanes.
const QUEUE_BYTES: usize = 16 << 20;
/// How long one attempt to put an event may take, and how long to wait for the next on average.
const PUT_MAX: Duration = Duration::from_secs(10);
const PUT_PAUSE: Duration = Duration::from_secs(1);

/// Why webhooks cannot be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A URL leads nowhere.
    #[error("`{url}`, a webhook of the application `{app}`, is not a URL such as `https://example.com/hook`")]
    Url {
        /// The application.
        app: String,
        /// The URL.
        url: String,
    },
    /// There is nothing to sign with.
    #[error("the application `{app}` has a webhook and no key that signs what it is told")]
    NoKey {
        /// The application.
        app: String,
    },
    /// Nobody is trusted.
    #[error(
        "a webhook has an https URL, and this machine has no certificates of authorities: install ca-certificates"
    )]
    NoRoots,
}

/// Tells applications what happens in their channels.
pub struct Webhooks {
    /// By application, as channel names have it; those without webhooks are not there.
    apps: BTreeMap<String, Vec<Hook>>,
    lanes: HashMap<Lane, mpsc::Sender<Parcel>>,
    room: Arc<Semaphore>,
    misses: Mutex<Misses>,
    /// Makes the keys of events without a key unlike those of every other process.
    nonce: u64,
    count: AtomicU64,
    meters: Arc<Meters>,
}

struct Hook {
    events: Vec<WebhookEvent>,
    /// What lanes know the endpoint by.
    endpoint: u64,
}

/// An event on its way into the queue.
struct Parcel {
    key: IdempotencyKey,
    body: Bytes,
    told_at: Instant,
    /// Its share of [`QUEUE_BYTES`].
    _room: OwnedSemaphorePermit,
}

/// One lane's way into the queue.
struct Putter {
    lane: Lane,
    queue: Arc<dyn WorkQueue>,
    meters: Arc<Meters>,
}

impl Webhooks {
    /// Starts to tell, and to take from `queue` what any node has to tell. Without webhooks the queue is not touched.
    ///
    /// # Errors
    /// [`StartError`] when a webhook cannot work.
    pub fn start(
        apps: &Apps,
        queue: &Arc<dyn WorkQueue>,
        egress: Egress,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StartError> {
        let mut roots = RootCertStore::empty();
        if has_tls(apps) {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(StartError::NoRoots);
            }
        }
        Self::start_with(apps, queue, Dialer::new(egress, Box::new(System), roots), tasks)
    }

    fn start_with(
        apps: &Apps,
        queue: &Arc<dyn WorkQueue>,
        dialer: Dialer,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StartError> {
        let mut webhooks = Self {
            apps: BTreeMap::new(),
            lanes: HashMap::new(),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            misses: Mutex::default(),
            nonce: getrandom::u64().unwrap_or_default(),
            count: AtomicU64::new(0),
            meters: Arc::new(Meters::register()),
        };
        let dialer = Arc::new(dialer);
        let mut senders = Vec::new();
        for app in apps.all().iter().filter(|app| !app.webhooks.is_empty()) {
            senders.extend(webhooks.add(app, queue, &dialer)?);
        }
        for (sender, putter, parcels) in senders {
            tasks.spawn("webhook put", putter.run(parcels, tasks.stop()));
            tasks.spawn("webhook send", sender.run(tasks.stop()));
        }
        Ok(Arc::new(webhooks))
    }

    /// Adds an application's webhooks, and returns what their lanes need.
    fn add(
        &mut self,
        app: &App,
        queue: &Arc<dyn WorkQueue>,
        dialer: &Arc<Dialer>,
    ) -> Result<Vec<(Sender, Putter, mpsc::Receiver<Parcel>)>, StartError> {
        let is_header = |key: &&AppKey| HeaderValue::from_str(&key.key).is_ok();
        let key =
            app.keys.first().filter(is_header).ok_or_else(|| StartError::NoKey { app: app.id.clone() })?;
        let (mut hooks, mut senders) = (Vec::new(), Vec::new());
        for hook in &app.webhooks {
            let place = Place::read(&hook.url)
                .ok_or_else(|| StartError::Url { app: app.id.clone(), url: hook.url.clone() })?;
            let endpoint = xxh3_64(format!("{}\n{}\n{}", app.id, hook.url, hook.batch).as_bytes());
            hooks.push(Hook { events: hook.events.clone(), endpoint });
            let trouble = Arc::new(Trouble::default());
            for lane in Shard::all().map(|shard| Lane::new(endpoint, shard)) {
                // Two webhooks may be one endpoint that wants more.
                if self.lanes.contains_key(&lane) {
                    continue;
                }
                let (parcels, waiting) = mpsc::channel(QUEUE);
                self.lanes.insert(lane, parcels);
                let (queue, meters) = (Arc::clone(queue), Arc::clone(&self.meters));
                let putter = Putter { lane, queue: Arc::clone(&queue), meters: Arc::clone(&meters) };
                let signer = Signer { key: key.key.clone(), secret: key.secret.clone() };
                let (batch, host) = (hook.batch, place.host.clone());
                let caller = Caller::new(place.clone(), Arc::clone(dialer));
                let trouble = Arc::clone(&trouble);
                let sender = Sender { lane, batch, signer, host, trouble, queue, caller, meters };
                senders.push((sender, putter, waiting));
            }
        }
        self.apps.insert(app.space.as_str().to_owned(), hooks);
        Ok(senders)
    }

    /// Tells a channel's application what happened at `now`. Never waits: what there is no room for is dropped and
    /// counted.
    ///
    /// Events with the same `key` are told once, whichever nodes tell them, within some minutes. Without one each is
    /// told; but a cache channel that several find empty at the same time is told once.
    #[expect(clippy::missing_panics_doc, reason = "hexadecimal digits are a good key")]
    pub fn tell(&self, channel: &ChannelName, event: &Event, key: Option<&str>, now: UnixMillis) {
        let kind = event.kind();
        let Some(hooks) = self.apps.get(channel.app()).filter(|_| !channel.is_reserved()) else { return };
        let wanting = hooks.iter().filter(|hook| hook.events.contains(&kind));
        let endpoints: BTreeSet<u64> = wanting.map(|hook| hook.endpoint).collect();
        if endpoints.is_empty() {
            return;
        }
        if *event == Event::CacheMiss {
            let mut misses = self.misses.lock().unwrap_or_else(PoisonError::into_inner);
            if !misses.note(channel, now) {
                return;
            }
        }
        let key = match key {
            Some(key) => hashed(key),
            // The other nodes' clients come at the same time.
            None if *event == Event::CacheMiss => {
                hashed(&format!("miss {}#{channel} {}", channel.app(), now.get() / 1000))
            }
            None => format!("{:x}-{:x}", self.nonce, self.count.fetch_add(1, Ordering::Relaxed)),
        };
        let key = IdempotencyKey::new(&key).expect("hexadecimal digits are printable");
        let (body, told_at) = (event.body(channel, now), clock::now());
        for endpoint in endpoints {
            let share = u32::try_from(body.len()).unwrap_or(u32::MAX);
            let lane = self.lanes.get(&Lane::new(endpoint, Shard::of(channel)));
            let room = Arc::clone(&self.room).try_acquire_many_owned(share);
            let queued = room.ok().zip(lane).is_some_and(|(room, lane)| {
                let parcel = Parcel { key: key.clone(), body: body.clone(), told_at, _room: room };
                lane.try_send(parcel).is_ok()
            });
            if queued {
                self.meters.waiting.increment(1.0);
            } else {
                self.meters.queue_full.increment(1);
            }
        }
    }
}

impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").field("lanes", &self.lanes.len()).finish_non_exhaustive()
    }
}

impl Putter {
    /// Puts events into the lane, one after the other, until the process is cut.
    async fn run(self, mut parcels: mpsc::Receiver<Parcel>, stop: Stop) {
        let put_all = async {
            while let Some(parcel) = parcels.recv().await {
                self.put(parcel).await;
                self.meters.waiting.decrement(1.0);
            }
        };
        tokio::select! {
            () = stop.reached(Phase::Cut) => {}
            () = put_all => {}
        }
    }

    async fn put(&self, Parcel { key, body, told_at, _room }: Parcel) {
        loop {
            let deadline = clock::now() + PUT_MAX;
            let error = match self.queue.put(self.lane, key.clone(), body.clone(), deadline).await {
                Ok(()) => return,
                Err(error) => error,
            };
            match error {
                PublishError::StorageFull | PublishError::TooLarge { .. } => {
                    tracing::error!(lane = %self.lane, %error, "a webhook does not fit into the queue");
                    return self.meters.queue_full.increment(1);
                }
                PublishError::Unavailable | PublishError::Unknown => {}
            }
            if clock::now().duration_since(told_at) >= TRIED_FOR {
                tracing::error!(lane = %self.lane, %error, "a webhook was given up");
                return self.meters.unavailable.increment(1);
            }
            sleep(jittered(PUT_PAUSE)).await;
        }
    }
}

fn has_tls(apps: &Apps) -> bool {
    let mut urls = apps.all().iter().flat_map(|app| &app.webhooks).map(|hook| &hook.url);
    urls.any(|url| Place::read(url).is_some_and(|place| place.has_tls()))
}

/// Makes a key of any text.
fn hashed(text: &str) -> String {
    format!("{:032x}", xxh3_128(text.as_bytes()))
}

#[cfg(test)]
mod tests;
