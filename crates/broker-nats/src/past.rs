//! Reading what a channel keeps, with the proof that it is all of it.
//!
//! Completeness is proven, not assumed. The oldest messages go first, so whatever follows a message that is still kept
//! is kept as well. Where the message before the wanted ones is gone, the leader says, after the read, whether anything
//! that follows can have gone with it.
//!
//! **Lives here:** the read and its proof.
//! **Called by:** `shelf`, once for all who ask.
//! **Must not know:** who asks.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use carillon_broker::Shard;
use carillon_model::{
    ChannelName, Offset, Position, Publication, ReplayLimits, RetentionClass, UnixMillis, Unrecovered,
};
use serde_json::json;
use tokio::time::sleep;

use crate::{
    api::{self, ApiError, Get, Kept, StreamInfo},
    envelope, instant, layout,
    link::{Link, jittered},
    meters::{Meters, Op},
    seat::Seat,
    shelf::Failed,
    subject::Names,
    window::Window,
};

/// Messages of one question.
const PAGE: u64 = 1000;
/// Questions of one read: what a channel keeps beyond that is too much for whoever wants all of it.
const PAGES_MAX: usize = 10;
/// How long a replica gets to catch up before it is asked again.
const LAG_PAUSE: Duration = Duration::from_millis(40);
/// By so much may two servers differ in when they drop what is too old, with much to spare.
const MARGIN: Duration = Duration::from_secs(10);

/// Which channel's past.
#[derive(Clone)]
pub(crate) struct Question {
    pub(crate) class: RetentionClass,
    pub(crate) channel: ChannelName,
    pub(crate) seat: Arc<Seat>,
}

/// What a read needs.
pub(crate) struct Source {
    pub(crate) link: Link,
    pub(crate) names: Names,
    pub(crate) replicas: u8,
    pub(crate) meters: Arc<Meters>,
}

/// What was read, before it is proven.
struct Raw {
    kept: VecDeque<Kept>,
    bytes: usize,
    /// The last message that was read and is not in `kept`, as more than is replayed follow it.
    left_out: Option<u64>,
}

impl Source {
    /// Notes that somebody was answered with what was read for another.
    pub(crate) fn note_shared(&self) {
        self.meters.recovered_shared.increment(1);
    }

    /// Reads what follows a place.
    pub(crate) async fn read(&self, question: &Question, from: Offset) -> Result<Window, Failed> {
        let Some(head) = question.seat.position().filter(|_| self.link.is_up()) else {
            return Err(Failed::Unavailable);
        };
        self.meters.recovered_read.increment(1);
        match self.read_from(question, from, head).await {
            Ok(window) => window.ok_or(Failed::TooMuch(from)),
            Err(error) => {
                self.meters.failed(Op::History);
                tracing::debug!(%error, "history could not be read");
                Err(Failed::Unavailable)
            }
        }
    }

    /// Reads and proves. `None` when it is too much.
    async fn read_from(
        &self,
        question: &Question,
        from: Offset,
        head: Position,
    ) -> Result<Option<Window>, ApiError> {
        let Question { class, channel, .. } = question;
        let shard = Shard::of(channel);
        let stream = self.names.stream(&class.name, shard);
        let subject = self.names.stored(&class.name, shard, &self.names.place(channel));
        let Some(mut raw) = self.pages(&stream, &subject, from).await? else { return Ok(None) };
        // The message before the wanted ones, by the same replica that has them.
        let witness = raw.kept.front().is_some_and(|first| first.sequence == from.get());
        if witness {
            raw.kept.pop_front();
        }
        let info = api::stream_info(&self.link.ask, &stream).await?;
        let first = if witness { None } else { self.first_kept(&stream, &subject).await? };
        let proof = Proof { class, from, witness, info: &info, first };
        let (floor, beneath) = match raw.left_out {
            Some(last) => (Offset::new(last), Unrecovered::Limit),
            None => (proof.floor(&raw), Unrecovered::Expired),
        };
        let last = raw.kept.back().map_or(0, |kept| kept.sequence);
        let last_of_stream = Offset::new(info.state.last_seq);
        if last_of_stream < head.offset {
            return Err(ApiError::Unreadable("a stream that is behind what it has brought"));
        }
        let upto = head.offset.max(Offset::new(last));
        let epoch = layout::epoch(&stream, &info);
        let position = |sequence| Position { epoch, offset: Offset::new(sequence) };
        let list =
            raw.kept.iter().filter_map(|kept| self.publication(channel, kept, position(kept.sequence)));
        let list: Vec<_> = list.collect();
        let since = if raw.left_out.is_none() { proof.complete_since(&raw, &list) } else { None };
        if epoch != head.epoch {
            return Err(ApiError::Unreadable("a stream that was made anew"));
        }
        Ok(Some(Window { epoch, from, floor, beneath, since, list, upto, last: last_of_stream }))
    }

