//! A server as a child process, on free loopback ports.
//!
//! **Lives here:** finding its binary, starting it, waiting until it listens, ending it.
//! **Called by:** `compare` and the smoke tests.
//! **Must not know:** what is measured.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use carillon_tasks::clock;

/// How long a server may take to listen.
const START: Duration = Duration::from_secs(30);
/// Between two looks whether it listens.
const LOOK: Duration = Duration::from_millis(10);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Carillon itself, `carillon dev`.
    Gateway,
    /// The bare send loop.
    Raw,
    /// hyper alone; it has no public side.
    Hyper,
}

/// A running server. It is killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    /// Where clients connect.
    pub public: SocketAddr,
    /// Where publishers connect.
    pub api: SocketAddr,
}

impl Server {
    /// Starts a server and waits until it listens. `extra` follows its ordinary arguments.
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not listen in time; the message ends with what it said.
    pub fn start(kind: Kind, binary: &Path, extra: &[&str]) -> Result<Self> {
        ensure!(binary.is_file(), "there is no {}: {}", binary.display(), how_to_build(kind, binary));
        let [public, api, admin] = free_addresses()?;
        let log = std::env::temp_dir().join(format!("carillon-bench-{public}.log"));
        let out = File::create(&log).with_context(|| format!("could not write {}", log.display()))?;
        let mut command = Command::new(binary);
        match kind {
            Kind::Gateway => command
                .args(["dev", "--public", &public.to_string(), "--api", &api.to_string()])
                .args(["--admin", &admin.to_string()]),
            Kind::Raw => command.args(["--public", &public.to_string(), "--api", &api.to_string()]),
            Kind::Hyper => command.args(["--api", &api.to_string()]),
        };
        let child = command
            .args(extra)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("could not start {}", binary.display()))?;
        let mut server = Self { child, log, public, api };
        server.wait_for(api)?;
        if kind != Kind::Hyper {
            server.wait_for(public)?;
        }
        Ok(server)
    }

    /// Returns its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    #[expect(clippy::disallowed_methods, reason = "no runtime here; another process cannot wake us")]
    fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let end = clock::now() + START;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("server ended with {status} instead of listening on {address}:\n{}", self.said());
            }
            ensure!(clock::now() < end, "server did not listen on {address} in time:\n{}", self.said());
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Returns what the server has printed.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody to tell either way.
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_file(&self.log).ok();
    }
}

/// Returns the gateway's binary: `CARILLON_BIN`, or `carillon` beside this program or one folder up (a test's
/// executable stands in `deps`).
///
/// # Errors
///
/// When this program does not know where it is.
#[expect(clippy::disallowed_methods, reason = "a developer's switch of the benchmarks, not configuration")]
pub fn gateway_binary() -> Result<PathBuf> {
    if let Ok(path) = std::env::var("CARILLON_BIN") {
        return Ok(PathBuf::from(path));
    }
    let me = std::env::current_exe()?;
    let folder = me.parent().context("a program stands in a folder")?;
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(profile.join("carillon"))
}

fn how_to_build(kind: Kind, binary: &Path) -> String {
    let release =
        if binary.components().any(|part| part.as_os_str() == "release") { " --release" } else { "" };
    match kind {
        Kind::Gateway => {
            format!("build it with `cargo build{release} -p carillon-cli`, or name one in CARILLON_BIN")
        }
        Kind::Raw | Kind::Hyper => format!("build it with `cargo build{release} -p carillon-benches`"),
    }
}

/// Three addresses that were free a moment ago. All are held until the last is known, so they differ. Nobody takes
/// them meanwhile: each server of each process has a loopback address of its own, from which no client connects.
fn free_addresses() -> Result<[SocketAddr; 3]> {
    static SERVERS: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 64 + SERVERS.fetch_add(1, Ordering::Relaxed) % 128, high, low);
    let bind = || TcpListener::bind((own, 0));
    let held = [bind()?, bind()?, bind()?];
    let [public, api, admin] = &held;
    Ok([public.local_addr()?, api.local_addr()?, admin.local_addr()?])
}
