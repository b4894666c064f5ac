use std::fmt::Write as _;

use carillon_model::{ChannelName, NewMessage, UnixMillis};

use super::*;

fn message(offset: u64, version: u64) -> NewMessage {
    NewMessage {
        channel: ChannelName::new("news").unwrap(),
        event: None,
        data: bytes::Bytes::from(format!("{offset}.{version}")),
        kind: carillon_model::DataKind::Json,
        time: UnixMillis::new(0),
        user: None,
        exclude: Box::default(),
        id: None,
    }
}

fn print(message: &NewMessage) -> Fingerprint {
    Fingerprint::of(message.channel.as_str(), &message.data)
}

/// One of the messages that a stream may have at a place.
fn stored(offset: u64, version: u64) -> Stored {
    let message = message(offset, version);
    Stored { offset: Offset::new(offset), print: print(&message), message: Some(message) }
}

/// Reads `12`, or `12'` for another message at the same place.
fn told(word: &str) -> Stored {
    let offset = word.trim_end_matches('\'');
    stored(offset.parse().unwrap(), u64::try_from(word.len() - offset.len()).unwrap())
}

const SMALL: HeldLimits = HeldLimits { messages: 4, bytes: 1 << 20 };

fn range(text: &str) -> (u64, u64) {
    let (first, last) = text.split_once("..").unwrap();
    (first.parse().unwrap(), last.parse().unwrap())
}

/// Reads what is in a publication: its place, which must be where it stands, and which version it is.
fn content(publication: &Publication) -> (u64, u64) {
    let text = std::str::from_utf8(&publication.message.data).unwrap();
    let (offset, version) = text.split_once('.').unwrap();
    assert_eq!(offset, publication.position.unwrap().offset.to_string());
    (offset.parse().unwrap(), version.parse().unwrap())
}

fn drain(tracker: &mut ShardTracker) -> String {
    let mut said = String::new();
    while let Some(effect) = tracker.next_effect() {
        match effect {
            Effect::Deliver(publication) => {
                let (offset, version) = content(&publication);
                write!(said, " {offset}{}", "'".repeat(version.try_into().unwrap())).unwrap();
            }
            Effect::Fetch { from, to } => write!(said, " fetch:{from}..{to}").unwrap(),
            Effect::Lost { position } => write!(said, " lost:{}", position.offset).unwrap(),
            Effect::Epoch(epoch) => {
                write!(said, " epoch:{}", epoch.to_string().trim_start_matches('0')).unwrap()
            }
            Effect::WentBack(epoch) => {
                write!(said, " went-back:{}", epoch.to_string().trim_start_matches('0')).unwrap()
            }
        }
    }
    said.trim().to_owned()
}

/// Plays a script of `input => effects` lines against a tracker that holds at most four messages.
#[track_caller]
fn check(script: &str) {
    let start = carillon_tasks::clock::now();
    let (mut now, mut tracker) = (start, ShardTracker::new(SMALL));
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (input, expected) = line.split_once("=>").unwrap();
        let mut words = input.split_whitespace();
        match words.next().unwrap() {
            "live" => words.for_each(|word| tracker.handle_live(told(word))),
            "garbage" => {
                let offset = Offset::new(words.next().unwrap().parse().unwrap());
                tracker.handle_live(Stored { offset, print: Fingerprint::of("garbage", b""), message: None });
            }
            "asked" => tracker.handle_asked(),
            "witnesses" => {
                let places: Vec<_> = tracker.witnesses().map(|place| place.to_string()).collect();
                assert_eq!(places.join(" "), expected.trim(), "{line}");
                continue;
            }
            "tail" => {
                let epoch = Epoch::from_bits(words.next().unwrap().parse().unwrap());
                let (first, last) = range(words.next().unwrap());
                let kept = words.next().map(told).map(|stored| (stored.offset, stored.print));
                tracker.handle_tail(
                    Tail { epoch, first: Offset::new(first), last: Offset::new(last), kept },
                    now,
                );
            }
            "fetched" => {
                let upto = words.next().unwrap().parse().unwrap();
                let messages = words.map(told).collect();
                tracker.handle_fetched(Offset::new(upto), messages);
            }
            "failed" => tracker.handle_fetch_failed(now),
            "interrupted" => tracker.handle_interrupted(),
            "at" => {
                now = start + Duration::from_millis(words.next().unwrap().parse().unwrap());
                if tracker.next_deadline().is_some_and(|at| at <= now) {
                    tracker.handle_timeout(now);
                }
            }
            "settled" => {
                assert_eq!(tracker.is_settled().to_string(), expected.trim(), "{line}");
                continue;
            }
            other => panic!("no input is called {other}"),
        }
        assert_eq!(drain(&mut tracker), expected.trim(), "{line}");
    }
}

