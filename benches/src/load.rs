//! One measurement against one running server.
//!
//! **Lives here:** the options and the report of the `load` binary, connecting, the mode switch.
//! **Called by:** the binary `load`.
//! **Must not know:** which server it measures.

mod fanout;
mod publish;

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use carillon_tasks::clock;

use crate::{
    dialect::Dialect,
    histogram::Percentiles,
    ledger::Faults,
    payload,
    poller::{Poller, Ready},
    process::{Processor, raise_file_limit, resident_bytes},
    publisher::Recipe,
    subscribers::{Heard, Subscribers},
};

/// Handshakes under way at a time: below any server's accept queue.
const HANDSHAKES: usize = 64;
/// How long a server may rest before its memory is read.
const SETTLE: Duration = Duration::from_secs(1);

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Closed loop: publish, wait until all subscribers have it, again.
    Fanout,
    /// Publish at a steady rate, whether or not the last message has arrived.
    Rate,
    /// Memory of idle subscribed connections, before and after some fan-outs.
    Idle,
    /// The publish API alone; nobody is subscribed.
    Publish,
    /// Setting up connections, until `subscribed`.
    Connect,
}

/// The options of one measurement.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    about = "Puts load on one server and prints one line of JSON; fails when a message is lost, duplicated or reordered"
)]
pub struct Options {
    /// What to measure.
    pub mode: Mode,
    /// Where clients connect.
    #[arg(long)]
    pub public: SocketAddr,
    /// Where publishers connect.
    #[arg(long)]
    pub api: SocketAddr,
    /// Process id of the server: its processor time and memory are read.
    #[arg(long)]
    pub pid: u32,
    /// The protocol of subscribers.
    #[arg(long, value_enum, default_value_t)]
    pub subscribe_as: Dialect,
    /// The publish API.
    #[arg(long, value_enum, default_value_t)]
    pub publish_as: Dialect,
    /// API key of the native publish API.
    #[arg(long, default_value = "dev")]
    pub key: String,
    /// Channel; anything that needs no escaping in a URL or in JSON.
    #[arg(long, default_value = "bench")]
    pub channel: String,
    /// Subscribers (fanout, rate, idle, connect).
    #[arg(long, default_value_t = 1000)]
    pub subscribers: usize,
    /// Bytes of each publication's data.
    #[arg(long, default_value_t = 128)]
    pub size: usize,
    /// Messages published by one request; above 1 a batch.
    #[arg(long, default_value_t = 1)]
    pub burst: u64,
    /// Requests not yet received by everybody (fanout, idle).
    #[arg(long, default_value_t = 1)]
    pub window: usize,
    /// Requests per second (rate).
    #[arg(long, default_value_t = 20.0)]
    pub rate: f64,
    /// How long to publish.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Stop after so many messages, even when time is left.
    #[arg(long)]
    pub messages: Option<u64>,
    /// Fan-outs between the two memory readings (idle).
    #[arg(long, default_value_t = 100)]
    pub fanouts: u64,
    /// Keep-alive connections (publish).
    #[arg(long, default_value_t = 8)]
    pub connections: usize,
    /// Times all connections are set up (connect).
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds without any progress after which what is missing counts as lost.
    #[arg(long, default_value_t = 30.0)]
    pub patience: f64,
}

impl Options {
    fn recipe(&self) -> Recipe {
        Recipe {
            dialect: self.publish_as,
            key: self.key.clone(),
            channel: self.channel.clone(),
            size_bytes: self.size,
        }
    }

    fn subscribers(&self) -> Subscribers {
        Subscribers::new(self.public, self.subscribe_as, &self.channel)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.patience)
    }
}

/// Processor time per unit of work, in microseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Cost {
    /// User and system.
    pub total: f64,
    /// User alone; sampled by the kernel, so only long runs tell.
    pub user: f64,
}

impl Cost {
    fn of(used: Processor, units: u64) -> Self {
        let each = |time: Duration| round(time.as_secs_f64() * 1e6 / units.max(1) as f64);
        Self { total: each(used.total()), user: each(used.user) }
    }
}

/// What was measured. Members that a mode does not measure are absent.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Report {
    /// The mode.
    pub mode: String,
    /// Subscribers connected.
    pub subscribers: usize,
    /// Bytes of each publication's data.
    pub size_bytes: usize,
    /// Messages per publish request.
    pub burst: u64,
    /// Seconds the measured part took.
    pub seconds: f64,
    /// Messages published in the measured part.
    pub published: u64,
    /// Publish requests per second.
    pub publishes_per_s: f64,
    /// Server's processor time per publish request (publish).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_publish: Option<Cost>,
    /// Messages received by subscribers in the measured part.
    pub deliveries: u64,
    /// The same per second.
    pub deliveries_per_s: f64,
    /// Server's processor time per delivery.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_delivery: Option<Cost>,
    /// This load generator's own processor time per delivery, or per publish request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_cpu_us: Option<Cost>,
    /// From the start of a publish to its receipt by each subscriber (publish: to its answer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<Percentiles>,
    /// Connections set up per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connects_per_s: Option<f64>,
    /// Server's processor time per connection set up and subscribed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_us_per_connect: Option<Cost>,
    /// Server's memory per idle connection (idle).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_connection: Option<f64>,
    /// The same after the fan-outs (idle).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_connection_after: Option<f64>,
    /// Losses, duplicates, reorderings over the whole run, warm-up included.
    #[serde(flatten)]
    pub faults: Faults,
}

