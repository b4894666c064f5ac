//! A worker's turn: what the mailbox holds, fanned out and flushed.
//!
//! **Lives here:** the delivery path. Frames are made once, offered by reference to every subscriber's outbox, and
//! each touched outbox leaves in one write.
//! **Called by:** the worker's own task.
//! **Must not know:** reading, timers.

use super::{
    Arc, CUT_PATIENCE, ChannelName, CloseReason, ConnectionId, Duration, Offered, Position, Push, Rc,
    SessionKey, Worker, clock, reason_to_move, yield_now,
};

use burst::{Burst, Bursts, Leaves};
use carillon_broker::Past;
use carillon_hub::Delivery;
use carillon_model::{Form, Keeping, Publication, ReplayLimits, Since};

use crate::{
    connection::Connection,
    mailbox::{Mail, Missed},
    shown::{self, Tally},
};

mod burst;

/// Most that is made up for at once, after the mailbox had no room: as much as it holds.
const MAKE_UP_LIMITS: ReplayLimits = ReplayLimits { messages: 16_384, bytes: 64 << 20 };

/// Mail that is taken from the mailbox at once.
const MAIL_AT_ONCE: usize = 256;

/// Subscribers of a large channel that are served before other connections have their turn.
const SUBSCRIBERS_AT_ONCE: usize = 1024;

/// Subscribers whose connections are looked at before the first of them is written to: the processor fetches them side
/// by side. Between two system calls it waits for each alone, a third of what a delivery costs outside the kernel
/// (measured with 1,000 subscribers: 0.99 µs, and 0.65 with this).
const LOOK_AHEAD: usize = 32;

/// Bytes of data that are gathered before they are fanned out and flushed: far below any outbox, so that a burst
/// fills no outbox whose socket has room.
const BURST_BYTES: usize = 32 * 1024;

impl Worker {
    /// Takes mail for as long as the worker lives.
    pub(super) async fn turns(self: Rc<Self>) {
        let mut mail = Vec::with_capacity(MAIL_AT_ONCE);
        let mut bursts = Bursts::default();
        loop {
            self.mailbox.wait().await;
            self.mailbox.take(&mut mail, MAIL_AT_ONCE);
            for piece in mail.drain(..) {
                if let Mail::Deliver(delivery) = piece {
                    if bursts.add(delivery) > BURST_BYTES {
                        self.fan_out_all(&mut bursts).await;
                    }
                } else {
                    // What was delivered before stays before.
                    self.fan_out_all(&mut bursts).await;
                    self.attend(piece).await;
                }
            }
            self.fan_out_all(&mut bursts).await;
            yield_now().await;
        }
    }

    async fn attend(self: &Rc<Self>, piece: Mail) {
        match piece {
            Mail::Missed(channel, position, missed) => self.make_up(&channel, position, missed).await,
            Mail::Changed(change) => self.tell_change(&change),
            Mail::Counted(_) => {} // What there was to tell was told.
            Mail::Overlooked(channel) => self.send_away(&channel),
            Mail::Asked(question, answer) => {
                // Whoever asked may have gone.
                let _gone = answer.try_send(self.survey(&question)).is_err();
            }
            Mail::Accepted(socket, place) => (self.door)(self, socket, place),
            Mail::Drain(window) => self.drain(window),
            Mail::Cut => self.cut(),
            Mail::Deliver(_) => unreachable!("deliveries are gathered by the caller"),
        }
    }

    /// Offers each burst to its channel's subscribers and flushes every session once. The subscribers of the last burst are
    /// flushed one by one while their connections are at hand: looking at them a second time costs as much again.
    async fn fan_out_all(&self, bursts: &mut Bursts) {
        let mut bursts = bursts.take().peekable();
        while let Some(mut burst) = bursts.next() {
            let leaves = if bursts.peek().is_none() { Leaves::AtOnce } else { Leaves::Together };
            let positions = burst.deliveries.iter().map(|delivery| delivery.publication().position);
            let before = self.channels.borrow_mut().reach(burst.channel(), positions);
            if burst.skip(before) {
                let reached = self.fan_out(&burst, leaves).await;
                self.show_burst(&burst, reached);
            }
        }
        self.flush_touched();
    }

    /// Offers a burst to every subscriber on this worker and returns how many messages were taken.
    async fn fan_out(&self, burst: &Burst, leaves: Leaves) -> Tally {
        let mut reached = Tally::default();
        let mut next = Some(0);
        while let Some(from) = next {
            let mut slow = Vec::new();
            next = self.offer_part(burst, leaves, from, &mut reached, &mut slow);
            for key in slow {
                self.close_slow(key);
            }
            if next.is_some() {
                self.flush_touched();
                yield_now().await;
            }
        }
        reached
    }