#[test]
fn a_contiguous_feed_passes_through() {
    check(
        "
        tail 7 1..10  => epoch:7
        live 11 12    => 11 12
        live 12 9     =>
        live 13       => 13
        ",
    );
}

#[test]
fn what_comes_before_the_first_tail_is_held_and_follows_it() {
    check(
        "
        live 9 10 11  =>
        settled       => false
        tail 7 1..10  => epoch:7 11
        settled       => true
        ",
    );
}

#[test]
fn a_gap_is_fetched_and_what_followed_it_is_released_in_order() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 11 14        => 11 fetch:12..13
        live 15           =>
        fetched 13 12 13  => 12 13 14 15
        live 16           => 16
        ",
    );
}

#[test]
fn a_message_that_comes_late_after_all_closes_the_gap_itself() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 12           => fetch:11..11
        live 11           => 11 12
        fetched 11 11     =>
        live 13           => 13
        ",
    );
}

#[test]
fn garbage_takes_its_place_and_is_not_delivered() {
    check(
        "
        tail 7 1..10      => epoch:7
        garbage 11        =>
        live 12           => 12
        ",
    );
}

#[test]
fn holes_are_lost_with_all_before_the_last_of_them() {
    check(
        "
        tail 7 1..10            => epoch:7
        live 16                 => fetch:11..15
        fetched 15 11 13 15     => lost:14 15 16
        ",
    );
}

#[test]
fn a_part_of_the_answer_is_followed_by_another_fetch() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 16           => fetch:11..15
        fetched 12 11 12  => 11 12 fetch:13..15
        ",
    );
}

#[test]
fn a_failed_fetch_is_repeated_after_a_while() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 12           => fetch:11..11
        failed            =>
        live 13           =>
        at 400            =>
        at 500            => fetch:11..11
        fetched 11 11     => 11 12 13
        ",
    );
}

#[test]
fn holding_too_much_drops_it_and_fetches_it_later() {
    check(
        "
        tail 7 1..10            => epoch:7
        live 12 13 14 15 16     => fetch:11..11
        fetched 11 11           => 11 fetch:12..16
        live 17                 =>
        fetched 16 12 13 14 15 16 => 12 13 14 15 16 17
        ",
    );
}

#[test]
fn a_lost_last_message_is_found_by_the_tail_after_a_grace() {
    check(
        "
        tail 7 1..10      => epoch:7
        asked             =>
        tail 7 1..12      =>
        live 11           => 11
        at 499            =>
        at 500            => fetch:12..12
        fetched 12 12     => 12
        at 5000           =>
        ",
    );
}

#[test]
fn a_tail_that_the_feed_catches_up_with_fetches_nothing() {
    check(
        "
        tail 7 1..10      => epoch:7
        asked             =>
        tail 7 1..12      =>
        live 11 12        => 11 12
        at 5000           =>
        ",
    );
}

#[test]
fn after_an_interruption_all_is_fetched_at_once() {
    check(
        "
        tail 7 1..10      => epoch:7
        interrupted       =>
        settled           => false
        asked             =>
        tail 7 1..12      => fetch:11..12
        settled           => false
        live 13           =>
        fetched 12 11 12  => 11 12 13
        settled           => true
        ",
    );
}

#[test]
fn what_expired_during_an_interruption_is_lost() {
    check(
        "
        tail 7 1..10      => epoch:7
        interrupted       =>
        asked             =>
        tail 7 15..16     => lost:14 fetch:15..16
        fetched 16 15 16  => 15 16
        settled           => true
        ",
    );
}

#[test]
fn too_much_to_repair_is_given_up() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 100012       => lost:100011 100012
        ",
    );
}

#[test]
fn another_life_of_the_stream_is_a_loss_and_a_new_epoch() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 12           => fetch:11..11
        asked             =>
        tail 8 1..3       => epoch:8 lost:3
        fetched 11 11     =>
        live 4            => 4
        ",
    );
}

#[test]
fn a_stream_that_went_back_twice_is_reported_until_its_epoch_changes() {
    check(
        "
        tail 7 1..10      => epoch:7
        asked             =>
        tail 7 1..8       =>
        settled           => false
        asked             =>
        tail 7 1..10      =>
        settled           => true
        asked             =>
        tail 7 1..8       =>
        asked             =>
        tail 7 1..9       => went-back:7
        asked             =>
        tail 9 1..9       => epoch:9 lost:9
        live 10           => 10
        ",
    );
}

