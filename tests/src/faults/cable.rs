//! A TCP connection that a test can spoil.
//!
//! **Lives here:** passing bytes between clients and one server, late, slowly, in pieces, one way, or not at all.
//! **Called by:** fault tests, `chaos`.
//! **Must not know:** what the bytes say.
#![expect(clippy::disallowed_methods, reason = "tests start tasks of their own")]

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes, BytesMut};
use carillon_tasks::clock;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
    time::sleep_until,
};

use super::dice::Dice;

/// What one direction holds back at most; then it stops reading, as a full pipe does.
const HELD_BYTES: usize = 256 * 1024;

/// What is read at a time.
const PIECE_BYTES: usize = 16 * 1024;

/// Whether bytes of a direction arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    /// They do.
    #[default]
    Passes,
    /// They do once the weather is better: packets are lost and sent again.
    Waits,
    /// They never do. A connection that has lost bytes is reset when the weather is better.
    Swallows,
}

/// One direction of a cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Whether bytes arrive.
    pub flow: Flow,
    /// How much later.
    pub delay: Duration,
    /// How much later than that at most. Order is kept.
    pub jitter: Duration,
    /// Bytes of a write at most, each time another number; 0 means all that there is.
    pub slice_bytes: u64,
    /// Bytes in a second; 0 means any number.
    pub bytes_per_second: u64,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    /// With FIN, as of a process that has ended.
    #[default]
    Fin,
    /// With RST, as of a machine that has forgotten it.
    Rst,
}

/// What happens to new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// They reach the server.
    #[default]
    Open,
    /// They end at once.
    Shut(End),
    /// They are accepted, and nobody is there. They are reset when the door is no longer half open.
    HalfOpen,
}

/// All that a cable does to its connections, those that are open included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// From client to server.
    pub up: Way,
    /// From server to client.
    pub down: Way,
    /// For new connections.
    pub door: Door,
}

impl Weather {
    /// Both directions alike.
    #[must_use]
    pub const fn both(way: Way) -> Self {
        Self { up: way, down: way, door: Door::Open }
    }

    /// The other side is gone, and nobody says so.
    #[must_use]
    pub fn half_open() -> Self {
        let gone = Way { flow: Flow::Swallows, ..Way::default() };
        Self { up: gone, down: gone, door: Door::HalfOpen }
    }
}

/// What connections look at.
#[derive(Clone, Copy, Debug, Default)]
struct Sky {
    weather: Weather,
    /// How often all open connections were ended, and how the last time.
    snaps: u64,
    end: End,
}

/// Passes connections on to one server.
#[derive(Debug)]
pub struct Cable {
    address: SocketAddr,
    sky: watch::Sender<Sky>,
    task: JoinHandle<()>,
}

impl Cable {
    /// Starts to pass connections on to `server`.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn to(server: SocketAddr) -> Self {
        Self::seeded(server, 0).await
    }

    /// Starts to pass connections on to `server`, with dice of its own for jitter and slices.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn seeded(server: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("there is a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let sky = watch::Sender::new(Sky::default());
        let task = tokio::spawn(accept(listener, server, sky.subscribe(), seed));
        Self { address, sky, task }
    }

    /// Returns where clients connect to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the port that clients connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        self.sky.send_modify(|sky| sky.weather = weather);
    }

    /// Ends every open connection. New ones are welcome, unless the weather says otherwise.
    pub fn snap(&self, end: End) {
        self.sky.send_modify(|sky| {
            sky.snaps += 1;
            sky.end = end;
        });
    }

    /// Ends every connection, and every new one at once.
    pub fn cut(&self) {
        self.cut_with(End::Fin);
    }

    /// Ends every connection, and every new one at once, in this way.
    pub fn cut_with(&self, end: End) {
        self.set(Weather { door: Door::Shut(end), ..Weather::default() });
        self.snap(end);
    }

    /// Passes connections on again.
    pub fn mend(&self) {
        self.set(Weather::default());
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // With the sky, every connection ends.
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, sky: watch::Receiver<Sky>, seed: u64) {
    let mut number = 0;
    while let Ok((client, _)) = listener.accept().await {
        number += 2;
        let dice = [Dice::of(seed, number), Dice::of(seed, number + 1)];
        tokio::spawn(carry(client, server, sky.clone(), dice));
    }
}

