use std::time::{Duration, Instant};

use carillon_model::UserId;

use super::*;
use crate::{IdKind, spell::Stamp};

const ME: NodeId = NodeId::from_bits(2);
const OTHER: NodeId = NodeId::from_bits(1);

fn room() -> ChannelName {
    ChannelName::any("presence-room").unwrap()
}

fn ana() -> Member {
    Member { user: UserId::new("ana").unwrap(), kind: IdKind::Text, info: None }
}

fn cause(change: u64) -> Cause {
    Stamp { node: OTHER, change }.within(1)
}

/// One that remembers what the other node tells, and then takes over from it.
fn follower(now: Instant) -> Telling {
    let mut telling = Telling::new(ME, Stage::Ready);
    telling.elect(&[OTHER], now);
    telling
}

fn told(effects: &mut VecDeque<Effect>) -> Vec<String> {
    let keys =
        effects.drain(..).map(|effect| if let Effect::Told(fact) = effect { Some(fact.key) } else { None });
    keys.collect::<Option<_>>().expect("facts only")
}

#[test]
fn what_follows_upon_facts_that_were_told_again_is_not_taken_for_what_was_told_before_them() {
    let now = carillon_tasks::clock::now();
    let (mut telling, mut effects) = (follower(now), VecDeque::new());
    telling.tell(&room(), What::Came(ana()), cause(1), now, &mut effects);
    telling.tell(&room(), What::Went(ana()), cause(1), now, &mut effects);
    assert_eq!(told(&mut effects), [""; 0]);
    let again = telling.elect(&[ME], now);
    let keys: Vec<_> = again.into_iter().map(|fact| fact.key).collect();
    // The other node has told both, and that Ana is back: the queue takes the end once more, as the last.
    assert_eq!(
        keys,
        [What::Came(ana()).key(cause(1)), format!("{}-{ME}-1", What::Went(ana()).key(cause(1)))]
    );
    let back = What::Came(ana()).key(cause(2));
    telling.tell(&room(), What::Came(ana()), cause(2), now, &mut effects);
    assert_eq!(told(&mut effects), [format!("{back}-{ME}-1")]);
    let later = now + BETWEEN + Duration::from_secs(1);
    telling.tell(&room(), What::Came(ana()), cause(2), later, &mut effects);
    assert_eq!(told(&mut effects), [back]);
}

#[test]
fn a_beginning_that_is_told_as_another_may_have_told_an_end_is_not_that_of_the_other() {
    let now = carillon_tasks::clock::now();
    let (mut telling, mut effects) = (follower(now), VecDeque::new());
    telling.stay(&room(), What::Came(ana()), cause(2), now, &mut effects);
    assert_eq!(told(&mut effects), [""; 0]);
    let shared = What::Came(ana()).key(cause(2));
    let again = telling.elect(&[ME], now);
    assert_eq!(again.into_iter().map(|fact| fact.key).collect::<Vec<_>>(), [format!("{shared}-{ME}-1")]);
    telling.stay(&room(), What::Came(ana()), cause(3), now, &mut effects);
    assert_eq!(told(&mut effects), [format!("{}-{ME}-1", What::Came(ana()).key(cause(3)))]);
    let later = now + BETWEEN + Duration::from_secs(1);
    telling.stay(&room(), What::Came(ana()), cause(4), later, &mut effects);
    assert_eq!(told(&mut effects), [""; 0]);
}

#[test]
fn whoever_told_an_end_tells_that_they_are_back_though_another_tells_meanwhile() {
    let now = carillon_tasks::clock::now();
    let (mut telling, mut effects) = (Telling::new(ME, Stage::Ready), VecDeque::new());
    telling.elect(&[ME], now);
    telling.tell(&room(), What::Went(ana()), cause(1), now, &mut effects);
    assert_eq!(told(&mut effects), [What::Went(ana()).key(cause(1))]);
    telling.elect(&[OTHER], now);
    telling.tell(&room(), What::Came(ana()), cause(2), now, &mut effects);
    assert_eq!(told(&mut effects), [format!("{}-{ME}-0", What::Came(ana()).key(cause(2)))]);
    // The rest is the other's to tell.
    telling.tell(&room(), What::Went(ana()), cause(2), now, &mut effects);
    assert_eq!(told(&mut effects), [""; 0]);
}