    fn offer_part(
        &self,
        burst: &Burst,
        leaves: Leaves,
        from: usize,
        reached: &mut Tally,
        slow: &mut Vec<SessionKey>,
    ) -> Option<usize> {
        let limit = self.node.config().outbox_max_bytes;
        let mut connections = self.connections.borrow_mut();
        let mut touched = self.touched.borrow_mut();
        let mut sent_bytes = Tally::default();
        let channels = self.channels.borrow();
        let end = from.saturating_add(SUBSCRIBERS_AT_ONCE);
        let mut next = Some(from);
        while let Some(at) = next.filter(|at| *at < end) {
            let mut open = 0_usize;
            channels.visit(burst.channel(), at, LOOK_AHEAD, |subscriber, _line| {
                let connection = connections.get(subscriber.session.get());
                open += usize::from(connection.is_some_and(|connection| connection.is_open()));
            });
            // The number does not matter: to count is to fetch.
            std::hint::black_box(open);
            next = channels.visit(burst.channel(), at, LOOK_AHEAD, |subscriber, line| {
                let Some(connection) = connections.get_mut(subscriber.session.get()) else { return };
                if !connection.is_open() {
                    return;
                }
                let offered = burst.offer(subscriber, line, connection, leaves, self.node.render(), limit);
                let Some(taken) = offered else { return slow.push(subscriber.session) };
                reached[shown::place(subscriber.form)] += taken;
                if taken > 0 && leaves == Leaves::AtOnce {
                    self.flush_into(&mut sent_bytes, connection);
                } else if taken > 0 && !connection.touched {
                    connection.touched = true;
                    touched.push(subscriber.session);
                }
            });
        }
        self.show_sent(sent_bytes);
        next
    }

    /// Writes what was offered in this turn: one system call for each socket that has room.
    fn flush_touched(&self) {
        let mut sent_bytes = Tally::default();
        let mut connections = self.connections.borrow_mut();
        for key in self.touched.borrow_mut().drain(..) {
            if let Some(connection) = connections.get_mut(key.get()) {
                connection.touched = false;
                self.flush_into(&mut sent_bytes, connection);
            }
        }
        self.show_sent(sent_bytes);
    }

    fn flush_into(&self, sent_bytes: &mut Tally, connection: &mut Connection) {
        let waited = !connection.outbox.is_empty();
        sent_bytes[shown::place(connection.form)] += connection.flush();
        // Of what was passed to the socket there is nothing to show.
        if waited {
            self.show_queue(connection);
        }
    }

    fn show_sent(&self, sent_bytes: Tally) {
        for (shown, sent) in self.shown.each(sent_bytes).filter(|(_, sent)| *sent > 0) {
            shown.sent_bytes.increment(sent as u64);
        }
    }

    fn show_burst(&self, burst: &Burst, reached: Tally) {
        let now = clock::now();
        let each = reached.iter().sum::<usize>() as f64 / burst.deliveries.len() as f64;
        for _delivery in &burst.deliveries {
            self.shown.recipients.record(each);
        }
        for (shown, taken) in self.shown.each(reached).filter(|(_, taken)| *taken > 0) {
            shown.delivered.increment(taken as u64);
            for delivery in &burst.deliveries {
                shown.latency.record(now.saturating_duration_since(delivery.received()).as_secs_f64());
            }
        }
    }

    pub(super) fn close_slow(&self, key: SessionKey) {
        if let Some(connection) = self.connections.borrow_mut().get_mut(key.get()) {
            self.shown.dropped_slow.increment(1);
            connection.session.handle_close(CloseReason::SlowConsumer, Some(self.come_back()));
        }
        self.carry_out(key, clock::now());
    }

    /// Makes up for messages that the mailbox had no room for, or tells of the gap.
    async fn make_up(&self, channel: &ChannelName, position: Option<Position>, missed: Missed) {
        let reached = self.channels.borrow().reached(channel);
        if let (Missed::Dropped, Some(position), Some(reached)) = (missed, position, reached)
            && position.epoch == reached.epoch
            && position.offset <= reached.offset
        {
            return; // Another notice has made up for it.
        }
        let list = match missed {
            Missed::Dropped => self.dropped_of(channel),
            Missed::Lost => None,
        };
        let Some(list) = list else {
            if missed == Missed::Dropped && position.is_some() {
                self.shown.dropped_full.increment(1);
            }
            return self.tell_gap(channel, position).await;
        };
        self.shown.healed.increment(list.len() as u64);
        let now = clock::now();
        let mut bursts = Bursts::default();
        for publication in list {
            if bursts.add(Arc::new(Delivery::new(publication, now))) > BURST_BYTES {
                self.fan_out_all(&mut bursts).await;
            }
        }
        self.fan_out_all(&mut bursts).await;
    }