/// One connection, from its acceptance to its end.
async fn carry(mut client: TcpStream, server: SocketAddr, mut sky: watch::Receiver<Sky>, dice: [Dice; 2]) {
    let born = *sky.borrow_and_update();
    match born.weather.door {
        Door::Open => {}
        Door::Shut(end) => return finish(&client, end),
        Door::HalfOpen => {
            let mut ignored = BytesMut::new();
            let swallow = async {
                while client.read_buf(&mut ignored).await.is_ok_and(|n| n > 0) {
                    ignored.clear()
                }
            };
            tokio::select! {
                () = async { swallow.await; std::future::pending().await } => {}
                _changed = sky.wait_for(|sky| sky.weather.door != Door::HalfOpen || sky.snaps != born.snaps) => {}
            }
            return finish(&client, End::Rst);
        }
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return finish(&client, End::Fin) };
    let _slower = [&client, &server].map(|socket| socket.set_nodelay(true).is_err());
    let [up_dice, down_dice] = dice;
    let end = {
        let ((client_reads, client_writes), (server_reads, server_writes)) = (client.split(), server.split());
        let up = pump(client_reads, server_writes, |weather| weather.up, sky.clone(), up_dice);
        let down = pump(server_reads, client_writes, |weather| weather.down, sky.clone(), down_dice);
        tokio::select! {
            // One that broke is broken on both sides, as it was.
            ended = async { tokio::try_join!(up, down) } => if ended.is_ok() { End::Fin } else { End::Rst },
            snapped = sky.wait_for(|sky| sky.snaps != born.snaps) => snapped.map_or(End::Fin, |sky| sky.end),
        }
    };
    finish(&client, end);
    finish(&server, end);
}

/// Makes the coming drop a FIN or an RST.
fn finish(socket: &TcpStream, end: End) {
    if end == End::Rst {
        let _gone_already = socket.set_zero_linger().is_err();
    }
}

/// Bytes on their way in one direction.
struct Held {
    pieces: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// When the next may be written: after this piece's delay, and as fast as the rate allows.
    not_before: Instant,
}

impl Held {
    fn due(&self) -> Option<Instant> {
        self.pieces.front().map(|(due, _)| self.not_before.max(*due))
    }

    fn put(&mut self, bytes: Bytes, way: &Way, dice: &mut Dice) {
        let due = clock::now() + dice.time(way.delay, way.delay + way.jitter);
        // What comes later does not overtake.
        let due = self.pieces.back().map_or(due, |(last, _)| due.max(*last));
        self.bytes += bytes.len();
        self.pieces.push_back((due, bytes));
    }

    /// Writes what the weather lets through at a time.
    async fn write(&mut self, to: &mut WriteHalf<'_>, way: &Way, dice: &mut Dice) -> io::Result<()> {
        let Some((_, piece)) = self.pieces.front_mut() else { return Ok(()) };
        let most = match (way.slice_bytes, way.bytes_per_second) {
            (0, 0) => piece.len(),
            (0, rate) => usize::try_from(rate / 20).unwrap_or(usize::MAX).max(1),
            (slice, _) => 1 + dice.place(usize::try_from(slice).unwrap_or(usize::MAX)),
        };
        let part = piece.split_to(most.min(piece.len()));
        if piece.is_empty() {
            let _written = self.pieces.pop_front();
        }
        to.write_all(part.chunk()).await?;
        self.bytes -= part.len();
        if way.bytes_per_second > 0 {
            self.not_before = clock::now()
                + Duration::from_secs(1).mul_f64(part.len() as f64 / way.bytes_per_second as f64);
        }
        Ok(())
    }
}

/// Moves bytes of one direction until its end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way_of: fn(&Weather) -> Way,
    mut sky: watch::Receiver<Sky>,
    mut dice: Dice,
) -> io::Result<()> {
    let mut held = Held { pieces: VecDeque::new(), bytes: 0, not_before: clock::now() };
    let (mut open, mut lost) = (true, false);
    let mut buffer = BytesMut::new();
    loop {
        let way = way_of(&sky.borrow_and_update().weather);
        let passes = way.flow == Flow::Passes;
        if lost && passes {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let due = held.due().filter(|_| passes);
        if due.is_some_and(|due| due <= clock::now()) {
            held.write(&mut to, &way, &mut dice).await?;
            continue;
        }
        if !open && passes && due.is_none() {
            return to.shutdown().await;
        }
        buffer.reserve(PIECE_BYTES);
        tokio::select! {
            changed = sky.changed() => if changed.is_err() { return Ok(()) },
            read = from.read_buf(&mut buffer), if open && held.bytes < HELD_BYTES => {
                open = read? > 0;
                let bytes = buffer.split().freeze();
                match way.flow {
                    Flow::Swallows => lost = true,
                    Flow::Passes | Flow::Waits if open => held.put(bytes, &way, &mut dice),
                    Flow::Passes | Flow::Waits => {}
                }
            }
            () = sleep_until(due.unwrap_or_else(clock::now).into()), if due.is_some() => {}
        }
    }
}
