//! The nemesis: draws faults by the seed, and does them.
//!
//! **Lives here:** the kinds of faults, the schedule, doing and undoing each.
//! **Called by:** `chaos`.
//! **Must not know:** what becomes of clients.
//!
//! Two crews work at the same time: one on nodes and their clients, one on NATS and the way to it. Each does one thing
//! at a time, so that two nodes of three and two servers of three are always well.

use std::{fmt, sync::Mutex, time::Duration};

use carillon_tasks::clock;
use tokio::time::sleep;

use crate::faults::{
    cable::{Cable, Door, End, Flow, Way, Weather},
    dice::Dice,
};

use super::{
    stand::{NODES, RISKY_STREAMS, Stand},
    world::{Cause, World},
};

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// SIGTERM to a node, which is started again.
    NodeTerm,
    /// `kill -9` of a node, which is started again.
    NodeKill,
    /// SIGSTOP to a node, and SIGCONT.
    NodeStop,
    /// The way between a node and its clients and publishers is spoilt.
    Street(Spoil),
    /// `kill -9` of a nats-server, which is started again.
    NatsKill,
    /// SIGSTOP to a nats-server, and SIGCONT.
    NatsStop,
    /// Lame duck of a nats-server, which is started again.
    NatsRetire,
    /// Leaders of streams give way.
    StepDown,
    /// The way between a node and NATS is spoilt.
    Bus(Spoil),
    /// A stream is deleted, and made anew by the nodes.
    StreamDelete,
    /// A stream is purged.
    StreamPurge,
}

/// How the way between two can be spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spoil {
    /// FIN for every connection.
    Fin,
    /// RST for every connection.
    Rst,
    /// FIN for every connection, and for new ones as well.
    Cut,
    /// Nobody is there any more, and nobody says so.
    HalfOpen,
    /// One direction waits.
    OneWay,
    /// Bytes come late.
    Delay,
    /// Bytes come in pieces.
    Slices,
    /// Bytes come slowly.
    Throttle,
}

const SPOILS: [Spoil; 8] = [
    Spoil::Fin,
    Spoil::Rst,
    Spoil::Cut,
    Spoil::HalfOpen,
    Spoil::OneWay,
    Spoil::Delay,
    Spoil::Slices,
    Spoil::Throttle,
];

/// What the crew on nodes and clients draws from, and the crew on NATS.
fn kinds(crew: usize) -> Vec<Kind> {
    let nodes = [Kind::NodeTerm, Kind::NodeKill, Kind::NodeStop];
    let nats = [
        Kind::NatsKill,
        Kind::NatsStop,
        Kind::NatsRetire,
        Kind::StepDown,
        Kind::StreamDelete,
        Kind::StreamPurge,
    ];
    match crew {
        0 => nodes.into_iter().chain(SPOILS.map(Kind::Street)).collect(),
        _ => nats.into_iter().chain(SPOILS.map(Kind::Bus)).collect(),
    }
}

/// How long a fault lasts, and the pause before it.
const LASTS: (Duration, Duration) = (Duration::from_millis(800), Duration::from_millis(3500));
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(700));

/// One fault of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What is done.
    pub(super) kind: Kind,
    /// The node or server it is done to.
    pub(super) target: usize,
    /// After this pause.
    pub(super) pause: Duration,
    /// For so long, where it lasts.
    pub(super) lasts: Duration,
    /// What else chance decides.
    pub(super) draw: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} for {} ms", self.kind, self.target, self.lasts.as_millis())
    }
}

/// A fault that was done, from when to when.
#[derive(Clone, Debug)]
pub(super) struct Done {
    /// Which.
    pub(super) fault: Fault,
    /// Milliseconds since the beginning of the run.
    pub(super) from_ms: u32,
    /// Milliseconds since the beginning of the run.
    pub(super) to_ms: u32,
    /// Why it could not be done.
    pub(super) failed: Option<String>,
}

/// The faults of one crew, without end: every kind once, in an order by chance, and again.
fn schedule(seed: u64, crew: usize) -> impl Iterator<Item = Fault> {
    let mut dice = Dice::of(seed, 50 + crew as u64);
    let mut left: Vec<Kind> = Vec::new();
    std::iter::from_fn(move || {
        if left.is_empty() {
            left = kinds(crew);
        }
        let kind = left.swap_remove(dice.place(left.len()));
        let (target, draw) = (dice.place(NODES), dice.draw());
        let (pause, lasts) = (dice.time(PAUSE.0, PAUSE.1), dice.time(LASTS.0, LASTS.1));
        Some(Fault { kind, target, pause, lasts, draw })
    })
}

/// Does faults until the time is over, and waits until the last is undone.
pub(super) async fn rage(stand: &Stand, world: &World, time: Duration) -> Vec<Done> {
    let done = Mutex::new(Vec::new());
    let ends = clock::now() + time;
    let crew = |number| {
        let done = &done;
        async move {
            for fault in schedule(world.seed, number) {
                if clock::now() + fault.pause >= ends {
                    return;
                }
                sleep(fault.pause).await;
                let from_ms = world.at_ms();
                let failed = strike(stand, world, fault).await.err();
                let done_now = Done { fault, from_ms, to_ms: world.at_ms(), failed };
                done.lock().expect("nobody panics with the lock").push(done_now);
            }
        }
    };
    tokio::join!(crew(0), crew(1));
    let mut done = done.into_inner().expect("nobody panics with the lock");
    done.sort_by_key(|done| done.from_ms);
    done
}

