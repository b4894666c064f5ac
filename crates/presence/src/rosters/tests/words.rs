//! What a node says, word by word.

use std::time::{Duration, Instant};

use carillon_model::{ConnectionId, NodeId};

use super::cluster::{channel, member};
use crate::{Audience, Effect, INFO_MAX_BYTES, Member, NODES_MAX, Rosters, Settings, Standing, Word};

fn node(id: u64, now: Instant) -> Rosters {
    Rosters::new(NodeId::from_bits(id), Settings::default(), now)
}

fn words(rosters: &mut Rosters) -> Vec<(Audience, Word)> {
    let said = std::iter::from_fn(|| rosters.next_effect());
    said.filter_map(
        |effect| if let Effect::Say(audience, word) = effect { Some((audience, word)) } else { None },
    )
    .collect()
}

fn hear_all(rosters: &mut Rosters, from: u64, words: Vec<(Audience, Word)>, now: Instant) {
    for (_, word) in words {
        rosters.handle_word(NodeId::from_bits(from), word, now);
    }
}

/// Lets two nodes talk until they have nothing left to say.
fn talk(one: &mut Rosters, two: &mut Rosters, now: Instant) {
    loop {
        let (first, second) = (words(one), words(two));
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
    words(&mut rosters);
    (0..3).for_each(|index| join(&mut rosters, index, None, now));
    rosters.handle_leave(&channel("room"), ConnectionId::from_bits(1), now);
    rosters.handle_leave(&channel("room"), ConnectionId::from_bits(99), now);
    let said = words(&mut rosters);
    let [(Audience::All, Word::Delta { first: 1, changes })] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(changes.len(), 4);
    join(&mut rosters, 7, None, now);
    let said = words(&mut rosters);
    assert!(matches!(said.as_slice(), [(Audience::All, Word::Delta { first: 5, .. })]), "{said:?}");
}

#[test]
fn the_last_word_of_a_node_that_stops_comes_after_its_changes() {
    let now = carillon_tasks::clock::now();
    let mut rosters = node(1, now);
    rosters.handle_timeout(now);
    words(&mut rosters);
    join(&mut rosters, 1, None, now);
    rosters.handle_farewell(now);
    let said = words(&mut rosters);
    assert!(matches!(said.as_slice(), [(_, Word::Delta { .. }), (Audience::All, Word::Bye)]), "{said:?}");
    join(&mut rosters, 2, None, now);
    rosters.handle_timeout(now + Duration::from_secs(60));
    assert_eq!(words(&mut rosters), []);
    assert!(rosters.next_deadline().is_none_or(|at| at > now + Duration::from_secs(60)));
}

#[test]
fn newcomers_are_greeted_at_once_but_not_each_with_a_heartbeat() {
    let now = carillon_tasks::clock::now();
    let mut rosters = node(1, now);
    rosters.handle_timeout(now);
    words(&mut rosters);
    let beat = || Word::Heartbeat { sequence: 0, digests: Box::default(), standing: Standing::New, life: 1 };
    let later = now + Duration::from_millis(500);
    for id in 2..500 {
        rosters.handle_word(NodeId::from_bits(id), beat(), later);
    }
    rosters.handle_timeout(later + Duration::from_millis(199));
    assert_eq!(words(&mut rosters).len(), 1);
    rosters.handle_timeout(later + Duration::from_millis(200));
    assert_eq!(words(&mut rosters).len(), 1);
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
    words(&mut one);
    (one, two)
}

#[test]
fn a_large_state_comes_in_parts_that_the_broker_takes() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(1000, now);
    let now = now + Duration::from_secs(2);
    one.handle_timeout(now);
    hear_all(&mut two, 1, words(&mut one), now);
    hear_all(&mut one, 2, words(&mut two), now);
    let parts = words(&mut one);
    assert!(parts.len() >= 4, "{}", parts.len());
    assert!(parts.iter().all(|(_, word)| word.encode().len() <= 256 * 1024));
    hear_all(&mut two, 1, parts, now);
    assert_eq!(two.users(&channel("room")), 1000);
}

