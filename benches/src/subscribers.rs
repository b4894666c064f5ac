//! The side that receives: very many WebSocket connections on one thread.
//!
//! **Lives here:** connecting from several source addresses, the way of a connection to its subscription,
//! scanning frames out of one shared buffer.
//! **Called by:** `load`.
//! **Must not know:** what was published, and when.

use std::{
    io::{ErrorKind, Read, Write},
    mem,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use carillon_tests::raw::handshake;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::{
    dialect::{Dialect, Told},
    frame::{self, Kind},
    http,
    payload::CounterFinder,
};

/// Source addresses `127.0.0.2` and up. One address has about 28,000 ports; eight leave room for rounds.
const SOURCES: u8 = 8;
/// One read takes what one wake-up brought.
const READ_BYTES: usize = 256 * 1024;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The request is sent; no 101 yet.
    Upgrading,
    /// Waiting to be welcome and subscribed.
    Subscribing,
    /// Receives messages.
    Live,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    stage: Stage,
    /// Bytes of an incomplete frame; nearly always empty.
    rest: Vec<u8>,
}

/// What one read brought.
#[derive(Debug, Default)]
pub struct Heard {
    /// The connection has just become subscribed.
    pub subscribed: bool,
    /// Counters of the messages received, in order.
    pub counters: Vec<u64>,
}

/// All subscribers of a run, by number.
#[derive(Debug)]
pub struct Subscribers {
    server: SocketAddr,
    request: Vec<u8>,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    ear: Ear,
}

/// How what comes is understood.
#[derive(Debug)]
struct Ear {
    dialect: Dialect,
    /// What whoever is welcome has to send; empty where nothing is left to ask for.
    subscribe: Vec<u8>,
    finder: CounterFinder,
}

impl Subscribers {
    /// Prepares subscribers of one channel; nobody is connected yet.
    #[must_use]
    pub fn new(server: SocketAddr, dialect: Dialect, channel: &str) -> Self {
        Self {
            server,
            request: handshake(&dialect.path(channel), "").into_bytes(),
            connections: Vec::new(),
            buffer: vec![0; READ_BYTES],
            ear: Ear { dialect, subscribe: dialect.subscribe(channel), finder: CounterFinder::default() },
        }
    }

    /// Returns how many connections there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Connects one more and asks for the upgrade. Returns its socket, for watching.
    ///
    /// # Errors
    ///
    /// When the server is not there or no port is left.
    pub fn connect_one(&mut self) -> Result<BorrowedFd<'_>> {
        let last = 2 + u8::try_from(self.count() % usize::from(SOURCES))?;
        let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0);
        let mut stream = connect_from(source, self.server)
            .with_context(|| format!("could not connect subscriber {} from {source}", self.count()))?;
        stream.write_all(&self.request)?;
        stream.set_nonblocking(true)?;
        let connection = Connection { stream, stage: Stage::Upgrading, rest: Vec::new() };
        let index = self.count();
        self.connections.push(connection);
        Ok(self.connections[index].stream.as_fd())
    }

    /// Reads once from a subscriber that is ready, and adds what came to `heard`.
    ///
    /// # Errors
    ///
    /// When the server closed, refused or said something that has no place in a benchmark.
    pub fn read(&mut self, index: usize, heard: &mut Heard) -> Result<()> {
        let connection = &mut self.connections[index];
        let read = match connection.stream.read(&mut self.buffer) {
            Ok(0) => bail!("server closed subscriber {index}"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("subscriber {index} could not read")),
        };
        let bytes = &self.buffer[..read];
        let result = if connection.rest.is_empty() {
            let used = connection.scan(bytes, &mut self.ear, heard);
            used.map(|used| connection.rest.extend_from_slice(&bytes[used..]))
        } else {
            let mut whole = mem::take(&mut connection.rest);
            whole.extend_from_slice(bytes);
            let used = connection.scan(&whole, &mut self.ear, heard);
            used.map(|used| connection.rest.extend_from_slice(&whole[used..]))
        };
        result.with_context(|| format!("subscriber {index}"))
    }
}

impl Connection {
    /// Takes every complete frame out of `bytes` and returns how many bytes that were.
    fn scan(&mut self, bytes: &[u8], ear: &mut Ear, heard: &mut Heard) -> Result<usize> {
        let mut used = 0;
        if self.stage == Stage::Upgrading {
            let Some(answer) = http::first(bytes)? else { return Ok(0) };
            let body = String::from_utf8_lossy(answer.body);
            ensure!(answer.status() == Some(101), "upgrade refused: {} {body}", answer.first_line);
            used = answer.length_bytes;
            self.stage = Stage::Subscribing;
        }
        while let Some(frame) = frame::first(&bytes[used..])? {
            used += frame.length_bytes;
            match frame.kind {
                Kind::Text => match ear.dialect.read(frame.payload)? {
                    Told::Message => {
                        ensure!(self.stage == Stage::Live, "message before the subscription");
                        heard.counters.push(ear.finder.find(frame.payload)?);
                    }
                    Told::Welcome => self.stream.write_all(&ear.subscribe)?,
                    Told::Subscribed => {
                        ensure!(self.stage == Stage::Subscribing, "subscribed twice");
                        self.stage = Stage::Live;
                        heard.subscribed = true;
                    }
                    Told::Nothing => {}
                },
                Kind::Ping => self.stream.write_all(&frame::pong(frame.payload))?,
                Kind::Pong => {}
                Kind::Close => bail!("closed by the server: {}", String::from_utf8_lossy(frame.payload)),
            }
        }
        Ok(used)
    }
}

fn connect_from(source: SocketAddr, server: SocketAddr) -> Result<TcpStream> {
    let socket =
        rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &source)?;
    // Leaving with a reset keeps ports out of TIME_WAIT, so that rounds of 10,000 do not use them up.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::connect(&socket, &server)?;
    Ok(TcpStream::from(socket))
}
