//! Starting: connect, check, make the streams, then start what runs for as long as the process does.
//!
//! **Lives here:** the order of starting.
//! **Called by:** `lib`.
//! **Must not know:** what the parts do once they run.

use std::{sync::Arc, time::Duration};

use async_nats::Subscriber;
use carillon_broker::{Deliver, Health, SHARDS, Shard};
use carillon_tasks::{Phase, Stop, Tasks};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{
    Config, Fatal, NatsBroker, Ready, StartError,
    api::{self, ApiError, PATIENCE},
    health::Settlements,
    layout::{self, Layout, LayoutError},
    link::{Connector, Link, reconnect_delay},
    live::LiveTask,
    meters::{Meters, Op},
    past::Source,
    publish::Publisher,
    receive::ShardTask,
    repair::FETCHES,
    shelf::Historian,
};

/// Streams that are made or checked at a time.
const LAYOUT_AT_ONCE: usize = 8;
/// The second poll of the shards is spread over this time.
const SPREAD: Duration = Duration::from_secs(2);
/// For how long after the start a denial is taken as a fault of the configuration.
const SELF_TEST: Duration = Duration::from_secs(10);
/// JetStream's error when it is switched off.
const NOT_ENABLED: u64 = 10_076;
/// JetStream's error when it is switched off for the account.
const NOT_ENABLED_IN_ACCOUNT: u64 = 10_039;
/// JetStream's error when a server alone is asked for copies.
const NOT_CLUSTERED: u64 = 10_074;
/// JetStream's error when a server has not the room that a stream asks for.
const NO_STORAGE: u64 = 10_047;
/// JetStream's error when no server of a cluster will have a stream, for one reason or another.
const NO_PLACE: u64 = 10_005;

/// What the two errors say when it is room that lacks.
const TOO_SMALL: &str = "insufficient storage";

/// What starting needs.
struct Starter {
    broker: Arc<NatsBroker>,
    config: Config,
    tasks: Tasks,
    deliver: Arc<dyn Deliver>,
    meters: Arc<Meters>,
    stop: Stop,
}

/// One shard's stream.
struct Part {
    class: usize,
    shard: Shard,
    layout: Arc<Layout>,
}

/// Checks the settings and starts the rest in the background.
pub(crate) fn start(
    broker: &Arc<NatsBroker>,
    config: Config,
    tasks: &Tasks,
    deliver: Arc<dyn Deliver>,
) -> Result<(), StartError> {
    let meters = Arc::new(Meters::register());
    let connector = Connector::new(&config, &meters)?;
    let (broker, stop) = (Arc::clone(broker), tasks.stop());
    let starter = Starter { broker, config, tasks: tasks.clone(), deliver, meters, stop };
    tasks.spawn("nats start", async move {
        if let Err(fatal) = starter.run(&connector).await {
            starter.broker.fatal.send_replace(Some(fatal));
        }
    });
    Ok(())
}

impl Starter {
    async fn run(&self, connector: &Connector) -> Result<(), Fatal> {
        let failed = |op| self.failed(op);
        let Some((link, watcher)) = connector.connect(&self.stop, &failed).await? else { return Ok(()) };
        self.broker.link.send_replace(Some(link.clone()));
        let (broker, meters, stop) = (Arc::clone(&self.broker), Arc::clone(&self.meters), self.stop.clone());
        self.tasks.spawn("nats link", async move {
            if let Err(fatal) = watcher.run(stop, meters).await {
                broker.fatal.send_replace(Some(fatal));
            }
        });
        let parts = self.parts();
        let mut said = String::new();
        for attempt in 1.. {
            let begun = tokio::select! {
                begun = self.begin(&link, &parts) => begun,
                denied = connector.denied() => return Err(denied),
            };
            match begun {
                Ok(()) => break,
                Err(LayoutError::Fatal(fatal)) => return Err(fatal),
                Err(LayoutError::Api(error)) => {
                    if let Some(fatal) = no_jetstream(&error, &link) {
                        return Err(fatal);
                    }
                    self.failed(Op::Layout);
                    let cause = cause(&error, &self.config);
                    if said != cause {
                        tracing::warn!(error = cause, "the streams are not ready; still trying");
                        said = cause;
                    }
                }
            }
            tokio::select! {
                () = sleep(reconnect_delay(attempt)) => {}
                denied = connector.denied() => return Err(denied),
                () = self.stop.reached(Phase::Draining) => return Ok(()),
            }
        }
        // All that is needed has been asked for once. A denial that comes later is in the log, and does not end a
        // process that serves clients.
        tokio::select! {
            denied = connector.denied() => Err(denied),
            () = sleep(SELF_TEST) => Ok(()),
            () = self.stop.reached(Phase::Draining) => Ok(()),
        }
    }

