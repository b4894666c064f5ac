//! Users who come and go over several nodes: one line of JSON.
//!
//! **Lives here:** printing the report, and the exit code: 1 when a watcher was told something twice.
//! **Called by:** people, `make bench`, the smoke test.
//! **Must not know:** how anything is measured.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use anyhow::Result;
use carillon_benches::churn;
use clap::Parser;

fn main() -> Result<ExitCode> {
    let options = churn::Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(churn::run(&options))?;
    writeln!(stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(if report.faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
