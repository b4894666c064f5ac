//! What a node says, word by word.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use carillon_model::{ConnectionId, NodeId};

use super::cluster::{channel, member};
use crate::{
    Audience, Effect, INFO_MAX_BYTES, Member, NODES_MAX, Rosters, Settings, Shard, ShardSet, Standing, Word,
};

fn node(id: u64, now: Instant) -> Rosters {
    Rosters::new(NodeId::from_bits(id), Settings::default(), now)
}

/// Returns what a node wants said, pieces of answers last.
fn words(rosters: &mut Rosters, now: Instant) -> Vec<(Audience, Word)> {
    let mut said = Vec::new();
    while let Some(effect) = rosters.next_effect() {
        if let Effect::Say(audience, word) = effect {
            said.push((audience, word));
        }
    }
    while let Some((whom, word)) = rosters.next_answer(now) {
        said.push((Audience::Node(whom), word));
    }
    said
}

fn hear_all(rosters: &mut Rosters, from: u64, words: Vec<(Audience, Word)>, now: Instant) {
    for (_, word) in words {
        rosters.handle_word(NodeId::from_bits(from), word, now);
    }
}

fn users(rosters: &Rosters) -> usize {
    rosters.members(&channel("room")).len()
}

/// Lets two nodes talk until they have nothing left to say.
fn talk(one: &mut Rosters, two: &mut Rosters, now: Instant) {
    loop {
        let (first, second) = (words(one, now), words(two, now));
        if first.is_empty() && second.is_empty() {
            return;
        }
        hear_all(two, 1, first, now);
        hear_all(one, 2, second, now);
    }
}

fn join(rosters: &mut Rosters, index: u64, info: Option<&str>, now: Instant) {
    let member = member(&format!("u{index}"), info);
    let channel = channel("room");
    rosters.handle_join(&channel, ConnectionId::from_bits(index), member, usize::MAX, now).unwrap();
}

#[test]
fn changes_are_said_at_once_and_together_where_they_come_together() {
    let now = carillon_tasks::clock::now();
    let mut rosters = node(1, now);
    rosters.handle_timeout(now);
    words(&mut rosters, now);
    (0..3).for_each(|index| join(&mut rosters, index, None, now));
    rosters.handle_leave(&channel("room"), ConnectionId::from_bits(1), now);
    rosters.handle_leave(&channel("room"), ConnectionId::from_bits(99), now);
    let said = words(&mut rosters, now);
    let [(Audience::All, Word::Delta { first: 1, changes })] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(changes.len(), 4);
    join(&mut rosters, 7, None, now);
    let said = words(&mut rosters, now);
    assert!(matches!(said.as_slice(), [(Audience::All, Word::Delta { first: 5, .. })]), "{said:?}");
}

#[test]
fn the_last_word_of_a_node_that_stops_comes_after_its_changes() {
    let now = carillon_tasks::clock::now();
    let mut rosters = node(1, now);
    rosters.handle_timeout(now);
    words(&mut rosters, now);
    join(&mut rosters, 1, None, now);
    rosters.handle_farewell(now);
    let said = words(&mut rosters, now);
    assert!(matches!(said.as_slice(), [(_, Word::Delta { .. }), (Audience::All, Word::Bye)]), "{said:?}");
    join(&mut rosters, 2, None, now);
    rosters.handle_timeout(now + Duration::from_secs(60));
    assert_eq!(words(&mut rosters, now), []);
    assert!(rosters.next_deadline().is_none_or(|at| at > now + Duration::from_secs(60)));
}

#[test]
fn newcomers_are_greeted_at_once_but_not_each_with_a_heartbeat() {
    let now = carillon_tasks::clock::now();
    let mut rosters = node(1, now);
    rosters.handle_timeout(now);
    words(&mut rosters, now);
    let beat = || Word::Heartbeat { sequence: 0, digests: Box::default(), standing: Standing::New, life: 1 };
    let later = now + Duration::from_millis(500);
    for id in 2..500 {
        rosters.handle_word(NodeId::from_bits(id), beat(), later);
    }
    rosters.handle_timeout(later + Duration::from_millis(199));
    assert_eq!(words(&mut rosters, now).len(), 1);
    rosters.handle_timeout(later + Duration::from_millis(200));
    assert_eq!(words(&mut rosters, now).len(), 1);
}

