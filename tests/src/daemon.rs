//! A server that runs beside a test: nginx, Prometheus, a gateway where another one was.
//!
//! **Lives here:** a folder for its files, addresses for its ports, its end whatever happens.
//! **Called by:** tests that run several servers on the ports of a deployment.
//! **Must not know:** what the server does.
#![expect(clippy::disallowed_methods, reason = "waits for a child process, outside any runtime")]

use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use crate::gateway::PATIENCE;

/// Pause between two looks at a process.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long a server may take to end when it is no longer needed.
const LAST_MOMENT: Duration = Duration::from_secs(10);

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one.
    ///
    /// # Panics
    /// When the system has no room.
    #[must_use]
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("carillon-{name}-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and returns where.
    ///
    /// # Panics
    /// When the system has no room.
    #[must_use]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the folder is ours");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _left_over = fs::remove_dir_all(&self.0).is_err();
    }
}

/// Addresses of loopback that nobody else uses, so that a server finds its fixed ports free, now and after a restart.
#[derive(Clone, Copy, Debug)]
pub struct Net([u8; 3]);

impl Net {
    /// Finds a net in which these are free: the last part of the address, and the port.
    ///
    /// # Panics
    /// When somebody listens on every address of the machine.
    #[must_use]
    pub fn free(wanted: &[(u8, u16)]) -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        let nets = (0..100_u8).map(|n| Self([127, high.wrapping_add(n) | 2, low]));
        let free =
            |net: &Self| wanted.iter().all(|(last, port)| TcpListener::bind(net.at(*last, *port)).is_ok());
        nets.clone().find(free).unwrap_or_else(|| panic!("a port of {wanted:?} is taken on every address"))
    }

    /// Returns an address by its last part.
    #[must_use]
    pub fn at(self, last: u8, port: u16) -> SocketAddr {
        let [a, b, c] = self.0;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, last)), port)
    }
}

/// A running server. It is asked to end when it is dropped, and killed when it does not.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it, with what it says in a log of the folder.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command, folder: &Folder) -> Self {
        let log = folder.path().join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("the folder is ours");
        let errors = file.try_clone().expect("there are descriptors");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        let child = child.unwrap_or_else(|fault| panic!("{command:?}: {fault}; run `make tools`"));
        Self { name: name.to_owned(), child, log }
    }

    /// Returns what it has logged, and those before it with its name.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name, such as `KILL`, `STOP` or `CONT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let _ended_already = Command::new("kill").args(["-s", name, &pid]).status().is_err();
    }

    /// Waits for its end, within `time` and then some, and returns its exit code.
    ///
    /// # Panics
    /// When it does not end.
    pub fn ended(&mut self, time: Duration) -> Option<i32> {
        let deadline = Instant::now() + time + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "{} does not end", self.name);
            sleep(LOOK_AGAIN);
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_MOMENT;
        let mut asked = false;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if !asked {
                // A killed nginx would leave its workers behind.
                self.terminate();
                asked = true;
            } else if Instant::now() > deadline {
                let _ended_already = self.child.kill().is_err();
            }
            sleep(LOOK_AGAIN);
        }
        if std::thread::panicking() {
            self.show();
        }
    }
}

impl Daemon {
    #[expect(clippy::print_stderr, reason = "a failed test shows what its servers logged")]
    fn show(&self) {
        let log = self.log();
        let tail: Vec<_> = log.lines().rev().take(40).collect();
        for line in tail.iter().rev() {
            eprintln!("{}: {line}", self.name);
        }
    }
}