    /// Notes that an attempt to begin has failed.
    fn failed(&self, op: Op) {
        self.meters.failed(op);
        self.broker.health.send_if_modified(|health| {
            let first = *health == Health::Connecting { failed: false };
            if first {
                *health = Health::Connecting { failed: true };
            }
            first
        });
    }

    fn parts(&self) -> Vec<Part> {
        let part = |(index, class)| {
            let names = &self.broker.names;
            let layout = move |shard| Arc::new(Layout::new(names, class, shard, self.config.replicas));
            Shard::all().map(move |shard| Part { class: index, shard, layout: layout(shard) })
        };
        self.config.classes.iter().enumerate().flat_map(part).collect()
    }

    /// Sees to the streams and starts the tasks.
    async fn begin(&self, link: &Link, parts: &[Part]) -> Result<(), LayoutError> {
        let each: Vec<_> = parts.iter().map(|part| (Arc::clone(&part.layout), link.ask.clone())).collect();
        stream::iter(each)
            .map(|(layout, client)| async move { layout.ensure(&client).await.map(drop) })
            .buffer_unordered(LAYOUT_AT_ONCE)
            .try_collect::<()>()
            .await?;
        // Every feed first: once the first fails, nothing was started.
        let live = link.hear(self.broker.names.live_all()).await?;
        let mut feeds = Vec::with_capacity(parts.len());
        for part in parts {
            let Some(class) = self.config.classes.get(part.class) else { continue };
            let subject = self.broker.names.feed_all(&class.name, part.shard);
            feeds.push((class, part, link.hear(subject).await?));
        }
        for (class, part, _) in &feeds {
            let subject = self.broker.names.stored(&class.name, part.shard, &self.broker.names.probe());
            api::probe(&link.ask, subject).await?;
        }
        api::barrier(&link.feed, self.broker.names.barrier()).await?;
        let publisher = timeout(PATIENCE, Publisher::new(link.clone(), Arc::clone(&self.meters))).await;
        let Ok(Ok((publisher, acks))) = publisher else { return Err(ApiError::Silent.into()) };
        let publisher = Arc::new(publisher);
        self.tasks.spawn("nats acks", Arc::clone(&publisher).run(acks, self.stop.clone()));
        let (names, meters) = (self.broker.names.clone(), Arc::clone(&self.meters));
        let source = Source { link: link.clone(), names, replicas: self.config.replicas, meters };
        let historian = Historian::new(source, self.tasks.clone());
        if self.broker.ready.set(Ready { publisher, historian }).is_err() {
            tracing::error!("the broker was started twice");
        }
        self.spawn(link, live, feeds);
        Ok(())
    }

    fn spawn(
        &self,
        link: &Link,
        live: Subscriber,
        feeds: Vec<(&carillon_model::RetentionClass, &Part, Subscriber)>,
    ) {
        let (deliver, meters) = (Arc::clone(&self.deliver), Arc::clone(&self.meters));
        let task = LiveTask { link: link.clone(), names: self.broker.names.clone(), deliver, meters };
        self.tasks.spawn("nats live", task.run(live, self.stop.clone()));
        let settlements = Settlements::new(feeds.len());
        let fetches = Arc::new(Semaphore::new(FETCHES));
        let count = u32::try_from(feeds.len()).unwrap_or(u32::MAX).max(1);
        for (index, (class, part, feed)) in (0..).zip(feeds) {
            let Some(seat) = self.broker.seat(&class.name, part.shard) else { continue };
            let task = ShardTask {
                class: class.name.clone(),
                shard: part.shard,
                seat: Arc::clone(seat),
                layout: Arc::clone(&part.layout),
                names: self.broker.names.clone(),
                link: link.clone(),
                fetches: Arc::clone(&fetches),
                deliver: Arc::clone(&self.deliver),
                settlement: settlements.place(usize::try_from(index).unwrap_or(usize::MAX)),
                meters: Arc::clone(&self.meters),
                stagger: SPREAD.saturating_mul(index) / count,
            };
            self.tasks.spawn("nats shard", task.run(feed, self.stop.clone()));
        }
        let (health, meters) = (self.broker.health.clone(), Arc::clone(&self.meters));
        self.tasks.spawn("nats health", settlements.sum_up(link.view(), health, meters, self.stop.clone()));
    }
}

