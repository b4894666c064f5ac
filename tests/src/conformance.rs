//! What every broker does: one suite, run against each implementation.
//!
//! **Lives here:** the checks, and a `Deliver` that remembers what it is given.
//! **Called by:** `tests/broker_memory.rs`, `tests/broker_nats.rs`.
//! **Must not know:** which broker it is.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use carillon_broker::{
    AttachError, Broker, CatchUp, Deliver, Lost, PublishError, Published, RecoverError, Shard, Step,
};
use carillon_model::{
    AppSpace, ChannelName, ClassName, ConnectionId, DataKind, Epoch, EventName, IdempotencyKey, NewMessage,
    Offset, Position, Publication, ReplayLimits, RetentionClass, Since, UnixMillis, Unrecovered, UserId,
};
use carillon_tasks::clock;
use tokio::{sync::Notify, time::timeout};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where a channel stands.
///
/// # Errors
/// While the broker was not reached.
pub fn position(
    broker: &dyn Broker,
    class: &ClassName,
    channel: &ChannelName,
) -> Result<Position, AttachError> {
    broker.attach(class, channel, Since::Now, ReplayLimits::default()).map(|attached| attached.position)
}

/// Takes a reader from `since` to where it stands, and returns what it was given on the way.
///
/// # Errors
/// Why it was given nothing.
///
/// # Panics
/// When the broker was not reached, or the reader is told of a gap.
pub async fn stand(
    broker: &dyn Broker,
    class: &ClassName,
    channel: &ChannelName,
    since: Since,
) -> Result<(Vec<Arc<Publication>>, Position), Unrecovered> {
    let limits = ReplayLimits::default();
    let mut way = CatchUp::new(since, limits);
    let mut given = Vec::new();
    loop {
        match way.step() {
            Step::Attach(since) => {
                way.handle_attached(
                    broker.attach(class, channel, since, limits).expect("a ready broker attaches"),
                );
            }
            Step::Recover(since) => {
                let read = broker.recover(class, channel, since, limits).await;
                way.handle_recovered(
                    read,
                    position(broker, class, channel).expect("a ready broker attaches"),
                );
            }
            Step::Tell { replayed, .. } => {
                replayed?;
                way.handle_told();
            }
            Step::Give(publication) => {
                given.push(publication);
                way.handle_taken();
            }
            Step::Stand(position) => return Ok((given, position)),
            step @ (Step::Gap(_) | Step::TooSlow) => panic!("{step:?}"),
        }
    }
}

/// What a reader is given on its way from `since` to the present.
///
/// # Errors
/// Why it is given nothing.
pub async fn past(
    broker: &dyn Broker,
    class: &ClassName,
    channel: &ChannelName,
    since: Since,
) -> Result<Vec<Arc<Publication>>, Unrecovered> {
    stand(broker, class, channel, since).await.map(|(given, _)| given)
}

/// What the broker's storage has after `since`.
///
/// # Errors
/// Why it cannot be brought.
///
/// # Panics
/// When the broker cannot be asked.
pub async fn stored(
    broker: &dyn Broker,
    class: &ClassName,
    channel: &ChannelName,
    since: Since,
) -> Result<Vec<Arc<Publication>>, Unrecovered> {
    match broker.recover(class, channel, since, ReplayLimits::default()).await {
        Ok(read) => Ok(read.publications),
        Err(RecoverError::Gone(reason)) => Err(reason),
        Err(RecoverError::Unavailable) => panic!("{channel} cannot be read since {since:?}"),
    }
}

/// Where publications stand.
#[must_use]
pub fn positions(publications: &[Arc<Publication>]) -> Vec<Position> {
    publications.iter().filter_map(|publication| publication.position).collect()
}

/// What a test's broker brought.
#[derive(Default)]
pub struct Inbox {
    brought: Mutex<Vec<Brought>>,
    changed: Notify,
}

/// One thing that was brought.
#[derive(Clone, Debug)]
pub enum Brought {
    /// A publication.
    Publication(Arc<Publication>),
    /// Word of a loss.
    Lost(Lost),
    /// Word of a loss in the live channels of these shards.
    LostLive(Vec<Shard>),
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Vec<Brought>> {
        self.brought.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, brought: Brought) {
        self.lock().push(brought);
        self.changed.notify_waiters();
    }

