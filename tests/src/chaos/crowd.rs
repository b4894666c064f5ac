//! Everybody who uses the cluster.
//!
//! **Lives here:** starting clients and publishers, ending publishers, the last message of each channel, ending clients.
//! **Called by:** `chaos`, scenarios.
//! **Must not know:** faults.
#![expect(clippy::disallowed_methods, reason = "clients and publishers run beside the nemesis")]

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::{
    checker::{Channel, Published, Run, Story},
    faults::dice::Dice,
};

use super::{client::Client, plan::Plan, publisher::Publisher, world::World};

/// How long everybody may take to join, and how long clients may take to see the end when all is well.
const PATIENCE: Duration = Duration::from_secs(90);

/// For how long the last message of a channel is tried.
const LAST: Duration = Duration::from_secs(60);

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Crowd {
    clients: Vec<JoinHandle<Story>>,
    publishers: Vec<JoinHandle<(Vec<Published>, Vec<Duration>)>>,
    channels: (u16, u16),
    over: watch::Sender<bool>,
}

/// What is known besides the run.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Clients that did not see the end of every channel.
    pub(super) unfinished: usize,
    /// How long publications took, retries included.
    pub(super) took: Vec<Duration>,
}

impl Crowd {
    /// Starts clients, waits until they are subscribed, and starts publishers.
    pub(super) async fn start(world: &Arc<World>, plan: &Plan) -> Self {
        let over = watch::Sender::new(false);
        let (safe, risky) = plan.channels;
        let start = |number: usize| {
            let mut dice = Dice::of(plan.seed, 500_000 + number as u64);
            let mut some = |from: u16, count: u16, joins| {
                let mut left: Vec<_> = (from..from + count).collect();
                let joins = 0..left.len().min(joins);
                joins.map(|_| left.swap_remove(dice.place(left.len()))).collect::<Vec<_>>()
            };
            let channels = [some(0, safe, plan.joins.0), some(safe, risky, plan.joins.1)].concat();
            let transport = plan.transports[number % plan.transports.len()];
            let mut client =
                Client::new(world, number, transport, plan.cables && number.is_multiple_of(3), channels);
            let mut over = over.subscribe();
            tokio::spawn(async move {
                tokio::select! {
                    () = client.live() => {}
                    _over = over.wait_for(|over| *over) => {}
                }
                client.story
            })
        };
        let clients = (0..plan.clients).map(start).collect();
        let joined = async {
            while world.settled.load(Ordering::Relaxed) < plan.clients {
                sleep(LOOK_AGAIN).await;
            }
        };
        let late = timeout(PATIENCE, joined).await.is_err();
        let settled = world.settled.load(Ordering::Relaxed);
        assert!(!late, "only {settled} of {} clients could join: {:?}", plan.clients, world.counted);
        let interval = Duration::from_secs(u64::from(plan.publishers)) / plan.rate.max(1);
        let publisher = |number| {
            let mut publisher = Publisher::new(world, number);
            tokio::spawn(async move {
                publisher.work(interval).await;
                (publisher.books, publisher.took)
            })
        };
        let publishers = (0..plan.publishers).map(publisher).collect();
        Self { clients, publishers, channels: plan.channels, over }
    }

    /// Ends publishing, publishes the last message of each channel, and waits until every client has seen them.
    pub(super) async fn end(self, world: &Arc<World>) -> (Run, Outcome) {
        world.quiet.send_replace(true);
        let (mut publications, mut took) = (Vec::new(), Vec::new());
        let mut number = 0;
        for publisher in self.publishers {
            let (books, times) = publisher.await.expect("a publisher does not panic");
            publications.extend(books);
            took.extend(times);
            number += 1;
        }
        let mut last = Publisher::new(world, number);
        let mut ends = Vec::new();
        for channel in 0..self.channels.0 + self.channels.1 {
            let end = last.publish(channel, 0, LAST).await;
            ends.push(
                end.unwrap_or_else(|| panic!("channel {channel} cannot be ended: {:?}", world.counted)),
            );
        }
        publications.append(&mut last.books);
        world.ends.send_replace(Some(ends.clone()));
        let all = self.clients.len();
        let seen = async {
            while world.finished.load(Ordering::Relaxed) < all {
                sleep(LOOK_AGAIN).await;
            }
        };
        // Who is late is in the audit.
        let _late = timeout(PATIENCE, seen).await.is_err();
        let unfinished = all - world.finished.load(Ordering::Relaxed);
        self.over.send_replace(true);
        let mut clients = Vec::new();
        for client in self.clients {
            clients.push(client.await.expect("a client does not panic"));
        }
        let channel = |(number, (name, end)): (u16, (&String, _))| Channel {
            name: name.clone(),
            may_lose: number >= self.channels.0,
            last: Some(end),
        };
        let channels = (0..).zip(world.channels.iter().zip(ends)).map(channel).collect();
        (Run { channels, publications, clients }, Outcome { unfinished, took })
    }
}
