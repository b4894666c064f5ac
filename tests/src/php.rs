//! Real PHP, with our client for it.
//!
//! **Lives here:** finding `php`, running a script or a piece of one against a gateway, serving pages.
//! **Called by:** tests that publish as PHP applications do.
//! **Must not know:** the client's insides.

use std::{
    env,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use crate::{gateway::PATIENCE, process::Process};

/// Whether PHP loads its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extensions {
    /// As the system has them: curl is there.
    Installed,
    /// None (`php -n`): the client uses plain sockets.
    None,
}

/// Returns the folder of our client.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../clients/php")
}

/// Returns a command that runs PHP.
///
/// # Panics
/// When there is no PHP.
#[must_use]
pub fn php(extensions: Extensions) -> Command {
    let places = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&places).map(|place| place.join("php")).find(|path| path.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| panic!("php is not installed: run `make tools`")));
    match extensions {
        Extensions::Installed => {}
        Extensions::None => {
            command.arg("-n");
        }
    }
    command
}

/// Starts a piece of PHP that has the client, and what it needs in its environment.
///
/// # Panics
/// When there is no PHP.
#[must_use]
pub fn piece(code: &str, environment: &[(&str, &str)]) -> Process {
    let client = folder().join("src/Client.php");
    let client = client.to_str().expect("the checkout's path is UTF-8");
    let code = format!("error_reporting(E_ALL); require getenv('CARILLON_CLIENT'); {code}");
    let mut command = php(Extensions::Installed);
    command.args(["-d", "display_errors=stderr", "-r", &code]);
    command.env("CARILLON_CLIENT", client).envs(environment.iter().copied());
    Process::start(&mut command)
}

/// Starts PHP's own web server, with a page or with what else its command line takes, and waits until it listens.
///
/// # Panics
/// When it does not.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "waits for a PHP server outside any runtime")]
pub fn serve(arguments: &[&str], environment: &[(&str, &str)]) -> (Process, SocketAddr) {
    // PHP cannot choose a port and tell; another process may take the one that was free.
    for _ in 0..5 {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let free = free.expect("the system has ports");
        let mut command = php(Extensions::Installed);
        command.args(["-S", &free.to_string()]).args(arguments).envs(environment.iter().copied());
        let mut server = Process::start(&mut command);
        let deadline = carillon_tasks::clock::now() + PATIENCE;
        while !server.has_ended() {
            if TcpStream::connect(free).is_ok() {
                return (server, free);
            }
            assert!(carillon_tasks::clock::now() < deadline, "php -S does not listen");
            sleep(Duration::from_millis(10));
        }
    }
    panic!("php -S found no port");
}