#[test]
fn more_nodes_than_there_may_be_are_not_heard() {
    let now = carillon_tasks::clock::now();
    let mut rosters = node(1, now);
    for id in 2..3000 {
        let beat = Word::Heartbeat { sequence: 0, digests: Box::default(), standing: Standing::New, life: 1 };
        rosters.handle_word(NodeId::from_bits(id), beat, now);
    }
    assert_eq!(rosters.nodes().count(), NODES_MAX);
}

#[test]
fn an_info_that_would_break_a_frame_is_left_out() {
    let now = carillon_tasks::clock::now();
    let mut rosters = node(1, now);
    let long = format!("\"{}\"", "a".repeat(INFO_MAX_BYTES));
    for (index, info) in [(1, "{\"a\":1}"), (2, "{"), (3, "{\n}"), (4, ""), (5, &long)] {
        join(&mut rosters, index, Some(info), now);
    }
    let infos: Vec<bool> =
        rosters.members(&channel("room")).iter().map(|m: &&Member| m.info.is_some()).collect();
    assert_eq!(infos, [true, false, false, false, false]);
}

/// Two nodes, of which the second has not heard what the first has.
fn apart(entries: u64, now: Instant) -> (Rosters, Rosters) {
    let (mut one, mut two) = (node(1, now), node(2, now));
    one.handle_timeout(now);
    two.handle_timeout(now);
    talk(&mut one, &mut two, now);
    let info = format!("\"{}\"", "a".repeat(1000));
    (0..entries).for_each(|index| join(&mut one, index, Some(&info), now));
    words(&mut one, now);
    (one, two)
}

/// The first question of a node that has missed something.
fn question(one: &mut Rosters, two: &mut Rosters, now: Instant) -> Vec<(Audience, Word)> {
    one.handle_timeout(now);
    hear_all(two, 1, words(one, now), now);
    let asked = words(two, now);
    assert!(matches!(asked.as_slice(), [(_, Word::Ask { after: None, .. })]), "{asked:?}");
    asked
}

#[test]
fn a_large_shard_comes_piece_by_piece_as_it_is_asked_for() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(1000, now);
    let now = now + Duration::from_secs(2);
    let mut asked = question(&mut one, &mut two, now);
    let mut pieces = 0;
    while !asked.is_empty() {
        hear_all(&mut one, 2, asked, now);
        let said = words(&mut one, now);
        let [(Audience::Node(_), piece @ Word::State { .. })] = said.as_slice() else { panic!("{said:?}") };
        assert!(piece.encode().len() <= 196 * 1024);
        assert_eq!(users(&two), 0);
        hear_all(&mut two, 1, said, now);
        asked = words(&mut two, now);
        pieces += 1;
    }
    assert_eq!((pieces, users(&two)), (6, 1000));
}

#[test]
fn when_a_piece_is_lost_it_is_asked_for_again_after_a_second() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(1000, now);
    let now = now + Duration::from_secs(2);
    let mut asked = question(&mut one, &mut two, now);
    for _ in 0..3 {
        hear_all(&mut one, 2, asked, now);
        hear_all(&mut two, 1, words(&mut one, now), now);
        asked = words(&mut two, now);
    }
    let is_question = |said: &(Audience, Word)| matches!(said.1, Word::Ask { .. });
    let soon = now + Duration::from_millis(999);
    two.handle_timeout(soon);
    assert!(!words(&mut two, soon).iter().any(is_question));
    let now = now + Duration::from_secs(1);
    two.handle_timeout(now);
    let again: Vec<_> = words(&mut two, now).into_iter().filter(is_question).collect();
    assert_eq!(again, asked);
    // A piece that comes twice is taken once.
    hear_all(&mut one, 2, again, now);
    let piece = words(&mut one, now);
    hear_all(&mut two, 1, piece.clone(), now);
    hear_all(&mut two, 1, piece, now);
    talk(&mut one, &mut two, now);
    assert_eq!(users(&two), 1000);
}

