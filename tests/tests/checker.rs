//! The checker is checked: runs that are right are clean, and runs with one planted bug are caught, and the bug named.

use std::collections::BTreeMap;

use carillon_model::{Epoch, Offset, Position};
use carillon_tests::{
    checker::{
        Channel, Event, Fault, Name, Outcome, Past, Published, Reason, Run, Seen, Story, Verdict, audit,
    },
    faults::dice::Dice,
};

/// Runs without a bug, and runs with each planted bug.
const CLEAN_RUNS: u64 = 300;
const PLANTED_RUNS: u64 = 40;

const CLIENTS: usize = 6;
const PUBLISHERS: u16 = 3;
/// Publications of each channel.
const STEPS: usize = 60;

/// A channel that loses nothing, and one whose stream is made anew in the middle.
const SAFE: u16 = 0;
const RISKY: u16 = 1;

/// A client as it is made up.
struct Actor {
    connected: bool,
    stands: BTreeMap<u16, Position>,
    events: Vec<Event>,
}

/// What is stored of a channel, in order.
type Stored = Vec<(Position, Published)>;

impl Actor {
    fn sees(&mut self, seen: Seen) {
        let at_ms = u32::try_from(self.events.len()).expect("few");
        self.events.push(Event { at_ms, seen });
    }

    fn reads(&mut self, (position, one): &(Position, Published)) {
        self.stands.insert(one.what.channel, *position);
        self.sees(Seen::Message { what: one.what, position: *position, content: one.content });
    }

    fn connects(&mut self, stored: &[Stored; 2], starts: [Position; 2]) {
        self.connected = true;
        self.sees(Seen::Connected);
        for channel in [SAFE, RISKY] {
            let (start, stored) = (starts[usize::from(channel)], &stored[usize::from(channel)]);
            let present = stored.last().map_or(start, |(position, _)| *position);
            let present = if present.epoch == start.epoch { present } else { start };
            let stand = self.stands.get(&channel).copied();
            let missed: Vec<_> = match stand {
                Some(stand) if stand.epoch == present.epoch => {
                    let later = |at: &Position| at.epoch == stand.epoch && at.offset > stand.offset;
                    stored.iter().filter(|(at, _)| later(at)).collect()
                }
                _ => Vec::new(),
            };
            let past = match stand {
                None => Past::NotAsked,
                Some(stand) if stand.epoch == present.epoch => {
                    Past::Recovered(u32::try_from(missed.len()).expect("few"))
                }
                Some(_) => Past::Lost(Reason::Epoch),
            };
            let position = stand.filter(|stand| stand.epoch == present.epoch).unwrap_or(present);
            self.stands.insert(channel, position);
            self.sees(Seen::Subscribed { channel, position, past });
            missed.into_iter().for_each(|one| self.reads(one));
        }
    }
}

/// Makes a run in which everything is as it should be.
fn run(seed: u64) -> Run {
    let dice = &mut Dice::new(seed);
    let position =
        |epoch: u64, offset| Position { epoch: Epoch::from_bits(epoch), offset: Offset::new(offset) };
    let mut starts = [position(1, 1), position(2, 1)];
    let mut stored: [Stored; 2] = [Vec::new(), Vec::new()];
    let mut publications = Vec::new();
    let mut counters: BTreeMap<(u16, u16), u32> = BTreeMap::new();
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| Actor { connected: false, stands: BTreeMap::new(), events: Vec::new() })
        .collect();
    for step in 0..2 * STEPS {
        let channel = if dice.once_in(2) { SAFE } else { RISKY };
        let slot = usize::from(channel);
        if channel == RISKY && starts[slot].epoch == Epoch::from_bits(2) && step > STEPS {
            starts[slot] = position(3, 1);
            for client in clients.iter_mut().filter(|client| client.connected) {
                client.stands.insert(channel, starts[slot]);
                client.sees(Seen::Gap { channel, position: Some(starts[slot]) });
            }
        }
        let publisher = u16::try_from(dice.below(u64::from(PUBLISHERS))).expect("few");
        let counter = counters.entry((channel, publisher)).or_default();
        *counter += 1;
        let what = Name { channel, publisher, counter: *counter };
        let before = stored[slot].last().filter(|(at, _)| at.epoch == starts[slot].epoch);
        let offset = before.map_or(starts[slot].offset, |(at, _)| at.offset).get() + 2 + dice.below(5);
        let at = Position { offset: Offset::new(offset), ..starts[slot] };
        let (outcome, is_stored) = match dice.below(12) {
            0 => (Outcome::Refused, false),
            1 => (Outcome::Unknown, false),
            2 => (Outcome::Unknown, true),
            _ => (Outcome::Stored(at), true),
        };
        let one = Published { what, content: dice.draw(), outcome };
        publications.push(one);
        if is_stored {
            stored[slot].push((at, one));
        }
        for client in &mut clients {
            match (client.connected, dice.below(8)) {
                (true, 0) => {
                    client.connected = false;
                    client.sees(Seen::Disconnected);
                }
                (true, _) if is_stored => client.reads(&(at, one)),
                (false, 0..4) => client.connects(&stored, starts),
                _ => {}
            }
        }
    }
    let late = clients.iter_mut().filter(|client| !client.connected);
    late.for_each(|client| client.connects(&stored, starts));
    let channel = |(name, slot): (&str, usize)| Channel {
        name: name.to_owned(),
        may_lose: slot == 1,
        last: Some(stored[slot].last().expect("something was stored").0),
    };
    let stories = clients.into_iter().zip(1..).map(|(client, number)| Story {
        name: format!("client {number}"),
        channels: vec![SAFE, RISKY],
        events: client.events,
    });
    Run {
        channels: [("safe", 0), ("risky", 1)].map(channel).to_vec(),
        publications,
        clients: stories.collect(),
    }
}