    /// Reads all that a channel keeps from a place on, and keeps the last of it. `None` when it is too much.
    async fn pages(&self, stream: &str, subject: &str, from: Offset) -> Result<Option<Raw>, ApiError> {
        let limits = ReplayLimits::default();
        let mut raw = Raw { kept: VecDeque::new(), bytes: 0, left_out: None };
        let mut next = from.get().max(1);
        let mut last = None;
        for _ in 0..PAGES_MAX {
            let batch = api::direct_get(&self.link.ask, stream, &Get::new(next, PAGE, Some(subject))).await?;
            let full = u64::try_from(batch.messages.len()).is_ok_and(|count| count >= PAGE);
            let more = batch.more || full;
            let mut messages = batch.messages.into_iter();
            // A page begins with the last message of the one before, or what lay between may have gone meanwhile.
            if last.is_some() && messages.next().map(|kept| kept.sequence) != last {
                return Err(ApiError::Unreadable("a channel that is trimmed faster than it is read"));
            }
            for kept in messages {
                next = kept.sequence;
                last = Some(kept.sequence);
                raw.bytes += kept.payload.len();
                raw.kept.push_back(kept);
            }
            // One more than is replayed: the place that was asked for may be among them.
            while raw.kept.len() > limits.messages + 1 || raw.bytes > 2 * limits.bytes {
                let Some(dropped) = raw.kept.pop_front() else { break };
                raw.bytes -= dropped.payload.len();
                raw.left_out = Some(dropped.sequence);
            }
            if more {
                continue;
            }
            if self.replicas == 1 {
                return Ok(Some(raw));
            }
            // A replica may lag; the leader knows which is the last.
            let which = json!({ "last_by_subj": subject });
            let newest = api::leader_sequence(&self.link.ask, stream, &which).await?;
            if newest.is_none_or(|newest| last.map_or(newest < next, |last| newest <= last)) {
                return Ok(Some(raw));
            }
            sleep(jittered(LAG_PAUSE)).await;
        }
        Ok(None)
    }

    /// Asks the leader for the oldest message that the channel keeps.
    async fn first_kept(&self, stream: &str, subject: &str) -> Result<Option<(u64, String)>, ApiError> {
        let which = json!({ "seq": 1, "next_by_subj": subject });
        api::leader_place(&self.link.ask, stream, &which).await
    }

    fn publication(&self, channel: &ChannelName, kept: &Kept, at: Position) -> Option<Arc<Publication>> {
        match envelope::decode(channel.clone(), &kept.payload) {
            Ok((message, _stamp)) => Some(Arc::new(Publication::new(message, Some(at)))),
            Err(garbage) => {
                self.meters.poison.increment(1);
                tracing::debug!(%garbage, "a kept message cannot be read");
                None
            }
        }
    }
}

/// What is known of a read, and of its stream at a moment after it.
struct Proof<'a> {
    class: &'a RetentionClass,
    from: Offset,
    /// The message at `from` is the channel's and was there.
    witness: bool,
    info: &'a StreamInfo,
    /// The oldest that the channel keeps, by the leader, and when it was stored.
    first: Option<(u64, String)>,
}

impl Proof<'_> {
    /// Returns after which offset the read has everything of the channel.
    fn floor(&self, raw: &Raw) -> Offset {
        let first_read = raw.kept.front().map_or(u64::MAX, |kept| kept.sequence);
        if self.witness || self.from.get() >= self.info.state.last_seq {
            return self.from;
        }
        // Whatever follows a message that is kept is kept: the oldest go first.
        if self.first.as_ref().is_some_and(|(first, at)| *first <= self.from.get() && self.stays(at)) {
            return self.from;
        }
        // Nothing of the stream after this went for its age or for room, and of the channel nothing for its number.
        let full = raw.kept.len() >= usize::try_from(self.class.max_messages).unwrap_or(usize::MAX);
        let gone = self.info.state.first_seq.saturating_sub(1);
        if !full && (gone == 0 || self.stays(&self.info.state.first_ts)) {
            return self.from.max(Offset::new(gone));
        }
        // The oldest that was read is there for certain; what was before it may have been more.
        Offset::new(first_read.min(self.info.state.last_seq))
    }

    /// Returns from which time on the read has everything that was accepted.
    fn complete_since(&self, raw: &Raw, list: &[Arc<Publication>]) -> Option<UnixMillis> {
        let after = |time: UnixMillis, spare: Duration| {
            let spare = u64::try_from(spare.as_millis()).unwrap_or(u64::MAX);
            UnixMillis::new(time.get().saturating_add(spare))
        };
        if self.from != Offset::ZERO {
            None
        } else if raw.kept.len() >= usize::try_from(self.class.max_messages).unwrap_or(usize::MAX) {
            // Those that went for their number were accepted before the oldest that is left.
            list.first().map(|oldest| after(oldest.message.time, Duration::from_millis(1)))
        } else if self.info.state.first_seq <= 1 {
            Some(UnixMillis::new(0))
        } else {
            // Those that went for their age were stored before the oldest of the stream, by a clock that is not ours.
            instant::read(&self.info.state.first_ts).map(|oldest| after(oldest, MARGIN))
        }
    }

    /// Says whether a message that was stored at `at` stays for a while, on every server.
    fn stays(&self, at: &str) -> bool {
        let margin = MARGIN.min(self.class.max_age / 4);
        match (instant::read(at), instant::read(&self.info.ts)) {
            (Some(at), Some(now)) => now.since(at) + margin < self.class.max_age,
            (None, _) | (_, None) => false,
        }
    }
}