#[test]
fn when_a_part_is_lost_the_question_is_repeated_after_a_second_without_answers() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(1000, now);
    let now = now + Duration::from_secs(2);
    one.handle_timeout(now);
    hear_all(&mut two, 1, words(&mut one), now);
    hear_all(&mut one, 2, words(&mut two), now);
    let mut parts = words(&mut one);
    parts.remove(1);
    hear_all(&mut two, 1, parts, now);
    assert_eq!(two.users(&channel("room")), 0);
    two.handle_timeout(now + Duration::from_millis(999));
    assert!(words(&mut two).iter().all(|(_, word)| !matches!(word, Word::Ask { .. })));
    let now = now + Duration::from_secs(1);
    two.handle_timeout(now);
    talk(&mut one, &mut two, now);
    assert_eq!(two.users(&channel("room")), 1000);
}

#[test]
fn an_answer_that_is_older_than_what_was_heard_does_not_undo_it() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(10, now);
    let now = now + Duration::from_secs(2);
    one.handle_timeout(now);
    hear_all(&mut two, 1, words(&mut one), now);
    hear_all(&mut one, 2, words(&mut two), now);
    let answer = words(&mut one);
    // Said after the answer, heard before it.
    join(&mut one, 50, None, now);
    one.handle_leave(&channel("room"), ConnectionId::from_bits(3), now);
    hear_all(&mut two, 1, words(&mut one), now);
    assert_eq!(two.users(&channel("room")), 1);
    hear_all(&mut two, 1, answer, now);
    assert_eq!(two.users(&channel("room")), 10);
    assert_eq!(two.members(&channel("room")), one.members(&channel("room")));
    // And all that is asked at the next heartbeat is nothing.
    one.handle_timeout(now + Duration::from_secs(2));
    hear_all(&mut two, 1, words(&mut one), now);
    assert_eq!(words(&mut two), []);
}

#[test]
fn an_answer_that_overtakes_changes_has_them_already() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(10, now);
    let now = now + Duration::from_secs(2);
    one.handle_timeout(now);
    hear_all(&mut two, 1, words(&mut one), now);
    let asked = words(&mut two);
    join(&mut one, 50, None, now);
    one.handle_leave(&channel("room"), ConnectionId::from_bits(50), now);
    join(&mut one, 51, None, now);
    let changes = words(&mut one);
    hear_all(&mut one, 2, asked, now);
    hear_all(&mut two, 1, words(&mut one), now);
    let before = std::iter::from_fn(|| two.next_effect()).count();
    assert_eq!((before, two.users(&channel("room"))), (11, 11));
    hear_all(&mut two, 1, changes, now);
    assert_eq!(two.next_effect(), None);
}

#[test]
fn when_more_is_heard_than_is_remembered_the_question_begins_anew() {
    let now = carillon_tasks::clock::now();
    let (mut one, mut two) = apart(10, now);
    let now = now + Duration::from_secs(2);
    one.handle_timeout(now);
    hear_all(&mut two, 1, words(&mut one), now);
    let first = words(&mut two);
    assert!(matches!(first.as_slice(), [(_, Word::Ask { .. })]), "{first:?}");
    for index in 0..2500 {
        join(&mut one, 100 + index, None, now);
        one.handle_leave(&channel("room"), ConnectionId::from_bits(100 + index), now);
    }
    hear_all(&mut two, 1, words(&mut one), now);
    let second = words(&mut two);
    assert!(matches!(second.as_slice(), [(_, Word::Ask { .. })]) && second != first, "{second:?}");
    // The answer to the first question is not taken: what came after it is forgotten.
    hear_all(&mut one, 2, first, now);
    hear_all(&mut two, 1, words(&mut one), now);
    assert_eq!(two.users(&channel("room")), 0);
    hear_all(&mut one, 2, second, now);
    hear_all(&mut two, 1, words(&mut one), now);
    assert_eq!(two.users(&channel("room")), 10);
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
        slow.extend(words(&mut one).into_iter().map(|(_, word)| (ms + 20, 2, word)));
        if let Some(two) = two {
            two.handle_timeout(now);
            slow.extend(words(two).into_iter().map(|(_, word)| (ms + 20, 1, word)));
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
                let (here, there) = (one.users(&channel("room")), two.users(&channel("room")));
                assert!(here.abs_diff(there) <= 21, "{here} and {there} at {ms} ms");
            }
        }
    }
}
