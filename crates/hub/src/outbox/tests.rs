use super::*;

fn written(outbox: &Outbox) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = outbox.slices(&mut slices);
    slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect()
}

#[test]
fn frames_leave_in_order_whatever_the_socket_takes() {
    let mut outbox = Outbox::default();
    for frame in ["one", "two", "three"] {
        assert_eq!(outbox.offer(Bytes::from_static(frame.as_bytes()), Origin::Kept, 100), Offered::Queued);
    }
    for (taken, rest) in [(0, "onetwothree"), (2, "etwothree"), (1, "twothree"), (5, "ree"), (3, "")] {
        outbox.advance(taken);
        assert_eq!((written(&outbox), outbox.bytes()), (rest.as_bytes().to_vec(), rest.len()));
    }
    assert!(outbox.is_empty());
}

#[test]
fn a_full_queue_refuses_and_an_empty_one_never_does() {
    let mut outbox = Outbox::default();
    assert_eq!(outbox.offer(Bytes::from_static(b"larger than the limit"), Origin::Kept, 4), Offered::Queued);
    assert_eq!(outbox.offer(Bytes::from_static(b"x"), Origin::Kept, 4), Offered::Full);
    outbox.advance(21);
    assert_eq!(outbox.offer(Bytes::from_static(b"abcd"), Origin::Kept, 4), Offered::Queued);
    assert_eq!(outbox.offer(Bytes::new(), Origin::Kept, 4), Offered::Queued);
    assert_eq!(outbox.offer(Bytes::from_static(b"e"), Origin::Kept, 4), Offered::Full);
}

#[test]
fn what_was_begun_is_never_dropped() {
    let mut outbox = Outbox::default();
    for _ in 0..3 {
        outbox.offer(Bytes::from_static(b"frame"), Origin::Kept, 100);
    }
    assert_eq!(outbox.drop_unsent(), 3);
    for _ in 0..3 {
        outbox.offer(Bytes::from_static(b"frame"), Origin::Kept, 100);
    }
    outbox.advance(7);
    assert_eq!((outbox.drop_unsent(), written(&outbox)), (1, b"ame".to_vec()));
}

fn line(number: usize) -> Line {
    let mut channels = crate::Channels::default();
    let mut given = None;
    for index in 0..=number {
        let channel = carillon_model::ChannelName::new(&format!("c{index}")).unwrap();
        let subscriber = crate::Subscriber {
            session: crate::SessionKey::new(0).unwrap(),
            form: carillon_model::Form::NativeWebSocket,
            stand: crate::Stand::Live,
            overflow: carillon_model::Overflow::Close,
            told_after: crate::UNTOLD,
        };
        given = Some(channels.join(&channel, subscriber).1);
    }
    given.unwrap()
}

fn at(offset: u64) -> Option<Position> {
    Some(Position { epoch: carillon_model::Epoch::from_bits(1), offset: carillon_model::Offset::new(offset) })
}

/// What waits, a word each.
fn words(outbox: &Outbox) -> String {
    String::from_utf8(written(outbox)).unwrap()
}

fn told(line_of: Line) -> impl FnMut(Line, Option<Position>) -> Bytes {
    move |line, position| {
        let name = if line == line_of { "a" } else { "b" };
        Bytes::from(format!("gap-{name}<={} ", position.unwrap().offset))
    }
}

