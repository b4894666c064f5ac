//! The comparison: a table for people, then one line of JSON.
//!
//! **Lives here:** printing, and the exit code: 1 when the candidate lost, duplicated or reordered a message.
//! **Called by:** people.
//! **Must not know:** how anything is measured.

use std::{
    io::{Write, stdout},
    process::ExitCode,
};

use anyhow::Result;
use carillon_benches::compare;
use clap::Parser;

fn main() -> Result<ExitCode> {
    let figures = compare::run(&compare::Options::parse())?;
    writeln!(stdout(), "{figures}\n{}", figures.json())?;
    Ok(if figures.faults() == [0; 3] { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
