//! Joining channels and bringing clients what they missed, in the order of calls of `node::worker`.
//!
//! **Lives here:** what `CatchUp` asks for: memory, storage, room in the outbox.
//! **Called by:** the node, for what sessions want; when storage answered, when a socket has room, at ticks.
//! **Must not know:** the rules of the way.

use carillon_broker::{Attached, CatchUp, RecoverError, Recovery, Step};
use carillon_hub::{Joined, Offered, Render as _, SessionKey, Stand, Subscriber, UNTOLD};
use carillon_model::{ChannelName, CloseReason, Form, Position, Publication, Since};
use carillon_session::{Answer, Recovered, Reference, Wanted};

use super::{
    agenda::{Agenda, Claim, Event, MS, SECOND, ServerEvent},
    bug::Bug,
    connection::{Connection, Reader, Seated},
    frame::{self, Lines},
    node::Node,
};

/// After this time, storage that could not be asked is asked again.
const AGAIN: u64 = SECOND;
/// Pasts that one client is brought at a time.
const READERS_MAX: usize = 4;

/// What holds a reader up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    Waits,
    Done,
}

impl Node {
    pub(super) fn answer_join(
        &mut self,
        key: usize,
        connection: &mut Connection,
        wanted: Wanted,
        reference: Option<Reference>,
        agenda: &mut Agenda,
    ) {
        if !self.was_reached() || !has_reader_free(connection) {
            connection.wishes.push((wanted, reference));
            self.waiting = true;
            return;
        }
        let overflow = agenda.plan.channels[frame::number(&wanted.channel)].overflow;
        let early = agenda.bug == Bug::ReleaseEarly;
        let stand = match wanted.since {
            Since::After(after) if early => Stand::After(after),
            Since::After(_) | Since::Now | Since::Oldest | Since::Last(_) | Since::Time(_) => Stand::Behind,
        };
        let subscriber = Subscriber {
            session: SessionKey::new(key).expect("connections here are few"),
            form: Form::NativeWebSocket,
            stand,
            overflow,
            told_after: UNTOLD,
        };
        let (seat, line, joined) = self.channels.join(&wanted.channel, subscriber);
        let seated = Seated { channel: wanted.channel.clone(), seat, line };
        connection.seats.push(seated);
        let late = agenda.bug == Bug::InterestLate;
        if joined == Joined::First && !late {
            self.interest.insert(wanted.channel.clone());
        }
        if wanted.since == Since::Now {
            let Some(attached) = self.memory(&wanted.channel, Since::Now, agenda) else { return };
            self.channels.stand(&wanted.channel, seat, attached.position);
            let position = Some(attached.position);
            let (channel, recovered, members) = (wanted.channel, None, None);
            let answer = Answer::Joined { channel, position, recovered, members, reference };
            return connection.session.handle_answer(answer);
        }
        connection.readers.push(Reader {
            channel: wanted.channel,
            seat,
            line,
            overflow,
            wanted: wanted.since,
            reference,
            catchup: CatchUp::new(wanted.since, agenda.plan.replay),
            asked: None,
            again_at: None,
            given: 0,
            replayed: 0,
        });
        self.advance_readers(key, connection, agenda);
    }

    pub(super) fn advance_readers(&mut self, key: usize, connection: &mut Connection, agenda: &mut Agenda) {
        let mut next = 0;
        while connection.open && next < connection.readers.len() {
            let mut reader = connection.readers.remove(next);
            match self.advance(key, connection, &mut reader, agenda) {
                Pause::Waits => {
                    connection.readers.insert(next, reader);
                    next += 1;
                }
                Pause::Done => {}
            }
        }
    }