/// Keeps three digits after the point: more would be noise in print.
pub(crate) fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// Measures.
///
/// # Errors
///
/// When the measurement itself failed: a connection refused or closed, a publish refused, nothing to read. Lost,
/// duplicated and reordered messages are not errors but figures of the report.
pub fn run(options: &Options) -> Result<Report> {
    ensure!(options.size >= payload::SIZE_MIN_BYTES, "size must be at least {}", payload::SIZE_MIN_BYTES);
    ensure!((1..=100).contains(&options.burst), "burst must be 1 to 100, the limit of a batch");
    ensure!(options.window >= 1 && options.subscribers >= 1, "window and subscribers must be at least 1");
    raise_file_limit(options.subscribers + options.connections)?;
    let mut report = Report {
        mode: format!("{:?}", options.mode).to_lowercase(),
        size_bytes: options.size,
        burst: options.burst,
        ..Report::default()
    };
    match options.mode {
        Mode::Fanout | Mode::Rate => {
            let crowd = Crowd::gather(options, &mut report)?;
            fanout::measure(options, crowd, &mut report)?;
        }
        Mode::Idle => measure_idle(options, &mut report)?,
        Mode::Publish => publish::measure(options, &mut report)?,
        Mode::Connect => measure_connect(options, &mut report)?,
    }
    Ok(report)
}

fn measure_idle(options: &Options, report: &mut Report) -> Result<()> {
    let before = resident_bytes(options.pid)?;
    let per_connection = |now: u64| round(now.saturating_sub(before) as f64 / options.subscribers as f64);
    let mut crowd = Crowd::gather(options, report)?;
    crowd.rest(SETTLE)?;
    report.bytes_per_connection = Some(per_connection(resident_bytes(options.pid)?));
    let some = Options {
        mode: Mode::Fanout,
        messages: Some(options.fanouts * options.burst),
        seconds: f64::from(u16::MAX),
        ..options.clone()
    };
    let crowd = fanout::measure(&some, crowd, report)?;
    report.bytes_per_connection_after = Some(per_connection(resident_bytes(options.pid)?));
    drop(crowd); // only now: the connections had to be open while memory was read
    Ok(())
}

fn measure_connect(options: &Options, report: &mut Report) -> Result<()> {
    let (mut rates, mut totals, mut users) = (0.0, 0.0, 0.0);
    for _round in 0..options.rounds.max(1) {
        let mut crowd = Crowd::gather(options, report)?;
        let cost = report.cpu_us_per_connect.expect("gathering sets it");
        rates += report.connects_per_s.expect("gathering sets it");
        totals += cost.total;
        users += cost.user;
        // The server's work of closing must not count as the next round's work of connecting.
        crowd.subscribers = options.subscribers();
        crowd.rest(SETTLE)?;
    }
    let rounds = options.rounds.max(1) as f64;
    report.connects_per_s = Some(round(rates / rounds));
    report.cpu_us_per_connect = Some(Cost { total: round(totals / rounds), user: round(users / rounds) });
    Ok(())
}

/// Subscribers and the one place that waits for them.
#[derive(Debug)]
struct Crowd {
    poller: Poller,
    ready: Vec<Ready>,
    subscribers: Subscribers,
    heard: Heard,
}

impl Crowd {
    /// Connects all subscribers, and enters into the report what that took.
    fn gather(options: &Options, report: &mut Report) -> Result<Self> {
        let mut crowd = Self {
            poller: Poller::new()?,
            ready: Vec::new(),
            subscribers: options.subscribers(),
            heard: Heard::default(),
        };
        let (start, used) = (clock::now(), Processor::of(options.pid)?);
        let mut live = 0;
        let mut progress = start;
        while live < options.subscribers {
            while crowd.subscribers.count() < options.subscribers
                && crowd.subscribers.count() - live < HANDSHAKES
            {
                let key = crowd.subscribers.count();
                let socket = crowd.subscribers.connect_one()?;
                crowd.poller.add(socket, key)?;
            }
            crowd.poller.wait(options.patience(), &mut crowd.ready)?;
            for ready in &crowd.ready {
                crowd.heard.subscribed = false;
                crowd.subscribers.read(ready.key, &mut crowd.heard)?;
                if crowd.heard.subscribed {
                    live += 1;
                    progress = clock::now();
                }
            }
            ensure!(crowd.heard.counters.is_empty(), "a message came before anything was published");
            ensure!(
                progress.elapsed() < options.patience(),
                "only {live} of {} subscribers got `subscribed`, and no more for {} s",
                options.subscribers,
                options.patience
            );
        }
        let cost = Cost::of(Processor::of(options.pid)? - used, live as u64);
        report.subscribers = live;
        report.connects_per_s = Some(round(live as f64 / start.elapsed().as_secs_f64()));
        report.cpu_us_per_connect = Some(cost);
        Ok(crowd)
    }

    /// Waits, answering pings.
    fn rest(&mut self, time: Duration) -> Result<()> {
        let end = clock::now() + time;
        loop {
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Ok(());
            }
            self.poller.wait(left, &mut self.ready)?;
            for ready in &self.ready {
                self.subscribers.read(ready.key, &mut self.heard)?;
            }
            ensure!(self.heard.counters.is_empty(), "a message came while nothing was published");
        }
    }
}
