use bytes::Bytes;
use carillon_model::{Epoch, NewMessage, UnixMillis};
use carillon_tasks::clock;
use proptest::prelude::*;

use super::*;

const LIMITS: ReplayLimits = ReplayLimits { messages: 50, bytes: 1 << 20 };

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch: Epoch::from_bits(epoch), offset: Offset::new(offset) }
}

fn channel(name: u8) -> ChannelName {
    ChannelName::new(&format!("c{name}")).unwrap()
}

fn publication(name: u8, position: Position) -> Arc<Publication> {
    let message = NewMessage {
        channel: channel(name),
        event: None,
        data: Bytes::from(vec![b'1'; 100]),
        kind: carillon_model::DataKind::Json,
        time: UnixMillis::new(0),
        user: None,
        exclude: Box::default(),
        id: None,
    };
    Arc::new(Publication::new(message, Some(position)))
}

fn ring(limit_bytes: usize) -> Ring {
    Ring::new(RingBudget::new(limit_bytes))
}

fn offsets(past: &Past) -> Option<Vec<u64>> {
    let offset = |publication: &Arc<Publication>| publication.position.unwrap().offset.get();
    match past {
        Past::Complete(list) => Some(list.iter().map(offset).collect()),
        Past::Older | Past::Ahead | Past::Gone(_) => None,
    }
}

fn after(ring: &Ring, name: u8, offset: u64) -> Past {
    ring.attach(&channel(name), Since::After(at(1, offset)), LIMITS).unwrap().past
}

#[test]
fn a_channel_is_known_from_where_the_ring_began() {
    let mut ring = ring(1 << 20);
    assert!(ring.attach(&channel(1), Since::Now, LIMITS).is_none());
    ring.advance(at(1, 10));
    for (name, offset) in [(1, 11), (2, 12), (1, 13), (1, 15)] {
        ring.push(publication(name, at(1, offset)), clock::now());
    }
    for (from, expected) in [(10, vec![11, 13, 15]), (11, vec![13, 15]), (12, vec![13, 15]), (15, vec![])] {
        assert_eq!(offsets(&after(&ring, 1, from)), Some(expected), "after {from}");
    }
    assert_eq!(offsets(&after(&ring, 3, 10)), Some(Vec::new()), "a quiet channel missed nothing");
    assert!(matches!(after(&ring, 1, 9), Past::Older) && matches!(after(&ring, 3, 9), Past::Older));
    assert!(matches!(after(&ring, 1, 16), Past::Ahead));
    let other = ring.attach(&channel(1), Since::After(at(2, 12)), LIMITS).unwrap();
    assert!(matches!(other.past, Past::Gone(Unrecovered::Epoch)) && other.position == at(1, 15));
    let last = |count| offsets(&ring.attach(&channel(1), Since::Last(count), LIMITS).unwrap().past);
    assert_eq!((last(0), last(2), last(3)), (Some(vec![]), Some(vec![13, 15]), Some(vec![11, 13, 15])));
    assert_eq!(last(4), None, "there may be one before");
}

#[test]
fn a_quiet_channel_is_known_for_longer_than_its_messages() {
    let mut ring = ring(1 << 20);
    let start = clock::now();
    ring.advance(at(1, 10));
    ring.push(publication(1, at(1, 11)), start);
    ring.push(publication(2, at(1, 12)), start + Duration::from_secs(100));
    ring.trim(start + Duration::from_secs(121));
    assert!(matches!(after(&ring, 1, 10), Past::Older), "its message is too old");
    assert_eq!(offsets(&after(&ring, 1, 11)), Some(Vec::new()));
    ring.push(publication(1, at(1, 20)), start + Duration::from_secs(122));
    assert_eq!(offsets(&after(&ring, 1, 11)), Some(vec![20]), "nothing lies between");
    assert!(matches!(after(&ring, 1, 10), Past::Older));
}

