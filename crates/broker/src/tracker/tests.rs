use std::fmt::Write as _;

use carillon_model::{ChannelName, UnixMillis};
use proptest::prelude::*;

use super::*;

fn message(offset: u64) -> NewMessage {
    NewMessage {
        channel: ChannelName::new("news").unwrap(),
        event: None,
        data: bytes::Bytes::from(offset.to_string()),
        time: UnixMillis::new(0),
        user: None,
        exclude: Box::default(),
        id: None,
    }
}

fn stored(offset: u64) -> Stored {
    Stored { offset: Offset::new(offset), message: Some(message(offset)) }
}

const SMALL: HeldLimits = HeldLimits { messages: 4, bytes: 1 << 20 };

fn range(text: &str) -> (u64, u64) {
    let (first, last) = text.split_once("..").unwrap();
    (first.parse().unwrap(), last.parse().unwrap())
}

fn drain(tracker: &mut ShardTracker) -> String {
    let mut said = String::new();
    while let Some(effect) = tracker.next_effect() {
        match effect {
            Effect::Deliver(publication) => {
                write!(said, " {}", publication.position.unwrap().offset).unwrap();
                assert_eq!(publication.message.data, publication.position.unwrap().offset.to_string());
            }
            Effect::Fetch { from, to } => write!(said, " fetch:{from}..{to}").unwrap(),
            Effect::Lost { position } => write!(said, " lost:{}", position.offset).unwrap(),
            Effect::Epoch(epoch) => {
                write!(said, " epoch:{}", epoch.to_string().trim_start_matches('0')).unwrap()
            }
            Effect::WentBack => said.push_str(" went-back"),
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
            "live" => words.for_each(|word| tracker.handle_live(stored(word.parse().unwrap()))),
            "garbage" => {
                let offset = Offset::new(words.next().unwrap().parse().unwrap());
                tracker.handle_live(Stored { offset, message: None });
            }
            "asked" => tracker.handle_asked(),
            "tail" => {
                let epoch = Epoch::from_bits(words.next().unwrap().parse().unwrap());
                let (first, last) = range(words.next().unwrap());
                let tail = Tail { epoch, first: Offset::new(first), last: Offset::new(last) };
                tracker.handle_tail(tail, now);
            }
            "fetched" => {
                let upto = words.next().unwrap().parse().unwrap();
                let messages = words.map(|word| stored(word.parse().unwrap())).collect();
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
        tail 7 1..9       => went-back
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

/// What happens to the feed at one step of the simulation.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message is stored and comes.
    Pass,
    /// A message is stored and never comes.
    Drop,
    /// A message is stored and comes after the next one that passes.
    Delay,
    /// An earlier message comes again.
    Repeat(usize),
    /// The oldest message that is kept is dropped.
    Expire,
    /// The fetch in flight is answered up to so many of its messages.
    Answer(u64),
    /// The fetch in flight fails.
    Fail,
    /// The tail is polled.
    Poll,
    /// The link was away.
    Interrupt,
    /// The stream is made anew.
    Recreate,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Pass),
        3 => Just(Step::Drop),
        2 => Just(Step::Delay),
        2 => (0..100_usize).prop_map(Step::Repeat),
        1 => Just(Step::Expire),
        4 => (1..6_u64).prop_map(Step::Answer),
        1 => Just(Step::Fail),
        2 => Just(Step::Poll),
        1 => Just(Step::Interrupt),
        1 => Just(Step::Recreate),
    ]
}

/// The stream as it is stored, and a reader that believes the contract.
struct World {
    tracker: ShardTracker,
    now: Instant,
    epoch: u64,
    first: u64,
    last: u64,
    delayed: Vec<u64>,
    fetch: Option<(u64, u64)>,
    reader: Option<Position>,
}

impl World {
    fn new() -> Self {
        let now = carillon_tasks::clock::now();
        let tracker = ShardTracker::new(SMALL);
        Self { tracker, now, epoch: 1, first: 1, last: 0, delayed: vec![], fetch: None, reader: None }
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Pass => {
                self.last += 1;
                self.tracker.handle_live(stored(self.last));
                for late in std::mem::take(&mut self.delayed) {
                    self.tracker.handle_live(stored(late));
                }
            }
            Step::Drop => self.last += 1,
            Step::Delay => {
                self.last += 1;
                self.delayed.push(self.last);
            }
            Step::Repeat(back) => {
                let offset = self.last.saturating_sub(u64::try_from(back).unwrap());
                if offset >= 1 && !self.delayed.contains(&offset) {
                    self.tracker.handle_live(stored(offset));
                }
            }
            Step::Expire => self.first = (self.first + 1).min(self.last + 1),
            Step::Answer(count) => self.answer(count),
            Step::Fail => {
                if self.fetch.take().is_some() {
                    self.tracker.handle_fetch_failed(self.now);
                }
            }
            Step::Poll => self.poll(),
            Step::Interrupt => self.tracker.handle_interrupted(),
            // Before the first tail nothing tells one life from another; a node starts in one life.
            Step::Recreate if self.reader.is_none() => {}
            Step::Recreate => {
                (self.epoch, self.first, self.last) = (self.epoch + 1, 1, 0);
                self.delayed.clear();
                // The feed of a new life is only heard after the tail was asked for in this simulation.
                self.poll();
            }
        }
        self.now += Duration::from_millis(100);
        if self.tracker.next_deadline().is_some_and(|at| at <= self.now) {
            self.tracker.handle_timeout(self.now);
        }
        self.read();
    }

    fn answer(&mut self, count: u64) {
        let Some((from, to)) = self.fetch.take() else { return };
        let upto = to.min(from + count - 1);
        let messages = (from.max(self.first)..=upto.min(self.last)).map(stored).collect();
        self.tracker.handle_fetched(Offset::new(upto), messages);
    }

    fn poll(&mut self) {
        self.tracker.handle_asked();
        let epoch = Epoch::from_bits(self.epoch);
        let tail = Tail { epoch, first: Offset::new(self.first), last: Offset::new(self.last) };
        self.tracker.handle_tail(tail, self.now);
    }

    fn read(&mut self) {
        while let Some(effect) = self.tracker.next_effect() {
            match effect {
                Effect::Deliver(publication) => {
                    let position = publication.position.unwrap();
                    let reader = self.reader.expect("an epoch comes first");
                    assert_eq!(position, Position { offset: reader.offset.next(), ..reader });
                    assert_eq!(publication.message.data, position.offset.to_string());
                    self.reader = Some(position);
                }
                Effect::Lost { position } => {
                    let reader = self.reader.expect("an epoch comes first");
                    assert_eq!(position.epoch, reader.epoch);
                    assert!(position.offset >= reader.offset, "{position} after {reader}");
                    self.reader = Some(position);
                }
                Effect::Epoch(epoch) => {
                    let offset = if self.reader.is_none() { Offset::new(self.last) } else { Offset::ZERO };
                    self.reader = Some(Position { epoch, offset });
                }
                Effect::Fetch { from, to } => {
                    assert!(from <= to && to.get() - from.get() < FETCH_MAX);
                    self.fetch = Some((from.get(), to.get()));
                }
                Effect::WentBack => panic!("this stream never goes back"),
            }
        }
        assert!(self.tracker.held.len() <= SMALL.messages + 6, "what is held is bounded");
        let held: usize = self.tracker.held.values().map(|message| cost(message.as_ref())).sum();
        assert_eq!(held, self.tracker.held_bytes);
    }
}

proptest! {
    #[test]
    fn everything_is_delivered_once_and_in_order_or_said_to_be_lost(
        steps in prop::collection::vec(step(), 0..200)
    ) {
        let mut world = World::new();
        for step in steps {
            world.play(step);
        }
        world.play(Step::Poll);
        for _ in 0..100 {
            world.play(Step::Answer(5));
        }
        world.play(Step::Poll);
        for _ in 0..100 {
            world.play(Step::Answer(5));
        }
        let tail = Position { epoch: Epoch::from_bits(world.epoch), offset: Offset::new(world.last) };
        prop_assert_eq!(world.reader, Some(tail));
        prop_assert_eq!(world.tracker.position(), Some(tail));
        prop_assert!(world.tracker.is_settled());
    }
}