#[test]
fn a_tail_from_before_the_feed_went_on_is_not_a_step_back() {
    check(
        "
        tail 7 1..10      => epoch:7
        asked             =>
        live 11 12        => 11 12
        tail 7 1..10      =>
        asked             =>
        live 13           => 13
        tail 7 1..12      =>
        ",
    );
}

#[test]
fn a_rollback_that_was_overtaken_is_seen_in_the_feed() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 11 12        => 11 12
        live 12 11        =>
        live 11'          => went-back:7
        live 12' 13' 14'  =>
        settled           => false
        tail 7 1..14 14'  => went-back:7
        tail 8 1..14 14'  => epoch:8 lost:14
        live 14' 15'      => 15'
        settled           => true
        ",
    );
}

#[test]
fn a_rollback_that_was_overtaken_is_seen_after_an_interruption() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 11 12        => 11 12
        interrupted       =>
        live 13'          =>
        witnesses         => 12 11
        tail 7 1..13 12'  => went-back:7
        live 14'          =>
        tail 8 1..14 14'  => epoch:8 lost:14
        live 15'          => 15'
        ",
    );
}

#[test]
fn a_rollback_of_the_same_length_is_seen_after_an_interruption() {
    check(
        "
        tail 7 1..10 10   => epoch:7
        interrupted       =>
        tail 7 1..10 10   =>
        settled           => true
        live 11           => 11
        interrupted       =>
        tail 7 1..11 11'  => went-back:7
        tail 8 1..11 11'  => epoch:8 lost:11
        ",
    );
}

#[test]
fn an_older_witness_speaks_when_the_newest_is_not_kept() {
    check(
        "
        tail 7 1..10 10          => epoch:7
        live 11 12 13 14 15      => 11 12 13 14 15
        witnesses                => 15 14 12
        interrupted              =>
        tail 7 1..15 12'         => went-back:7
        ",
    );
}

#[test]
fn nothing_is_delivered_after_an_interruption_before_the_tail_was_asked_for() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 11           => 11
        interrupted       =>
        live 12 13        =>
        tail 7 1..13 11   => 12 13
        settled           => true
        ",
    );
}

#[test]
fn what_was_held_before_an_interruption_is_fetched_again() {
    check(
        "
        tail 7 1..10              => epoch:7
        live 12 13                => fetch:11..11
        interrupted               =>
        failed                    =>
        asked                     =>
        tail 7 1..14 10           =>
        at 500                    => fetch:11..14
        fetched 14 11 12' 13' 14' => 11 12' 13' 14'
        ",
    );
}

#[test]
fn a_tail_before_what_was_only_heard_is_a_step_back() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 13           => fetch:11..12
        interrupted       =>
        asked             =>
        tail 7 1..11 10   =>
        settled           => false
        asked             =>
        tail 7 1..11 10   => went-back:7
        tail 8 1..11 11   => epoch:8 lost:11
        ",
    );
}

#[test]
fn what_is_held_must_be_the_same_too() {
    check(
        "
        tail 7 1..10      => epoch:7
        live 12           => fetch:11..11
        live 12'          => went-back:7
        fetched 11 11     =>
        live 11           =>
        tail 8 1..12      => epoch:8 lost:12
        ",
    );
    check(
        "
        tail 7 1..10          => epoch:7
        live 14               => fetch:11..13
        live 12               =>
        fetched 13 11 12' 13  => went-back:7
        ",
    );
}

#[test]
fn two_lives_before_the_first_tail_are_forgotten() {
    check(
        "
        live 11 12        =>
        live 11'          =>
        live 12'          =>
        tail 7 1..11 11'  => epoch:7 12'
        live 13'          => 13'
        ",
    );
}

#[test]
fn an_epoch_that_was_left_does_not_come_back() {
    check(
        "
        tail 7 1..10      => epoch:7
        tail 8 1..5       => epoch:8 lost:5
        live 6            => 6
        interrupted       =>
        tail 7 1..10      => went-back:7
        live 7            =>
        tail 8 1..10      => went-back:8
        tail 9 1..10      => epoch:9 lost:10
        settled           => true
        ",
    );
}

#[test]
fn a_purge_of_what_was_delivered_loses_nothing() {
    check(
        "
        tail 7 1..10 10   => epoch:7
        live 11 12        => 11 12
        tail 7 13..12     =>
        live 13           => 13
        interrupted       =>
        tail 7 14..13     =>
        settled           => true
        live 14           => 14
        ",
    );
}

#[test]
fn a_purge_of_what_was_missed_is_a_loss() {
    check(
        "
        tail 7 1..10 10   => epoch:7
        tail 7 13..12     =>
        at 500            => lost:12
        live 13           => 13
        ",
    );
}

mod simulation;
