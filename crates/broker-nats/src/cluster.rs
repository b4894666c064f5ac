//! Words between nodes, as core NATS messages: what is lost stays lost.
//!
//! A payload is the sender's id, 8 bytes with the highest first, and the word.
//!
//! **Lives here:** the queue of words that leave, the loop of those that come, what the link's state means for them.
//! **Called by:** `lib`, as the broker's cluster.
//! **Must not know:** what the words mean.

use std::{
    fmt,
    sync::{Arc, Once},
    time::Duration,
};

use async_nats::{Message, Subscriber};
use bytes::{BufMut as _, Bytes, BytesMut};
use carillon_broker::{Audience, Cluster, Link as Words, Listen};
use carillon_model::NodeId;
use carillon_tasks::{Phase, Stop, Tasks};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{sleep, timeout},
};

use crate::{
    api,
    link::{Link, View, jittered},
    meters::WordMeters,
    receive::{TURN, answer},
    subject::Names,
};

/// Words that may wait to leave; what is more is lost.
const QUEUE: usize = 8192;
/// Bytes that they may take together.
const QUEUE_BYTES: usize = 64 << 20;
/// How long one word may wait for room in the library's queue, which is behind a link that is dead and does not know it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before another attempt to subscribe.
const RETRY: Duration = Duration::from_millis(500);
/// How long the last words of a node may take.
const LAST_WORDS: Duration = Duration::from_millis(500);
const ID_BYTES: usize = 8;

/// The cluster whose nodes meet on NATS.
pub struct NatsCluster {
    me: NodeId,
    names: Names,
    queue: mpsc::Sender<Parcel>,
    room: Arc<Semaphore>,
    meters: Arc<WordMeters>,
}

/// A word on its way out.
struct Parcel {
    subject: String,
    payload: Bytes,
    /// Its share of [`QUEUE_BYTES`].
    _room: OwnedSemaphorePermit,
}

impl NatsCluster {
    /// Starts to carry words as soon as there is a link.
    pub(crate) fn start(
        me: NodeId,
        names: Names,
        link: watch::Receiver<Option<Link>>,
        tasks: &Tasks,
        listen: Arc<dyn Listen>,
    ) -> Arc<Self> {
        let (queue, parcels) = mpsc::channel(QUEUE);
        let meters = Arc::new(WordMeters::register());
        let mouth = Mouth { link: link.clone(), meters: Arc::clone(&meters), told: Once::new() };
        tasks.spawn("nats words out", mouth.run(parcels, tasks.stop()));
        let ear = Ear { me, names: names.clone(), meters: Arc::clone(&meters), listen };
        tasks.spawn("nats words in", ear.run(link, tasks.stop()));
        Arc::new(Self { me, names, queue, room: Arc::new(Semaphore::new(QUEUE_BYTES)), meters })
    }
}

impl Cluster for NatsCluster {
    fn me(&self) -> NodeId {
        self.me
    }

    fn say(&self, audience: Audience, word: Bytes) {
        let subject = match audience {
            Audience::All => self.names.words(),
            Audience::Node(node) => self.names.words_to(node),
        };
        let mut payload = BytesMut::with_capacity(ID_BYTES + word.len());
        payload.put_u64(self.me.bits());
        payload.put(word);
        let payload = payload.freeze();
        let share = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let queued = Arc::clone(&self.room)
            .try_acquire_many_owned(share)
            .is_ok_and(|room| self.queue.try_send(Parcel { subject, payload, _room: room }).is_ok());
        if !queued {
            self.meters.queue_full.increment(1);
        }
    }
}

impl fmt::Debug for NatsCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsCluster").field("me", &self.me).finish_non_exhaustive()
    }
}

/// Sends words, one after the other so that their order stays.
struct Mouth {
    link: watch::Receiver<Option<Link>>,
    meters: Arc<WordMeters>,
    told: Once,
}

impl Mouth {
    async fn run(self, mut parcels: mpsc::Receiver<Parcel>, stop: Stop) {
        loop {
            let parcel = tokio::select! {
                biased;
                () = stop.reached(Phase::Cut) => return self.last_words(parcels).await,
                parcel = parcels.recv() => parcel,
            };
            let Some(parcel) = parcel else { return };
            // What others hear late, they would take for the present.
            let link = self.link.borrow().clone().filter(Link::is_up);
            let Some(link) = link else {
                self.meters.link.increment(1);
                continue;
            };
            self.send(&link, parcel).await;
        }
    }

