//! A worker's turn, in the order of calls of `node::worker::turn`: mail to bursts, bursts to outboxes, what was missed.
//!
//! **Lives here:** the fan-out, in parts between which anything else may happen; making up for what found no room.
//! **Called by:** the node, when the worker's time has come.
//! **Must not know:** shards' tasks, what is true.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use carillon_broker::Past;
use carillon_hub::{Line, Offered, Origin, Render as _, SessionKey, Subscriber};
use carillon_model::{ChannelName, CloseReason, Form, Overflow, Position, Publication, ReplayLimits, Since};

use super::{
    agenda::Agenda,
    bug::Bug,
    connection::Connection,
    frame::{self, Lines},
    mailbox::{Mail, Missed},
    node::Node,
    plan::Plan,
};

/// Longest word of a gap, and what it costs to remember a message.
const GAP_BYTES: usize = 40;
const ENTRY_BYTES: usize = 2048;

/// Most that is made up for at once.
const MAKE_UP_LIMITS: ReplayLimits = ReplayLimits { messages: 16_384, bytes: 64 << 20 };

/// What a worker has to do, in order.
#[derive(Debug)]
pub(super) enum Work {
    /// A burst that was not looked at yet.
    Burst(Vec<Arc<Publication>>),
    /// A burst that was offered to the seats before this one.
    Rest(Vec<Arc<Publication>>, usize),
    Missed(ChannelName, Position, Missed),
    /// What was offered is written.
    Flush,
}

/// What was published to each channel, gathered up to a size.
#[derive(Debug, Default)]
struct Bursts {
    work: Vec<Work>,
    open: Vec<Vec<Arc<Publication>>>,
    bytes: usize,
}

impl Bursts {
    fn add(&mut self, publication: Arc<Publication>, limit: usize) {
        self.bytes += publication.message.data.len();
        let channel = &publication.message.channel;
        let same =
            |burst: &&mut Vec<Arc<Publication>>| burst.iter().any(|one| one.message.channel == *channel);
        match self.open.iter_mut().find(same) {
            Some(burst) => burst.push(publication),
            None => self.open.push(vec![publication]),
        }
        if self.bytes > limit {
            self.end();
        }
    }

    fn end(&mut self) {
        self.bytes = 0;
        self.work.extend(self.open.drain(..).map(Work::Burst));
        self.work.push(Work::Flush);
    }
}

impl Node {
    /// Works until something else may have its turn.
    pub(super) fn turn(&mut self, agenda: &mut Agenda) {
        self.turns = false;
        if self.work.is_empty() {
            self.take_mail(agenda);
        }
        while let Some(work) = self.work.pop_front() {
            let yields = match work {
                Work::Burst(burst) => self.begin_burst(burst, agenda),
                Work::Rest(burst, from) => self.offer_part(burst, from, agenda),
                Work::Missed(channel, position, missed) => self.make_up(&channel, position, missed, agenda),
                Work::Flush => self.flush_touched(),
            };
            if yields {
                break;
            }
        }
        self.check_bounds(agenda);
        self.wake_worker(agenda);
    }

    /// Holds what waits and what is remembered against what the limits say.
    fn check_bounds(&self, agenda: &mut Agenda) {
        let Plan { outbox_bytes, ring_bytes, channels, .. } = &agenda.plan;
        // A frame that finds an empty queue is always taken, and word of a gap is, for each channel once.
        let outbox = (*outbox_bytes).max(agenda.largest_frame) + channels.len() * GAP_BYTES;
        // A shard that had more than its share gives it back at its next step, at most a poll later.
        let ring = ring_bytes + ring_bytes / 2 + ENTRY_BYTES;
        let waits = self.connections.values().map(|one| one.outbox.bytes()).max().unwrap_or(0);
        if waits > outbox {
            agenda.wrong(|| format!("{waits} bytes wait for one client, and at most {outbox} may"));
        }
        let used = self.shards.first().map_or(0, |shard| shard.ring.budget().used_bytes());
        if used > ring {
            agenda.wrong(|| format!("{used} bytes are remembered, and at most {ring} may be"));
        }
    }

    fn take_mail(&mut self, agenda: &Agenda) {
        let mut bursts = Bursts::default();
        for piece in self.mailbox.take(agenda.plan.mail_at_once) {
            match piece {
                Mail::Deliver(publication) => bursts.add(publication, agenda.plan.burst_bytes),
                Mail::Missed(channel, position, missed) => {
                    bursts.end();
                    bursts.work.push(Work::Missed(channel, position, missed));
                }
            }
        }
        bursts.end();
        self.work.extend(bursts.work);
    }

    fn begin_burst(&mut self, mut burst: Vec<Arc<Publication>>, agenda: &mut Agenda) -> bool {
        let Some(channel) = burst.first().map(|one| one.message.channel.clone()) else { return false };
        let reached = self.channels.reached(&channel);
        agenda.note(|| {
            let offsets: Vec<_> =
                burst.iter().filter_map(|one| one.position).map(|at| at.to_string()).collect();
            format!("{:?} fans {channel} out: {offsets:?}, reached {reached:?}", self.here)
        });
        let before = self.channels.reach(&channel, burst.iter().map(|one| one.position));
        burst.drain(..before.min(burst.len()));
        if burst.is_empty() { false } else { self.offer_part(burst, 0, agenda) }
    }