#[test]
fn a_loss_and_another_life_end_what_is_known() {
    for other in [at(1, 40), at(2, 5)] {
        let mut ring = ring(1 << 20);
        ring.advance(at(1, 10));
        ring.push(publication(1, at(1, 11)), clock::now());
        ring.lost(other);
        ring.push(publication(1, Position { offset: other.offset.next(), ..other }), clock::now());
        let from = |offset| {
            let since = Since::After(Position { offset, ..other });
            offsets(&ring.attach(&channel(1), since, LIMITS).unwrap().past)
        };
        assert_eq!(from(other.offset), Some(vec![other.offset.get() + 1]));
        assert_eq!(from(Offset::new(other.offset.get() - 1)), None);
    }
}

#[test]
fn more_than_is_replayed_is_refused_whole() {
    let mut ring = ring(1 << 20);
    ring.advance(at(1, 0));
    for offset in 1..=60 {
        ring.push(publication(1, at(1, offset)), clock::now());
    }
    assert!(matches!(after(&ring, 1, 9), Past::Gone(Unrecovered::Limit)));
    assert_eq!(offsets(&after(&ring, 1, 10)).map(|all| all.len()), Some(50));
}

#[test]
fn the_budget_holds_for_all_together_and_is_given_back() {
    let budget = RingBudget::new(100_000);
    let mut rings: Vec<_> = (0..4).map(|_| Ring::new(Arc::clone(&budget))).collect();
    for offset in 1..=500 {
        for ring in &mut rings {
            ring.push(publication(u8::try_from(offset % 200).unwrap(), at(1, offset)), clock::now());
        }
        assert!(budget.used_bytes() <= 104_000, "{}", budget.used_bytes());
    }
    assert!(rings.iter().all(|ring| !ring.entries.is_empty()), "none takes all");
    drop(rings);
    assert_eq!(budget.used_bytes(), 0);
}

#[derive(Clone, Debug)]
enum Act {
    Publish(u8),
    /// A message that cannot be read.
    Skip,
    Wait(u64),
    Lose(u64),
    Recreate,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => (0_u8..6).prop_map(Act::Publish),
        2 => Just(Act::Skip),
        2 => (1_u64..90).prop_map(Act::Wait),
        1 => (1_u64..5).prop_map(Act::Lose),
        1 => Just(Act::Recreate),
    ]
}

proptest! {
    /// Whatever happened and however little memory there is: what is said to be complete is all there was.
    #[test]
    fn complete_is_complete(acts in prop::collection::vec(act(), 1..150), limit in 3_000_usize..200_000) {
        let mut ring = ring(limit);
        let mut now = clock::now();
        let (mut epoch, mut head) = (1, 7);
        let mut all: Vec<(u64, u64, u8)> = (1..=head).map(|offset| (1, offset, 1)).collect();
        ring.advance(at(epoch, head));
        for act in acts {
            match act {
                Act::Publish(name) => {
                    head += 1;
                    all.push((epoch, head, name));
                    ring.push(publication(name, at(epoch, head)), now);
                }
                Act::Skip => {
                    head += 1;
                    ring.advance(at(epoch, head));
                }
                Act::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    ring.trim(now);
                }
                Act::Lose(count) => {
                    for _ in 0..count {
                        head += 1;
                        all.push((epoch, head, u8::try_from(head % 6).unwrap()));
                    }
                    ring.lost(at(epoch, head));
                }
                Act::Recreate => {
                    epoch += 1;
                    head = 3;
                    all.extend((1..=head).map(|offset| (epoch, offset, 2)));
                    ring.advance(at(epoch, head));
                }
            }
            let there = |name: u8, from: u64| -> Vec<u64> {
                let of = |(e, offset, n): &(u64, u64, u8)| (*e == epoch && *n == name && *offset > from).then_some(*offset);
                all.iter().filter_map(of).collect()
            };
            for name in 0..6 {
                for from in head.saturating_sub(70)..=head {
                    let past = ring.attach(&channel(name), Since::After(at(epoch, from)), LIMITS).unwrap().past;
                    if let Some(found) = offsets(&past) {
                        prop_assert_eq!(found, there(name, from), "channel {} after {}", name, from);
                    }
                }
                for count in 0..5 {
                    let past = ring.attach(&channel(name), Since::Last(count), LIMITS).unwrap().past;
                    if let Some(found) = offsets(&past) {
                        let kept = there(name, 0);
                        let expected = &kept[kept.len().saturating_sub(count as usize)..];
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }
}
