use carillon_model::{AppSpace, ChannelName, ConnectionId, UserId};

use super::*;
use crate::{IdKind, SHARDS};

fn channel(app: &str) -> ChannelName {
    let channel = ChannelName::any("presence-é").unwrap();
    if app.is_empty() { channel } else { channel.within(&AppSpace::new(app).unwrap()) }
}

fn member(info: Option<&str>) -> Member {
    let info = info.map(|info| Bytes::from(info.to_owned()));
    Member { user: UserId::new("7").unwrap(), kind: IdKind::Number, info }
}

fn state(entries: Vec<Entry>) -> Word {
    let place = |connection| Some(Place { channel: 3, connection });
    let (after, next) = (place(Some(ConnectionId::from_bits(7))), place(None));
    Word::State { ask: 9, shard: Shard::of(&channel("two")), after, as_of: 12, entries, next }
}

fn entry(info: Option<&str>) -> Entry {
    let (channel, connection) = (channel("two"), ConnectionId::from_bits(5));
    Entry::Member { channel, connection, member: member(info), born: 3 }
}

/// One of each word, with everything in it.
fn all() -> Vec<Word> {
    let connection = ConnectionId::from_bits(u64::MAX);
    let join = |info| Change::Join { channel: channel(""), connection, member: member(info) };
    let mut digests = [0; SHARDS];
    digests[15] = u64::MAX;
    let beat = |standing| Word::Heartbeat { sequence: 5, digests: Box::new(digests), standing, life: 2 };
    vec![
        beat(Standing::New),
        beat(Standing::Told),
        beat(Standing::Ready),
        Word::Delta { first: 1, changes: vec![join(None), join(Some("{\"a\":[1,null]}"))] },
        Word::Delta { first: 7, changes: vec![Change::Leave { channel: channel("two"), connection }] },
        Word::Delta { first: 8, changes: vec![Change::Count { channel: channel(""), subscribers: 0 }] },
        Word::Ask { ask: 3, shard: Shard::of(&channel("two")), after: None },
        state(vec![]),
        state(vec![entry(Some("1")), Entry::Count { channel: channel("two"), subscribers: 7, since: 1 }]),
        Word::Doubt { life: 3 },
        Word::Bye,
    ]
}

#[test]
fn every_word_reads_back_what_it_writes() {
    for word in all() {
        assert_eq!(Word::decode(&word.encode()), Ok(word));
    }
}

#[test]
fn fields_of_a_later_version_are_passed_over() {
    for word in all() {
        let bytes = [&word.encode(), &[0xf8, 0x07, 0x01][..]].concat();
        assert_eq!(Word::decode(&bytes), Ok(word));
    }
}

#[test]
fn what_breaks_the_rules_is_refused() {
    let join = |info: &str| {
        let (channel, connection) = (channel(""), ConnectionId::from_bits(1));
        Word::Delta {
            first: 1,
            changes: vec![Change::Join { channel, connection, member: member(Some(info)) }],
        }
    };
    let elsewhere = ChannelName::any("elsewhere").unwrap();
    for (word, garbage) in [
        (join("{"), Garbage::Info),
        (join(""), Garbage::Info),
        (join("[\n]"), Garbage::Info),
        (join("1 2"), Garbage::Info),
        (join(&format!("\"{}\"", "a".repeat(crate::INFO_MAX_BYTES))), Garbage::Info),
        (join(&"[".repeat(10_000)), Garbage::Info),
        (join(&format!("\"{}\"", "a".repeat(WORD_MAX_BYTES))), Garbage::Long),
        (state(vec![entry(Some("nul"))]), Garbage::Info),
        (state(vec![Entry::Count { channel: elsewhere, subscribers: 1, since: 1 }]), Garbage::Number),
        (state(vec![Entry::Count { channel: channel("two"), subscribers: 0, since: 1 }]), Garbage::Number),
        (Word::Delta { first: 0, changes: vec![] }, Garbage::Number),
        (
            Word::Delta {
                first: u64::MAX,
                changes: vec![Change::Count { channel: channel(""), subscribers: 1 }],
            },
            Garbage::Number,
        ),
    ] {
        assert_eq!(Word::decode(&word.encode()), Err(garbage));
    }
    assert_eq!(Word::decode(b""), Err(Garbage::Protobuf));
}

#[test]
fn damaged_words_are_refused_or_read_and_never_more() {
    let mut seed = 1_u64;
    let mut draw = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap()
    };
    for word in all().into_iter().cycle().take(20_000) {
        let mut bytes = word.encode().to_vec();
        for _ in 0..=draw() % 3 {
            let place = draw() % (bytes.len() + 1);
            let byte = draw().to_le_bytes()[0];
            match draw() % 3 {
                0 if place < bytes.len() => bytes[place] = byte,
                1 => bytes.truncate(place),
                _ => bytes.insert(place, byte),
            }
        }
        if let Ok(word) = Word::decode(&bytes) {
            assert_eq!(Word::decode(&word.encode()), Ok(word));
        }
    }
}