    /// Returns the publications of one channel so far.
    #[must_use]
    pub fn of(&self, channel: &ChannelName) -> Vec<Arc<Publication>> {
        let of = |brought: &Brought| match brought {
            Brought::Publication(publication) if publication.message.channel == *channel => {
                Some(Arc::clone(publication))
            }
            Brought::Publication(_) | Brought::Lost(_) | Brought::LostLive(_) => None,
        };
        self.lock().iter().filter_map(of).collect()
    }

    /// Returns the data of one channel's publications so far.
    #[must_use]
    pub fn texts(&self, channel: &ChannelName) -> Vec<String> {
        let text =
            |publication: &Arc<Publication>| String::from_utf8_lossy(&publication.message.data).into_owned();
        self.of(channel).iter().map(text).collect()
    }

    /// Returns the losses so far.
    #[must_use]
    pub fn losses(&self) -> Vec<Lost> {
        let loss = |brought: &Brought| match brought {
            Brought::Publication(_) | Brought::LostLive(_) => None,
            Brought::Lost(lost) => Some(lost.clone()),
        };
        self.lock().iter().filter_map(loss).collect()
    }

    /// Returns all that was brought, in order.
    #[must_use]
    pub fn all(&self) -> Vec<Brought> {
        self.lock().clone()
    }

    /// Returns the losses in live channels so far.
    #[must_use]
    pub fn live_losses(&self) -> Vec<Vec<Shard>> {
        let loss = |brought: Brought| match brought {
            Brought::LostLive(shards) => Some(shards),
            Brought::Publication(_) | Brought::Lost(_) => None,
        };
        self.all().into_iter().filter_map(loss).collect()
    }

    /// Waits until `done` says so.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`].
    pub async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if done(self) {
                    return;
                }
                changed.await;
            }
        });
        if waited.await.is_err() {
            panic!("never came: {what}; brought: {self:?}");
        }
    }
}

impl Deliver for Inbox {
    fn deliver(&self, publication: Arc<Publication>) {
        self.push(Brought::Publication(publication));
    }

    fn lost(&self, lost: &Lost) {
        self.push(Brought::Lost(lost.clone()));
    }

    fn lost_live(&self, shards: &[Shard]) {
        self.push(Brought::LostLive(shards.to_vec()));
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brought = self.lock();
        write!(
            f,
            "{} things, the last: {:?}",
            brought.len(),
            brought.iter().rev().take(5).collect::<Vec<_>>()
        )
    }
}

/// A broker under test, ready, with the classes of [`classes`].
#[derive(Debug)]
pub struct Fixture {
    /// Where checks publish: another node than `broker`, where there can be one.
    pub publisher: Arc<dyn Broker>,
    /// Where they attach and read.
    pub broker: Arc<dyn Broker>,
    /// What `broker` brought.
    pub inbox: Arc<Inbox>,
}

/// Returns the classes that the suite wants.
#[must_use]
pub fn classes() -> Vec<RetentionClass> {
    let class = |name: &str, seconds, max_messages| RetentionClass {
        name: class(name),
        max_age: Duration::from_secs(seconds),
        max_messages,
        max_bytes: 16 << 20,
    };
    vec![class("long", 3600, 1000), class("few", 3600, 3), class("brief", 3, 1000)]
}

/// Makes a class's name.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn class(name: &str) -> ClassName {
    ClassName::new(name).expect("a test uses good names")
}

/// Makes a channel's name.
///
/// # Panics
/// When it is none.
#[must_use]
pub fn channel(name: &str) -> ChannelName {
    ChannelName::any(name).expect("a test uses good names")
}

/// Makes a message whose data is the JSON number or text `data`.
#[must_use]
pub fn message(channel: &ChannelName, data: impl fmt::Display) -> NewMessage {
    NewMessage {
        channel: channel.clone(),
        event: None,
        data: Bytes::from(data.to_string()),
        kind: DataKind::Json,
        time: UnixMillis::new(u64::try_from(clock::since_1970().as_millis()).unwrap_or(0)),
        user: None,
        exclude: Box::default(),
        id: None,
    }
}

