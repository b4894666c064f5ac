//! The physical limit: one thread, and for each message one bare `send` per socket.
//!
//! **Lives here:** accepting, the handshake, the publish request, the send loop.
//! **Called by:** the binary `rawsend`.
//! **Must not know:** channels, histories, tokens: everything a gateway is for.

mod message;
mod plant;

use std::{
    io::{ErrorKind, Read, Write},
    mem,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use slab::Slab;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

pub use self::plant::Plant;
use self::{message::Messages, plant::Planter};
use crate::{
    http,
    poller::{Interest, Poller, Ready},
};

const PUBLIC: usize = 0;
const API: usize = 1;
/// Keys of connections come after those of the listeners.
const FIRST_CONNECTION: usize = 2;
/// One read takes a whole publish request in most cases.
const READ_BYTES: usize = 64 * 1024;
/// Longest request; a batch of a hundred messages of 64 KiB and its JSON.
const REQUEST_MAX_BYTES: usize = 8 * 1024 * 1024;

#[derive(Debug)]
enum Role {
    /// Its upgrade request, as far as it has come.
    Upgrading(Vec<u8>),
    /// What its socket did not take yet; nearly always empty.
    Subscriber(Vec<u8>),
    /// Its publish request, as far as it has come.
    Publisher(Vec<u8>),
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    role: Role,
}

/// A server that only sends.
#[derive(Debug)]
pub struct RawServer {
    poller: Poller,
    public: TcpListener,
    api: TcpListener,
    connections: Slab<Connection>,
    messages: Messages,
    planter: Option<Planter>,
    buffer: Vec<u8>,
}

impl RawServer {
    /// Takes two listeners: where clients connect, and where publishers do.
    ///
    /// # Errors
    ///
    /// When they cannot be watched.
    pub fn new(public: TcpListener, api: TcpListener, plant: Option<Plant>) -> Result<Self> {
        let poller = Poller::new()?;
        for (listener, key) in [(&public, PUBLIC), (&api, API)] {
            listener.set_nonblocking(true)?;
            poller.add(listener, key)?;
        }
        Ok(Self {
            poller,
            public,
            api,
            connections: Slab::new(),
            messages: Messages::default(),
            planter: plant.map(Planter::new),
            buffer: vec![0; READ_BYTES],
        })
    }

    /// Serves until something fails that is not one connection's own affair.
    ///
    /// # Errors
    ///
    /// When the kernel refuses to accept or to wait.
    pub fn serve(mut self) -> Result<()> {
        let mut ready = Vec::new();
        loop {
            self.poller.wait(Duration::from_secs(60), &mut ready)?;
            for event in &ready {
                match event.key {
                    PUBLIC | API => self.accept(event.key)?,
                    _connection => self.attend(*event),
                }
            }
        }
    }

    fn accept(&mut self, key: usize) -> Result<()> {
        loop {
            let (listener, role) = match key {
                PUBLIC => (&self.public, Role::Upgrading(Vec::new())),
                _api => (&self.api, Role::Publisher(Vec::new())),
            };
            let stream = match listener.accept() {
                Ok((stream, _address)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error).context("could not accept"),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let entry = self.connections.vacant_entry();
            self.poller.add(&stream, entry.key() + FIRST_CONNECTION)?;
            entry.insert(Connection { stream, role });
        }
    }

    /// Serves one connection; whatever goes wrong with it ends it and nothing else.
    fn attend(&mut self, event: Ready) {
        let key = event.key - FIRST_CONNECTION;
        // A connection may have been dropped by an earlier event of the same batch.
        if self.connections.contains(key) && self.try_attend(key, event).is_err() {
            self.connections.try_remove(key);
        }
    }

    fn try_attend(&mut self, key: usize, event: Ready) -> Result<()> {
        let connection = &mut self.connections[key];
        if event.writable {
            connection.send_rest(&self.poller, key)?;
        }
        if !event.readable {
            return Ok(());
        }
        let read = match connection.stream.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            other => other?,
        };
        ensure!(read > 0, "closed");
        let bytes = &self.buffer[..read];
        match &mut connection.role {
            Role::Upgrading(request) => {
                request.extend_from_slice(bytes);
                connection.upgrade()
            }
            Role::Subscriber(_rest) => Ok(()), // a pong or nothing; the load generator says no more
            Role::Publisher(request) => {
                request.extend_from_slice(bytes);
                let request = mem::take(request);
                let used = self.publish_all(key, &request)?;
                if let Role::Publisher(rest) = &mut self.connections[key].role {
                    rest.extend_from_slice(&request[used..]);
                    ensure!(rest.len() <= REQUEST_MAX_BYTES, "request too long");
                }
                Ok(())
            }
        }
    }

    /// Serves every complete request in `bytes`; returns how many bytes they took.
    fn publish_all(&mut self, key: usize, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        while let Some(request) = http::first(&bytes[used..])? {
            let path = request.first_line.split(' ').nth(1).unwrap_or_default();
            let mut answer = Vec::new();
            match self.messages.frames_of(path, request.body) {
                Ok(made) => {
                    self.fan_out(&made.frames);
                    http::write_answer("200 OK", &made.answer, &mut answer);
                }
                Err(error) => {
                    http::write_answer("400 Bad Request", format!("{error:#}").as_bytes(), &mut answer)
                }
            }
            // Answers are short and the load generator reads them: a full socket here ends the connection.
            self.connections[key].stream.write_all(&answer)?;
            used += request.length_bytes;
        }
        Ok(used)
    }

    /// The whole point: all frames of a request as one run of bytes, one `send` per subscriber.
    fn fan_out(&mut self, frames: &[Vec<u8>]) {
        let bytes = frames.concat();
        let mut victim = self.planter.as_mut().map(|planter| planter.spoil(frames));
        let mut dead = Vec::new();
        for (key, connection) in &mut self.connections {
            let Role::Subscriber(rest) = &mut connection.role else { continue };
            let spoiled = victim.take();
            let bytes = spoiled.as_deref().unwrap_or(&bytes);
            if !rest.is_empty() {
                rest.extend_from_slice(bytes);
                continue;
            }
            let sent = match connection.stream.write(bytes) {
                Ok(sent) if sent == bytes.len() => continue,
                Ok(sent) => sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(_gone) => {
                    dead.push(key);
                    continue;
                }
            };
            rest.extend_from_slice(&bytes[sent..]);
            let watched = self.poller.change(&connection.stream, key + FIRST_CONNECTION, Interest::ReadWrite);
            if watched.is_err() {
                dead.push(key);
            }
        }
        for key in dead {
            self.connections.remove(key);
        }
    }
}

impl Connection {
    fn upgrade(&mut self) -> Result<()> {
        let Role::Upgrading(bytes) = &self.role else { return Ok(()) };
        let Some(request) = http::first(bytes)? else { return Ok(()) };
        let key = request.header("sec-websocket-key").context("no key")?;
        let accept = derive_accept_key(key.as_bytes());
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        message::write_greeting(&mut answer);
        self.stream.write_all(&answer)?;
        self.role = Role::Subscriber(Vec::new());
        Ok(())
    }

    fn send_rest(&mut self, poller: &Poller, key: usize) -> Result<()> {
        let Role::Subscriber(rest) = &mut self.role else { return Ok(()) };
        let sent = match self.stream.write(rest) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            other => other?,
        };
        rest.drain(..sent);
        if rest.is_empty() {
            *rest = Vec::new();
            poller.change(&self.stream, key + FIRST_CONNECTION, Interest::Read)?;
        }
        Ok(())
    }
}