    /// Offers a burst to some of the subscribers, and says whether others may have their turn before the rest.
    fn offer_part(&mut self, burst: Vec<Arc<Publication>>, from: usize, agenda: &mut Agenda) -> bool {
        let Self { channels, connections, .. } = self;
        let Some(channel) = burst.first().map(|one| one.message.channel.clone()) else { return false };
        let mut slow = Vec::new();
        let at_once = agenda.plan.subscribers_at_once;
        let next = channels.visit(&channel, from, at_once, |subscriber, line| {
            let Some(connection) = connections.get_mut(&subscriber.session.get()) else { return };
            if !connection.open {
                return;
            }
            if connection.readers.iter().any(|reader| reader.channel == channel)
                && burst.iter().any(|publication| subscriber.wants(publication))
            {
                agenda.wrong(|| format!("{channel} is fanned out to one that is being brought its past"));
            }
            match offer(&burst, subscriber, line, connection, agenda) {
                None => slow.push(subscriber.session),
                Some(0) => {}
                Some(_) => connection.touched = true,
            }
        });
        for key in slow {
            self.close_slow(key, agenda);
        }
        if let Some(next) = next {
            self.work.push_front(Work::Rest(burst, next));
            self.flush_touched();
        }
        next.is_some()
    }

    fn flush_touched(&mut self) -> bool {
        for key in self.connections.keys().copied().collect::<Vec<_>>() {
            if let Some(connection) = self.connections.get_mut(&key)
                && std::mem::take(&mut connection.touched)
            {
                connection.flush();
                self.remove_if_over(key);
            }
        }
        false
    }

    pub(super) fn close_slow(&mut self, key: SessionKey, agenda: &mut Agenda) {
        if let Some(connection) = self.connections.get_mut(&key.get()) {
            agenda.tally.slow += 1;
            connection.session.handle_close(CloseReason::SlowConsumer, None);
        }
        self.carry_out(key.get(), agenda);
    }

    /// Makes up for messages that the mailbox had no room for, or tells of the gap.
    fn make_up(
        &mut self,
        channel: &ChannelName,
        position: Position,
        missed: Missed,
        agenda: &mut Agenda,
    ) -> bool {
        let list = match missed {
            Missed::Dropped => self.dropped_of(channel, position, agenda),
            Missed::Lost => None,
        };
        let Some(list) = list else { return self.tell_gap(channel, position, agenda) };
        agenda.tally.made_up += list.len() as u64;
        let mut bursts = Bursts::default();
        for publication in list {
            bursts.add(publication, agenda.plan.burst_bytes);
        }
        bursts.end();
        for work in bursts.work.into_iter().rev() {
            self.work.push_front(work);
        }
        false
    }

    fn dropped_of(
        &self,
        channel: &ChannelName,
        position: Position,
        agenda: &Agenda,
    ) -> Option<Vec<Arc<Publication>>> {
        let stream = agenda.plan.channels[frame::number(channel)].stream;
        let Some(reached) = self.channels.reached(channel) else { return Some(Vec::new()) };
        if position.epoch == reached.epoch && position.offset <= reached.offset {
            // Everything was offered already, when another notice was made up for.
            return Some(Vec::new());
        }
        let ring = &self.shards.get(stream)?.ring;
        match ring.attach(channel, Since::After(reached), MAKE_UP_LIMITS)?.past {
            Past::Complete(list) => Some(list),
            Past::Ahead => Some(Vec::new()),
            Past::Older | Past::Gone(_) => None,
        }
    }

    fn tell_gap(&mut self, channel: &ChannelName, position: Position, agenda: &mut Agenda) -> bool {
        let stream = agenda.plan.channels[frame::number(channel)].stream;
        let present = self.shards.get(stream).and_then(|shard| shard.ring.position());
        let concerned = self.channels.pass_gap(channel, Some(position), present);
        agenda.note(|| {
            format!(
                "{:?} tells {} clients of a gap of {channel} up to {position}",
                self.here,
                concerned.len()
            )
        });
        for key in concerned {
            let Some(connection) = self.connections.get_mut(&key.get()).filter(|one| one.open) else {
                continue;
            };
            if connection.say_gap(channel, position, agenda) == Offered::Full {
                self.close_slow(key, agenda);
            } else {
                connection.flush();
            }
        }
        true
    }
}

/// Offers what a subscriber wants of a burst; `None` when its outbox is full.
fn offer(
    burst: &[Arc<Publication>],
    subscriber: &Subscriber,
    line: Line,
    connection: &mut Connection,
    agenda: &mut Agenda,
) -> Option<usize> {
    let together = burst.len() > 1
        && subscriber.overflow == Overflow::Close
        && burst.iter().all(|publication| subscriber.wants(publication));
    if together {
        return match connection.offer(merged(burst), Origin::Kept, agenda) {
            Offered::Queued => Some(burst.len()),
            Offered::Full => None,
        };
    }
    let mut taken = 0;
    for publication in burst {
        if !subscriber.wants(publication) {
            continue;
        }
        let times = if agenda.has(Bug::DeliverTwice, 10) { 2 } else { 1 };
        for _ in 0..times {
            let (frame, overflow) = (frame_of(publication), subscriber.overflow);
            match connection.offer_publication(frame, publication, line, overflow, agenda) {
                Offered::Queued => taken += 1,
                Offered::Full => return None,
            }
        }
    }
    Some(taken)
}

fn frame_of(publication: &Publication) -> Bytes {
    let form = Form::NativeWebSocket;
    publication.frames.get_or_make(form, || Lines.frame(form, publication)).clone()
}

fn merged(burst: &[Arc<Publication>]) -> Bytes {
    let mut merged = BytesMut::new();
    burst.iter().for_each(|publication| merged.extend_from_slice(&frame_of(publication)));
    merged.freeze()
}
