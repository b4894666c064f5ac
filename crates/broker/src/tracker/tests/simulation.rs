//! Any order of losses, repetitions, failures and rollbacks, against the stream as it is stored.
//!
//! **Lives here:** the stream, its faults, and a reader that believes what it is told.
//! **Called by:** nobody; it is a test.
//! **Must not know:** how the tracker does it.

use proptest::prelude::*;

use super::*;

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
    /// The server comes back without so many of its last messages.
    RollBack(usize),
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
        1 => (0..8_usize).prop_map(Step::RollBack),
    ]
}

/// Epochs that a stream may have before it is made anew.
const LIFE: u64 = 1000;

/// The stream as it is stored, and a reader that believes the contract.
struct World {
    tracker: ShardTracker,
    now: Instant,
    epoch: u64,
    first: u64,
    /// Which version of a message is at each place, from the first on.
    log: Vec<u64>,
    /// Versions that were made.
    versions: u64,
    delayed: Vec<Stored>,
    fetch: Option<(u64, u64)>,
    /// The tracker has asked for another epoch.
    renew: bool,
    /// The stream was rolled back in this epoch.
    rolled_back: bool,
    reader: Option<Position>,
    /// What the reader has taken since it was told of a loss.
    taken: Vec<(u64, u64)>,
}

impl World {
    fn new() -> Self {
        let now = carillon_tasks::clock::now();
        let tracker = ShardTracker::new(SMALL);
        Self {
            tracker,
            now,
            epoch: LIFE,
            first: 1,
            log: vec![],
            versions: 0,
            delayed: vec![],
            fetch: None,
            renew: false,
            rolled_back: false,
            reader: None,
            taken: vec![],
        }
    }

    fn last(&self) -> u64 {
        u64::try_from(self.log.len()).unwrap()
    }

    fn at(&self, offset: u64) -> Stored {
        stored(offset, self.log[usize::try_from(offset - 1).unwrap()])
    }

    fn store(&mut self) -> Stored {
        self.versions += 1;
        self.log.push(self.versions);
        self.at(self.last())
    }

    fn play(&mut self, step: Step) {
        match step {
            Step::Pass => {
                let stored = self.store();
                self.tracker.handle_live(stored);
                for late in std::mem::take(&mut self.delayed) {
                    self.tracker.handle_live(late);
                }
            }
            Step::Drop => drop(self.store()),
            Step::Delay => {
                let stored = self.store();
                self.delayed.push(stored);
            }
            Step::Repeat(back) => {
                let offset = self.last().saturating_sub(u64::try_from(back).unwrap());
                if offset >= 1 && !self.delayed.iter().any(|late| late.offset.get() == offset) {
                    self.tracker.handle_live(self.at(offset));
                }
            }
            // When all that could bear witness has expired, a rollback cannot be noticed.
            Step::Expire if self.rolled_back => {}
            Step::Expire => self.first = (self.first + 1).min(self.last() + 1),
            Step::Answer(count) => self.answer(count),
            Step::Fail => {
                if self.fetch.take().is_some() {
                    self.tracker.handle_fetch_failed(self.now);
                }
            }
            Step::Poll => self.poll(),
            Step::Interrupt => self.interrupt(),
            Step::RollBack(count) => {
                self.log.truncate(self.log.len().saturating_sub(count));
                if count == 7 {
                    // The copy is so old that it does not know of the last change of epoch.
                    self.epoch = (self.epoch - 1).max(self.epoch / LIFE * LIFE);
                }
                self.first = self.first.min(self.last() + 1);
                self.rolled_back = true;
                self.interrupt();
            }
            // Before the first tail nothing tells one life from another; a node starts in one life.
            Step::Recreate if self.reader.is_none() => {}
            Step::Recreate => {
                (self.epoch, self.first) = ((self.epoch / LIFE + 1) * LIFE, 1);
                self.log.clear();
                self.delayed.clear();
                // The feed of a new life is only heard after the tail was asked for.
                self.poll();
            }
        }
        self.now += Duration::from_millis(100);
        if self.tracker.next_deadline().is_some_and(|at| at <= self.now) {
            self.tracker.handle_timeout(self.now);
        }
        self.read();
    }

    fn interrupt(&mut self) {
        self.delayed.clear();
        self.tracker.handle_interrupted();
        if self.fetch.take().is_some() {
            self.tracker.handle_fetch_failed(self.now);
        }
    }

    fn answer(&mut self, count: u64) {
        let Some((from, to)) = self.fetch.take() else { return };
        let upto = to.min(from + count - 1);
        let messages = (from.max(self.first)..=upto.min(self.last())).map(|n| self.at(n)).collect();
        self.tracker.handle_fetched(Offset::new(upto), messages);
    }

    fn poll(&mut self) {
        if std::mem::take(&mut self.renew) {
            self.epoch += 1;
        }
        self.tracker.handle_asked();
        let kept = self.first..=self.last();
        let asked = self.tracker.witnesses().map(Offset::get).chain([self.last()]);
        let kept = asked.into_iter().find(|place| kept.contains(place)).map(|place| self.at(place));
        let tail = Tail {
            epoch: Epoch::from_bits(self.epoch),
            first: Offset::new(self.first),
            last: Offset::new(self.last()),
            kept: kept.map(|stored| (stored.offset, stored.print)),
        };
        self.tracker.handle_tail(tail, self.now);
    }

    fn read(&mut self) {
        while let Some(effect) = self.tracker.next_effect() {
            match effect {
                Effect::Deliver(publication) => {
                    let position = publication.position.unwrap();
                    let reader = self.reader.expect("an epoch comes first");
                    assert_eq!(position, Position { offset: reader.offset.next(), ..reader });
                    self.taken.push(content(&publication));
                    self.reader = Some(position);
                }
                Effect::Lost { position } => {
                    let reader = self.reader.expect("an epoch comes first");
                    assert_eq!(position.epoch, reader.epoch);
                    assert!(position.offset >= reader.offset, "{position} after {reader}");
                    self.reader = Some(position);
                    self.taken.clear();
                }
                Effect::Epoch(epoch) => {
                    self.rolled_back = false;
                    let offset = if self.reader.is_none() { Offset::new(self.last()) } else { Offset::ZERO };
                    self.reader = Some(Position { epoch, offset });
                }
                Effect::Fetch { from, to } => {
                    assert!(from <= to && to.get() - from.get() < FETCH_MAX);
                    self.fetch = Some((from.get(), to.get()));
                }
                Effect::WentBack(epoch) => self.renew |= Epoch::from_bits(self.epoch) == epoch,
            }
        }
        assert!(self.tracker.held.len() <= SMALL.messages + 6, "what is held is bounded");
        let held: usize = self.tracker.held.values().map(cost).sum();
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
        // Suspected, went back, renewed as often as there may be old epochs, reached.
        for _ in 0..LEFT_MAX {
            world.play(Step::Poll);
            for _ in 0..100 {
                world.play(Step::Answer(5));
            }
        }
        let tail = Position { epoch: Epoch::from_bits(world.epoch), offset: Offset::new(world.last()) };
        prop_assert_eq!(world.reader, Some(tail));
        prop_assert_eq!(world.tracker.position(), Some(tail));
        prop_assert!(world.tracker.is_settled());
        // What was taken after the last word of a loss is what the stream says.
        for (offset, version) in &world.taken {
            prop_assert_eq!(Some(version), world.log.get(usize::try_from(offset - 1).unwrap()), "at {}", offset);
        }
    }
}
