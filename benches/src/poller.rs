//! Waiting for many sockets on one thread.
//!
//! **Lives here:** the epoll instance and its batch of events.
//! **Called by:** `load`, `raw`.
//! **Must not know:** what the sockets carry.

use std::{fmt, io, os::fd::AsFd, time::Duration};

use anyhow::{Context, Result};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    fd::OwnedFd,
};

/// Events taken at one go.
const BATCH: usize = 1024;

/// What a socket is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read, or the end.
    Read,
    /// The same, and room to write.
    ReadWrite,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Self::Read => epoll::EventFlags::IN,
            Self::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// A socket that is ready.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The key it was added with.
    pub key: usize,
    /// It can be read: bytes, the end or an error.
    pub readable: bool,
    /// It has room to write.
    pub writable: bool,
}

/// Level-triggered epoll: what was not read is told again.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    /// Opens an epoll instance.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("could not open epoll")?;
        Ok(Self { epoll, events: Vec::with_capacity(BATCH) })
    }

    /// Watches a socket for reading. Closing it ends the watch.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn add(&self, socket: impl AsFd, key: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key as u64);
        Ok(epoll::add(&self.epoll, socket, data, Interest::Read.flags())?)
    }

    /// Changes what a socket is watched for.
    ///
    /// # Errors
    ///
    /// When the socket is not watched.
    pub fn change(&self, socket: impl AsFd, key: usize, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(key as u64);
        Ok(epoll::modify(&self.epoll, socket, data, interest.flags())?)
    }

    /// Waits until a socket is ready or the time is over, and moves what is ready into `ready`.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. An interrupted wait is an empty one.
    pub fn wait(&mut self, at_most: Duration, ready: &mut Vec<Ready>) -> Result<()> {
        ready.clear();
        self.events.clear();
        let timeout = Timespec::try_from(at_most).context("time to wait is too long")?;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_count) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error).context("could not wait for sockets"),
        }
        for event in &self.events {
            let flags = event.flags;
            let readable = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            ready.push(Ready {
                key: usize::try_from(event.data.u64())?,
                readable: flags.intersects(readable),
                writable: flags.contains(epoll::EventFlags::OUT),
            });
        }
        Ok(())
    }
}