/// Puts a bug into many runs, where it has a place, and asks whether `fault` is found in each.
fn is_caught(fault: Fault, plant: impl Fn(&mut Run, &mut Dice) -> Option<()>) {
    let mut planted = 0;
    for seed in 0..PLANTED_RUNS * 10 {
        let mut run = run(seed);
        if plant(&mut run, &mut Dice::of(seed, 1)).is_none() {
            continue;
        }
        let verdict = audit(&run);
        assert!(verdict.count(fault) > 0, "seed {seed}: {:?}\n{}", verdict.counts, shown(&run, &verdict));
        let shown = shown(&run, &verdict);
        assert!(shown.contains(&format!("{fault:?} on ")), "it is shown: {shown}");
        planted += 1;
        if planted == PLANTED_RUNS {
            return;
        }
    }
    panic!("the bug found a place in {planted} runs only");
}

fn shown(run: &Run, verdict: &Verdict) -> String {
    verdict.first.iter().map(|violation| run.show(violation)).collect()
}

/// Returns the publications with such an outcome.
fn published(run: &Run, outcome: impl Fn(Outcome) -> bool) -> Vec<Name> {
    run.publications.iter().filter(|one| outcome(one.outcome)).map(|one| one.what).collect()
}

const fn is_stored(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Stored(_))
}

fn is_unknown(outcome: Outcome) -> bool {
    outcome == Outcome::Unknown
}

/// Says whether it is one of these messages.
fn is_one_of(names: &[Name], seen: &Seen) -> bool {
    matches!(seen, Seen::Message { what, .. } if names.contains(what))
}

fn events<'a>(run: &'a mut Run, dice: &mut Dice) -> &'a mut Vec<Event> {
    let client = dice.place(run.clients.len());
    &mut run.clients[client].events
}

/// Returns the place of one of the events that are `wanted`, by dice.
fn one_of(events: &[Event], dice: &mut Dice, wanted: impl Fn(&Seen) -> bool) -> Option<usize> {
    let places: Vec<_> = (0..events.len()).filter(|place| wanted(&events[*place].seen)).collect();
    dice.pick(&places).copied()
}

const fn is_message(seen: &Seen) -> bool {
    matches!(seen, Seen::Message { .. })
}

const fn is_safe_message(seen: &Seen) -> bool {
    matches!(seen, Seen::Message { what: Name { channel: SAFE, .. }, .. })
}

/// Returns the place of the next message of the channel on the same subscription.
fn next_message(events: &[Event], after: usize, channel: u16) -> Option<usize> {
    let ends = |seen: &Seen| {
        matches!(seen, Seen::Disconnected) || (seen.channel() == Some(channel) && !is_message(seen))
    };
    let place = (after + 1..events.len()).find(|place| {
        let seen = &events[*place].seen;
        ends(seen) || (is_message(seen) && seen.channel() == Some(channel))
    })?;
    is_message(&events[place].seen).then_some(place)
}

