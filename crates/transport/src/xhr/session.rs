//! One client of the fallback: what waits for it, what it said, and the request that receives.
//!
//! **Lives here:** the bounds of both, who receives, when the client counts as gone.
//! **Called by:** the link on the session's worker; requests on any worker; `fallback` for requests on other nodes.
//! **Must not know:** HTTP, the clock, what the lines say but for the last.

use std::{
    collections::VecDeque,
    io::IoSlice,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use carillon_model::NodeId;

use super::word::{PIECE_BYTES, Then, What, Word};

/// Bytes of lines that wait for a request, unless one line alone is larger; more waits in the outbox.
const LINES_BYTES: usize = 64 * 1024;

/// Bytes and texts of the client that wait for its worker.
pub(crate) const TEXTS_BYTES: usize = 512 * 1024;
pub(crate) const TEXTS_MAX: usize = 1024;

/// For how long no request may receive.
const IDLE: Duration = Duration::from_secs(10);

/// For how long a node whose request receives may be silent; it speaks every few seconds.
const SILENT: Duration = Duration::from_secs(15);

/// Requests that are remembered, so that what their nodes say late, or again, is known.
const REMEMBERED: usize = 32;

/// A request: the node that it came to, where that is another one, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) node: Option<NodeId>,
    pub(crate) number: u64,
}

/// What a request receives.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Whole lines.
    Lines {
        bytes: Bytes,
        /// No others follow.
        last: bool,
    },
    /// There were none in time.
    Nothing,
    /// Another request receives, or the session is over without a word, or out of reach.
    Over,
}

/// What became of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Taken,
    /// Too many wait: the session ends.
    Full,
}

/// A word for another node.
pub(crate) type Saying = (NodeId, Word);

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    /// Whole lines.
    lines: BytesMut,
    /// The last line is, or was, among them.
    ends: bool,
    /// A frame found no room; since then nothing was taken.
    blocked: bool,
    texts: VecDeque<String>,
    texts_bytes: usize,
    /// A request came since this was asked last.
    alive: bool,
    life: Life,
    link: Option<Waker>,
    receiver: Option<Receiver>,
    idle_since: Instant,
    /// Requests that received before, and whether each left by itself.
    former: VecDeque<(Ticket, bool)>,
    /// Requests of other nodes that brought texts.
    said: VecDeque<Ticket>,
}

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    Open,
    /// The client has gone.
    Gone,
    /// So has the connection.
    Over,
}

#[derive(Debug)]
struct Receiver {
    ticket: Ticket,
    at: At,
}

/// Where a request receives.
#[derive(Debug)]
enum At {
    Here(Option<Waker>),
    There(Distant),
}

/// A request on another node.
#[derive(Debug)]
struct Distant {
    node: NodeId,
    /// Lines that it was sent and may not have, and whether they are the last.
    given: Option<(Bytes, bool)>,
    /// It has taken lines so often.
    sequence: u64,
    /// It waits for lines, and has so much room.
    waits: Option<u64>,
    seen: Instant,
}

