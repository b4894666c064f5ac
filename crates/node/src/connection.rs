//! One client's connection on its worker.
//!
//! **Lives here:** the socket, the session and the outbox side by side, and how far the connection is on its way out.
//! **Called by:** the worker.
//! **Must not know:** other connections, channels' subscribers.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use carillon_hub::{Line, Offered, Origin, Outbox, Seat};
use carillon_model::{
    App, ChannelKind, ChannelName, CloseReason, Form, NewMessage, Overflow, Position, Publication,
};
use carillon_session::{Push, Reference, Session, Wanted};

use crate::{
    link::{Lead, Link, Said},
    node::Place,
    reader::Reader,
    shown::Ending,
    wheel::{TICK, Tick},
};

/// For how long a peer may take to close its side after we said that we close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// The same for a peer whose frames cannot be read any more: its close would not be understood.
const BROKEN_PATIENCE: Duration = Duration::from_secs(1);

/// Channels that a client may join or leave at once, and in each second after that: a page that comes back with all its
/// channels is not held up.
const JOINS_BURST: i64 = 2000;
const JOINS_PER_SECOND: u128 = 100;

/// What is told to all members, on all nodes, counts as so many.
const PRESENCE_PRICE: i64 = 5;

/// Frames that leave in one system call at most.
const SLICES_MAX: usize = 64;

/// One connection. What a fan-out looks at comes first, in this order: of a thousand connections few are in the
/// processor's cache, and a line of it that must be fetched costs more than what is done with it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Connection {
    pub(crate) link: Box<dyn Link>,
    /// What the link says of itself.
    pub(crate) form: Form,
    /// It was offered something in this turn and was not flushed yet.
    pub(crate) touched: bool,
    /// A past waits for room in the outbox, which others may empty, or for its turn.
    pub(crate) hungry: bool,
    /// Something was written since the last ping.
    moved: bool,
    state: State,
    /// Bytes that left before the flush that reports them.
    early: usize,
    pub(crate) outbox: Outbox,
    /// Messages that the overflow rules dropped, for the metric.
    pub(crate) dropped: usize,
    /// What the gauges of waiting frames and bytes show for it.
    pub(crate) shown_queue: (usize, usize),
    pub(crate) session: Session,
    /// Whose channels it joins.
    pub(crate) app: Arc<App>,
    /// Where it sits in the channels it joined.
    pub(crate) seats: Vec<Seated>,
    /// Channels that it will join once the broker was reached, or a past is to be had; at most those of its session.
    pub(crate) wishes: Vec<(Wanted, Option<Reference>)>,
    /// The pasts that are on their way to it; at most [`READERS_MAX`](crate::reader::READERS_MAX).
    pub(crate) readers: Vec<Reader>,
    /// The questions to storage that were asked for it and are open, also those of pasts that it wants no more.
    pub(crate) questions: Vec<u64>,
    /// Its own events that wait for the broker; there while one is on its way.
    pub(crate) speech: Option<Box<Speech>>,
    /// What is left of its joining and leaving: see [`Self::spend`].
    budget: i64,
    refilled: Instant,
    /// The tick at which the wheel names it.
    pub(crate) armed: Option<Tick>,
    /// When the ping left that was not answered yet.
    pub(crate) probed: Option<Instant>,
    pub(crate) opened: Instant,
    waker: Option<Waker>,
    _place: Place,
}

/// A client's own events. Few clients ever have any.
#[derive(Debug, Default)]
pub(crate) struct Speech {
    pub(crate) waiting: VecDeque<NewMessage>,
}

/// A subscription of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Seated {
    pub(crate) channel: ChannelName,
    pub(crate) seat: Seat,
    pub(crate) line: Line,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// A close is on its way; the peer's is awaited until `until`, unless it was heard.
    Closing {
        ending: Ending,
        until: Instant,
        peer_done: bool,
    },
    Over(Ending),
}

/// What a connection's task was woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// There is something to read.
    Readable,
    /// There is room to write.
    Writable,
    /// It is over.
    Over(Ending),
}

impl Connection {
    pub(crate) fn new(
        link: Box<dyn Link>,
        session: Session,
        app: Arc<App>,
        place: Place,
        now: Instant,
    ) -> Self {
        Self {
            form: link.form(),
            link,
            touched: false,
            hungry: false,
            moved: true,
            state: State::Open,
            early: 0,
            outbox: Outbox::default(),
            dropped: 0,
            shown_queue: (0, 0),
            session,
            app,
            seats: Vec::new(),
            wishes: Vec::new(),
            readers: Vec::new(),
            questions: Vec::new(),
            speech: None,
            budget: JOINS_BURST,
            refilled: now,
            armed: None,
            probed: None,
            opened: now,
            waker: None,
            _place: place,
        }
    }

