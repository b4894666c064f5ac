use bytes::Bytes;
use carillon_model::{ChannelName, Epoch, NewMessage, UnixMillis};

use super::*;

const LIMITS: ReplayLimits = ReplayLimits { messages: 5, bytes: 1000 };

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch: Epoch::from_bits(epoch), offset: Offset::new(offset) }
}

fn list(epoch: u64, offsets: impl IntoIterator<Item = u64>) -> Vec<Arc<Publication>> {
    let one = |offset| {
        let message = NewMessage {
            channel: ChannelName::new("news").unwrap(),
            event: None,
            data: Bytes::from_static(b"1"),
            kind: carillon_model::DataKind::Json,
            time: UnixMillis::new(0),
            user: None,
            exclude: Box::default(),
            id: None,
        };
        Arc::new(Publication::new(message, Some(at(epoch, offset))))
    };
    offsets.into_iter().map(one).collect()
}

fn memory(head: u64, past: Past) -> Attached {
    Attached { position: at(1, head), past }
}

/// Does what needs no answer, and says what was done and what is asked next.
fn advance(catchup: &mut CatchUp) -> String {
    let mut did = String::new();
    loop {
        let step = catchup.step();
        match &step {
            Step::Attach(since) => return did + &format!("attach {}", shown(*since)),
            Step::Recover(since) => return did + &format!("recover {}", shown(*since)),
            Step::Tell { position, replayed: Ok(count) } => {
                did += &format!("tell {}+{count} ", position.offset);
            }
            Step::Tell { position, replayed: Err(reason) } => {
                did += &format!("tell {} {reason:?} ", position.offset);
            }
            Step::Give(publication) => {
                did += &format!("{} ", publication.position.unwrap().offset);
                catchup.handle_taken();
            }
            Step::Gap(position) => did += &format!("gap {} ", position.offset),
            Step::Stand(position) => return did + &format!("stand {}", position.offset),
            Step::TooSlow => return did + "too slow",
        }
        catchup.handle_told();
    }
}

fn shown(since: Since) -> String {
    match since {
        Since::After(position) => format!("after {}", position.offset),
        Since::Now | Since::Oldest | Since::Last(_) | Since::Time(_) => format!("{since:?}"),
    }
}

#[test]
fn what_memory_has_is_replayed_and_what_came_meanwhile_follows() {
    let mut reader = CatchUp::new(Since::After(at(1, 3)), LIMITS);
    assert_eq!(advance(&mut reader), "attach after 3");
    reader.handle_attached(memory(9, Past::Complete(list(1, [5, 8]))));
    assert_eq!(advance(&mut reader), "tell 3+2 5 8 attach after 9");
    reader.handle_attached(memory(12, Past::Complete(list(1, [11]))));
    assert_eq!(advance(&mut reader), "11 attach after 12");
    reader.handle_attached(memory(14, Past::Complete(Vec::new())));
    assert_eq!(advance(&mut reader), "stand 14");
}

#[test]
fn storage_and_memory_are_joined_where_the_read_ends() {
    let mut reader = CatchUp::new(Since::After(at(1, 3)), LIMITS);
    reader.handle_attached(memory(90, Past::Older));
    assert_eq!(advance(&mut reader), "recover after 3");
    let read = Recovery { publications: list(1, [7, 80]), upto: at(1, 88) };
    reader.handle_recovered(Ok(read), at(1, 95));
    assert_eq!(advance(&mut reader), "attach after 88");
    reader.handle_attached(memory(99, Past::Complete(list(1, [91]))));
    assert_eq!(advance(&mut reader), "tell 3+3 7 80 91 attach after 99");
}

#[test]
fn a_reader_that_another_node_served_further_stands_where_it_was() {
    let mut reader = CatchUp::new(Since::After(at(1, 100)), LIMITS);
    reader.handle_attached(memory(98, Past::Ahead));
    assert_eq!(advance(&mut reader), "recover after 100");
    reader.handle_recovered(Ok(Recovery { publications: Vec::new(), upto: at(1, 100) }), at(1, 98));
    assert_eq!(advance(&mut reader), "attach after 100");
    reader.handle_attached(memory(99, Past::Ahead));
    assert_eq!(advance(&mut reader), "tell 100+0 attach after 100");
    reader.handle_attached(memory(99, Past::Ahead));
    assert_eq!(advance(&mut reader), "stand 100");
}

#[test]
fn a_made_up_place_is_not_believed() {
    let mut reader = CatchUp::new(Since::After(at(1, 1 << 60)), LIMITS);
    reader.handle_attached(memory(98, Past::Ahead));
    reader.handle_recovered(Err(RecoverError::Gone(Unrecovered::Epoch)), at(1, 99));
    assert_eq!(advance(&mut reader), "tell 99 Epoch stand 99");
}

