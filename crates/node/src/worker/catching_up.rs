//! Bringing clients what they missed.
//!
//! **Lives here:** what the way of a reader (`broker`'s `CatchUp`) asks for: memory, storage, room in the outbox.
//! **Called by:** the worker: when a client joins with a place in the past, when its socket has room again, when
//! storage has answered, at ticks for those that wait.
//! **Must not know:** the rules of the way, transports.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_broker::{AttachError, CatchUp, RecoverError, Recovery, Step};
use carillon_hub::{Offered, Origin, SessionKey};
use carillon_model::{
    ChannelName, ClassName, CloseReason, Overflow, Position, Publication, ReplayLimits, Since, Unrecovered,
};
use carillon_session::{Push, Recovered, Reference, Wanted};
use carillon_tasks::clock;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use crate::{
    connection::{Connection, Seated},
    link::Said,
    reader::{READERS_MAX, Reader},
    shown,
    worker::Worker,
};

/// After this time, storage that could not be asked is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Bytes of frames that a reader is given before others have their turn: what is published meanwhile waits no longer than
/// a few of these.
const TURN_BYTES: usize = 128 * 1024;

/// For how long a reader waits for a broker that is away before that counts as a failure.
const AWAY_PATIENCE: Duration = Duration::from_secs(30);

/// A question to storage.
#[derive(Debug)]
pub(super) struct Ask {
    session: SessionKey,
    number: u64,
    class: ClassName,
    channel: ChannelName,
    since: Since,
}

/// What holds a reader up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Room in the outbox, storage's answer, or time.
    Waits,
    /// Nothing: it is over.
    Done,
}

impl Worker {
    /// Begins to bring a client a channel's past, in the seat that it has taken.
    pub(super) fn begin_reader(
        &self,
        connection: &mut Connection,
        seated: &Seated,
        class: ClassName,
        overflow: Overflow,
        wanted: &Wanted,
        reference: Option<Reference>,
    ) {
        let now = clock::now();
        connection.readers.push(Reader {
            channel: seated.channel.clone(),
            class,
            seat: seated.seat,
            line: seated.line,
            overflow,
            reference,
            catchup: CatchUp::new(wanted.since, ReplayLimits::default()),
            asked: None,
            again_at: None,
            began: now,
            told_at: None,
        });
    }

    /// Says whether a client can be brought another past just now.
    pub(super) const fn has_reader_free(connection: &Connection) -> bool {
        connection.readers.len() < READERS_MAX && connection.questions.len() < READERS_MAX
    }

    /// Takes every reader of a connection as far as it goes.
    pub(super) fn advance_readers(&self, key: SessionKey, connection: &mut Connection, now: Instant) {
        let mut next = 0;
        while connection.is_open() && next < connection.readers.len() {
            let mut reader = connection.readers.remove(next);
            match self.advance(key, connection, &mut reader, now) {
                Pause::Waits => {
                    connection.readers.insert(next, reader);
                    next += 1;
                }
                Pause::Done => {}
            }
        }
    }