#[test]
fn the_oldest_give_way_and_one_word_stands_in_their_place() {
    let (a, b) = (line(0), line(1));
    let mut outbox = Outbox::default();
    outbox.offer(Bytes::from_static(b"said "), Origin::Kept, 1000);
    for offset in 1..=8 {
        outbox.offer(Bytes::from(format!("a{offset}---- ")), Origin::Oldest(a, at(offset)), 1000);
        outbox.offer(Bytes::from(format!("b{offset} ")), Origin::Kept, 1000);
    }
    // 85 bytes wait; three quarters of 100 are the goal.
    assert_eq!(outbox.make_room(10, 100, Some(a), told(a)), 2);
    assert_eq!(
        words(&outbox),
        "said gap-a<=2 b1 b2 a3---- b3 a4---- b4 a5---- b5 a6---- b6 a7---- b7 a8---- b8 "
    );
    assert_eq!(outbox.make_room(10, 30, Some(a), told(a)), 6);
    assert_eq!(words(&outbox), "said gap-a<=8 b1 b2 b3 b4 b5 b6 b7 b8 ");
    assert_eq!(outbox.make_room(10, 20, Some(b), told(a)), 0, "nothing more may be dropped");
    outbox.note_dropped(a, at(9), Bytes::from_static(b"gap-a<=9 "));
    assert_eq!(words(&outbox), "said gap-a<=9 b1 b2 b3 b4 b5 b6 b7 b8 ");
    assert_eq!(outbox.bytes(), words(&outbox).len());
}

#[test]
fn of_the_latest_only_the_newest_stays() {
    let (a, b) = (line(0), line(1));
    let mut outbox = Outbox::default();
    for offset in 1..=4 {
        outbox.offer(Bytes::from(format!("a{offset} ")), Origin::Latest(a, at(offset)), 1000);
        outbox.offer(Bytes::from(format!("b{offset} ")), Origin::Latest(b, at(offset)), 1000);
    }
    assert_eq!(outbox.make_room(3, 24, Some(a), told(a)), 7);
    assert_eq!(words(&outbox), "gap-a<=4 gap-b<=3 b4 ");
    outbox.offer(Bytes::from_static(b"a5 "), Origin::Latest(a, at(5)), 1000);
    outbox.offer(Bytes::from_static(b"a6 "), Origin::Latest(a, at(6)), 1000);
    assert_eq!(outbox.make_room(3, 24, None, told(a)), 1);
    assert_eq!(words(&outbox), "gap-a<=5 gap-b<=3 b4 a6 ");
}

#[test]
fn a_frame_that_was_begun_stays_whatever_its_rule() {
    let a = line(0);
    let mut outbox = Outbox::default();
    for offset in 1..=3 {
        outbox.offer(Bytes::from(format!("a{offset} ")), Origin::Oldest(a, at(offset)), 1000);
    }
    outbox.advance(1);
    assert_eq!(outbox.make_room(3, 4, Some(a), told(a)), 2);
    assert_eq!(words(&outbox), "1 gap-a<=3 ");
    outbox.advance(2);
    assert_eq!(outbox.make_room(3, 4, Some(a), told(a)), 0);
    outbox.advance(9);
    assert!(outbox.is_empty() && outbox.bytes() == 0);
}

#[test]
fn nothing_is_said_of_a_channel_that_was_left() {
    let a = line(0);
    let mut outbox = Outbox::default();
    outbox.offer(Bytes::from_static(b"said "), Origin::Kept, 1000);
    outbox.offer(Bytes::from_static(b"a1 "), Origin::Oldest(a, at(1)), 1000);
    assert_eq!(outbox.make_room(10, 8, None, |_, _| Bytes::new()), 1);
    outbox.note_dropped(a, at(2), Bytes::new());
    assert_eq!((words(&outbox).as_str(), outbox.len()), ("said ", 1));
}

#[test]
fn what_waits_of_a_channel_goes_with_the_subscription() {
    let (a, b) = (line(0), line(1));
    let mut outbox = Outbox::default();
    for offset in 1..=3 {
        outbox.offer(Bytes::from(format!("a{offset} ")), Origin::Oldest(a, at(offset)), 1000);
        outbox.offer(Bytes::from(format!("b{offset} ")), Origin::Oldest(b, at(offset)), 1000);
    }
    outbox.advance(1);
    outbox.forget(a);
    assert_eq!((words(&outbox).as_str(), outbox.bytes()), ("1 b1 b2 b3 ", 11));
}
