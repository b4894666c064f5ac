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
    AttachError, Broker, Deliver, HistoryError, HistoryPage, Lost, Page, PublishError, Published, Shard,
};
use carillon_model::{
    ChannelName, ClassName, ConnectionId, Epoch, EventName, IdempotencyKey, NewMessage, Position,
    Publication, ReplayLimits, RetentionClass, Since, UnixMillis, UserId,
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
            Brought::Publication(_) | Brought::Lost(_) => None,
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
            Brought::Publication(_) => None,
            Brought::Lost(lost) => Some(lost.clone()),
        };
        self.lock().iter().filter_map(loss).collect()
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
        self.history_comes_in_pages().await;
        self.history_keeps_so_many().await;
        self.history_keeps_so_long().await;
        self.history_of_another_epoch_is_refused().await;
        self.live_messages_have_no_position_and_no_history().await;
        self.every_name_and_every_field_travels().await;
        self.a_class_that_is_not_there_is_unavailable().await;
        assert_eq!(self.inbox.losses(), [], "nothing was lost");
    }

    async fn publish(&self, class: &ClassName, message: NewMessage) -> Published {
        publish(&*self.publisher, class, message).await.expect("a good message is stored")
    }

    async fn page(&self, class: &ClassName, channel: &ChannelName, page: Page) -> HistoryPage {
        self.broker.history(class, channel, page).await.expect("history can be read")
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

    async fn history_comes_in_pages(&self) {
        let (long, a) = (class("long"), channel("pages"));
        let b = neighbour(&a);
        let empty = self.page(&long, &a, Page { after: None, limit: 10 }).await;
        assert!(empty.publications.is_empty() && !empty.more);
        let mut positions = Vec::new();
        for n in 0..25 {
            positions.push(self.publish(&long, message(&a, n)).await.position);
            self.publish(&long, message(&b, n)).await;
        }
        let (mut after, mut read, mut sizes) = (None, Vec::new(), Vec::new());
        loop {
            let page = self.page(&long, &a, Page { after, limit: 10 }).await;
            sizes.push(page.publications.len());
            read.extend(page.publications.iter().filter_map(|publication| publication.position));
            after = read.last().copied();
            let last = read.last().map_or(page.head.offset, |position: &Position| position.offset);
            assert!(page.head.offset >= last, "a page is not ahead of its head");
            if !page.more {
                assert!(page.head.offset >= positions[24].offset, "what was acknowledged is before the head");
                break;
            }
        }
        assert_eq!((read, sizes), (positions.clone(), vec![10, 10, 5]));
        let exact = self.page(&long, &a, Page { after: None, limit: 25 }).await;
        assert_eq!((exact.publications.len(), exact.more), (25, false));
        let rest = self.page(&long, &a, Page { after: Some(positions[23]), limit: 1 }).await;
        assert_eq!((rest.publications.len(), rest.more), (1, false));
        let beyond = Page { after: Some(rest.head), limit: 10 };
        assert!(self.page(&long, &a, beyond).await.publications.is_empty());
    }

    async fn history_keeps_so_many(&self) {
        let (few, a) = (class("few"), channel("few"));
        for n in 0..5 {
            self.publish(&few, message(&a, n)).await;
        }
        let page = self.page(&few, &a, Page { after: None, limit: 100 }).await;
        let kept: Vec<_> =
            page.publications.iter().map(|publication| publication.message.data.clone()).collect();
        assert_eq!(kept, ["2", "3", "4"]);
    }

    async fn history_keeps_so_long(&self) {
        let (brief, a) = (class("brief"), channel("brief"));
        let first = self.publish(&brief, message(&a, 1)).await.position;
        let read = Page { after: None, limit: 100 };
        assert_eq!(self.page(&brief, &a, read).await.publications.len(), 1);
        // Replicas drop what is too old each at its own time, so that one may still show what another has dropped.
        let expired = timeout(PATIENCE, async {
            loop {
                let later = self.publish(&brief, message(&a, 2)).await.position;
                let page = self.page(&brief, &a, read).await;
                let positions: Vec<_> =
                    page.publications.iter().filter_map(|publication| publication.position).collect();
                assert!(positions.contains(&later), "{positions:?} has what was just stored");
                if !positions.contains(&first) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        expired.await.expect("what is too old is dropped");
    }

    async fn history_of_another_epoch_is_refused(&self) {
        let (long, a) = (class("long"), channel("epochs"));
        let at = self.publish(&long, message(&a, 1)).await.position;
        let other = Position { epoch: Epoch::from_bits(7), ..at };
        match self.broker.history(&long, &a, Page { after: Some(other), limit: 10 }).await {
            Err(HistoryError::EpochChanged { head }) => assert_eq!(head.epoch, at.epoch),
            other => panic!("{other:?}"),
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
        assert!(self.page(&long, &a, Page { after: None, limit: 10 }).await.publications.is_empty());
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
            let kept = self.page(&long, &a, Page { after: None, limit: 1 }).await;
            for read in [&self.inbox.of(&a)[0], &kept.publications[0]] {
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

    async fn a_class_that_is_not_there_is_unavailable(&self) {
        let (none, a) = (class("none"), channel("none"));
        assert_eq!(position(&*self.broker, &none, &a), Err(AttachError::Unavailable));
        assert_eq!(publish(&*self.broker, &none, message(&a, 1)).await, Err(PublishError::Unavailable));
        let read = self.broker.history(&none, &a, Page { after: None, limit: 1 }).await;
        assert_eq!(read.map(|_| ()), Err(HistoryError::Unavailable));
    }
}

/// Returns another channel of the same shard.
fn neighbour(of: &ChannelName) -> ChannelName {
    let candidates = (0..).map(|n: u32| channel(&format!("{of}-{n}")));
    candidates.into_iter().find(|other| Shard::of(other) == Shard::of(of)).expect("there are enough names")
}
