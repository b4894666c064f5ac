//! Publishing to everybody, and waiting for everybody.
//!
//! **Lives here:** the closed loop and the steady rate, which differ only in when to publish.
//! **Called by:** `load`.
//! **Must not know:** how connections were made.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use carillon_tasks::clock;

use super::{Cost, Crowd, Mode, Options, Report, round};
use crate::{
    histogram::Histogram,
    ledger::{Ledger, Verdict},
    process::Processor,
    publisher::Publisher,
};

/// The publisher's key among the sockets; subscribers count from 0.
const PUBLISHER: usize = usize::MAX;
/// Requests before the measured ones: the server's lazy parts and its caches are then warm.
const WARM_UP: u64 = 3;
/// How long to listen at the end for what should not come any more.
const QUIET: Duration = Duration::from_millis(100);

/// When the next request may leave.
#[derive(Debug)]
enum Pace {
    /// When fewer than so many are under way.
    Window(usize),
    /// When its time has come.
    Every { gap: Duration, next: Instant },
}

/// One publish request under way.
#[derive(Debug)]
struct Flight {
    started: Instant,
    /// Deliveries that have not been made.
    missing: u64,
}

/// One run over a crowd.
#[derive(Debug)]
struct Run<'a> {
    options: &'a Options,
    crowd: Crowd,
    publisher: Publisher,
    ledger: Ledger,
    flights: VecDeque<Flight>,
    /// The counter that is published next.
    next: u64,
    /// Deliveries seen, without duplicates.
    arrived: u64,
    latencies: Histogram,
    /// When something arrived last.
    progress: Instant,
}

/// Publishes as the options say and enters what was measured. Returns the crowd, still connected.
pub(super) fn measure(options: &Options, crowd: Crowd, report: &mut Report) -> Result<Crowd> {
    let publisher = Publisher::connect(options.api, options.recipe())?;
    crowd.poller.add(&publisher, PUBLISHER)?;
    let mut run = Run {
        options,
        ledger: Ledger::new(crowd.subscribers.count()),
        crowd,
        publisher,
        flights: VecDeque::new(),
        next: 0,
        arrived: 0,
        latencies: Histogram::default(),
        progress: clock::now(),
    };
    run.publish_until(clock::now() + options.patience(), WARM_UP * options.burst, Pace::Window(1))?;
    run.latencies = Histogram::default();
    let (warm_next, warm_arrived) = (run.next, run.arrived);
    let me = std::process::id();
    let (start, used, used_here) = (clock::now(), Processor::of(options.pid)?, Processor::of(me)?);

    let pace = match options.mode {
        Mode::Rate => Pace::Every { gap: Duration::from_secs_f64(1.0 / options.rate), next: start },
        Mode::Fanout | Mode::Idle | Mode::Publish | Mode::Connect => Pace::Window(options.window),
    };
    let last = options.messages.map_or(u64::MAX, |messages| warm_next + messages);
    run.publish_until(start + Duration::from_secs_f64(options.seconds), last, pace)?;

    let (used, used_here) = (Processor::of(options.pid)? - used, Processor::of(me)? - used_here);
    let seconds = (run.progress - start).as_secs_f64();
    run.listen_for_more()?;
    report.published = run.next - warm_next;
    report.deliveries = run.arrived - warm_arrived;
    report.seconds = round(seconds);
    report.publishes_per_s = round((report.published / options.burst) as f64 / seconds);
    report.deliveries_per_s = round(report.deliveries as f64 / seconds);
    report.cpu_us_per_delivery = Some(Cost::of(used, report.deliveries));
    report.load_cpu_us = Some(Cost::of(used_here, report.deliveries));
    report.latency_us = run.latencies.percentiles();
    report.faults = run.ledger.close(run.next);
    Ok(run.crowd)
}

impl Run<'_> {
    /// Publishes until a time or a counter, whichever comes first, and waits until everything has arrived or
    /// nothing has for too long.
    fn publish_until(&mut self, end: Instant, last: u64, mut pace: Pace) -> Result<()> {
        self.progress = clock::now();
        loop {
            let mut now = clock::now();
            while now < end && self.next < last && pace.allows(self.flights.len(), now) {
                self.publish(now)?;
                now = clock::now();
            }
            let over = now >= end || self.next >= last;
            if over && self.flights.is_empty() && self.publisher.unanswered() == 0 {
                return Ok(());
            }
            if now.saturating_duration_since(self.progress) >= self.options.patience() {
                if !self.flights.is_empty() {
                    return Ok(()); // what is missing is found in the ledger
                }
                ensure!(
                    self.publisher.unanswered() == 0,
                    "a publish request was fanned out but never answered"
                );
            }
            let wait =
                if over { self.options.patience() } else { pace.next_in(now, self.options.patience()) };
            self.hear(wait)?;
        }
    }

    fn publish(&mut self, now: Instant) -> Result<()> {
        if self.flights.is_empty() {
            self.progress = now;
        }
        let end = self.next + self.options.burst;
        let missing = self.options.burst * self.crowd.subscribers.count() as u64;
        self.flights.push_back(Flight { started: now, missing });
        self.publisher.publish(self.next..end)?;
        self.next = end;
        Ok(())
    }

    /// Waits once and takes in what came.
    fn hear(&mut self, at_most: Duration) -> Result<()> {
        let crowd = &mut self.crowd;
        crowd.poller.wait(at_most, &mut crowd.ready)?;
        for at in 0..self.crowd.ready.len() {
            let key = self.crowd.ready[at].key;
            if key == PUBLISHER {
                self.publisher.read_answers()?;
                continue;
            }
            self.crowd.heard.counters.clear();
            self.crowd.subscribers.read(key, &mut self.crowd.heard)?;
            self.take_in(key)?;
        }
        Ok(())
    }

    /// Enters what one subscriber has heard.
    fn take_in(&mut self, subscriber: usize) -> Result<()> {
        let now = clock::now();
        for counter in &self.crowd.heard.counters {
            if *counter >= self.next {
                bail!("subscriber {subscriber} received message {counter}, which was not published yet");
            }
            match self.ledger.receive(subscriber, *counter) {
                Verdict::Again => continue,
                Verdict::New | Verdict::Late => {}
            }
            self.arrived += 1;
            self.progress = now;
            let oldest = self.next - self.flights.len() as u64 * self.options.burst;
            let index = usize::try_from((counter - oldest) / self.options.burst)?;
            let flight = self.flights.get_mut(index).context("a flight ends with its last delivery")?;
            flight.missing -= 1;
            self.latencies.record(now - flight.started);
        }
        while self.flights.front().is_some_and(|flight| flight.missing == 0) {
            self.flights.pop_front();
        }
        Ok(())
    }

    /// Listens until all has been quiet for a while: a late duplicate must not escape.
    fn listen_for_more(&mut self) -> Result<()> {
        let end = clock::now() + QUIET;
        loop {
            let left = end.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Ok(());
            }
            self.hear(left)?;
        }
    }
}

impl Pace {
    /// Says whether a request may leave now; if so it counts as left.
    fn allows(&mut self, under_way: usize, now: Instant) -> bool {
        match self {
            Self::Window(most) => under_way < *most,
            Self::Every { gap, next } => {
                let due = now >= *next;
                if due {
                    *next += *gap;
                }
                due
            }
        }
    }

    /// Returns how long to wait when nothing else happens.
    fn next_in(&self, now: Instant, at_most: Duration) -> Duration {
        match self {
            Self::Window(_most) => at_most,
            Self::Every { next, .. } => next.saturating_duration_since(now).min(at_most),
        }
    }
}