/// Publishes with patience.
///
/// # Errors
/// What the broker says.
pub async fn publish(
    broker: &dyn Broker,
    class: &ClassName,
    message: NewMessage,
) -> Result<Published, PublishError> {
    broker.publish(class, message, clock::now() + PATIENCE).await
}

impl Fixture {
    /// Runs every check.
    ///
    /// # Panics
    /// When one fails.
    pub async fn check_all(&self) {
        self.positions_rise_and_are_sparse().await;
        self.a_key_is_stored_once_for_its_channel().await;
        self.every_publication_after_the_attached_position_is_brought_once_and_in_order().await;
        self.the_past_is_brought_whole().await;
        self.more_than_is_replayed_is_refused_whole().await;
        self.a_past_joins_the_present_while_much_is_published().await;
        self.so_many_are_kept().await;
        self.so_long_is_kept().await;
        self.places_of_other_lives_and_of_none_are_refused().await;
        self.a_place_that_another_node_has_reached_is_believed().await;
        self.live_messages_have_no_position_and_no_history().await;
        self.every_name_and_every_field_travels().await;
        self.channels_of_one_name_in_two_applications_never_mix().await;
        self.a_class_that_is_not_there_is_unavailable().await;
        assert_eq!(self.inbox.losses(), [], "nothing was lost");
    }

    async fn publish(&self, class: &ClassName, message: NewMessage) -> Published {
        publish(&*self.publisher, class, message).await.expect("a good message is stored")
    }

    /// Returns the positions that follow `since`, as a reader gets them. Storage has the same, as far as it was read.
    async fn after(&self, class: &ClassName, channel: &ChannelName, since: Since) -> Vec<Position> {
        let brought = past(&*self.broker, class, channel, since).await.expect("the past is kept");
        let brought = positions(&brought);
        let read = self.broker.recover(class, channel, since, ReplayLimits::default()).await;
        let read = read.expect("storage has it");
        if !matches!(since, Since::Last(_)) {
            let upto = brought.iter().filter(|position| position.offset <= read.upto.offset);
            assert!(
                upto.eq(&positions(&read.publications)),
                "{channel} since {since:?}: {brought:?} and {read:?}"
            );
        }
        brought
    }

    async fn positions_rise_and_are_sparse(&self) {
        let (long, a) = (class("long"), channel("rise"));
        let b = neighbour(&a);
        let start = position(&*self.broker, &long, &a).expect("a ready broker attaches");
        let mut expected = Vec::new();
        for n in 0..5 {
            let at = self.publish(&long, message(&a, n)).await;
            let beside = self.publish(&long, message(&b, n)).await;
            assert!(!at.duplicate && !beside.duplicate);
            assert_eq!((at.position.epoch, beside.position.epoch), (start.epoch, start.epoch));
            assert!(beside.position.offset > at.position.offset, "channels of a shard share a counter");
            expected.push(at.position);
        }
        assert!(expected.iter().all(|position| position.offset > start.offset));
        assert!(expected.is_sorted_by(|a, b| a.offset < b.offset));
        self.inbox.until("five publications", |inbox| inbox.of(&a).len() == 5).await;
        let positions: Vec<_> =
            self.inbox.of(&a).iter().filter_map(|publication| publication.position).collect();
        assert_eq!(positions, expected);
        assert!(position(&*self.broker, &long, &a).is_ok_and(|head| head.offset >= expected[4].offset));
    }

    async fn a_key_is_stored_once_for_its_channel(&self) {
        let (long, a) = (class("long"), channel("keys"));
        let b = neighbour(&a);
        let keyed = |channel: &ChannelName, data: u32| NewMessage {
            id: Some(IdempotencyKey::new("order-7").expect("a good key")),
            ..message(channel, data)
        };
        let first = self.publish(&long, keyed(&a, 1)).await;
        let again = self.publish(&long, keyed(&a, 2)).await;
        assert_eq!(again, Published { duplicate: true, ..first });
        let other = self.publish(&long, keyed(&b, 3)).await;
        assert!(!other.duplicate, "another channel has its own keys");
        self.publish(&long, message(&a, 4)).await;
        self.inbox.until("the last one", |inbox| inbox.texts(&a).contains(&"4".to_owned())).await;
        assert_eq!(self.inbox.texts(&a), ["1", "4"]);
    }