#[test]
fn what_changes_while_pieces_come_is_in_the_answer_or_laid_over_it() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(4000, now);
    let now = now + Duration::from_secs(2);
    let mut asked = question(&mut one, &mut two, now);
    let mut round = 0;
    while !asked.is_empty() {
        hear_all(&mut one, 2, asked, now);
        let piece = words(&mut one, now);
        // Behind the piece and before it, known and new; changes come before the piece, after it, or as it does.
        one.handle_leave(&channel("room"), ConnectionId::from_bits(round), now);
        one.handle_leave(&channel("room"), ConnectionId::from_bits(3999 - round), now);
        join(&mut one, 3999 - round, None, now);
        join(&mut one, 5000 + round, None, now);
        join(&mut one, 10_000 - round, None, now);
        let changes = words(&mut one, now);
        let (first, second) = if round % 2 == 0 { (piece, changes) } else { (changes, piece) };
        hear_all(&mut two, 1, first, now);
        hear_all(&mut two, 1, second, now);
        asked = words(&mut two, now);
        round += 1;
    }
    assert!(round >= 15, "{round}");
    assert_eq!(two.members(&channel("room")), one.members(&channel("room")));
    one.handle_timeout(now + Duration::from_secs(2));
    hear_all(&mut two, 1, words(&mut one, now), now);
    assert_eq!(words(&mut two, now), []);
}

#[test]
fn a_heartbeat_waits_behind_4_mib_of_answers_at_most_however_many_nodes_ask_for_everything() {
    let start = carillon_tasks::clock::now();
    let heartbeat = Duration::from_millis(500);
    let settings = Settings { heartbeat, ..Settings::default() };
    let mut one = Rosters::new(NodeId::from_bits(1), settings, start);
    one.handle_timeout(start);
    let info = format!("\"{}\"", "a".repeat(38));
    let name = |index: u64| channel(&format!("presence-{}", index / 100));
    for index in 0..200_000 {
        let member = member(&format!("u{index}"), Some(&info));
        one.handle_join(&name(index), ConnectionId::from_bits(index), member, 100, start).unwrap();
    }
    words(&mut one, start);
    // Each node asks for the next piece as soon as it has one, and one that gets nothing asks again.
    let mut asking: BTreeMap<u64, (ShardSet, Word)> = BTreeMap::new();
    let ask = |shard, after| Word::Ask { ask: 1, shard, after };
    let mut shards = ShardSet::default();
    Shard::all().for_each(|shard| shards.insert(shard));
    for id in 2..=200 {
        asking.insert(id, (shards, ask(Shard::new(0).unwrap(), None)));
    }
    let (mut before_heartbeat, mut most, mut words_most, mut beats, mut entries) = (0, 0, 0, 0, 0);
    for ms in (0..1100_u64).step_by(10) {
        let now = start + Duration::from_millis(ms);
        one.handle_timeout(now);
        for (id, (_, question)) in &asking {
            one.handle_word(NodeId::from_bits(*id), question.clone(), now);
        }
        let (mut bytes, mut count) = (0, 0);
        for (audience, word) in words(&mut one, now) {
            beats += usize::from(matches!(word, Word::Heartbeat { .. }));
            let (Word::State { shard, next, entries: some, .. }, Audience::Node(node)) = (&word, audience)
            else {
                continue;
            };
            (bytes, count, entries) = (bytes + word.encode().len(), count + 1, entries + some.len());
            let (shards, question) = asking.get_mut(&node.bits()).unwrap();
            if next.is_none() {
                shards.remove(*shard);
            }
            match shards.first() {
                Some(shard) => *question = ask(shard, *next),
                None => drop(asking.remove(&node.bits())),
            }
        }
        before_heartbeat = if ms % 100 == 0 { bytes } else { before_heartbeat + bytes };
        (most, words_most) = (most.max(before_heartbeat), words_most.max(count));
    }
    assert!(most <= (4 << 20) + (196 << 10), "{most}");
    assert!(words_most <= 1024, "{words_most}");
    assert!(beats >= 2, "{beats}");
    // And they get something for it.
    assert!(entries >= 300_000, "{entries}");
}

