//! The publish API alone: no subscribers, several keep-alive connections, one request each at a time.
//!
//! **Lives here:** keeping every connection busy until time is up.
//! **Called by:** `load`.
//! **Must not know:** WebSockets.

use std::time::Duration;

use anyhow::{Result, ensure};
use carillon_tasks::clock;

use super::{Cost, Options, Report, round};
use crate::{histogram::Histogram, poller::Poller, process::Processor, publisher::Publisher};

/// Requests per connection before the measured ones.
const WARM_UP: u64 = 50;

pub(super) fn measure(options: &Options, report: &mut Report) -> Result<()> {
    let poller = Poller::new()?;
    let mut publishers = Vec::new();
    for key in 0..options.connections.max(1) {
        let publisher = Publisher::connect(options.api, options.recipe())?;
        poller.add(&publisher, key)?;
        publishers.push(publisher);
    }
    let mut loops = Loops { options, poller, publishers, next: 0, latencies: Histogram::default() };
    loops.run(Duration::MAX, WARM_UP * options.connections as u64)?;
    loops.latencies = Histogram::default();

    let me = std::process::id();
    let (start, used, used_here) = (clock::now(), Processor::of(options.pid)?, Processor::of(me)?);
    let most = options.messages.map_or(u64::MAX, |messages| messages / options.burst);
    let answered = loops.run(Duration::from_secs_f64(options.seconds), most)?;
    let (used, used_here) = (Processor::of(options.pid)? - used, Processor::of(me)? - used_here);

    let seconds = start.elapsed().as_secs_f64();
    report.seconds = round(seconds);
    report.published = answered * options.burst;
    report.publishes_per_s = round(answered as f64 / seconds);
    report.cpu_us_per_publish = Some(Cost::of(used, answered));
    report.load_cpu_us = Some(Cost::of(used_here, answered));
    report.latency_us = loops.latencies.percentiles();
    Ok(())
}

struct Loops<'a> {
    options: &'a Options,
    poller: Poller,
    publishers: Vec<Publisher>,
    next: u64,
    latencies: Histogram,
}

impl Loops<'_> {
    /// Keeps every connection busy for a time or a number of requests; returns how many were answered.
    fn run(&mut self, time: Duration, most: u64) -> Result<u64> {
        let begin = clock::now();
        let mut started = vec![begin; self.publishers.len()];
        let (mut sent, mut answered) = (0, 0);
        let mut ready = Vec::new();
        let mut idle: Vec<usize> = (0..self.publishers.len()).collect();
        loop {
            for key in idle.drain(..) {
                if sent < most && begin.elapsed() < time {
                    started[key] = clock::now();
                    self.publishers[key].publish(self.next..self.next + self.options.burst)?;
                    self.next += self.options.burst;
                    sent += 1;
                }
            }
            if answered == sent {
                return Ok(answered);
            }
            self.poller.wait(self.options.patience(), &mut ready)?;
            ensure!(!ready.is_empty(), "no answer from the publish API for {} s", self.options.patience);
            for event in &ready {
                if self.publishers[event.key].read_answers()? == 1 {
                    self.latencies.record(started[event.key].elapsed());
                    answered += 1;
                    idle.push(event.key);
                }
            }
        }
    }
}