    fn advance(
        &self,
        key: SessionKey,
        connection: &mut Connection,
        reader: &mut Reader,
        now: Instant,
    ) -> Pause {
        let mut given = 0;
        // No delivery is looked at while this runs: from the moment memory was asked, none passes the reader by.
        let mut unbroken = false;
        loop {
            if unbroken {
                reader.catchup.handle_unbroken();
            }
            // It may have left the channel, and even joined it again.
            let sits = |seated: &Seated| seated.channel == reader.channel && seated.seat == reader.seat;
            let ended = !connection.is_open() || connection.session.is_closed();
            if ended || !connection.seats.iter().any(sits) {
                return Pause::Done;
            }
            match reader.catchup.step() {
                Step::Attach(since) => match self.memory(reader, since) {
                    Ok(attached) => {
                        reader.catchup.handle_attached(attached);
                        unbroken = true;
                    }
                    // It was reached when the reader took its seat, and is not forgotten.
                    Err(AttachError::Unavailable) => return self.wait(reader, now),
                },
                Step::Recover(since) => {
                    if reader.asked.is_none() && reader.again_at.is_none_or(|at| at <= now) {
                        reader.again_at = None;
                        let number = self.ask(key, reader, since);
                        connection.questions.push(number);
                        reader.asked = Some(number);
                    }
                    return Pause::Waits;
                }
                Step::Tell { position, replayed } => {
                    self.tell_joined(key, connection, reader, position, replayed, now);
                    reader.catchup.handle_told();
                    reader.told_at = Some(now);
                }
                Step::Give(_) if reader.is_too_slow(now) => {
                    connection.session.handle_close(CloseReason::SlowConsumer, Some(self.come_back()));
                    return Pause::Done;
                }
                Step::Give(publication) if is_left_out(connection, &publication) => {
                    reader.catchup.handle_taken();
                }
                Step::Give(publication) => match self.give(connection, reader, &publication) {
                    Given::Taken(bytes) => {
                        reader.catchup.handle_taken();
                        given += bytes;
                        if given > TURN_BYTES {
                            connection.hungry = true;
                            return Pause::Waits;
                        }
                    }
                    Given::NoRoom => {
                        connection.hungry = true;
                        return Pause::Waits;
                    }
                    Given::Enough => return Pause::Done,
                },
                Step::Gap(position) => {
                    self.tell_one_gap(connection, &reader.channel, position);
                    reader.catchup.handle_told();
                }
                Step::Stand(position) => {
                    self.channels.borrow_mut().stand(&reader.channel, reader.seat, position);
                    return Pause::Done;
                }
                Step::TooSlow => {
                    connection.session.handle_close(CloseReason::SlowConsumer, Some(self.come_back()));
                    return Pause::Done;
                }
            }
        }
    }

    fn memory(&self, reader: &Reader, since: Since) -> Result<carillon_broker::Attached, AttachError> {
        self.node.broker().attach(&reader.class, &reader.channel, since, ReplayLimits::default())
    }

    fn wait(&self, reader: &mut Reader, now: Instant) -> Pause {
        reader.again_at = now.checked_add(AGAIN);
        self.waiting.set(true);
        Pause::Waits
    }

    fn tell_joined(
        &self,
        key: SessionKey,
        connection: &mut Connection,
        reader: &Reader,
        position: Position,
        replayed: Result<u32, Unrecovered>,
        now: Instant,
    ) {
        let recovered = match replayed {
            Ok(replayed) => {
                let out = reader.catchup.waiting().filter(|one| is_left_out(connection, one)).count();
                Recovered::All { replayed: replayed.saturating_sub(u32::try_from(out).unwrap_or(u32::MAX)) }
            }
            Err(reason) => Recovered::No(reason),
        };
        shown::subscribed("ok");
        shown::recovered(recovered);
        let (channel, reference) = (reader.channel.clone(), reader.reference);
        let decided = connection.session.decided();
        self.joined(connection, channel, Some(position), Some(recovered), reference);
        // The answer alone: whatever else the session has decided comes in its turn.
        for _part in decided..connection.session.decided() {
            if let Some(effect) = connection.session.next_effect() {
                self.carry(key, connection, effect, now);
            }
        }
    }

    fn give(&self, connection: &mut Connection, reader: &Reader, publication: &Publication) -> Given {
        // Half of the outbox is left to what is published on other channels.
        let limit = self.node.config().outbox_max_bytes;
        let form = connection.link.form();
        let frame =
            publication.frames.get_or_make(form, || self.node.render().frame(form, publication)).clone();
        if !connection.has_room(frame.len(), limit / 2) {
            return Given::NoRoom;
        }
        let bytes = frame.len();
        match connection.offer_publication(frame, publication, reader.line, reader.overflow, limit) {
            Some(Offered::Queued) => {
                self.shown.of(form).delivered.increment(1);
                self.shown.replayed.increment(1);
                Given::Taken(bytes)
            }
            // A cursor before the frame made it too large for what room there was.
            Some(Offered::Full) => Given::NoRoom,
            None => Given::Enough,
        }
    }

    fn tell_one_gap(&self, connection: &mut Connection, channel: &ChannelName, position: Position) {
        let push = Push::Gap { channel: channel.clone(), position: Some(position) };
        let text = connection.link.dialect().push(&push);
        self.shown.gaps.increment(1);
        if self.say_one_gap(connection, channel, Some(position), text) == Offered::Full {
            connection.session.handle_close(CloseReason::SlowConsumer, Some(self.come_back()));
        }
    }

