//! `carillon serve` and `carillon check`.
//!
//! **Lives here:** from a configuration to a process that serves until it is stopped.
//! **Called by:** `main`; `dev` with a configuration of its own.
//! **Must not know:** parts.

use std::{io::ErrorKind, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow};
use carillon_config::{Config, Faults, environment};
use carillon_gateway::{Addresses, Asset, Ended, Gateway, StartError};
use carillon_tasks::Tasks;

use crate::{complain, say};

/// Threads for everything that is not a client connection: publishers, the broker, probes.
const THREADS: usize = 2;

/// How long the last lines of the log may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Serves until the process is asked to stop.
pub(crate) fn serve(path: Option<&Path>) -> anyhow::Result<ExitCode> {
    match Config::load(path, environment::variables()) {
        Ok(config) => run(&config, None, |_addresses| {}),
        Err(faults) => Ok(refuse(path, &faults)),
    }
}

/// Says every fault of a configuration.
pub(crate) fn check(path: Option<&Path>) -> anyhow::Result<ExitCode> {
    match Config::load(path, environment::variables()) {
        Ok(config) => {
            for warning in config.warnings() {
                complain(&format!("warning: {warning}"));
            }
            say("the configuration is good");
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => Ok(refuse(path, &faults)),
    }
}

fn refuse(path: Option<&Path>, faults: &Faults) -> ExitCode {
    match path {
        Some(_named) => complain(&faults.to_string()),
        None => complain(&format!("no file was given (--config FILE); {faults}")),
    }
    ExitCode::from(2)
}

/// Runs a process; `started` is told where it listens.
pub(crate) fn run(
    config: &Config,
    page: Option<&'static [Asset]>,
    started: impl FnOnce(Addresses),
) -> anyhow::Result<ExitCode> {
    let logs = carillon_telemetry::logs(config.log.format, &config.log.directives)
        .context("the log cannot be started")?;
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let revision = option_env!("CARILLON_REVISION").unwrap_or("unknown");
    let metrics = carillon_telemetry::install(env!("CARGO_PKG_VERSION"), revision)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("shared")
        .enable_all()
        .build()
        .context("the system gives no threads")?;
    let ended = runtime.block_on(async {
        let tasks = Tasks::new(runtime.handle().clone());
        let gateway = Gateway::start(config, metrics, tasks, page).await.map_err(explained)?;
        let at = gateway.addresses();
        tracing::info!(
            public = %at.public,
            api = %at.api,
            admin = %at.admin,
            broker = config.broker.kind(),
            "listening"
        );
        started(at);
        anyhow::Ok(gateway.until_stopped().await)
    });
    runtime.shutdown_timeout(LAST_LINES);
    let _reader_is_slow = logs.flush(LAST_LINES);
    Ok(match ended? {
        Ended::Clean => ExitCode::SUCCESS,
        Ended::Cut => ExitCode::from(3),
        Ended::Fatal(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    })
}

/// Says what to do about an address that is taken: the first fault that many meet.
fn explained(fault: StartError) -> anyhow::Error {
    if let StartError::Listen { key, source, .. } = &fault
        && source.kind() == ErrorKind::AddrInUse
    {
        let door = key.split('.').next().unwrap_or(key);
        return anyhow!(
            "{fault}: {source}. Another carillon may be running: stop it, or choose another address with `{key}` \
             (`carillon dev`: --{door})"
        );
    }
    fault.into()
}
