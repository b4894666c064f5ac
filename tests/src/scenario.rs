//! Scenarios that are programs of clients' own languages, against the gateways of a test.
//!
//! **Lives here:** telling a program where the servers are, running it to its end, showing what it says when it fails.
//! **Called by:** tests with clients nobody here wrote.
//! **Must not know:** what a scenario does.

use std::{process::Command, thread::sleep, time::Duration};

use carillon_tasks::clock;
use serde_json::{Value, json};

use crate::{
    document::root,
    gateway::Gateway,
    process::Process,
    pusher::{App, COUNTED, FIRST, PLAIN, WATCHED},
};

/// How long a scenario may take: several times what each of its steps may.
const PATIENCE: Duration = Duration::from_secs(180);

/// Pause between two looks at a program.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a scenario knows of the gateways, as text.
#[must_use]
pub fn world<'a>(nodes: impl IntoIterator<Item = &'a Gateway>) -> String {
    let nodes = nodes.into_iter().map(|node| json!({"public": node.public, "api": node.api}));
    let nodes: Vec<Value> = nodes.collect();
    let app = |app: App| json!({"id": app.id, "key": app.key, "secret": app.secret});
    let apps = json!({
        "first": app(FIRST), "plain": app(PLAIN), "counted": app(COUNTED), "watched": app(WATCHED),
    });
    json!({"nodes": nodes, "apps": apps}).to_string()
}

/// Returns a command that runs a scenario of tests/js/pusher: a function of a file, by its name.
///
/// # Panics
/// When the clients are not installed.
#[must_use]
pub fn node(file: &str, name: &str) -> Command {
    let clients = root().join("tests/js/node_modules/pusher-js");
    assert!(clients.exists(), "{} is missing: run `make tools`", clients.display());
    let mut node = Command::new("node");
    node.arg(root().join("tests/js/pusher/run.mjs")).args([file, name]);
    node
}

/// Returns a command that runs a scenario of tests/python: a function of a file, by its name.
///
/// # Panics
/// When the clients are not installed.
#[must_use]
pub fn python(file: &str, name: &str) -> Command {
    let clients = root().join(".test-tools/pusher/python");
    assert!(clients.exists(), "{} is missing: run `make tools`", clients.display());
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", clients).env("PYTHONDONTWRITEBYTECODE", "1");
    python.arg(root().join("tests/python").join(file)).arg(name);
    python
}

/// Starts a scenario.
#[must_use]
pub fn start(mut command: Command, world: &str) -> Process {
    Process::start(command.env("CARILLON", world))
}

/// Waits until a scenario has passed.
///
/// # Panics
/// With what it said when it has failed, or does not end.
#[expect(clippy::disallowed_methods, reason = "waits for a program outside any runtime")]
pub fn passes(mut running: Process) {
    let deadline = clock::now() + PATIENCE;
    while !running.has_ended() {
        assert!(clock::now() < deadline, "the scenario does not end: {}", running.output());
        sleep(LOOK_AGAIN);
    }
    let (status, output, complaints) = running.ended();
    assert!(status.success() && output.ends_with("passed"), "{status}\n{output}\n{complaints}");
}

/// Runs a scenario that must pass, away from the runtime's threads.
///
/// # Panics
/// When it fails.
pub async fn run(command: Command, world: String) {
    let ended = tokio::task::spawn_blocking(move || passes(start(command, &world))).await;
    if let Err(failed) = ended {
        std::panic::resume_unwind(failed.into_panic());
    }
}
