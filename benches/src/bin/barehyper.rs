//! The baseline of the publish API as a process: `carillon_benches::hyper_answer` on one thread.
//!
//! **Lives here:** its options and its runtime.
//! **Called by:** people and `compare`.
//! **Must not know:** how it answers.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(about = "Answers publish requests without publishing anything")]
struct Options {
    /// Where publishers connect.
    #[arg(long)]
    api: SocketAddr,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(carillon_benches::hyper_answer::serve(options.api))
}
