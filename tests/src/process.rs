//! A process beside the gateway: a command line tool, PHP.
//!
//! **Lives here:** starting it, following what it writes, ending it whatever happens.
//! **Called by:** tests of the whole.
//! **Must not know:** what it does.

use std::{
    io::BufReader,
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
};

use crate::gateway::Log;

/// A running process, killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    output: Arc<Log>,
    complaints: Arc<Log>,
}

impl Process {
    /// Starts a command whose output is followed.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|fault| panic!("{command:?}: {fault}"));
        let (output, complaints) = (Arc::new(Log::default()), Arc::new(Log::default()));
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let (one, other) = (Arc::clone(&output), Arc::clone(&complaints));
        std::thread::spawn(move || one.follow(BufReader::new(stdout)));
        std::thread::spawn(move || other.follow(BufReader::new(stderr)));
        Self { child, output, complaints }
    }

    /// Waits for a line of its output that contains `part`, and returns it.
    #[must_use]
    pub fn says(&self, part: &str) -> String {
        self.output.until(|line| line.contains(part))
    }

    /// Waits for a line of its complaints that contains `part`, and returns it.
    #[must_use]
    pub fn complains(&self, part: &str) -> String {
        self.complaints.until(|line| line.contains(part))
    }

    /// Returns its output so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }

    /// Waits for its end, and returns how it ended, its output and its complaints.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn ended(&mut self) -> (ExitStatus, String, String) {
        self.output.until_end();
        self.complaints.until_end();
        let status = self.child.wait().expect("the process was started by us");
        (status, self.output.text(), self.complaints.text())
    }

    /// Says whether it has ended.
    ///
    /// # Panics
    /// When the system does not know.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the process was started by us").is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended_already = self.child.kill().is_err();
        let _no_child = self.child.wait().is_err();
    }
}