    fn advance(
        &mut self,
        key: usize,
        connection: &mut Connection,
        reader: &mut Reader,
        agenda: &mut Agenda,
    ) -> Pause {
        loop {
            let sits = |seated: &Seated| seated.channel == reader.channel && seated.seat == reader.seat;
            let ended = !connection.open || connection.session.is_closed();
            if ended || !connection.seats.iter().any(sits) {
                return Pause::Done;
            }
            match reader.catchup.step() {
                Step::Attach(since) => match self.memory(&reader.channel, since, agenda) {
                    Some(attached) => reader.catchup.handle_attached(attached),
                    None => {
                        reader.again_at = Some(agenda.now + AGAIN);
                        self.waiting = true;
                        return Pause::Waits;
                    }
                },
                Step::Recover(since) => {
                    if reader.asked.is_none() && reader.again_at.is_none_or(|at| at <= agenda.now) {
                        reader.again_at = None;
                        self.ask(key, reader, since, agenda);
                        connection.questions.extend(reader.asked);
                    }
                    return Pause::Waits;
                }
                Step::Tell { position, replayed } => {
                    let recovered =
                        replayed.map_or_else(Recovered::No, |replayed| Recovered::All { replayed });
                    reader.replayed = replayed.unwrap_or(0);
                    self.tell(key, connection, reader, position, recovered, agenda);
                    reader.catchup.handle_told();
                }
                Step::Give(publication) => {
                    if !Self::give(connection, reader, &publication, agenda) {
                        connection.hungry = true;
                        return Pause::Waits;
                    }
                    reader.catchup.handle_taken();
                }
                Step::Gap(position) => {
                    if connection.say_gap(&reader.channel, position, agenda) == Offered::Full {
                        connection.session.handle_close(CloseReason::SlowConsumer, None);
                    }
                    reader.catchup.handle_told();
                }
                Step::Stand(position) => {
                    let position =
                        if agenda.bug == Bug::StandAhead { Self::ahead(position) } else { position };
                    agenda.note(|| {
                        format!("{:?} has a reader of {} stand at {position}", self.here, reader.channel)
                    });
                    self.channels.stand(&reader.channel, reader.seat, position);
                    return Pause::Done;
                }
                Step::TooSlow => {
                    agenda.tally.too_slow += 1;
                    connection.session.handle_close(CloseReason::SlowConsumer, None);
                    return Pause::Done;
                }
            }
        }
    }

    /// Gives a client a publication of its past, if there is room for it.
    fn give(
        connection: &mut Connection,
        reader: &mut Reader,
        publication: &Publication,
        agenda: &mut Agenda,
    ) -> bool {
        if agenda.bug == Bug::PartialReplay && reader.given > 0 && reader.given + 1 == reader.replayed {
            reader.given += 1;
            return true;
        }
        let form = Form::NativeWebSocket;
        let frame = publication.frames.get_or_make(form, || Lines.frame(form, publication)).clone();
        if !connection.has_room(frame.len(), agenda.plan.outbox_bytes / 2) {
            return false;
        }
        let (line, overflow) = (reader.line, reader.overflow);
        let given =
            connection.offer_publication(frame, publication, line, overflow, agenda) == Offered::Queued;
        reader.given += u32::from(given);
        agenda.tally.replayed += u64::from(given);
        given
    }

    const fn ahead(position: Position) -> Position {
        Position { offset: position.offset.next(), ..position }
    }

    /// Asks the node's memory.
    fn memory(&self, channel: &ChannelName, since: Since, agenda: &Agenda) -> Option<Attached> {
        let stream = agenda.plan.channels[frame::number(channel)].stream;
        let ring = &self.shards.get(stream)?.ring;
        let here = ring.position()?;
        let since = match since {
            Since::After(after) if agenda.bug == Bug::TrustForeignEpoch => {
                Since::After(Position { epoch: here.epoch, ..after })
            }
            Since::After(after) if agenda.bug == Bug::TrustFuture && after.offset > here.offset => {
                Since::After(Position { offset: here.offset, ..after })
            }
            Since::Now | Since::After(_) | Since::Oldest | Since::Last(_) | Since::Time(_) => since,
        };
        ring.attach(channel, since, agenda.plan.replay)
    }

    fn ask(&mut self, key: usize, reader: &mut Reader, since: Since, agenda: &mut Agenda) {
        self.questions += 1;
        reader.asked = Some(self.questions);
        let channel = frame::number(&reader.channel);
        let stream = agenda.plan.channels[channel].stream;
        let head = self.shards.get(stream).and_then(|shard| shard.ring.position());
        let head = head.expect("a reader sits only where memory knows something");
        let (number, delay) = (self.questions, agenda.draw(20 * MS));
        let question = ServerEvent::Read { key, number, channel, since, head };
        agenda.later(delay, Event::Server(self.here, question));
    }