#[test]
fn an_answer_that_is_older_than_what_was_heard_does_not_undo_it() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(10, now);
    let now = now + Duration::from_secs(2);
    one.handle_timeout(now);
    hear_all(&mut two, 1, words(&mut one, now), now);
    hear_all(&mut one, 2, words(&mut two, now), now);
    let answer = words(&mut one, now);
    // Said after the answer, heard before it.
    join(&mut one, 50, None, now);
    one.handle_leave(&channel("room"), ConnectionId::from_bits(3), now);
    hear_all(&mut two, 1, words(&mut one, now), now);
    assert_eq!(users(&two), 1);
    hear_all(&mut two, 1, answer, now);
    assert_eq!(users(&two), 10);
    assert_eq!(two.members(&channel("room")), one.members(&channel("room")));
    // And all that is asked at the next heartbeat is nothing.
    one.handle_timeout(now + Duration::from_secs(2));
    hear_all(&mut two, 1, words(&mut one, now), now);
    assert_eq!(words(&mut two, now), []);
}

#[test]
fn an_answer_that_overtakes_changes_has_them_already() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(10, now);
    let now = now + Duration::from_secs(2);
    one.handle_timeout(now);
    hear_all(&mut two, 1, words(&mut one, now), now);
    let asked = words(&mut two, now);
    join(&mut one, 50, None, now);
    one.handle_leave(&channel("room"), ConnectionId::from_bits(50), now);
    join(&mut one, 51, None, now);
    let changes = words(&mut one, now);
    hear_all(&mut one, 2, asked, now);
    hear_all(&mut two, 1, words(&mut one, now), now);
    let before = std::iter::from_fn(|| two.next_effect()).count();
    assert_eq!((before, users(&two)), (11, 11));
    hear_all(&mut two, 1, changes, now);
    assert_eq!(two.next_effect(), None);
}

#[test]
fn when_more_is_heard_than_is_remembered_the_question_begins_anew() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(10, now);
    let now = now + Duration::from_secs(2);
    one.handle_timeout(now);
    hear_all(&mut two, 1, words(&mut one, now), now);
    let first = words(&mut two, now);
    assert!(matches!(first.as_slice(), [(_, Word::Ask { .. })]), "{first:?}");
    for index in 0..2500 {
        join(&mut one, 100 + index, None, now);
        one.handle_leave(&channel("room"), ConnectionId::from_bits(100 + index), now);
    }
    hear_all(&mut two, 1, words(&mut one, now), now);
    let second = words(&mut two, now);
    assert!(matches!(second.as_slice(), [(_, Word::Ask { .. })]) && second != first, "{second:?}");
    // The answer to the first question is not taken: what came after it is forgotten.
    hear_all(&mut one, 2, first, now);
    hear_all(&mut two, 1, words(&mut one, now), now);
    assert_eq!(users(&two), 0);
    hear_all(&mut one, 2, second, now);
    hear_all(&mut two, 1, words(&mut one, now), now);
    assert_eq!(users(&two), 10);
}

#[test]
fn under_a_thousand_changes_a_second_a_newcomer_catches_up() {
    let start = carillon_tasks::clock::now();
    let mut one = node(1, start);
    one.handle_timeout(start);
    let mut two = None;
    let mut slow: Vec<(u64, u64, Word)> = Vec::new();
    for ms in 0..6000_u64 {
        let now = start + Duration::from_millis(ms);
        join(&mut one, ms, None, now);
        if ms >= 500 {
            one.handle_leave(&channel("room"), ConnectionId::from_bits(ms - 500), now);
        }
        one.handle_timeout(now);
        let two = (ms >= 1000).then(|| two.get_or_insert_with(|| node(2, now)));
        slow.extend(words(&mut one, now).into_iter().map(|(_, word)| (ms + 20, 2, word)));
        if let Some(two) = two {
            two.handle_timeout(now);
            slow.extend(words(two, now).into_iter().map(|(_, word)| (ms + 20, 1, word)));
            let (due, rest): (Vec<_>, Vec<_>) = slow.into_iter().partition(|(at, ..)| *at <= ms);
            slow = rest;
            for (_, to, word) in due {
                if to == 2 {
                    two.handle_word(NodeId::from_bits(1), word, now);
                } else {
                    one.handle_word(NodeId::from_bits(2), word, now);
                }
            }
            if ms > 1200 {
                // Words take 20 ms: that far apart, and no further.
                let (here, there) = (users(&one), users(two));
                assert!(here.abs_diff(there) <= 21, "{here} and {there} at {ms} ms");
            }
        }
    }
}