impl Session {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            lines: BytesMut::from(&b"o\n"[..]),
            ends: false,
            blocked: false,
            texts: VecDeque::new(),
            texts_bytes: 0,
            alive: false,
            life: Life::Open,
            link: None,
            receiver: None,
            idle_since: now,
            former: VecDeque::new(),
            said: VecDeque::new(),
        }
    }

    /// Takes as many whole frames as there is room for, and returns their bytes.
    pub(crate) fn push(&mut self, frames: &[IoSlice<'_>]) -> (usize, Option<Saying>) {
        let before = self.lines.len();
        for frame in frames {
            self.blocked =
                !self.lines.is_empty() && self.lines.len().saturating_add(frame.len()) > LINES_BYTES;
            if self.blocked {
                break;
            }
            self.lines.extend_from_slice(frame);
            self.ends |= frame.starts_with(b"c[");
        }
        let taken = self.lines.len().saturating_sub(before);
        if taken > 0
            && let Some(Receiver { at: At::Here(waker), .. }) = &mut self.receiver
            && let Some(waker) = waker.take()
        {
            waker.wake();
        }
        (taken, self.give_waiting())
    }

    /// Says whether there is something for the link to do, or keeps its waker.
    pub(crate) fn poll_link(&mut self, closing: bool, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_gone() || self.alive || !self.texts.is_empty() || closing && self.is_drained() {
            return Poll::Ready(());
        }
        self.keep(cx);
        Poll::Pending
    }

    /// Says whether lines have room, or keeps the link's waker.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.blocked {
            return Poll::Ready(());
        }
        self.keep(cx);
        Poll::Pending
    }

    fn keep(&mut self, cx: &Context<'_>) {
        self.link = Some(cx.waker().clone());
    }

    /// Says whether the client has the last line.
    pub(crate) fn is_drained(&self) -> bool {
        let given =
            matches!(&self.receiver, Some(Receiver { at: At::There(Distant { given: Some(_), .. }), .. }));
        self.ends && self.lines.is_empty() && !given
    }

    /// Returns what the client said first.
    pub(crate) fn next_text(&mut self) -> Option<String> {
        let text = self.texts.pop_front()?;
        self.texts_bytes = self.texts_bytes.saturating_sub(text.len());
        Some(text)
    }

    /// Says whether a request came since this was asked last.
    pub(crate) const fn take_alive(&mut self) -> bool {
        std::mem::replace(&mut self.alive, false)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.life >= Life::Gone
    }

    fn is_over(&self) -> bool {
        self.life == Life::Over
    }

    /// Learns that there is no connection any more.
    pub(crate) fn finish(&mut self) -> Option<Saying> {
        self.life = Life::Over;
        self.link = None;
        self.replace()
    }

    /// Takes texts of the client, and a sign of life where there are none.
    pub(crate) fn put(&mut self, texts: Vec<String>) -> Put {
        let bytes = texts.iter().fold(0_usize, |sum, text| sum.saturating_add(text.len()));
        let full = self.texts_bytes.saturating_add(bytes) > TEXTS_BYTES
            || self.texts.len().saturating_add(texts.len()) > TEXTS_MAX;
        self.alive = true;
        if full {
            // A client that is not told would think that all of it arrived; of the end it is told.
            self.end();
        } else {
            self.texts_bytes = self.texts_bytes.saturating_add(bytes);
            self.texts.extend(texts);
        }
        self.wake_link();
        if full { Put::Full } else { Put::Taken }
    }

    /// Makes a request of this node the one that receives.
    pub(crate) fn attach(&mut self, ticket: Ticket) -> Option<Saying> {
        let replaced = self.replace();
        self.receiver = Some(Receiver { ticket, at: At::Here(None) });
        self.alive = true;
        self.wake_link();
        replaced
    }

    /// Gives a request of this node whole lines: as many as it has room for, and the one that fills it.
    pub(crate) fn poll_take(&mut self, ticket: Ticket, room: u64, cx: &Context<'_>) -> Poll<Taken> {
        if self.is_over() || self.receiver.as_ref().is_none_or(|receiver| receiver.ticket != ticket) {
            return Poll::Ready(Taken::Over);
        }
        if let Some((bytes, last)) = self.take_lines(room) {
            self.wake_link();
            return Poll::Ready(Taken::Lines { bytes, last });
        }
        if let Some(Receiver { at: At::Here(waker), .. }) = &mut self.receiver {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Learns that a request of this node is over.
    pub(crate) fn leave(&mut self, ticket: Ticket, then: Then, now: Instant) {
        if self.receiver.as_ref().is_some_and(|receiver| receiver.ticket == ticket) {
            self.depart(then, now);
        }
    }

    /// Answers a word of another node.
    pub(crate) fn hear(&mut self, from: NodeId, word: &Word, now: Instant) -> Vec<Saying> {
        let ticket = Ticket { node: Some(from), number: word.number };
        let answer = match word.what() {
            _ if self.is_over() => What::Lack,
            What::Find => What::Have,
            What::Say if self.said.contains(&ticket) => What::Said,
            What::Say => {
                remember(&mut self.said, ticket);
                match self.put(word.texts.clone()) {
                    Put::Taken => What::Said,
                    Put::Full => What::Lack,
                }
            }
            What::Take => return self.hear_take(from, ticket, word, now),
            What::Took if self.hear_took(ticket, word, now) => What::Noted,
            What::Took => What::Lack,
            What::Unknown
            | What::Have
            | What::Lack
            | What::Lines
            | What::Wait
            | What::Noted
            | What::Said
            | What::Lost
            | What::Recall => return Vec::new(),
        };
        vec![(from, word.answer(answer))]
    }

    /// Lets a request of another node receive, and gives it the piece that it asks for.
    fn hear_take(&mut self, from: NodeId, ticket: Ticket, word: &Word, now: Instant) -> Vec<Saying> {
        let mut told = Vec::new();
        if self.distant(ticket).is_none() {
            if word.sequence > 0 || self.former.iter().any(|(former, _)| *former == ticket) {
                return vec![(from, word.answer(What::Lack))];
            }
            told.extend(self.replace());
            let at = Distant { node: from, given: None, sequence: 0, waits: None, seen: now };
            self.receiver = Some(Receiver { ticket, at: At::There(at) });
            self.alive = true;
            self.wake_link();
        }
        let Some(distant) = self.distant(ticket) else { return told };
        distant.seen = now;
        // Otherwise it has seen a newer answer already.
        if word.sequence == distant.sequence {
            distant.waits = Some(word.room);
            let given = distant.given.as_ref();
            let given = given.map(|(bytes, last)| piece(ticket, word.sequence, bytes, *last, word.offset));
            let answer = given.map(|piece| (from, piece)).or_else(|| self.give_waiting());
            told.push(answer.unwrap_or_else(|| (from, word.answer(What::Wait))));
        }
        told
    }

    /// Learns that a request of another node has lines, or is over. Says whether it was the one that received.
    fn hear_took(&mut self, ticket: Ticket, word: &Word, now: Instant) -> bool {
        let Some(distant) = self.distant(ticket) else { return self.former.contains(&(ticket, true)) };
        distant.seen = now;
        if word.sequence > distant.sequence {
            // It may have less room than when it asked.
            (distant.given, distant.waits) = (None, None);
            distant.sequence = word.sequence;
            self.wake_link();
        }
        if word.then() != Then::Stay {
            self.depart(word.then(), now);
        }
        true
    }

    /// Returns when this must be asked again; `None` once the connection has gone.
    pub(crate) fn check(&mut self, now: Instant) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        if let Some(Receiver { at: At::There(distant), .. }) = &self.receiver
            && now.saturating_duration_since(distant.seen) >= SILENT
        {
            // It hears of it when it asks again.
            let _lack = self.replace();
            self.idle_since = now;
        }
        let (since, wait) = match &self.receiver {
            None => (self.idle_since, IDLE),
            Some(Receiver { at: At::Here(_), .. }) => (now, IDLE),
            Some(Receiver { at: At::There(distant), .. }) => (distant.seen, SILENT),
        };
        let until = since.checked_add(wait).unwrap_or(now);
        if until <= now {
            self.end();
            return now.checked_add(IDLE);
        }
        Some(until)
    }

    /// Ends the session: its client has gone, or must connect again.
    pub(crate) fn end(&mut self) {
        self.life = self.life.max(Life::Gone);
        self.wake_link();
    }

    fn wake_link(&mut self) {
        if let Some(waker) = self.link.take() {
            waker.wake();
        }
    }

    fn distant(&mut self, ticket: Ticket) -> Option<&mut Distant> {
        match &mut self.receiver {
            Some(Receiver { ticket: known, at: At::There(distant) }) if *known == ticket => Some(distant),
            Some(_) | None => None,
        }
    }

    /// Gives lines to a request of another node that waits for some.
    fn give_waiting(&mut self) -> Option<Saying> {
        let Some(Receiver { ticket, at: At::There(distant) }) = &mut self.receiver else { return None };
        let ticket = *ticket;
        let room = if distant.given.is_none() { distant.waits? } else { return None };
        let (bytes, last) = self.take_lines(room)?;
        self.wake_link();
        let distant = self.distant(ticket)?;
        let saying = (distant.node, piece(ticket, distant.sequence, &bytes, last, 0));
        distant.given = Some((bytes, last));
        distant.waits = None;
        Some(saying)
    }

    /// Takes whole lines that wait: as many as there is room for, and the one that fills it.
    fn take_lines(&mut self, room: u64) -> Option<(Bytes, bool)> {
        if self.lines.is_empty() {
            return None;
        }
        let (mut end, mut units) = (0_usize, 0);
        for line in self.lines.split_inclusive(|byte| *byte == b'\n') {
            if units > room {
                break;
            }
            units = units.saturating_add(length(line));
            end = end.saturating_add(line.len());
        }
        let bytes = self.lines.split_to(end).freeze();
        self.blocked = false;
        Some((bytes, self.ends && self.lines.is_empty()))
    }

    /// Ends the request that receives because another one came, or because the session is over.
    fn replace(&mut self) -> Option<Saying> {
        let Receiver { ticket, at } = self.receiver.take()?;
        remember(&mut self.former, (ticket, false));
        match at {
            At::Here(waker) => {
                if let Some(waker) = waker {
                    waker.wake();
                }
                None
            }
            At::There(distant) => {
                self.restore(distant.given);
                Some((distant.node, Word::new(What::Lack, "", ticket.number)))
            }
        }
    }

    /// Ends the request that receives because it is over.
    fn depart(&mut self, then: Then, now: Instant) {
        let Some(Receiver { ticket, at }) = self.receiver.take() else { return };
        remember(&mut self.former, (ticket, true));
        if let At::There(distant) = at {
            self.restore(distant.given);
        }
        self.idle_since = now;
        if then == Then::End {
            self.end();
        }
    }

    /// Puts lines back that a request was given and did not hand over.
    fn restore(&mut self, given: Option<(Bytes, bool)>) {
        let Some((bytes, _last)) = given else { return };
        let after = std::mem::take(&mut self.lines);
        self.lines = BytesMut::from(&bytes[..]);
        self.lines.extend_from_slice(&after);
    }
}

/// Returns the length of a text as browsers count it: in units of UTF-16.
pub(crate) fn length(text: &[u8]) -> u64 {
    // Each character has one byte that continues none; those of four bytes are two units.
    text.iter().map(|byte| u64::from(!(0x80..0xc0).contains(byte)) + u64::from(*byte >= 0xf0)).sum()
}

fn piece(ticket: Ticket, sequence: u64, bytes: &Bytes, last: bool, offset: u64) -> Word {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let to = from.saturating_add(PIECE_BYTES).min(bytes.len());
    Word {
        sequence,
        offset: from as u64,
        bytes: bytes.slice(from..to),
        total: bytes.len() as u64,
        last,
        ..Word::new(What::Lines, "", ticket.number)
    }
}

fn remember<T>(all: &mut VecDeque<T>, one: T) {
    if all.len() == REMEMBERED {
        all.pop_front();
    }
    all.push_back(one);
}

#[cfg(test)]
mod tests;