    fn tell(
        &mut self,
        key: usize,
        connection: &mut Connection,
        reader: &Reader,
        position: Position,
        recovered: Recovered,
        agenda: &mut Agenda,
    ) {
        let (channel, since) = (frame::number(&reader.channel), reader.wanted);
        agenda.claims.push(Claim { channel, since, position, recovered });
        connection.session.handle_answer(Answer::Joined {
            channel: reader.channel.clone(),
            position: Some(position),
            recovered: (reader.wanted != Since::Now).then_some(recovered),
            members: None,
            reference: reader.reference,
        });
        if let Some(effect) = connection.session.next_effect() {
            self.carry(key, connection, effect, agenda);
        }
    }

    pub(super) fn take_read(
        &mut self,
        key: usize,
        number: u64,
        read: Result<Recovery, RecoverError>,
        agenda: &mut Agenda,
    ) {
        let mut known = false;
        self.with(key, agenda, |node, connection, agenda| {
            let open = connection.questions.len();
            connection.questions.retain(|question| *question != number);
            known = connection.questions.len() < open;
            let reader = connection.readers.iter_mut().find(|one| one.asked == Some(number));
            if let Some(reader) = reader.filter(|_| known) {
                reader.asked = None;
                node.bring(reader, read, agenda);
                node.advance_readers(key, connection, agenda);
            }
        });
        if known {
            self.carry_out(key, agenda);
        }
    }

    fn bring(&mut self, reader: &mut Reader, read: Result<Recovery, RecoverError>, agenda: &Agenda) {
        if matches!(read, Err(RecoverError::Unavailable)) {
            reader.again_at = Some(agenda.now + AGAIN);
            self.waiting = true;
            if !self.link.up {
                return;
            }
        }
        if let Some(head) = self.memory(&reader.channel, Since::Now, agenda) {
            reader.catchup.handle_recovered(read, head.position);
        }
    }

    /// Goes on with what had to wait.
    pub(super) fn tick(&mut self, agenda: &mut Agenda) {
        if agenda.bug == Bug::InterestLate {
            let seats = self.connections.values().flat_map(|connection| &connection.seats);
            self.interest.extend(seats.map(|seated| seated.channel.clone()));
        }
        if !self.waiting || !self.was_reached() {
            return;
        }
        self.waiting = false;
        for key in self.connections.keys().copied().collect::<Vec<_>>() {
            self.with(key, agenda, |node, connection, agenda| {
                node.advance_readers(key, connection, agenda);
                node.waiting |= connection.readers.iter().any(|reader| reader.again_at.is_some());
            });
            self.carry_out(key, agenda);
        }
    }

    pub(super) fn grant_next(&mut self, key: usize, connection: &mut Connection, agenda: &mut Agenda) {
        let mut left = connection.wishes.len();
        while left > 0 && self.was_reached() && has_reader_free(connection) {
            left -= 1;
            let (wanted, reference) = connection.wishes.remove(0);
            let held = connection.seats.iter().any(|seated| seated.channel == wanted.channel);
            if !held && connection.session.channels().binary_search(&wanted.channel).is_ok() {
                self.answer_join(key, connection, wanted, reference, agenda);
            }
        }
    }

    pub(super) fn leave(&mut self, connection: &mut Connection, channel: &ChannelName) {
        connection.wishes.retain(|(wanted, _)| wanted.channel != *channel);
        connection.readers.retain(|reader| reader.channel != *channel);
        if let Some(place) = connection.seats.iter().position(|seated| seated.channel == *channel) {
            let seated = connection.seats.swap_remove(place);
            connection.outbox.forget(seated.line);
            self.unseat(&seated);
        }
    }
}

/// Says whether a client can be brought another past just now.
const fn has_reader_free(connection: &Connection) -> bool {
    connection.readers.len() < READERS_MAX && connection.questions.len() < READERS_MAX
}