/// Does one fault and undoes it.
async fn strike(stand: &Stand, world: &World, fault: Fault) -> Result<(), String> {
    let Fault { kind, target, lasts, .. } = fault;
    match kind {
        Kind::NodeTerm | Kind::NodeKill | Kind::NodeStop => strike_node(stand, world, fault).await,
        Kind::NatsKill | Kind::NatsRetire => {
            stand.nats(target, |server| if kind == Kind::NatsKill { server.kill() } else { server.retire() });
            sleep(lasts).await;
            stand.nats(target, crate::nats::NatsServer::restart);
            stand.streams_are_whole().await;
            Ok(())
        }
        Kind::NatsStop => {
            stand.nats(target, |server| server.pause());
            sleep(lasts).await;
            stand.nats(target, |server| server.resume());
            stand.streams_are_whole().await;
            Ok(())
        }
        Kind::StepDown => step_down(stand, fault).await,
        Kind::StreamDelete | Kind::StreamPurge => {
            let holding = stand.streams.list(RISKY_STREAMS).await?;
            let holding: Vec<_> = holding.into_iter().filter(|stream| stream.messages > 0).collect();
            let stream = Dice::new(fault.draw).pick(&holding).cloned().ok_or("no stream holds anything")?;
            if kind == Kind::StreamPurge {
                return stand.streams.purge(&stream.name).await;
            }
            let deleted = stand.streams.delete(&stream.name).await;
            stand.streams_are_whole().await;
            deleted
        }
        Kind::Street(how) => {
            world.trouble(target, Cause::Cut);
            spoil(stand.streets(target), how, fault).await;
            // Clients must see who it was, also those whose connections have lost bytes and end now.
            sleep(lasts / 4).await;
            world.trouble(target, Cause::Other);
            Ok(())
        }
        Kind::Bus(how) => {
            spoil(stand.buses(target), how, fault).await;
            Ok(())
        }
    }
}

async fn strike_node(stand: &Stand, world: &World, fault: Fault) -> Result<(), String> {
    let Fault { kind, target, lasts, .. } = fault;
    if kind == Kind::NodeStop {
        world.trouble(target, Cause::Stop);
        stand.signal_node(target, "STOP").await;
        // Long enough for some of its clients to give it up.
        sleep(lasts * 3).await;
        stand.signal_node(target, "CONT").await;
        stand.node_is_ready(target).await;
        world.trouble(target, Cause::Other);
        return Ok(());
    }
    let (signal, cause) = if kind == Kind::NodeTerm { ("TERM", Cause::Term) } else { ("KILL", Cause::Kill) };
    world.trouble(target, cause);
    let code = stand.end_node(target, signal).await;
    sleep(lasts / 4).await;
    stand.start_node(target).await;
    stand.node_is_ready(target).await;
    world.trouble(target, Cause::Other);
    match (kind, code) {
        (Kind::NodeTerm, Some(0)) => Ok(()),
        (Kind::NodeTerm, code) => Err(format!("it ended with {code:?}")),
        _ => Ok(()),
    }
}

/// Half of all leaders give way.
async fn step_down(stand: &Stand, fault: Fault) -> Result<(), String> {
    let mut dice = Dice::new(fault.draw);
    let streams = stand.streams.list("gw_").await?;
    for stream in streams.iter().filter(|_| dice.once_in(2)) {
        stand.streams.step_down(&stream.name).await?;
    }
    stand.streams_are_whole().await;
    Ok(())
}

/// Spoils cables for a while.
async fn spoil(cables: &[Cable], how: Spoil, fault: Fault) {
    let Fault { lasts, draw, .. } = fault;
    let mut dice = Dice::new(draw);
    let waits = Way { flow: Flow::Waits, ..Way::default() };
    let delay = dice.time(Duration::from_millis(20), Duration::from_millis(200));
    let weather = match how {
        Spoil::Fin | Spoil::Rst => Weather::default(),
        Spoil::Cut => Weather { door: Door::Shut(End::Fin), ..Weather::default() },
        Spoil::HalfOpen => Weather::half_open(),
        Spoil::OneWay if dice.once_in(2) => Weather { down: waits, ..Weather::default() },
        Spoil::OneWay => Weather { up: waits, ..Weather::default() },
        Spoil::Delay => Weather::both(Way { delay, jitter: delay, ..Way::default() }),
        Spoil::Slices => Weather::both(Way { slice_bytes: 1 + dice.below(100), ..Way::default() }),
        Spoil::Throttle => {
            Weather::both(Way { bytes_per_second: 20_000 + dice.below(80_000), ..Way::default() })
        }
    };
    for cable in cables {
        cable.set(weather);
        match how {
            Spoil::Fin | Spoil::Cut => cable.snap(End::Fin),
            Spoil::Rst => cable.snap(End::Rst),
            Spoil::HalfOpen | Spoil::OneWay | Spoil::Delay | Spoil::Slices | Spoil::Throttle => {}
        }
    }
    let time = match how {
        Spoil::Fin | Spoil::Rst => lasts / 4,
        Spoil::Cut | Spoil::Delay | Spoil::Slices | Spoil::Throttle => lasts,
        // Silence takes longer to be noticed.
        Spoil::HalfOpen | Spoil::OneWay => lasts * 3,
    };
    sleep(time).await;
    cables.iter().for_each(Cable::mend);
}
