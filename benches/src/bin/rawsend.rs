//! The physical limit as a process: the bare server of `carillon_benches::raw`.
//!
//! **Lives here:** its options and its listeners.
//! **Called by:** people, `compare`, the smoke tests.
//! **Must not know:** how it serves.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use carillon_benches::{
    process::raise_file_limit,
    raw::{Plant, RawServer},
};
use clap::Parser;

/// Sockets it may hold; the largest column of the comparison.
const SOCKETS: usize = 10_000;

#[derive(Debug, Parser)]
#[command(about = "Sends every published message to every WebSocket with a bare send(2) loop on one thread")]
struct Options {
    /// Where clients connect.
    #[arg(long)]
    public: SocketAddr,
    /// Where publishers connect.
    #[arg(long)]
    api: SocketAddr,
    /// Spoil one message of one subscriber: shows that the checker sees it.
    #[arg(long)]
    plant: Option<Plant>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    raise_file_limit(SOCKETS)?;
    let listen =
        |address| TcpListener::bind(address).with_context(|| format!("could not listen on {address}"));
    RawServer::new(listen(options.public)?, listen(options.api)?, options.plant)?.serve()
}