    /// Says what the connection's task should do, or keeps its waker.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Woken> {
        match self.state {
            State::Over(ending) => return Poll::Ready(Woken::Over(ending)),
            State::Closing { ending, peer_done: true, .. } if self.outbox.is_empty() => {
                return Poll::Ready(Woken::Over(ending));
            }
            State::Open | State::Closing { .. } => {}
        }
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
        let waits = !self.outbox.is_empty() || self.hungry && self.is_open();
        if waits && self.link.poll_writable(cx).is_ready() {
            return Poll::Ready(Woken::Writable);
        }
        if self.is_paused() && self.is_open() {
            return Poll::Pending;
        }
        self.link.poll_readable(cx).map(|_ready_or_broken| Woken::Readable)
    }

    /// Notes that it joins a channel or leaves one, which others may be told of, on all nodes. Whoever does so again and
    /// again is read from no faster than it may.
    pub(crate) fn spend(&mut self, channel: &ChannelName, now: Instant) {
        self.refill(now);
        let price = if ChannelKind::of(channel).presence { PRESENCE_PRICE } else { 1 };
        self.budget = self.budget.saturating_sub(price);
    }

    /// Goes on reading, if there is a budget again.
    pub(crate) fn resume(&mut self, now: Instant) {
        let paused = self.is_paused();
        self.refill(now);
        if paused && !self.is_paused() {
            self.wake();
        }
    }

    /// Says whether it has used up its budget: nothing is read from it until there is one again.
    const fn is_paused(&self) -> bool {
        self.budget <= 0
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled);
        let more = i64::try_from(passed.as_millis() * JOINS_PER_SECOND / 1000).unwrap_or(i64::MAX);
        if more > 0 {
            self.budget = self.budget.saturating_add(more).min(JOINS_BURST);
            self.refilled = now;
        }
    }

    /// Says whether what waits has not moved since this was asked last.
    pub(crate) fn is_stuck(&mut self) -> bool {
        let moved = std::mem::replace(&mut self.moved, false);
        !moved && !self.outbox.is_empty()
    }

    /// Says whether frames may still be offered.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Returns when the connection must be looked at next.
    pub(crate) fn next_deadline(&self, limits: &carillon_session::Limits) -> Option<Instant> {
        match self.state {
            State::Open if self.is_paused() => {
                let resumes = self.refilled.checked_add(TICK);
                [resumes, self.session.next_deadline(limits)].into_iter().flatten().min()
            }
            State::Open => self.session.next_deadline(limits),
            State::Closing { until, .. } => Some(until),
            State::Over(_) => None,
        }
    }

    /// Ends it at once if the peer took too long to close its side.
    pub(crate) fn give_up(&mut self, now: Instant) {
        if let State::Closing { ending, until, .. } = self.state
            && until <= now
        {
            self.over(ending);
        }
    }

    /// Queues the transport's close and begins to wait for the peer's.
    pub(crate) fn close(&mut self, reason: CloseReason, now: Instant) {
        if self.is_open() {
            let frame = self.link.wrap(Said::Close(reason));
            // A close is small and always has room: what would not fit was dropped before.
            let _offered = self.outbox.offer(frame, Origin::Kept, usize::MAX);
            self.closing(Ending::Ours(reason), now, false);
        }
    }

    /// Learns that the peer closes, or that what it sent cannot be read on.
    pub(crate) fn closing(&mut self, ending: Ending, now: Instant, peer_done: bool) {
        let ending = match self.state {
            State::Open => ending,
            State::Closing { ending, .. } => ending,
            State::Over(_) => return,
        };
        let patience = match ending {
            Ending::Ours(CloseReason::ProtocolError) => BROKEN_PATIENCE,
            Ending::Client | Ending::Broken | Ending::Ours(_) => CLOSE_PATIENCE,
        };
        let until = now.checked_add(patience).unwrap_or(now);
        self.state = State::Closing { ending, until, peer_done };
        self.wake();
    }

    /// Ends it now.
    pub(crate) fn over(&mut self, ending: Ending) {
        self.state = match self.state {
            State::Open => State::Over(ending),
            State::Closing { ending, .. } | State::Over(ending) => State::Over(ending),
        };
        self.wake();
    }

    /// Queues something for this client alone. What does not fit makes it a slow reader.
    pub(crate) fn say(&mut self, said: Said, limit_bytes: usize) -> Offered {
        self.say_as(said, Origin::Kept, limit_bytes)
    }

    /// The same, of something that the overflow rules know.
    pub(crate) fn say_as(&mut self, said: Said, origin: Origin, limit_bytes: usize) -> Offered {
        let frame = self.link.wrap(said);
        if frame.is_empty() { Offered::Queued } else { self.offer(frame, origin, limit_bytes) }
    }

    /// Queues a frame. Where it does not fit, what waits is written first: only a socket that takes no more makes a
    /// slow reader, not how much is said at once. Then what the rules of channels allow is dropped.
    pub(crate) fn offer(&mut self, frame: Bytes, origin: Origin, limit_bytes: usize) -> Offered {
        if self.has_room(frame.len(), limit_bytes) {
            return self.outbox.offer(frame, origin, limit_bytes);
        }
        let latest = match origin {
            Origin::Latest(line, _) => Some(line),
            Origin::Kept | Origin::Oldest(..) | Origin::Gap(..) => None,
        };
        let Self { outbox, link, seats, .. } = self;
        let mut gap = |line, position| word_of_gap(&mut **link, seats, line, position);
        self.dropped += outbox.make_room(frame.len(), limit_bytes, latest, &mut gap);
        match (outbox.offer(frame, origin, limit_bytes), origin) {
            (Offered::Full, Origin::Oldest(line, position) | Origin::Latest(line, position)) => {
                outbox.note_dropped(line, position, gap(line, position));
                self.dropped += 1;
                Offered::Queued
            }
            (offered, _) => offered,
        }
    }

    /// Offers a frame behind which nothing comes in this turn, so that it needs no queue where nothing waits before it:
    /// the socket gets it now, and the flush that follows reports it.
    pub(crate) fn pass(&mut self, frame: &Bytes, origin: Origin, limit_bytes: usize) -> Offered {
        if !self.outbox.is_empty() {
            return self.offer(frame.clone(), origin, limit_bytes);
        }
        // A fault comes again when what was not taken is flushed.
        let written = self.link.write(&[IoSlice::new(frame)]).unwrap_or(0);
        self.early += written;
        self.moved |= written > 0;
        if written == frame.len() {
            return Offered::Queued;
        }
        let offered = self.outbox.offer(frame.clone(), origin, limit_bytes);
        self.outbox.advance(written);
        offered
    }

    /// Queues the frame of a publication, after what goes before it for this client alone. `None` when the client takes
    /// no more of what is published.
    pub(crate) fn offer_publication(
        &mut self,
        frame: Bytes,
        publication: &Publication,
        line: Line,
        overflow: Overflow,
        limit_bytes: usize,
    ) -> Option<Offered> {
        let frame = if self.form.is_led() {
            match self.link.lead(publication) {
                Lead::Nothing => frame,
                // One buffer: neither may leave, or be dropped, without the other.
                Lead::Bytes(lead) => Bytes::from([&*lead, &*frame].concat()),
                Lead::Enough => return None,
            }
        } else {
            frame
        };
        Some(self.offer(frame, origin(overflow, line, publication), limit_bytes))
    }

    /// Says whether a frame of so many bytes has room, once what waits was written as far as the socket takes it.
    pub(crate) fn has_room(&mut self, frame_bytes: usize, limit_bytes: usize) -> bool {
        if self.outbox.has_room(frame_bytes, limit_bytes) {
            return true;
        }
        self.early = self.flush();
        self.outbox.has_room(frame_bytes, limit_bytes)
    }

    /// Writes what waits, as far as the socket takes it, and returns the bytes written. What is left is written by
    /// the connection's own task when there is room.
    pub(crate) fn flush(&mut self) -> usize {
        let mut total = std::mem::take(&mut self.early);
        while !self.outbox.is_empty() {
            let written = match self.outbox.single() {
                Some(frame) => self.link.write(&[IoSlice::new(frame)]),
                None => {
                    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                    let filled = self.outbox.slices(&mut slices);
                    self.link.write(slices.get(..filled).unwrap_or_default())
                }
            };
            match written {
                Ok(0) => self.broken(),
                Ok(written) => {
                    total += written;
                    self.moved = true;
                    self.outbox.advance(written);
                }
                Err(fault) if fault.kind() == ErrorKind::Interrupted => {}
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => break,
                Err(_broken) => self.broken(),
            }
        }
        if !self.outbox.is_empty() || self.hungry || !self.is_open() {
            self.wake();
        }
        total
    }

    /// Reads once; see [`Link::receive`].
    pub(crate) fn receive(
        &mut self,
        scratch: &mut [u8],
        heard: &mut Vec<crate::Heard>,
    ) -> io::Result<crate::Received> {
        self.link.receive(scratch, &mut |one| heard.push(one))
    }

    fn broken(&mut self) {
        self.over(Ending::Broken);
        self.outbox = Outbox::default();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Returns what a publication's frame is to the overflow rules.
pub(crate) fn origin(overflow: Overflow, line: Line, publication: &Publication) -> Origin {
    match overflow {
        Overflow::Close => Origin::Kept,
        Overflow::DropOldest => Origin::Oldest(line, publication.position),
        Overflow::Latest => Origin::Latest(line, publication.position),
    }
}

/// Writes that a channel lost messages; nothing when the client has left it.
fn word_of_gap(link: &mut dyn Link, seats: &[Seated], line: Line, position: Option<Position>) -> Bytes {
    let Some(seated) = seats.iter().find(|seated| seated.line == line) else { return Bytes::new() };
    let channel = seated.channel.clone();
    let text = link.dialect().push(&Push::Gap { channel, position });
    link.wrap(Said::Text(text))
}