    /// Returns what the broker's memory has of a channel after what was offered last, if it has all of it.
    fn dropped_of(&self, channel: &ChannelName) -> Option<Vec<Arc<Publication>>> {
        let Keeping::Durable(class) = self.node.router().rules().keeping(channel)? else { return None };
        let Some(reached) = self.channels.borrow().reached(channel) else { return Some(Vec::new()) };
        let since = Since::After(reached);
        match self.node.broker().attach(class, channel, since, MAKE_UP_LIMITS).ok()?.past {
            Past::Complete(list) => Some(list),
            // Everything was offered already, when another notice was made up for.
            Past::Ahead => Some(Vec::new()),
            Past::Older | Past::Gone(_) => None,
        }
    }

    /// Returns where a channel with history stands by now.
    fn present(&self, channel: &ChannelName) -> Option<Position> {
        let Keeping::Durable(class) = self.node.router().rules().keeping(channel)? else { return None };
        let limits = ReplayLimits::default();
        Some(self.node.broker().attach(class, channel, Since::Now, limits).ok()?.position)
    }

    async fn tell_gap(&self, channel: &ChannelName, position: Option<Position>) {
        let concerned: Vec<_> = {
            let present = self.present(channel);
            let keys = self.channels.borrow_mut().pass_gap(channel, position, present);
            let connections = self.connections.borrow();
            let id = |key: SessionKey| Some((key, connections.get(key.get())?.session.id()));
            keys.into_iter().filter_map(id).collect()
        };
        let push = Push::Gap { channel: channel.clone(), position };
        // Written once for each form, as publications are.
        let mut texts: Vec<(Form, String)> = Vec::new();
        for (count, (key, id)) in concerned.into_iter().enumerate() {
            if count % SUBSCRIBERS_AT_ONCE == SUBSCRIBERS_AT_ONCE - 1 {
                yield_now().await;
            }
            if self.say_gap(key, id, &push, &mut texts) == Offered::Full {
                self.close_slow(key);
            } else {
                self.flush(key);
            }
        }
    }

    fn say_gap(
        &self,
        key: SessionKey,
        id: ConnectionId,
        push: &Push,
        texts: &mut Vec<(Form, String)>,
    ) -> Offered {
        let mut connections = self.connections.borrow_mut();
        let connection = connections.get_mut(key.get());
        // Another connection may have the key since.
        let Some(connection) = connection.filter(|one| one.is_open() && one.session.id() == id) else {
            return Offered::Queued;
        };
        let form = connection.link.form();
        let known = texts.iter().find(|(known, _)| *known == form).map(|(_, text)| text.clone());
        let text = known.unwrap_or_else(|| {
            let text = connection.link.dialect().push(push);
            texts.push((form, text.clone()));
            text
        });
        self.shown.gaps.increment(1);
        let Push::Gap { channel, position } = push else { return Offered::Queued };
        self.say_one_gap(connection, channel, *position, text)
    }

    /// Asks every client to move at a time of its own within `window`.
    fn drain(&self, window: Duration) {
        let now = clock::now();
        self.draining.set(Some(now));
        let keys: Vec<_> = self.connections.borrow().iter().map(|(key, _)| key).collect();
        self.shown.drained.increment(keys.len() as u64);
        let others = self.node.neighbours().others();
        for key in keys.into_iter().filter_map(SessionKey::new) {
            let at = now.checked_add(self.dice.part_of(window)).unwrap_or(now);
            if let Some(connection) = self.connections.borrow_mut().get_mut(key.get()) {
                let reason = reason_to_move(connection.link.form(), &others);
                connection.session.handle_leave(reason, at, self.come_back());
                self.arm(key, connection);
            }
        }
    }

    /// Closes what is left, and ends the worker soon whether it is gone or not.
    fn cut(&self) {
        let now = clock::now();
        self.draining.set(Some(now));
        self.cut_at.set(now.checked_add(CUT_PATIENCE));
        let keys: Vec<_> = self.connections.borrow().iter().map(|(key, _)| key).collect();
        for key in keys.into_iter().filter_map(SessionKey::new) {
            if let Some(connection) = self.connections.borrow_mut().get_mut(key.get()) {
                connection.session.handle_close(CloseReason::GoingAway, Some(self.come_back()));
            }
            self.carry_out(key, now);
        }
    }
}