/// Returns the place of a `recovered:true` that brought something, the channel, and where it brought it.
fn replay(events: &[Event], dice: &mut Dice) -> Option<(usize, u16, Vec<usize>)> {
    let place =
        one_of(events, dice, |seen| matches!(seen, Seen::Subscribed { past: Past::Recovered(1..), .. }))?;
    let Seen::Subscribed { channel, past: Past::Recovered(count), .. } = events[place].seen else {
        return None;
    };
    let mut brought = Vec::new();
    for _ in 0..count {
        brought.push(next_message(events, *brought.last().unwrap_or(&place), channel)?);
    }
    Some((place, channel, brought))
}

#[test]
fn runs_that_are_right_are_clean() {
    let (mut told, mut recovered) = (0, 0);
    for seed in 0..CLEAN_RUNS {
        let run = run(seed);
        let verdict = audit(&run);
        assert!(verdict.is_clean(), "seed {seed}: {}", shown(&run, &verdict));
        assert_eq!(verdict.told.keys().filter(|(may_lose, _)| !may_lose).count(), 0);
        told += verdict.told.values().sum::<u64>();
        recovered += verdict.recovered.1;
    }
    assert!(
        told > CLEAN_RUNS && recovered > 10 * CLEAN_RUNS,
        "there was something to see: {told} {recovered}"
    );
}

#[test]
fn the_same_run_has_the_same_verdict() {
    let mut broken = run(1);
    broken.clients[0].events.retain(|event| event.at_ms % 7 != 0);
    let (one, other) = (audit(&broken), audit(&broken));
    assert!(!one.is_clean());
    assert_eq!((one.first, one.counts), (other.first, other.counts));
}

/// Takes a message with such an outcome out, unless it is the last of its subscription.
fn skip(run: &mut Run, dice: &mut Dice, outcome: fn(Outcome) -> bool) -> Option<()> {
    let some = published(run, outcome);
    let events = events(run, dice);
    let place = one_of(events, dice, |seen| is_one_of(&some, seen))?;
    let _another = next_message(events, place, events[place].seen.channel()?)?;
    events.remove(place);
    Some(())
}

#[test]
fn a_skipped_message_is_caught() {
    is_caught(Fault::SilentGap, |run, dice| skip(run, dice, is_stored));
    is_caught(Fault::AckedLost, |run, dice| skip(run, dice, is_stored));
}

#[test]
fn a_skipped_message_that_nobody_acknowledged_is_a_silent_gap() {
    is_caught(Fault::SilentGap, |run, dice| skip(run, dice, is_unknown));
}

#[test]
fn a_message_that_comes_twice_is_caught() {
    is_caught(Fault::Duplicate, |run, dice| {
        let events = events(run, dice);
        let place = one_of(events, dice, is_message)?;
        let later = place + 1 + dice.place(events.len() - place);
        events.insert(later.min(events.len()), events[place]);
        Some(())
    });
}

#[test]
fn two_messages_in_the_wrong_order_are_caught() {
    is_caught(Fault::Reordered, |run, dice| {
        let events = events(run, dice);
        let place = one_of(events, dice, is_message)?;
        let other = next_message(events, place, events[place].seen.channel()?)?;
        events.swap(place, other);
        Some(())
    });
}

#[test]
fn a_live_message_before_the_end_of_the_past_is_caught() {
    is_caught(Fault::Reordered, |run, dice| {
        let events = events(run, dice);
        let (place, channel, brought) = replay(events, dice)?;
        let live = next_message(events, *brought.last()?, channel)?;
        let early = events.remove(live);
        events.insert(place + 1, early);
        Some(())
    });
}

#[test]
fn trust_in_a_foreign_epoch_is_caught() {
    is_caught(Fault::ForeignEpoch, |run, dice| {
        let events = events(run, dice);
        let lost = |seen: &Seen| matches!(seen, Seen::Subscribed { past: Past::Lost(Reason::Epoch), .. });
        let place = one_of(events, dice, lost)?;
        if let Seen::Subscribed { past, .. } = &mut events[place].seen {
            *past = Past::Recovered(0);
        }
        Some(())
    });
    is_caught(Fault::ForeignEpoch, |run, dice| {
        let events = events(run, dice);
        let place = one_of(events, dice, |seen| matches!(seen, Seen::Gap { .. }))?;
        next_message(events, place, RISKY)?;
        events.remove(place);
        Some(())
    });
}

#[test]
fn a_message_that_nobody_published_is_caught() {
    is_caught(Fault::Phantom, |run, dice| {
        let events = events(run, dice);
        let place = one_of(events, dice, is_message)?;
        if let Seen::Message { what, .. } = &mut events[place].seen {
            what.counter += 1_000_000;
        }
        Some(())
    });
}

