//! A real nats-server for a test: started on a free port, and killed with the test.
//!
//! **Lives here:** finding the binaries that `make tools` installed, starting, stopping, killing them.
//! **Called by:** tests that need NATS.
//! **Must not know:** what the tests do with it.
#![expect(clippy::disallowed_methods, reason = "waits for a child process, outside any runtime")]

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Which nats-server to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatsVersion {
    /// One that Carillon refuses.
    TooOld,
    /// The oldest line that Carillon accepts.
    Oldest,
    /// The newest.
    Newest,
}

impl NatsVersion {
    /// The versions that `tests/tools/nats.sh` installs, the first that is there counts.
    const fn candidates(self) -> &'static [&'static str] {
        match self {
            Self::TooOld => &["2.9.10", "2.10.26"],
            Self::Oldest => &["2.11.11"],
            Self::Newest => &["2.15.1"],
        }
    }

    /// Returns the version's number and binary.
    ///
    /// # Panics
    /// When the tools are not installed.
    #[must_use]
    pub fn find(self) -> (&'static str, PathBuf) {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.test-tools/nats");
        let path = |version: &&'static str| (*version, tools.join(version).join("nats-server"));
        let found = self.candidates().iter().map(path).find(|(_, path)| path.exists());
        found.unwrap_or_else(|| panic!("nats-server {self:?} is not installed: run `make tools`"))
    }
}

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// One nats-server with JetStream. Killed when dropped, and its files removed.
#[derive(Debug)]
pub struct NatsServer {
    binary: PathBuf,
    directory: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl NatsServer {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(version: NatsVersion) -> Self {
        Self::start_with(version, "", "")
    }

    /// Starts a server with more lines in its `jetstream` block and at the top of its configuration.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(version: NatsVersion, jetstream: &str, top: &str) -> Self {
        let mut server = Self::prepare(version, jetstream, top);
        server.restart();
        server
    }

    /// Chooses port and directory of a server that [`Self::restart`] will start.
    ///
    /// # Panics
    /// When there is no port or directory to be had.
    #[must_use]
    pub fn prepare(version: NatsVersion, jetstream: &str, top: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (_, binary) = version.find();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("carillon-nats-{}-{count}", std::process::id()));
        fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let port = free_port();
        let store = directory.join("store");
        let config = format!(
            "host: 127.0.0.1\nport: {port}\njetstream {{\n store_dir: {store:?}\n {jetstream}\n}}\n{top}\n"
        );
        fs::write(directory.join("nats.conf"), config).expect("the temporary directory is writable");
        Self { binary, directory, port, child: None }
    }

    /// Starts three servers that keep streams together.
    ///
    /// # Panics
    /// When they do not start.
    #[must_use]
    pub fn cluster(version: NatsVersion) -> Vec<Self> {
        Self::cluster_with(version, "", "")
    }

    /// Starts three servers with more lines in their `cluster` block and at the top of their configuration.
    ///
    /// # Panics
    /// When they do not start.
    #[must_use]
    pub fn cluster_with(version: NatsVersion, cluster: &str, top: &str) -> Vec<Self> {
        let ports = [free_port(), free_port(), free_port()];
        let routes = ports.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        let start = |(n, port)| {
            let block = format!(
                "cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [{routes}]\n{cluster} }}"
            );
            Self::start_with(version, "", &format!("server_name: n{n}\n{block}\n{top}"))
        };
        (1..).zip(ports).map(start).collect()
    }

    /// Returns the address that clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns the socket that clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Returns where the server keeps its streams.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// Kills the server at once, like `kill -9`.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("our own child can be killed");
            child.wait().expect("a killed child ends");
        }
    }

    /// Starts the server again, on the same port and with the same files.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart(&mut self) {
        self.kill();
        let log = fs::File::create(self.directory.join("log")).expect("the temporary directory is writable");
        let child = Command::new(&self.binary)
            .arg("-c")
            .arg(self.directory.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the installed nats-server starts");
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while !self.answers() {
            let ended =
                self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|end| end.is_some()));
            assert!(!ended && Instant::now() < deadline, "nats-server did not start:\n{}", self.log());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks the server to send its clients away and to end (lame duck), and waits until it has.
    ///
    /// # Panics
    /// When it does not end.
    pub fn retire(&mut self) {
        self.signal("-USR2");
        let deadline = Instant::now() + PATIENCE;
        let child = self.child.as_mut().expect("the server is running");
        while child.try_wait().expect("it is our child").is_none() {
            assert!(Instant::now() < deadline, "nats-server does not end");
            thread::sleep(Duration::from_millis(5));
        }
        self.child = None;
    }

    /// Removes all that the server has stored.
    ///
    /// # Panics
    /// While it is running.
    pub fn forget(&self) {
        assert!(self.child.is_none(), "the server must be killed first");
        let store = self.store();
        if store.exists() {
            fs::remove_dir_all(store).expect("the store is ours");
        }
    }

    /// Stops the process without ending it.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn pause(&self) {
        self.signal("-STOP");
        let deadline = Instant::now() + PATIENCE;
        while !self.stands_still() {
            assert!(Instant::now() < deadline, "nats-server does not stop");
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a process go on that was stopped.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    /// Returns what the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("the server is running");
        let done = Command::new("kill").arg(signal).arg(child.id().to_string()).status();
        assert!(done.is_ok_and(|status| status.success()), "kill {signal} failed");
    }

    /// Says whether every thread has stopped: the signal takes its time.
    fn stands_still(&self) -> bool {
        let child = self.child.as_ref().expect("the server is running");
        let threads = fs::read_dir(format!("/proc/{}/task", child.id())).expect("a process has threads");
        let stopped = |stat: String| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        threads.flatten().all(|thread| fs::read_to_string(thread.path().join("stat")).is_ok_and(stopped))
    }

    /// Says whether the server greets, and answers a ping: JetStream is there by then.
    fn answers(&self) -> bool {
        let greet = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            let mut greeting = [0; 4];
            stream.read_exact(&mut greeting)?;
            Ok(&greeting == b"INFO")
        };
        greet().unwrap_or(false)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A stopped process is killed all the same.
            let _dead = child.kill().and_then(|()| child.wait());
        }
        let _removed = fs::remove_dir_all(&self.directory);
    }
}

/// Returns a port that nobody listens on. It lies below those that the system gives to outgoing connections, so
/// that none of these takes it while the server is away.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    for _ in 0..COUNT {
        // Processes begin at different places.
        let start = std::process::id().wrapping_mul(97);
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).expect("ports end at 65535");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST} on is free");
}
