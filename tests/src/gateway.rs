//! A real gateway process.
//!
//! **Lives here:** starting the built binary on free ports, asking it over HTTP, stopping it whatever happens.
//! **Called by:** tests of the whole.
//! **Must not know:** how the gateway is made.

use std::{
    env,
    io::BufReader,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use serde_json::Value;

/// How long anything that must happen may take before a test fails. Generous: the machine is shared.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway process, killed when it is dropped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    log: Arc<Log>,
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where publishers connect.
    pub api: SocketAddr,
    /// Where probes and scrapes connect.
    pub admin: SocketAddr,
    _config: Option<ConfigFile>,
}

/// What a process wrote, as it comes.
#[derive(Debug, Default)]
pub(crate) struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

/// A configuration in a file of its own, removed when it is dropped.
#[derive(Debug)]
pub struct ConfigFile(PathBuf);

impl ConfigFile {
    /// Writes `text` to a new file.
    ///
    /// # Panics
    /// When the system has no room for it.
    #[must_use]
    pub fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("carillon-test-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, text).expect("the configuration can be written");
        Self(path)
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.0).is_err();
    }
}

/// Returns the gateway's binary: the one beside the tests.
///
/// # Panics
/// When it is not built, with the command that builds it.
#[must_use]
pub fn binary() -> PathBuf {
    let test = env::current_exe().expect("a test has a path");
    let folder = test.parent().expect("it is in a folder");
    // Tests are built in target/<profile>/deps, programs beside the binary.
    let folder = folder.parent().filter(|_| folder.ends_with("deps")).unwrap_or(folder);
    let built = folder.join("carillon");
    assert!(built.exists(), "{} is missing: run `cargo build -p carillon-cli` first", built.display());
    built
}

/// Runs the binary to its end and returns exit code, output and complaints.
///
/// # Panics
/// When it cannot be started.
#[must_use]
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = Command::new(binary())
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

impl Gateway {
    /// Starts `carillon dev` on free ports; `environment` changes its configuration.
    #[must_use]
    pub fn dev(environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        command.args(["dev", "--public", "0", "--api", "0", "--admin", "0"]);
        Self::start(command, environment, None)
    }

    /// Starts `carillon dev` where another one was, or will be.
    #[must_use]
    pub fn dev_at([public, api, admin]: [SocketAddr; 3], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(binary());
        let listeners = [("--public", public), ("--api", api), ("--admin", admin)];
        command.arg("dev").args(listeners.map(|(flag, at)| format!("{flag}={at}")));
        Self::start(command, environment, None)
    }

    /// Starts `carillon serve` with a configuration; listeners that it does not name take free ports.
    #[must_use]
    pub fn serve(config: &str) -> Self {
        let file = ConfigFile::new(config);
        let mut command = Command::new(binary());
        command.arg("serve").arg("--config").arg(file.path());
        Self::start(command, &[], Some(file))
    }

    fn start(mut command: Command, environment: &[(&str, &str)], config: Option<ConfigFile>) -> Self {
        let free = |name: &'static str| (name, "127.0.0.1:0");
        let listeners = match &config {
            Some(_) => vec![
                free("CARILLON__PUBLIC__LISTEN"),
                free("CARILLON__API__LISTEN"),
                free("CARILLON__ADMIN__LISTEN"),
            ],
            None => Vec::new(),
        };
        let mut child = command
            .envs(listeners)
            .env("CARILLON__LOG__FORMAT", "json")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = Arc::new(Log::default());
        let stderr = child.stderr.take().expect("stderr is piped");
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || log.follow(BufReader::new(stderr))
        });
        let listening = log.until(|line| line.contains("\"listening\""));
        let line: Value = serde_json::from_str(&listening).expect("the log is JSON");
        let address = |name: &str| {
            let fields = line.get("fields").unwrap_or(&line);
            let text = fields[name].as_str().unwrap_or_else(|| panic!("no address `{name}` in {line}"));
            text.parse().expect("an address")
        };
        let (public, api, admin) = (address("public"), address("api"), address("admin"));
        Self { child, log, public, api, admin, _config: config }
    }

    /// Returns the URL of the WebSocket endpoint with a query, which may be empty.
    #[must_use]
    pub fn ws(&self, query: &str) -> String {
        format!("ws://{}/v1/ws?{query}", self.public)
    }

    /// Returns the process's number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as `TERM`, `KILL`, `STOP` or `CONT`.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIG{name} cannot be sent");
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When it does not end in [`PATIENCE`].
    pub fn ended(&mut self) -> ExitStatus {
        let log = Arc::clone(&self.log);
        log.until_end();
        self.child.wait().expect("the process was started by us")
    }

    /// Returns what was logged so far.
    ///
    /// # Panics
    /// When a thread of the harness panicked.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits for a line of the log that contains `part`, and returns it.
    #[must_use]
    pub fn logged(&self, part: &str) -> String {
        self.log.until(|line| line.contains(part))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ended_already = self.child.kill().is_err();
        let _no_child = self.child.wait().is_err();
        if std::thread::panicking() {
            let text = self.log();
            let tail: Vec<_> = text.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                show(line);
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what its gateway logged")]
fn show(line: &str) {
    eprintln!("gateway: {line}");
}

impl Log {
    pub(crate) fn follow(&self, from: impl std::io::BufRead) {
        for line in from.lines().map_while(Result::ok) {
            self.lines.lock().expect("nobody panics with the lock").0.push(line);
            self.grown.notify_all();
        }
        self.lines.lock().expect("nobody panics with the lock").1 = true;
        self.grown.notify_all();
    }

    pub(crate) fn text(&self) -> String {
        self.lines.lock().expect("nobody panics with the lock").0.join("\n")
    }

    pub(crate) fn until(&self, wanted: impl Fn(&str) -> bool) -> String {
        let lines = self.lines.lock().expect("nobody panics with the lock");
        let (lines, _timeout) = self
            .grown
            .wait_timeout_while(lines, PATIENCE, |(lines, ended)| {
                !*ended && !lines.iter().any(|line| wanted(line))
            })
            .expect("nobody panics with the lock");
        match lines.0.iter().find(|line| wanted(line)) {
            Some(line) => line.clone(),
            None => panic!("the awaited line was not logged:\n{}", lines.0.join("\n")),
        }
    }

    pub(crate) fn until_end(&self) {
        let lines = self.lines.lock().expect("nobody panics with the lock");
        let (lines, _timeout) = self
            .grown
            .wait_timeout_while(lines, PATIENCE, |(_, ended)| !*ended)
            .expect("nobody panics with the lock");
        assert!(lines.1, "the process did not end:\n{}", lines.0.join("\n"));
    }
}
