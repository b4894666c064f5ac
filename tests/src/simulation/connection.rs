//! One client's connection on a node: session, outbox and socket side by side, as `node::connection` has them.
//!
//! **Lives here:** what fits, what is dropped, what is written.
//! **Called by:** the worker.
//! **Must not know:** other connections.

use std::{cell::RefCell, collections::VecDeque, io::IoSlice, rc::Rc};

use bytes::Bytes;
use carillon_broker::CatchUp;
use carillon_hub::{Line, Offered, Origin, Outbox, Seat};
use carillon_model::{ChannelName, Overflow, Position, Publication};
use carillon_session::{Push, Reference, Session, Wanted};

use super::{agenda::Agenda, bug::Bug, frame};

/// Slices of one write.
const SLICES_MAX: usize = 8;

/// A socket, seen from both ends.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) number: u64,
    pub(super) bytes: VecDeque<u8>,
    pub(super) room_bytes: usize,
    pub(super) client_gone: bool,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Rc<RefCell<Socket>>,
    pub(super) session: Session,
    pub(super) outbox: Outbox,
    pub(super) seats: Vec<Seated>,
    pub(super) wishes: Vec<(Wanted, Option<Reference>)>,
    pub(super) readers: Vec<Reader>,
    /// Questions to storage that are open.
    pub(super) questions: Vec<u64>,
    /// A past waits for room, which others may make.
    pub(super) hungry: bool,
    pub(super) touched: bool,
    pub(super) open: bool,
}

/// A subscription of a connection.
#[derive(Clone, Debug)]
pub(super) struct Seated {
    pub(super) channel: ChannelName,
    pub(super) seat: Seat,
    pub(super) line: Line,
}

/// A past that is on its way to a client.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) channel: ChannelName,
    pub(super) seat: Seat,
    pub(super) line: Line,
    pub(super) overflow: Overflow,
    pub(super) wanted: carillon_model::Since,
    pub(super) reference: Option<Reference>,
    pub(super) catchup: CatchUp,
    pub(super) asked: Option<u64>,
    pub(super) again_at: Option<u64>,
    /// How many were given, for a planted bug.
    pub(super) given: u32,
    pub(super) replayed: u32,
}

impl Connection {
    pub(super) fn new(socket: Rc<RefCell<Socket>>, session: Session) -> Self {
        Self {
            socket,
            session,
            outbox: Outbox::default(),
            seats: Vec::new(),
            wishes: Vec::new(),
            readers: Vec::new(),
            questions: Vec::new(),
            hungry: false,
            touched: false,
            open: true,
        }
    }

    pub(super) fn say(&mut self, frame: Bytes, agenda: &mut Agenda) -> Offered {
        self.offer(frame, Origin::Kept, agenda)
    }

    /// Tells of a gap. On a channel of which frames are dropped it stands in line with the word of those.
    pub(super) fn say_gap(
        &mut self,
        channel: &ChannelName,
        position: Position,
        agenda: &mut Agenda,
    ) -> Offered {
        let push = Push::Gap { channel: channel.clone(), position: Some(position) };
        let seated = self.seats.iter().find(|seated| seated.channel == *channel);
        let origin = match (agenda.plan.channels[frame::number(channel)].overflow, seated) {
            (Overflow::DropOldest | Overflow::Latest, Some(seated)) => {
                Origin::Gap(seated.line, Some(position))
            }
            (Overflow::Close, _) | (_, None) => Origin::Kept,
        };
        self.offer(frame::write(&push), origin, agenda)
    }

    /// Queues the transport's close.
    pub(super) fn close(&mut self) {
        if self.open {
            let _offered = self.outbox.offer(frame::close(), Origin::Kept, usize::MAX);
            self.open = false;
        }
    }

    pub(super) fn offer(&mut self, frame: Bytes, origin: Origin, agenda: &mut Agenda) -> Offered {
        let limit_bytes = agenda.plan.outbox_bytes;
        agenda.largest_frame = agenda.largest_frame.max(frame.len());
        if self.has_room(frame.len(), limit_bytes) {
            return self.outbox.offer(frame, origin, limit_bytes);
        }
        if agenda.bug == Bug::OutboxInSilence && origin == Origin::Kept {
            return Offered::Queued;
        }
        let latest = match origin {
            Origin::Latest(line, _) => Some(line),
            Origin::Kept | Origin::Oldest(..) | Origin::Gap(..) => None,
        };
        let Self { outbox, seats, .. } = self;
        let gap = |line, position| {
            let seated = seats.iter().find(|seated| seated.line == line);
            let channel = seated.map(|seated| seated.channel.clone());
            channel.map_or_else(Bytes::new, |channel| frame::write(&Push::Gap { channel, position }))
        };
        agenda.tally.dropped += outbox.make_room(frame.len(), limit_bytes, latest, gap) as u64;
        match (outbox.offer(frame, origin, limit_bytes), origin) {
            (Offered::Full, Origin::Oldest(line, position) | Origin::Latest(line, position)) => {
                outbox.note_dropped(line, position, gap(line, position));
                agenda.tally.dropped += 1;
                Offered::Queued
            }
            (offered, _) => offered,
        }
    }

    pub(super) fn offer_publication(
        &mut self,
        frame: Bytes,
        publication: &Publication,
        line: Line,
        overflow: Overflow,
        agenda: &mut Agenda,
    ) -> Offered {
        let origin = match overflow {
            Overflow::Close => Origin::Kept,
            Overflow::DropOldest => Origin::Oldest(line, publication.position),
            Overflow::Latest => Origin::Latest(line, publication.position),
        };
        self.offer(frame, origin, agenda)
    }

    pub(super) fn has_room(&mut self, frame_bytes: usize, limit_bytes: usize) -> bool {
        if !self.outbox.has_room(frame_bytes, limit_bytes) {
            self.flush();
        }
        self.outbox.has_room(frame_bytes, limit_bytes)
    }

    /// Says whether the connection's own task has something to do once the socket has room, and the socket has.
    pub(super) fn is_woken(&self) -> bool {
        let socket = self.socket.borrow();
        let waits = !self.outbox.is_empty() || self.hungry;
        waits && self.open && !socket.client_gone && socket.bytes.len() < socket.room_bytes
    }

    /// Writes what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        let mut socket = self.socket.borrow_mut();
        while !self.outbox.is_empty() {
            let room = socket.room_bytes.saturating_sub(socket.bytes.len());
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = self.outbox.slices(&mut slices);
            let taken: Vec<u8> =
                slices[..filled].iter().flat_map(|slice| slice.iter().copied()).take(room).collect();
            if taken.is_empty() && self.outbox.bytes() > 0 {
                break;
            }
            socket.bytes.extend(&taken);
            self.outbox.advance(taken.len());
        }
    }
}