#[test]
fn nothing_is_sent_of_what_is_too_much() {
    let mut reader = CatchUp::new(Since::After(at(1, 3)), LIMITS);
    reader.handle_attached(memory(90, Past::Older));
    let read = Recovery { publications: list(1, 10..15), upto: at(1, 20) };
    reader.handle_recovered(Ok(read), at(1, 95));
    reader.handle_attached(memory(99, Past::Complete(list(1, [91]))));
    assert_eq!(advance(&mut reader), "tell 99 Limit stand 99");
}

#[test]
fn the_last_few_are_the_last_few_when_more_came_meanwhile() {
    let mut reader = CatchUp::new(Since::Last(2), LIMITS);
    assert_eq!(advance(&mut reader), "attach Last(2)");
    reader.handle_attached(memory(90, Past::Older));
    assert_eq!(advance(&mut reader), "recover Last(2)");
    reader.handle_recovered(Ok(Recovery { publications: list(1, [7, 9]), upto: at(1, 88) }), at(1, 90));
    reader.handle_attached(memory(99, Past::Complete(list(1, [91]))));
    assert_eq!(advance(&mut reader), "tell 8+2 9 91 attach after 99");
}

#[test]
fn storage_that_cannot_be_asked_is_asked_three_times() {
    let mut reader = CatchUp::new(Since::Oldest, LIMITS);
    reader.handle_attached(memory(90, Past::Older));
    for _ in 0..3 {
        assert_eq!(advance(&mut reader), "recover Oldest");
        reader.handle_recovered(Err(RecoverError::Unavailable), at(1, 91));
    }
    assert_eq!(advance(&mut reader), "tell 91 Unavailable stand 91");
}

#[test]
fn a_reader_that_is_too_slow_for_memory_begins_again_and_one_of_another_life_is_told() {
    let slow = |past| {
        let mut reader = CatchUp::new(Since::After(at(1, 3)), LIMITS);
        reader.handle_attached(memory(9, Past::Complete(list(1, [5]))));
        assert_eq!(advance(&mut reader), "tell 3+1 5 attach after 9");
        reader.handle_attached(Attached { position: at(2, 4), past });
        advance(&mut reader)
    };
    assert_eq!(slow(Past::Older), "too slow");
    assert_eq!(slow(Past::Gone(Unrecovered::Limit)), "too slow");
    assert_eq!(slow(Past::Gone(Unrecovered::Epoch)), "gap 4 stand 4");
}

#[test]
fn a_node_that_is_behind_its_reader_and_cannot_ask_sends_it_elsewhere() {
    let mut reader = CatchUp::new(Since::After(at(1, 100)), LIMITS);
    reader.handle_attached(memory(98, Past::Ahead));
    for _ in 0..3 {
        assert_eq!(advance(&mut reader), "recover after 100");
        reader.handle_recovered(Err(RecoverError::Unavailable), at(1, 99));
    }
    assert_eq!(advance(&mut reader), "too slow", "what it has would come again");
}

#[test]
fn what_came_before_the_time_that_was_named_is_left_out_wherever_it_comes_from() {
    for (time, expected) in [(0, "tell 6+3 7 9 91 attach after 99"), (1, "tell 99+0 attach after 99")] {
        let mut reader = CatchUp::new(Since::Time(UnixMillis::new(time)), LIMITS);
        reader.handle_attached(memory(90, Past::Older));
        let read = Recovery { publications: list(1, [7, 9]), upto: at(1, 88) };
        reader.handle_recovered(Ok(read), at(1, 90));
        reader.handle_attached(memory(99, Past::Complete(list(1, [91]))));
        assert_eq!(advance(&mut reader), expected);
    }
}

/// A channel may keep one message: by the time that memory is asked again, those in between are gone.
#[test]
fn a_reader_whom_nothing_has_passed_by_stands_where_memory_ended() {
    let mut catchup = CatchUp::new(Since::Last(1), LIMITS);
    assert_eq!(advance(&mut catchup), "attach Last(1)");
    catchup.handle_unbroken();
    catchup.handle_attached(memory(9, Past::Complete(list(1, [9]))));
    catchup.handle_unbroken();
    assert_eq!(advance(&mut catchup), format!("tell 8+1 9 attach {}", shown(Since::After(at(1, 9)))));
    catchup.handle_unbroken();
    assert_eq!(advance(&mut catchup), "stand 9");
}
