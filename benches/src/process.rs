//! What the kernel says of a process: processor time, memory; and what it lets ours do.
//!
//! **Lives here:** reading `/proc`, raising the descriptor limit, choosing processors.
//! **Called by:** `load`, `raw`, `compare`.
//! **Must not know:** what the process serves.

use std::{fs, ops::Sub, time::Duration};

use anyhow::{Context, Result};
use rustix::{
    param::clock_ticks_per_second,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Processor time of all threads of a process. The sum is exact to a clock tick (10 ms); how it splits into user
/// and system is sampled, so that only long runs tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Processor {
    /// In the process's own code.
    pub user: Duration,
    /// In the kernel on its behalf. On loopback that includes the receiving half of each send.
    pub system: Duration,
}

impl Processor {
    /// Reads the time used so far.
    ///
    /// # Errors
    ///
    /// When there is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
        // The second field is the program's name in brackets, which may itself hold blanks and brackets.
        let (_name, rest) = stat.rsplit_once(')').context("stat has no program name")?;
        let mut times = rest.split_ascii_whitespace().skip(11).map(str::parse::<u64>);
        let mut next = || -> Result<Duration> {
            let ticks = times.next().context("stat ends early")??;
            Ok(Duration::from_micros(ticks * 1_000_000 / clock_ticks_per_second()))
        };
        Ok(Self { user: next()?, system: next()? })
    }

    /// User and system together.
    #[must_use]
    pub fn total(self) -> Duration {
        self.user + self.system
    }
}

impl Sub for Processor {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// Returns the resident memory of a process in bytes, counted exactly (`status` may lag by some pages a thread).
///
/// # Errors
///
/// When there is no such process.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let rollup = fs::read_to_string(&path).with_context(|| format!("could not read {path}"))?;
    let line =
        rollup.lines().find_map(|line| line.strip_prefix("Rss:")).context("smaps_rollup has no Rss")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse()?;
    Ok(kib * 1024)
}

/// Raises this process's limit of open files to the hard limit, and returns it.
///
/// # Errors
///
/// When the limit stays below `needed`.
pub fn raise_file_limit(needed: usize) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("could not raise the limit of open files")?;
    let needed = needed as u64 + 64;
    anyhow::ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= needed),
        "{needed} open files are needed, the hard limit is {:?}: raise it (ulimit -Hn) or use fewer subscribers",
        limit.maximum,
    );
    Ok(())
}

/// Returns the processors this process may run on.
///
/// # Errors
///
/// When the kernel does not say.
pub fn processors() -> Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|processor| set.is_set(*processor)).collect())
}

/// Lets this thread, and every process it starts from now on, run on these processors only.
///
/// # Errors
///
/// When the kernel refuses, as for a processor that does not exist.
pub fn stay_on(processors: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    processors.iter().for_each(|processor| set.set(*processor));
    sched_setaffinity(None, &set).context("could not choose processors")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_uses_memory_and_time() {
        let me = std::process::id();
        assert!(resident_bytes(me).unwrap() > 100_000);
        let before = Processor::of(me).unwrap();
        let mut spun = 0_u64;
        // Three ticks, so that one must show.
        let end = carillon_tasks::clock::now() + Duration::from_millis(30);
        while carillon_tasks::clock::now() < end {
            spun = std::hint::black_box(spun + 1);
        }
        let used = Processor::of(me).unwrap() - before;
        assert!(used.total() >= Duration::from_millis(10), "{used:?} after {spun} turns");
        Processor::of(u32::MAX).unwrap_err();
    }
}