/// Says why the streams are not ready, and what to do where that is known.
fn cause(error: &ApiError, config: &Config) -> String {
    match error {
        ApiError::Refused { code: NOT_CLUSTERED, .. } => format!(
            "broker.nats.replicas is {}, and this NATS server has no cluster to copy to: set it to 1, or join the \
             server to two others",
            config.replicas
        ),
        ApiError::Refused { code: NO_STORAGE | NO_PLACE, description } if description.contains(TOO_SMALL) => {
            format!(
                "{error}: the classes of history that channels use set {} MiB of disk aside, on each server that has a \
                 copy. Give JetStream more (max_file_store; without it, three quarters of the disk that is free), or \
                 lower history.<name>.max_bytes, which is taken {SHARDS} times",
                layout::set_aside(&config.classes) >> 20
            )
        }
        ApiError::NoResponders => format!("nobody answers for JetStream; perhaps: {}", Fatal::NoJetStream),
        ApiError::NotFound(_) | ApiError::Refused { .. } | ApiError::Silent | ApiError::Unreadable(_) => {
            error.to_string()
        }
    }
}

/// Says whether JetStream is off for certain. A server of a cluster may have it at another one, which comes back.
fn no_jetstream(error: &ApiError, link: &Link) -> Option<Fatal> {
    match error {
        ApiError::Refused { code: NOT_ENABLED, .. } => Some(Fatal::NoJetStream),
        ApiError::Refused { code: NOT_ENABLED_IN_ACCOUNT, .. } => Some(Fatal::NoJetStreamInAccount),
        ApiError::NoResponders => {
            let alone = link.ask.try_server_info().filter(|info| !info.jetstream && info.cluster.is_none());
            alone.map(|_info| Fatal::NoJetStream)
        }
        ApiError::NotFound(_) | ApiError::Refused { .. } | ApiError::Silent | ApiError::Unreadable(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use carillon_model::{ClassName, RetentionClass};

    use super::*;
    use crate::{Credentials, Tls};

    #[test]
    fn what_lacks_is_said_with_what_to_do() {
        let class = |name, mebibytes: u64| RetentionClass {
            name: ClassName::new(name).expect("a good name"),
            max_age: Duration::from_hours(1),
            max_messages: 10,
            max_bytes: mebibytes << 20,
        };
        let config = Config {
            servers: vec![],
            credentials: Credentials::None,
            tls: Tls::default(),
            prefix: "gw".to_owned(),
            app: "main".to_owned(),
            classes: vec![class("short", 64), class("long", 1024)],
            replicas: 3,
            node: "test".to_owned(),
            recent_max_bytes: 1,
            subscription_capacity: 1,
        };
        let refused = |code, description: &str| {
            cause(&ApiError::Refused { code, description: description.to_owned() }, &config)
        };
        let copies = refused(NOT_CLUSTERED, "replicas > 1 not supported");
        assert!(copies.starts_with("broker.nats.replicas is 3, and this NATS server"), "{copies}");
        let alone = refused(NO_STORAGE, "insufficient storage resources available");
        assert!(alone.contains("use set 17408 MiB of disk aside"), "{alone}");
        let cluster = refused(NO_PLACE, "no suitable peers for placement, insufficient storage");
        assert!(cluster.contains("lower history.<name>.max_bytes, which is taken 16 times"), "{cluster}");
        let away = refused(NO_PLACE, "no suitable peers for placement, peer offline");
        assert_eq!(away, "NATS refuses: no suitable peers for placement, peer offline (error 10005)");
    }
}