#[test]
fn a_message_that_was_refused_is_caught() {
    is_caught(Fault::Phantom, |run, dice| {
        let refused: Vec<_> =
            run.publications.iter().filter(|one| one.outcome == Outcome::Refused).copied().collect();
        let one = *dice.pick(&refused)?;
        let events = events(run, dice);
        let place =
            one_of(events, dice, |seen| is_message(seen) && seen.channel() == Some(one.what.channel))?;
        let Seen::Message { position, .. } = events[place].seen else { return None };
        let position = Position { offset: position.offset.next(), ..position };
        events.insert(
            place + 1,
            Event { at_ms: 0, seen: Seen::Message { what: one.what, position, content: one.content } },
        );
        Some(())
    });
}

#[test]
fn a_message_that_was_changed_is_caught() {
    is_caught(Fault::WrongContent, |run, dice| {
        let events = events(run, dice);
        let place = one_of(events, dice, is_message)?;
        if let Seen::Message { content, .. } = &mut events[place].seen {
            *content ^= 1;
        }
        Some(())
    });
}

#[test]
fn two_messages_under_one_id_are_caught() {
    is_caught(Fault::Disagreement, |run, dice| {
        let events = events(run, dice);
        let place = one_of(events, dice, is_message)?;
        let other = next_message(events, place, events[place].seen.channel()?)?;
        let Seen::Message { position: wrong, .. } = events[place].seen else { return None };
        if let Seen::Message { position, .. } = &mut events[other].seen {
            *position = wrong;
        }
        Some(())
    });
}

#[test]
fn a_publication_that_is_stored_twice_is_caught() {
    is_caught(Fault::StoredTwice, |run, dice| {
        let unknown = published(run, is_unknown);
        let events = events(run, dice);
        let place = one_of(events, dice, |seen| is_one_of(&unknown, seen))?;
        let mut again = events[place];
        if let Seen::Message { position, .. } = &mut again.seen {
            // Offsets leave room between them.
            position.offset = position.offset.next();
        }
        events.insert(place + 1, again);
        Some(())
    });
}

/// Lets one of the acknowledged publications that are `chosen` be acknowledged at another place.
fn lie(
    run: &mut Run,
    dice: &mut Dice,
    chosen: fn(Position) -> bool,
    change: fn(&mut Position),
) -> Option<()> {
    let mut places: Vec<_> = run
        .publications
        .iter_mut()
        .filter_map(|one| match &mut one.outcome {
            Outcome::Stored(at) => chosen(*at).then_some(at),
            Outcome::Refused | Outcome::Unknown => None,
        })
        .collect();
    let place = dice.place(places.len());
    places.get_mut(place).map(|place| change(place))
}

#[test]
fn an_acknowledgement_of_another_place_is_caught() {
    is_caught(Fault::FalseAnswer, |run, dice| {
        // Offsets leave room between them.
        lie(run, dice, |_| true, |at| at.offset = at.offset.next())
    });
    is_caught(Fault::FalseAnswer, |run, dice| {
        run.channels[usize::from(RISKY)].may_lose = false;
        lie(run, dice, |at| at.epoch == Epoch::from_bits(3), |at| at.epoch = Epoch::from_bits(2))
    });
}

#[test]
fn an_acknowledgement_with_the_epoch_before_is_counted_where_streams_are_deleted() {
    for seed in 0..PLANTED_RUNS {
        let (mut run, mut dice) = (run(seed), Dice::of(seed, 1));
        let third = |at: Position| at.epoch == Epoch::from_bits(3);
        lie(&mut run, &mut dice, third, |at| at.epoch = Epoch::from_bits(2)).expect("some are in the third");
        let verdict = audit(&run);
        assert!(verdict.is_clean() && verdict.stale == 1, "seed {seed}: {}", shown(&run, &verdict));
    }
}

#[test]
fn publications_that_are_stored_in_another_order_than_they_were_acknowledged_are_caught() {
    is_caught(Fault::OutOfTurn, |run, dice| {
        let stored = published(run, is_stored);
        let one = *dice.pick(&stored)?;
        let other = *stored.iter().find(|other| {
            (other.channel, other.publisher) == (one.channel, one.publisher) && other.counter > one.counter
        })?;
        let exchange = |what: &mut Name| match *what {
            same if same == one => *what = other,
            same if same == other => *what = one,
            _ => {}
        };
        run.publications.iter_mut().for_each(|published| exchange(&mut published.what));
        for event in run.clients.iter_mut().flat_map(|client| &mut client.events) {
            if let Seen::Message { what, .. } = &mut event.seen {
                exchange(what);
            }
        }
        // In two epochs they have no order.
        let epoch = |what| {
            let found = run.publications.iter().find(|published| published.what == what)?;
            if let Outcome::Stored(at) = found.outcome { Some(at.epoch) } else { None }
        };
        (epoch(one)? == epoch(other)?).then_some(())
    });
}