    /// Sends what was said before the end: that this node goes, and who went before it.
    async fn last_words(self, mut parcels: mpsc::Receiver<Parcel>) {
        let link = self.link.borrow().clone().filter(Link::is_up);
        let Some(link) = link else { return };
        let sent = async {
            while let Ok(parcel) = parcels.try_recv() {
                self.send(&link, parcel).await;
            }
            // What the library has taken goes with the process, unless it is flushed.
            let _flushed = link.ask.flush().await.is_ok();
        };
        let _in_time = timeout(LAST_WORDS, sent).await.is_ok();
    }

    async fn send(&self, link: &Link, Parcel { subject, payload, _room }: Parcel) {
        let (bytes, limit_bytes) = (payload.len(), link.ask.max_payload());
        if bytes > limit_bytes {
            self.meters.too_large.increment(1);
            self.told.call_once(|| {
                tracing::error!(bytes, limit_bytes, "a word to other nodes is larger than NATS takes");
            });
            return;
        }
        match timeout(PATIENCE, link.ask.publish(subject, payload)).await {
            Ok(Ok(())) => self.meters.sent.increment(1),
            Ok(Err(_)) | Err(_) => self.meters.link.increment(1),
        }
    }
}

/// Hears words, and says how the link stands.
struct Ear {
    me: NodeId,
    names: Names,
    meters: Arc<WordMeters>,
    listen: Arc<dyn Listen>,
}

enum Heard {
    Words(Vec<Message>),
    /// The server has had our subscriptions since the link was seen so.
    Barrier(View),
    Link,
}

impl Ear {
    async fn run(self, mut link: watch::Receiver<Option<Link>>, stop: Stop) {
        let subscribed = async {
            let link = link.wait_for(Option::is_some).await.ok()?.clone()?;
            let all = subscribe(&link, self.names.words()).await;
            let own = subscribe(&link, self.names.words_to(self.me)).await;
            Some((link, all, own))
        };
        let subscribed = tokio::select! {
            subscribed = subscribed => subscribed,
            () = stop.reached(Phase::Cut) => return,
        };
        let Some((link, all, own)) = subscribed else { return };
        let (mut words, mut view) = (stream::select(all, own).ready_chunks(TURN), link.view());
        let (mut told, mut last) = (Words::Down, link.now());
        let mut barrier: Option<BoxFuture<'static, View>> = None;
        loop {
            let heard = tokio::select! {
                biased;
                () = stop.reached(Phase::Cut) => return,
                passed = answer(&mut barrier) => Heard::Barrier(passed),
                Some(messages) = words.next() => Heard::Words(messages),
                Ok(()) = view.changed() => Heard::Link,
                else => return,
            };
            // First of all: the words may be the first after an interruption.
            let seen = link.now();
            if seen != last || !seen.up {
                (last, barrier) = (seen, None);
                self.tell(Words::Down, &mut told);
            }
            match heard {
                Heard::Words(messages) => messages.iter().for_each(|message| self.hear(message)),
                Heard::Barrier(passed) if passed == seen => self.tell(Words::Up, &mut told),
                Heard::Barrier(_) | Heard::Link => {}
            }
            if seen.up && told == Words::Down && barrier.is_none() {
                let passed = api::pass_barrier(link.feed.clone(), self.names.barrier());
                barrier = Some(passed.map(move |()| seen).boxed());
            }
        }
    }

    fn tell(&self, link: Words, told: &mut Words) {
        if *told != link {
            *told = link;
            self.listen.link(link);
        }
    }

    fn hear(&self, message: &Message) {
        let Some((from, _)) = message.payload.split_first_chunk::<ID_BYTES>() else {
            self.meters.poison.increment(1);
            return;
        };
        let from = NodeId::from_bits(u64::from_be_bytes(*from));
        if from != self.me {
            self.meters.heard.increment(1);
            self.listen.hear(from, message.payload.slice(ID_BYTES..));
        }
    }
}

/// Subscribes, however often it takes to ask.
async fn subscribe(link: &Link, subject: String) -> Subscriber {
    loop {
        match link.hear(subject.clone()).await {
            Ok(subscriber) => return subscriber,
            Err(error) => tracing::debug!(%error, "words of other nodes cannot be subscribed to yet"),
        }
        sleep(jittered(RETRY)).await;
    }
}
