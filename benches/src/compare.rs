//! The gateway beside the physical limit, in alternating rounds: ratios that carry over to other machines.
//!
//! **Lives here:** the options, the rounds, the time limit.
//! **Called by:** the binary `compare`.
//! **Must not know:** how one measurement is made: that is the `load` process.

mod column;
mod figures;

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use carillon_tasks::clock;
use serde_json::Value;

pub use self::{column::Column, figures::Figures};
use crate::{
    process::{processors, stay_on},
    server::{Kind, Server},
};

/// Which processors server and load generator use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cores {
    /// The server on the first, the load generator on the second. The gateway then sees one processor.
    Pinned,
    /// As the kernel likes.
    Free,
}

/// The options of a comparison.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    about = "Compares the gateway with a bare send loop and with bare hyper; prints a table and a line of JSON"
)]
pub struct Options {
    /// Rounds; figures are medians over them.
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Seconds after which no new round begins. The first always ends.
    #[arg(long, default_value_t = 900)]
    pub at_most: u64,
    /// Which processors to use.
    #[arg(long, value_enum, default_value_t = Cores::Pinned)]
    pub cores: Cores,
    /// Numbers of subscribers; memory is measured at the last.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
    pub subscribers: Vec<usize>,
    /// The gateway's binary; `carillon` beside this program unless `CARILLON_BIN` says otherwise.
    #[arg(long)]
    pub gateway: Option<PathBuf>,
    /// What stands in the gateway's place: `limit` compares the limits with themselves and so shows the noise.
    #[arg(long, value_enum, default_value_t = Candidate::Gateway)]
    pub candidate: Candidate,
}

/// What is compared with the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Candidate {
    /// The gateway.
    Gateway,
    /// The limit once more.
    Limit,
}

/// Runs the rounds.
///
/// # Errors
///
/// When a server or a measurement fails. Lost, duplicated or reordered messages are figures, not errors.
pub fn run(options: &Options) -> Result<Figures> {
    let bench = Bench::new(options)?;
    let columns = column::all(&options.subscribers, bench.gateway.is_some());
    let mut figures = Figures::default();
    let start = clock::now();
    for round in 0..options.rounds.max(1) {
        if round > 0 && start.elapsed() >= Duration::from_secs(options.at_most) {
            break;
        }
        for column in &columns {
            let sides = [Side::Limit, Side::Candidate];
            // Who goes first alternates: whatever drifts, drifts for both.
            let order = if round % 2 == 0 { sides } else { [sides[1], sides[0]] };
            let shared = match column.compares_dialects() {
                true => Some(bench.start(*column, Side::Candidate)?),
                false => None,
            };
            for side in order {
                figures.enter(*column, side, bench.measure(*column, side, shared.as_ref())?);
            }
        }
        figures.rounds += 1;
    }
    Ok(figures)
}

/// Which of the two in a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// What cannot be beaten.
    Limit,
    /// What is judged.
    Candidate,
}

struct Bench<'a> {
    options: &'a Options,
    /// Where this program and the other binaries of the package stand.
    folder: PathBuf,
    /// The candidate; the limit itself when absent.
    gateway: Option<PathBuf>,
    all_processors: Vec<usize>,
}

impl<'a> Bench<'a> {
    fn new(options: &'a Options) -> Result<Self> {
        let folder = std::env::current_exe()?.parent().context("a program stands in a folder")?.to_path_buf();
        let gateway = match (options.candidate, &options.gateway) {
            (Candidate::Limit, _) => None,
            (Candidate::Gateway, Some(path)) => Some(path.clone()),
            (Candidate::Gateway, None) => Some(crate::server::gateway_binary()?),
        };
        Ok(Self { options, folder, gateway, all_processors: processors()? })
    }

    /// Starts the server of a side.
    fn start(&self, column: Column, side: Side) -> Result<Server> {
        self.choose_processor(0)?;
        let (kind, program) = column.limit();
        match (side, &self.gateway) {
            (Side::Candidate, Some(gateway)) => Server::start(Kind::Gateway, gateway, &[]),
            (Side::Candidate, None) | (Side::Limit, _) => {
                Server::start(kind, &self.folder.join(program), &[])
            }
        }
    }

    /// Puts one load on a server, a fresh one unless both sides share one, and returns the load generator's report.
    fn measure(&self, column: Column, side: Side, shared: Option<&Server>) -> Result<Value> {
        let fresh = shared.is_none().then(|| self.start(column, side)).transpose()?;
        let server = shared.or(fresh.as_ref()).context("a side has a server")?;
        self.choose_processor(1)?;
        let output = Command::new(self.folder.join("load"))
            .args(column.load_arguments(side, self.options.seconds))
            .args(["--public", &server.public.to_string(), "--api", &server.api.to_string()])
            .args(["--pid", &server.pid().to_string()])
            .output()
            .context("could not start `load`: build the package carillon-benches")?;
        // `load` fails for faulty deliveries too; then it has printed its report, and the figures will show it.
        let report: serde_json::Result<Value> = serde_json::from_slice(&output.stdout);
        let said = || {
            format!(
                "no report for {}, {side:?}: {}\nserver said: {}",
                column.name(),
                String::from_utf8_lossy(&output.stderr),
                server.said()
            )
        };
        let report = report.with_context(said)?;
        let flawless = side == Side::Candidate || output.status.success();
        ensure!(flawless, "the limit itself lost, duplicated or reordered messages: {report}");
        Ok(report)
    }

    /// Takes the n-th processor for what is started next, when pinned and when there are enough.
    fn choose_processor(&self, number: usize) -> Result<()> {
        match (self.options.cores, self.all_processors.get(..2)) {
            (Cores::Pinned, Some(two)) => stay_on(&two[number..=number]),
            (Cores::Pinned, None) | (Cores::Free, _) => {
                ensure!(!self.all_processors.is_empty(), "no processor to run on");
                Ok(())
            }
        }
    }
}