#[test]
fn a_message_after_the_end_of_the_subscription_is_caught() {
    is_caught(Fault::NotSubscribed, |run, dice| {
        let events = events(run, dice);
        let place = one_of(events, dice, is_message)?;
        let channel = events[place].seen.channel()?;
        events.insert(place, Event { at_ms: 0, seen: Seen::Unsubscribed { channel } });
        Some(())
    });
    is_caught(Fault::NotSubscribed, |run, dice| {
        let client = dice.place(run.clients.len());
        run.clients[client].channels = vec![SAFE];
        one_of(&run.clients[client].events, dice, |seen| is_message(seen) && !is_safe_message(seen))
            .map(|_| ())
    });
}

#[test]
fn an_acknowledged_message_that_is_lost_at_the_end_is_caught() {
    // For one client, and for all.
    for all in [false, true] {
        is_caught(Fault::AckedLost, |run, dice| {
            let last = run.publications.iter().rev().find(|one| {
                matches!(one.outcome, Outcome::Stored(at) if Some(at) == run.channels[usize::from(one.what.channel)].last)
            })?;
            let what = last.what;
            let lucky = if all { None } else { Some(dice.place(run.clients.len())) };
            let unlucky = run.clients.iter_mut().enumerate().filter(|(number, _)| Some(*number) != lucky);
            for (_, client) in unlucky {
                client
                    .events
                    .retain(|event| !matches!(event.seen, Seen::Message { what: seen, .. } if seen == what));
            }
            Some(())
        });
    }
}

#[test]
fn a_past_that_is_called_complete_and_is_not_is_caught() {
    is_caught(Fault::SilentGap, |run, dice| {
        let acked = published(run, is_stored);
        let events = events(run, dice);
        let (place, channel, brought) = replay(events, dice)?;
        let missing = *brought.iter().find(|place| is_one_of(&acked, &events[**place].seen))?;
        // What a client missed before it is told of a loss is covered by that.
        let _another = next_message(events, missing, channel)?;
        if let Seen::Subscribed { past: Past::Recovered(count), .. } = &mut events[place].seen {
            *count -= 1;
        }
        events.remove(missing);
        Some(())
    });
}

#[test]
fn a_past_that_is_announced_and_does_not_come_is_caught() {
    is_caught(Fault::FalseAnswer, |run, dice| {
        let events = events(run, dice);
        let place = events
            .iter()
            .rposition(|event| matches!(event.seen, Seen::Subscribed { past: Past::Recovered(_), .. }))?;
        let after = &events[place..];
        if after.iter().any(|event| event.seen == Seen::Disconnected) {
            return None;
        }
        let most = u32::try_from(after.len()).unwrap();
        if let Seen::Subscribed { past: Past::Recovered(count), .. } = &mut events[place].seen {
            *count += most;
        }
        Some(())
    });
}

#[test]
fn a_loss_that_is_told_where_nothing_was_deleted_is_caught() {
    for reason in [None, Some(Reason::Epoch), Some(Reason::Expired)] {
        is_caught(Fault::NeedlessLoss, |run, dice| {
            let events = events(run, dice);
            if let Some(reason) = reason {
                let safe = |seen: &Seen| {
                    matches!(seen, Seen::Subscribed { channel: SAFE, past: Past::Recovered(_), .. })
                };
                let place = one_of(events, dice, safe)?;
                if let Seen::Subscribed { past, .. } = &mut events[place].seen {
                    *past = Past::Lost(reason);
                }
                return Some(());
            }
            let place = one_of(events, dice, is_safe_message)?;
            let Seen::Message { position, .. } = events[place].seen else { return None };
            events.insert(
                place,
                Event { at_ms: 0, seen: Seen::Gap { channel: SAFE, position: Some(position) } },
            );
            Some(())
        });
    }
}

#[test]
fn a_client_that_does_not_come_back_is_caught() {
    is_caught(Fault::SilentGap, |run, dice| {
        let events = events(run, dice);
        let place = one_of(events, dice, |seen| *seen == Seen::Disconnected)?;
        // What it does not see must be something.
        events[place..].iter().any(|event| is_message(&event.seen)).then_some(())?;
        events.truncate(place + 1);
        Some(())
    });
}
