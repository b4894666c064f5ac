//! `carillon`: the push gateway, and the tools that go with it.
//!
//! **Lives here:** the command line; each command has a file of its own.
//! **Called by:** people, Kubernetes.
//! **Must not know:** how parts are made: that is `gateway`'s.

mod ask;
mod dev;
mod healthcheck;
mod key;
mod page;
mod publish;
mod serve;
mod tail;

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

/// Musl's own allocator takes one lock for all threads. Medians of alternating runs on two cores: with this one a publish
/// takes 0.96 of the CPU, a delivery 0.92, and an idle connection 1 KiB more memory.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Push gateway: your application posts once, every subscriber has it at once.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve with a configuration file and the environment (CARILLON__SECTION__KEY).
    Serve {
        /// The configuration file, in TOML.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Try it on this machine: embedded broker, every channel public, API key `dev`.
    ///
    /// The environment changes what has no option here, as it does for `serve`: `CARILLON__BROKER__KIND=nats`.
    Dev {
        /// Port or loopback address for clients.
        #[arg(long, value_name = "ADDRESS", default_value = "8000", value_parser = loopback)]
        public: SocketAddr,
        /// Port or loopback address for publishers.
        #[arg(long, value_name = "ADDRESS", default_value = "8001", value_parser = loopback)]
        api: SocketAddr,
        /// Port or loopback address for metrics and probes.
        #[arg(long, value_name = "ADDRESS", default_value = "9000", value_parser = loopback)]
        admin: SocketAddr,
    },
    /// Check a configuration and say every fault at once.
    Check {
        /// The configuration file, in TOML.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Publish one message.
    Publish(publish::Publish),
    /// Print what is published to channels, one JSON object a line.
    Tail(tail::Tail),
    /// API keys.
    Key {
        #[command(subcommand)]
        action: KeyAction,
    },
    /// Ask a node on this machine whether it is alive; for container health checks.
    Healthcheck(healthcheck::Healthcheck),
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Make a key and the lines of configuration that let it in. The key is shown once.
    New {
        /// What logs and the configuration call it: letters, digits and `-`.
        #[arg(long, default_value = "backend")]
        id: String,
        /// The application that it publishes for: an id of `[[apps]]`; `main` where there are none.
        #[arg(long, value_name = "ID", default_value = "main")]
        app: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve { config } => serve::serve(config.as_deref()),
        Command::Dev { public, api, admin } => dev::dev(public, api, admin),
        Command::Check { config } => serve::check(config.as_deref()),
        Command::Publish(publish) => ask::block_on(publish.run()),
        Command::Tail(tail) => ask::block_on(tail.run()),
        Command::Key { action: KeyAction::New { id, app } } => key::new(&app, &id),
        Command::Healthcheck(healthcheck) => ask::block_on(healthcheck.run()),
    };
    match outcome {
        Ok(code) => code,
        Err(fault) => {
            complain(&format!("{fault:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Reads `8000`, `127.0.0.1:8000` or `[::1]:8000`. Development mode is open to everybody who reaches it, so nothing
/// but this machine may.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse::<u16>() {
        Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Err(_not_a_port) => text
            .parse::<SocketAddr>()
            .map_err(|_fault| "expected a port, or an address such as 127.0.0.1:8000".to_owned())?,
    };
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("`dev` listens on this machine only (127.0.0.1 or ::1); use `carillon serve` for others"
            .to_owned())
    }
}

/// Prints a line. That nobody reads it any more is no fault.
fn say(line: &str) {
    let _reader_left = writeln!(std::io::stdout().lock(), "{line}").is_err();
}

/// Prints a line of complaint.
fn complain(line: &str) {
    let _reader_left = writeln!(std::io::stderr().lock(), "carillon: {line}").is_err();
}
