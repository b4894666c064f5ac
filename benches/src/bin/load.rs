//! The load generator: one measurement, one line of JSON.
//!
//! **Lives here:** printing the report, and the exit code: 1 for lost, duplicated or reordered messages.
//! **Called by:** people, and `compare`.
//! **Must not know:** how anything is measured.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use anyhow::Result;
use carillon_benches::{ledger::Faults, load};
use clap::Parser;

fn main() -> Result<ExitCode> {
    let report = load::run(&load::Options::parse())?;
    writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(if report.faults == Faults::default() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