    async fn every_publication_after_the_attached_position_is_brought_once_and_in_order(&self) {
        const PUBLISHERS: usize = 4;
        const EACH: usize = 200;
        let (long, a) = (class("long"), channel("busy"));
        let publish = |publisher: usize| {
            let (long, a) = (&long, &a);
            async move {
                for n in 0..EACH {
                    self.publish(long, message(a, publisher * EACH + n)).await;
                }
            }
        };
        let attach = async {
            let mut attached = Vec::new();
            while self.inbox.of(&a).len() < PUBLISHERS * EACH {
                let before = self.inbox.of(&a).len();
                attached.push((before, position(&*self.broker, &long, &a).expect("a ready broker attaches")));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            attached
        };
        let all = timeout(PATIENCE * 3, async {
            tokio::join!(publish(0), publish(1), publish(2), publish(3), attach).4
        });
        let attached = all.await.expect("all is brought in time");
        let offset = |publication: &Arc<Publication>| publication.position.map(|position| position.offset);
        let brought: Vec<_> = self.inbox.of(&a).iter().filter_map(offset).collect();
        assert_eq!(brought.len(), PUBLISHERS * EACH, "once");
        assert!(brought.is_sorted_by(|a, b| a < b), "in order");
        for (before, position) in &attached {
            let due = brought.iter().filter(|offset| **offset > position.offset);
            let after = brought[*before..].iter().filter(|offset| **offset > position.offset);
            assert_eq!(due.count(), after.count(), "all after {position} is brought after the call");
        }
        for publisher in 0..PUBLISHERS {
            let of = |text: &String| text.parse::<usize>().is_ok_and(|n| n / EACH == publisher);
            let own: Vec<usize> =
                self.inbox.texts(&a).iter().filter(|text| of(text)).flat_map(|t| t.parse()).collect();
            assert!(own.is_sorted(), "what was acknowledged before stands before");
        }
    }

    async fn the_past_is_brought_whole(&self) {
        let (long, a) = (class("long"), channel("past"));
        let b = neighbour(&a);
        let start = position(&*self.broker, &long, &a).expect("a ready broker attaches");
        assert_eq!(self.after(&long, &a, Since::Oldest).await, []);
        let (mut own, mut beside) = (Vec::new(), Vec::new());
        for n in 0..25 {
            own.push(self.publish(&long, message(&a, n)).await.position);
            beside.push(self.publish(&long, message(&b, n)).await.position);
        }
        self.inbox.until("all of it", |inbox| inbox.of(&b).len() == 25).await;
        assert_eq!(self.after(&long, &a, Since::After(start)).await, own);
        for seen in [0, 7, 23, 24] {
            let rest = &own[seen + 1..];
            assert_eq!(self.after(&long, &a, Since::After(own[seen])).await, rest, "after {seen}");
            // A place in the shard at which the channel has no message.
            assert_eq!(self.after(&long, &a, Since::After(beside[seen])).await, rest, "beside {seen}");
        }
        assert_eq!(self.after(&long, &a, Since::Oldest).await, own);
        assert_eq!(self.after(&long, &a, Since::Last(3)).await, own[22..]);
        assert_eq!(self.after(&long, &a, Since::Last(0)).await, []);
        assert_eq!(self.after(&long, &a, Since::Last(100)).await, own);
        assert_eq!(self.after(&long, &a, Since::Now).await, []);
        assert_eq!(self.after(&long, &a, Since::Time(UnixMillis::new(0))).await, own);
        let tomorrow = u64::try_from(clock::since_1970().as_millis()).unwrap_or(0) + 86_400_000;
        assert_eq!(self.after(&long, &a, Since::Time(UnixMillis::new(tomorrow))).await, []);
        // Readers of one channel at one time, each from its own place.
        let each = own.iter().enumerate().map(|(seen, at)| {
            let (long, a, rest) = (&long, &a, &own[seen + 1..]);
            async move { assert_eq!(self.after(long, a, Since::After(*at)).await, rest) }
        });
        futures_util::future::join_all(each).await;
    }

    async fn more_than_is_replayed_is_refused_whole(&self) {
        let (long, a) = (class("long"), channel("much"));
        let mut own = Vec::new();
        for n in 0..12 {
            own.push(self.publish(&long, message(&a, n)).await.position);
        }
        self.inbox.until("all of it", |inbox| inbox.of(&a).len() == 12).await;
        for limits in [ReplayLimits { messages: 5, bytes: 1000 }, ReplayLimits { messages: 1000, bytes: 7 }] {
            for (seen, fits) in [(6, true), (5, false), (0, false)] {
                let since = Since::After(own[seen]);
                let read = self.broker.recover(&long, &a, since, limits).await;
                match read {
                    Ok(read) => {
                        assert!(fits && positions(&read.publications) == own[seen + 1..], "{seen}: {read:?}")
                    }
                    Err(error) => {
                        assert!(
                            !fits && error == RecoverError::Gone(Unrecovered::Limit),
                            "{seen}: {error:?}"
                        );
                    }
                }
            }
        }
    }

    /// A reader that begins at any moment has, with what is brought after it, everything once.
    async fn a_past_joins_the_present_while_much_is_published(&self) {
        const COUNT: usize = 400;
        let (long, a) = (class("long"), channel("join"));
        let start = position(&*self.broker, &long, &a).expect("a ready broker attaches");
        let publish = async {
            for n in 0..COUNT {
                self.publish(&long, message(&a, n)).await;
            }
        };
        let read = async {
            let mut readers = Vec::new();
            while self.inbox.of(&a).len() < COUNT {
                let before = self.inbox.of(&a).len();
                let stands = stand(&*self.broker, &long, &a, Since::After(start)).await;
                readers.push((before, stands.expect("all of it is kept")));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            readers
        };
        let readers = timeout(PATIENCE * 3, async { tokio::join!(publish, read).1 });
        let readers = readers.await.expect("all is brought in time");
        let brought = positions(&self.inbox.of(&a));
        assert_eq!(brought.len(), COUNT);
        for (before, (list, at)) in readers {
            let mut all = positions(&list);
            all.extend(brought[before..].iter().filter(|position| position.offset > at.offset));
            assert_eq!(all, brought, "from {at}");
        }
    }

    async fn so_many_are_kept(&self) {
        let (few, a) = (class("few"), channel("few"));
        let start = position(&*self.broker, &few, &a).expect("a ready broker attaches");
        let mut own = Vec::new();
        for n in 0..5 {
            own.push(self.publish(&few, message(&a, n)).await.position);
        }
        self.inbox.until("all of it", |inbox| inbox.of(&a).len() == 5).await;
        let kept = stored(&*self.broker, &few, &a, Since::Oldest).await.expect("what is kept");
        assert_eq!(positions(&kept), own[2..]);
        // Whoever asks, and wherever the answer comes from: all of it, or none.
        for (seen, at) in [start].iter().chain(&own).enumerate() {
            let since = Since::After(*at);
            let (brought, read) =
                (past(&*self.broker, &few, &a, since).await, stored(&*self.broker, &few, &a, since).await);
            for list in [brought, read] {
                match list {
                    Ok(list) => assert_eq!(positions(&list), own[seen..], "after {seen}"),
                    Err(reason) => {
                        assert!(reason == Unrecovered::Expired && seen < 3, "{reason:?} after {seen}")
                    }
                }
            }
        }
    }

    async fn so_long_is_kept(&self) {
        const CHANNELS: usize = 100;
        let brief = class("brief");
        // A channel for each look: what was read once is remembered for longer than it is kept.
        let channels: Vec<_> = (0..CHANNELS).map(|n| channel(&format!("brief-{n}"))).collect();
        let start = |a| position(&*self.broker, &brief, a).expect("a ready broker attaches");
        let starts: Vec<_> = channels.iter().map(start).collect();
        let mut first = Vec::new();
        for a in &channels {
            first.push(self.publish(&brief, message(a, 1)).await.position);
        }
        for ((a, start), first) in channels.iter().zip(starts).zip(first) {
            match stored(&*self.broker, &brief, a, Since::After(start)).await {
                Ok(list) => assert_eq!(positions(&list), [first]),
                Err(Unrecovered::Expired) => {
                    let last = self.publish(&brief, message(a, 2)).await.position;
                    // The look before is still an answer, which ends before this one: memory has the rest.
                    self.inbox.until("the last", |inbox| positions(&inbox.of(a)).contains(&last)).await;
                    match stand(&*self.broker, &brief, a, Since::After(first)).await {
                        Ok((list, _)) => assert_eq!(positions(&list), [last]),
                        Err(reason) => assert_eq!(reason, Unrecovered::Expired),
                    }
                    return;
                }
                Err(reason) => panic!("{reason:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("nothing is dropped for its age");
    }

    async fn places_of_other_lives_and_of_none_are_refused(&self) {
        let (long, a) = (class("long"), channel("epochs"));
        let at = self.publish(&long, message(&a, 1)).await.position;
        let other = Position { epoch: Epoch::from_bits(7), ..at };
        let future = Position { offset: Offset::new(at.offset.get() + 1_000_000), ..at };
        let farthest = Position { offset: Offset::new(u64::MAX), ..at };
        // A place in the shard of another channel means nothing here, whichever is further.
        let away = (0..).map(|n: u32| channel(&format!("away-{n}")));
        let away = away.into_iter().find(|away| Shard::of(away) != Shard::of(&a)).expect("there are enough");
        let elsewhere = self.publish(&long, message(&away, 1)).await.position;
        assert_ne!(elsewhere.epoch, at.epoch);
        for place in [other, future, farthest, elsewhere] {
            let since = Since::After(place);
            assert_eq!(
                past(&*self.broker, &long, &a, since).await.err(),
                Some(Unrecovered::Epoch),
                "{place}"
            );
            assert_eq!(
                stored(&*self.broker, &long, &a, since).await.err(),
                Some(Unrecovered::Epoch),
                "{place}"
            );
        }
    }

    /// A client that comes from a node whose feed is a moment ahead missed nothing, and gets nothing twice.
    async fn a_place_that_another_node_has_reached_is_believed(&self) {
        let (long, a) = (class("long"), channel("ahead"));
        for n in 0..30 {
            let at = self.publish(&long, message(&a, n)).await.position;
            let (list, stands) =
                stand(&*self.broker, &long, &a, Since::After(at)).await.expect("it is a good place");
            assert_eq!((positions(&list), stands.offset >= at.offset), (vec![], true));
        }
    }

    async fn live_messages_have_no_position_and_no_history(&self) {
        let (long, a) = (class("long"), channel("live.7"));
        for n in 0..10 {
            let deadline = clock::now() + PATIENCE;
            self.publisher
                .publish_live(message(&a, n), deadline)
                .await
                .expect("a live message is handed over");
        }
        self.inbox.until("ten live messages", |inbox| inbox.of(&a).len() == 10).await;
        assert!(self.inbox.of(&a).iter().all(|publication| publication.position.is_none()));
        let expected: Vec<_> = (0..10).map(|n: u32| n.to_string()).collect();
        assert_eq!(self.inbox.texts(&a), expected);
        assert_eq!(self.after(&long, &a, Since::Oldest).await, []);
    }

    async fn every_name_and_every_field_travels(&self) {
        let long = class("long");
        for name in
            ["$user:ana", "a.b..c.", "zürich/7?x=1&y", "\u{1f514}", &"x".repeat(200), &"é".repeat(100)]
        {
            let sent = NewMessage {
                event: Some(EventName::new("it is \"posted\"").expect("a good event")),
                data: Bytes::from_static(br#"{"b":[1,2.50,null],"a":"\u00e9"}"#),
                user: Some(UserId::new("ana@example.com").expect("a good user")),
                exclude: Box::new([ConnectionId::from_bits(1), ConnectionId::from_bits(u64::MAX)]),
                id: Some(IdempotencyKey::new("k:1/=.>*").expect("a good key")),
                ..message(&channel(name), 0)
            };
            let a = sent.channel.clone();
            self.publish(&long, sent.clone()).await;
            self.inbox.until(name, |inbox| inbox.of(&a).len() == 1).await;
            let kept = stored(&*self.broker, &long, &a, Since::Oldest).await.expect("it is kept");
            for read in [&self.inbox.of(&a)[0], &kept[0]] {
                assert_eq!(format!("{:?}", read.message), format!("{sent:?}"));
            }
            let deadline = clock::now() + PATIENCE;
            self.publisher
                .publish_live(message(&a, 1), deadline)
                .await
                .expect("a live message is handed over");
            self.inbox.until(name, |inbox| inbox.of(&a).len() == 2).await;
        }
    }

    async fn channels_of_one_name_in_two_applications_never_mix(&self) {
        let (long, first) = (class("long"), channel("of-two"));
        let spaces = ["shop-2", "3"].map(|id| AppSpace::new(id).expect("a good id"));
        let [second, third] = spaces.map(|space| first.within(&space));
        let all = [(&first, "first"), (&second, "second"), (&third, "third")];
        for (channel, whose) in all {
            // The text of each is written as the other kind of data would be, too.
            for (n, kind) in [DataKind::Text, DataKind::Json].into_iter().enumerate() {
                let id = Some(IdempotencyKey::new(&format!("key-{n}")).expect("a good key"));
                let sent = NewMessage { kind, id, ..message(channel, format!("\"{whose}\"")) };
                assert!(!self.publish(&long, sent).await.duplicate, "each application has its own keys");
            }
            let sent = NewMessage { kind: DataKind::Text, ..message(channel, format!("\"{whose}\"")) };
            let live = self.publisher.publish_live(sent, clock::now() + PATIENCE).await;
            live.expect("a live message is handed over");
        }
        for (channel, whose) in all {
            self.inbox.until(whose, |inbox| inbox.of(channel).len() == 3).await;
            let brought = self.inbox.of(channel);
            let kept = stored(&*self.broker, &long, channel, Since::Oldest).await.expect("it is kept");
            let ring = past(&*self.broker, &long, channel, Since::Oldest).await.expect("it is kept");
            assert_eq!((kept.len(), ring.len()), (2, 2));
            for publication in brought.iter().chain(&kept).chain(&ring) {
                assert_eq!(publication.message.channel.app(), channel.app());
                assert_eq!(publication.message.data, format!("\"{whose}\""));
            }
            let mut kinds: Vec<_> = brought.iter().map(|brought| brought.message.kind).collect();
            kinds.sort_by_key(|kind| *kind == DataKind::Text);
            assert_eq!(kinds, [DataKind::Json, DataKind::Text, DataKind::Text]);
            assert_eq!([&kept, &ring].map(|list| list[0].message.kind), [DataKind::Text; 2]);
            assert_eq!([&kept, &ring].map(|list| list[1].message.kind), [DataKind::Json; 2]);
        }
    }

    async fn a_class_that_is_not_there_is_unavailable(&self) {
        let (none, a) = (class("none"), channel("none"));
        assert_eq!(position(&*self.broker, &none, &a), Err(AttachError::Unavailable));
        assert_eq!(publish(&*self.broker, &none, message(&a, 1)).await, Err(PublishError::Unavailable));
        let read = self.broker.recover(&none, &a, Since::Oldest, ReplayLimits::default()).await;
        assert_eq!(read.map(|_| ()), Err(RecoverError::Unavailable));
    }
}

/// Returns another channel of the same shard.
fn neighbour(of: &ChannelName) -> ChannelName {
    let candidates = (0..).map(|n: u32| channel(&format!("{of}-{n}")));
    candidates.into_iter().find(|other| Shard::of(other) == Shard::of(of)).expect("there are enough names")
}
