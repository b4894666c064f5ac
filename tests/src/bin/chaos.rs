//! `chaos [rage|roll|kill|storm|away] [seed=1 seconds=90 clients=500 …]`: the whole under faults, and its ledger.
//!
//! **Lives here:** arguments, the exit code.
//! **Called by:** `make chaos`.
//! **Must not know:** what is done.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it is a program for a terminal")]

use std::process::ExitCode;

use carillon_tests::chaos::{self, plan::Plan, scenario};

fn main() -> ExitCode {
    let mut plan = Plan::new();
    let mut scenario = "rage".to_owned();
    for argument in std::env::args().skip(1) {
        if !argument.contains('=') {
            scenario = argument;
        } else if let Err(why) = plan.set(&argument) {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    }
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads");
    let ledger = runtime.block_on(async {
        Some(match scenario.as_str() {
            "rage" => chaos::rage(&plan).await,
            "roll" => scenario::roll(&plan).await,
            "kill" => scenario::kill(&plan).await,
            "storm" => scenario::storm(&plan).await,
            "away" => scenario::away(&plan).await,
            _ => return None,
        })
    });
    let Some(ledger) = ledger else {
        eprintln!("`{scenario}`: a scenario is one of rage, roll, kill, storm, away");
        return ExitCode::from(2);
    };
    println!("{ledger}");
    println!("ledgers are kept in target/chaos");
    ExitCode::from(u8::from(!ledger.complaints().is_empty()))
}
