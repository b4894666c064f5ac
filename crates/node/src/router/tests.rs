use std::time::Duration;

use bytes::Bytes;
use carillon_model::{
    Access, ChannelPattern, ChannelRule, ClassName, Epoch, NewMessage, Offset, Overflow, Position, UnixMillis,
};

use super::*;
use crate::mailbox::Mail;

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

fn router(workers: usize) -> Router {
    let rule = |pattern: &str, keeping| ChannelRule {
        name: pattern.to_owned(),
        pattern: ChannelPattern::new(pattern).unwrap(),
        keeping,
        access: Access::Public,
        overflow: Overflow::Close,
        message_max_bytes: 1024,
    };
    let short = Keeping::Durable(ClassName::new("short").unwrap());
    Router::new(workers, ChannelRules::new(vec![rule("live.*", Keeping::Live), rule("*", short)]))
}

fn publication(channel: &str, id: Option<&str>) -> Arc<Publication> {
    let message = NewMessage {
        channel: name(channel),
        event: None,
        data: Bytes::from_static(b"1"),
        kind: carillon_model::DataKind::Json,
        time: UnixMillis::new(0),
        user: None,
        exclude: Box::default(),
        id: id.map(|id| IdempotencyKey::new(id).unwrap()),
    };
    Arc::new(Publication::new(message, None))
}

fn waiting(router: &Router) -> Vec<usize> {
    router.mailboxes.iter().map(|mailbox| mailbox.len()).collect()
}

/// Takes a worker's mail, which must be word of gaps: the channels, in order, and up to which offset.
fn gaps(router: &Router, worker: usize) -> Vec<(String, Option<u64>)> {
    let mut mail = Vec::new();
    router.mailboxes[worker].take(&mut mail, 10);
    let told = mail.iter().map(|mail| match mail {
        Mail::Missed(channel, position, _) => {
            (channel.as_str().to_owned(), position.map(|position| position.offset.get()))
        }
        Mail::Deliver(_)
        | Mail::Changed(_)
        | Mail::Counted(_)
        | Mail::Overlooked(_)
        | Mail::Asked(..)
        | Mail::Accepted(..)
        | Mail::Drain(_)
        | Mail::Cut => panic!("{mail:?}"),
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    told
}

#[test]
fn a_publication_goes_once_to_each_worker_that_wants_it() {
    let router = router(3);
    router.interest.add(&name("live.a"), 0);
    router.interest.add(&name("live.a"), 2);
    router.deliver(publication("live.a", None));
    router.deliver(publication("live.b", None));
    assert_eq!(waiting(&router), [1, 0, 1]);
    router.interest.remove(&name("live.a"), 2);
    router.deliver(publication("live.a", None));
    assert_eq!(waiting(&router), [2, 0, 1]);
    router.interest.remove(&name("live.a"), 0);
    assert_eq!(router.interest.len(), 0);
}

#[test]
fn a_live_message_with_a_key_is_handed_on_once() {
    let router = router(1);
    router.interest.add(&name("live.a"), 0);
    for id in ["x", "x", "y"] {
        router.deliver(publication("live.a", Some(id)));
    }
    assert_eq!(waiting(&router), [2]);
}

#[test]
fn a_loss_concerns_the_wanted_channels_of_its_shard_and_class() {
    let router = router(1);
    let lossy = name("news");
    let elsewhere = (0..).map(|n| name(&format!("other.{n}"))).find(|c| Shard::of(c) != Shard::of(&lossy));
    let live = (0..).map(|n| name(&format!("live.{n}"))).find(|c| Shard::of(c) == Shard::of(&lossy));
    for channel in [Some(lossy.clone()), elsewhere, live].into_iter().flatten() {
        router.interest.add(&channel, 0);
    }
    let user = (0..).find_map(|n| {
        let user = carillon_model::UserId::new(&n.to_string()).ok()?;
        ChannelName::of_user(&user).ok().filter(|c| Shard::of(c) == Shard::of(&lossy))
    });
    router.interest.add(&user.unwrap(), 0);
    router.lost(&Lost {
        class: ClassName::new("short").unwrap(),
        shard: Shard::of(&lossy),
        position: Position { epoch: Epoch::from_bits(1), offset: Offset::new(7) },
    });
    assert_eq!(gaps(&router, 0), [("news".to_owned(), Some(7))]);
}

#[test]
fn a_loss_of_live_messages_concerns_the_wanted_live_channels_of_its_shards() {
    let router = router(2);
    let in_shard = |pattern: &str, index| {
        let names = (0..).map(|n| ChannelName::any(&pattern.replace('#', &n.to_string())).unwrap());
        names.into_iter().find(|c| Shard::of(c).index() == index).unwrap()
    };
    let (live, user) = (in_shard("live.#", 3), in_shard("$user:#", 3));
    for channel in [&live, &user, &in_shard("news.#", 3), &in_shard("live.#", 4)] {
        router.interest.add(channel, 0);
    }
    let other = in_shard("live.#", 5);
    router.interest.add(&other, 1);
    let shards: Vec<_> = Shard::all().filter(|shard| matches!(shard.index(), 3 | 5)).collect();
    router.lost_live(&shards);
    let mut expected = [(live.as_str().to_owned(), None), (user.as_str().to_owned(), None)];
    expected.sort();
    assert_eq!(gaps(&router, 0), expected);
    assert_eq!(gaps(&router, 1), [(other.as_str().to_owned(), None)]);
    // Each loss is told once; one that nothing separates from the last is the same to a subscriber.
    router.lost_live(&shards);
    router.lost_live(&shards);
    assert_eq!(gaps(&router, 1).len(), 1);
}

#[tokio::test]
async fn publishers_are_refused_when_a_worker_does_not_keep_up() {
    let router = router(1);
    router.interest.add(&name("live.a"), 0);
    for _ in 0..=MAILBOX_LIMIT / 2 {
        router.deliver(publication("live.a", None));
    }
    let soon = clock::now() + Duration::from_millis(20);
    assert_eq!(router.ready(soon).await, None);
    router.mailboxes[0].take(&mut Vec::new(), MAILBOX_LIMIT);
    let later = clock::now() + Duration::from_secs(60);
    assert_eq!(router.ready(later).await, Some(()));
}
