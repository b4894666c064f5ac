//! The broker on NATS: JetStream keeps what is durable, republishes it to every node and answers for history.
//!
//! **Lives here:** starting it, and the `Broker` that the rest sees. The parts in reading order: settings, how
//! things are called and written there, the two connections, the streams, then what uses them.
//! **Called by:** `gateway` when NATS is configured.
//! **Must not know:** clients, sessions, dialects.

mod api;
mod cluster;
mod config;
mod envelope;
mod fatal;
mod health;
mod instant;
mod layout;
mod link;
mod live;
mod meters;
mod past;
mod publish;
mod receive;
mod repair;
mod seat;
mod shelf;
mod start;
mod subject;
mod window;
mod work;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Instant,
};

use carillon_broker::{
    AttachError, Attached, Broker, Deliver, Health, Listen, PublishError, Published, RecoverError, Recovery,
    RingBudget, Shard,
};
use carillon_model::{
    ChannelName, ClassName, NewMessage, NodeId, Position, ReplayLimits, RetentionClass, Since,
};
use carillon_tasks::Tasks;
use futures_util::future::{BoxFuture, FutureExt as _};
use tokio::sync::watch;

pub use cluster::NatsCluster;
pub use config::{Config, Credentials, SUBSCRIPTION_CAPACITY, StartError, Tls, TlsMode};
pub use fatal::Fatal;
use link::Link;
use past::Question;
use publish::{Parcel, Publisher};
use seat::Seat;
use shelf::Historian;
use subject::Names;

/// The broker on NATS.
pub struct NatsBroker {
    names: Names,
    classes: HashMap<ClassName, Class>,
    /// Empty until NATS was reached for the first time.
    ready: OnceLock<Ready>,
    health: watch::Sender<Health>,
    fatal: watch::Sender<Option<Fatal>>,
    /// The connections, once NATS was reached.
    link: watch::Sender<Option<Link>>,
    tasks: Tasks,
    replicas: u8,
}

struct Class {
    retention: RetentionClass,
    seats: Vec<Arc<Seat>>,
}

struct Ready {
    publisher: Arc<Publisher>,
    historian: Historian,
}

impl NatsBroker {
    /// Starts a broker and returns at once: NATS is looked for in the background, for as long as it takes.
    ///
    /// # Errors
    /// [`StartError`] when the settings are wrong. What only NATS can tell comes from [`Self::fatal`].
    pub fn start(config: Config, tasks: &Tasks, deliver: Arc<dyn Deliver>) -> Result<Arc<Self>, StartError> {
        let budget = RingBudget::new(config.recent_max_bytes);
        let seats = || Shard::all().map(|_| Arc::new(Seat::new(&budget))).collect();
        let class =
            |class: &RetentionClass| (class.name.clone(), Class { retention: class.clone(), seats: seats() });
        let broker = Arc::new(Self {
            names: Names::new(&config),
            classes: config.classes.iter().map(class).collect(),
            ready: OnceLock::new(),
            health: watch::Sender::new(Health::Connecting { failed: false }),
            fatal: watch::Sender::new(None),
            link: watch::Sender::new(None),
            tasks: tasks.clone(),
            replicas: config.replicas,
        });
        start::start(&broker, config, tasks, deliver)?;
        Ok(broker)
    }

    /// Starts to carry words between this node and those of the same prefix, over the broker's connections. To be
    /// called once.
    pub fn cluster(&self, me: NodeId, listen: Arc<dyn Listen>) -> Arc<NatsCluster> {
        NatsCluster::start(me, self.names.clone(), self.link.subscribe(), &self.tasks, listen)
    }

    /// Waits until something is found that no retry can mend; the process should say so and exit.
    ///
    /// # Cancel safety
    /// Safe: the cause is kept.
    pub async fn fatal(&self) -> Fatal {
        let mut fatal = self.fatal.subscribe();
        loop {
            if let Some(fatal) = fatal.borrow_and_update().clone() {
                return fatal;
            }
            if fatal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn seat(&self, class: &ClassName, shard: Shard) -> Option<&Arc<Seat>> {
        self.classes.get(class)?.seats.get(usize::from(shard.index()))
    }

    async fn publish_to(
        &self,
        class: &ClassName,
        message: NewMessage,
        deadline: Instant,
    ) -> Result<Published, PublishError> {
        let shard = Shard::of(&message.channel);
        let seat = self.seat(class, shard).ok_or(PublishError::Unavailable)?;
        let ready = self.ready.get().ok_or(PublishError::Unavailable)?;
        let Position { epoch, .. } = seat.position().ok_or(PublishError::Unavailable)?;
        let place = self.names.place(&message.channel);
        let parcel = Parcel {
            subject: self.names.stored(class, shard, &place),
            place,
            key: message.id.clone(),
            payload: envelope::encode(&message, None),
        };
        let ack = ready.publisher.publish(parcel, deadline).await?;
        let offset = carillon_model::Offset::new(ack.sequence);
        Ok(Published { position: Position { epoch, offset }, duplicate: ack.duplicate })
    }
}

impl Broker for NatsBroker {
    fn publish<'a>(
        &'a self,
        class: &'a ClassName,
        message: NewMessage,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Published, PublishError>> {
        self.publish_to(class, message, deadline).boxed()
    }

    fn publish_live(
        &self,
        message: NewMessage,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<(), PublishError>> {
        async move {
            let ready = self.ready.get().ok_or(PublishError::Unavailable)?;
            let shard = Shard::of(&message.channel);
            let subject = self.names.live(shard, &self.names.place(&message.channel));
            ready.publisher.publish_live(shard, subject, &message, deadline).await
        }
        .boxed()
    }

    fn attach(
        &self,
        class: &ClassName,
        channel: &ChannelName,
        since: Since,
        limits: ReplayLimits,
    ) -> Result<Attached, AttachError> {
        let seat = self.seat(class, Shard::of(channel)).ok_or(AttachError::Unavailable)?;
        seat.attach(channel, since, limits).ok_or(AttachError::Unavailable)
    }

    fn recover<'a>(
        &'a self,
        class: &'a ClassName,
        channel: &'a ChannelName,
        since: Since,
        limits: ReplayLimits,
    ) -> BoxFuture<'a, Result<Recovery, RecoverError>> {
        async move {
            let ready = self.ready.get().ok_or(RecoverError::Unavailable)?;
            let seat = Arc::clone(self.seat(class, Shard::of(channel)).ok_or(RecoverError::Unavailable)?);
            let class = self.classes.get(class).ok_or(RecoverError::Unavailable)?.retention.clone();
            let question = Question { class, channel: channel.clone(), seat };
            ready.historian.recover(question, since, limits).await
        }
        .boxed()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }
}

impl fmt::Debug for NatsBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsBroker").field("health", &*self.health.borrow()).finish_non_exhaustive()
    }
}