    /// Queues word of a gap. Where the channel's rule drops frames it stands in line with the word of those, and may go
    /// into it.
    pub(super) fn say_one_gap(
        &self,
        connection: &mut Connection,
        channel: &ChannelName,
        position: Option<Position>,
        text: String,
    ) -> Offered {
        if let Some(position) = position {
            connection.link.stand(channel, position);
        }
        let limit = self.node.config().outbox_max_bytes;
        let overflow = self.node.router().rules().find(channel).map(|rule| rule.overflow);
        let line =
            connection.seats.iter().find(|seated| seated.channel == *channel).map(|seated| seated.line);
        let origin = match (overflow, line) {
            (Some(Overflow::DropOldest | Overflow::Latest), Some(line)) => Origin::Gap(line, position),
            (Some(Overflow::Close) | None, _) | (_, None) => Origin::Kept,
        };
        connection.say_as(Said::Text(text), origin, limit)
    }

    /// Goes on with what waited for room or for its turn, and says whether more waits.
    pub(super) fn catch_up(&self, key: SessionKey) -> bool {
        let now = clock::now();
        let hungry = {
            let mut connections = self.connections.borrow_mut();
            let Some(connection) = connections.get_mut(key.get()) else { return false };
            connection.hungry = false;
            if connection.readers.is_empty() {
                return false;
            }
            self.advance_readers(key, connection, now);
            connection.hungry
        };
        self.carry_out(key, now);
        hungry
    }

    /// Puts a question to storage and returns its number.
    fn ask(&self, session: SessionKey, reader: &Reader, since: Since) -> u64 {
        let number = self.questions.get().wrapping_add(1);
        self.questions.set(number);
        let (class, channel) = (reader.class.clone(), reader.channel.clone());
        self.asks.borrow_mut().push(Ask { session, number, class, channel, since });
        self.asked.notify_one();
        number
    }

    /// Asks storage what readers want of it, for as long as the worker lives. At most [`READERS_MAX`] questions a
    /// connection are open.
    pub(super) async fn reads(self: Rc<Self>) {
        let mut open = FuturesUnordered::new();
        loop {
            for ask in self.asks.take() {
                let node = Arc::clone(&self.node);
                open.push(async move {
                    let Ask { class, channel, since, .. } = &ask;
                    let read = node.broker().recover(class, channel, *since, ReplayLimits::default()).await;
                    (ask, read)
                });
            }
            tokio::select! {
                () = self.asked.notified() => {}
                Some((ask, read)) = open.next() => self.take_read(&ask, read),
            }
        }
    }

    fn take_read(&self, ask: &Ask, read: Result<Recovery, RecoverError>) {
        let now = clock::now();
        {
            let mut connections = self.connections.borrow_mut();
            let Some(connection) = connections.get_mut(ask.session.get()) else { return };
            let open = connection.questions.len();
            connection.questions.retain(|number| *number != ask.number);
            if connection.questions.len() == open {
                return; // Another connection has the key.
            }
            if let Some(reader) = connection.readers.iter_mut().find(|one| one.asked == Some(ask.number)) {
                reader.asked = None;
                self.bring(reader, read, now);
                self.advance_readers(ask.session, connection, now);
            }
        }
        // A question that nobody waits for any more makes room for the next one, too.
        self.carry_out(ask.session, now);
    }

    fn bring(&self, reader: &mut Reader, read: Result<Recovery, RecoverError>, now: Instant) {
        if matches!(read, Err(RecoverError::Unavailable)) {
            let waited = now.saturating_duration_since(reader.began);
            self.wait(reader, now);
            if !self.node.broker_is_connected() && waited < AWAY_PATIENCE {
                return;
            }
        }
        // Where the channel stands now: nothing is delivered between this look and the reader's next step.
        if let Ok(head) = self.memory(reader, Since::Now) {
            reader.catchup.handle_recovered(read, head.position);
        }
    }
}

/// Says whether a client published something itself, and wanted it left out. The event of a cache channel stands for the
/// channel's state, whoever sent it.
fn is_left_out(connection: &Connection, publication: &Publication) -> bool {
    !connection.link.form().is_pusher() && publication.message.exclude.contains(&connection.session.id())
}

/// What became of a publication that was given to a client.
enum Given {
    /// So many bytes of it were queued.
    Taken(usize),
    /// The outbox has none.
    NoRoom,
    /// The client takes no more.
    Enough,
}
