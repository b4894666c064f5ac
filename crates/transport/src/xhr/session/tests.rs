use std::task::Waker;

use carillon_tasks::clock;

use super::*;

const ME: NodeId = NodeId::from_bits(1);
const OTHER: NodeId = NodeId::from_bits(2);
const THIRD: NodeId = NodeId::from_bits(3);

const ROOM: u64 = u64::MAX;

fn session() -> (Session, Instant) {
    let now = clock::now();
    (Session::new(now), now)
}

fn here(number: u64) -> Ticket {
    Ticket { node: None, number }
}

fn push(session: &mut Session, frame: &str) -> (usize, Option<Saying>) {
    session.push(&[IoSlice::new(frame.as_bytes())])
}

fn take(session: &mut Session, ticket: Ticket, room: u64) -> Option<Taken> {
    match session.poll_take(ticket, room, &Context::from_waker(Waker::noop())) {
        Poll::Ready(taken) => Some(taken),
        Poll::Pending => None,
    }
}

fn lines(text: &str) -> Option<Taken> {
    Some(Taken::Lines { bytes: Bytes::copy_from_slice(text.as_bytes()), last: false })
}

fn asks(what: What, number: u64, sequence: u64) -> Word {
    Word { sequence, room: ROOM, ..Word::new(what, "", number) }
}

/// Says a word of another node and returns the kinds and texts of the answers.
fn hear(session: &mut Session, from: NodeId, word: &Word, now: Instant) -> Vec<(NodeId, What, String)> {
    let answers = session.hear(from, word, now);
    answers.into_iter().map(|(to, word)| shown(to, &word)).collect()
}

fn shown(to: NodeId, word: &Word) -> (NodeId, What, String) {
    (to, word.what(), String::from_utf8_lossy(&word.bytes).into_owned())
}

fn said(what: What, text: &str) -> Vec<(NodeId, What, String)> {
    vec![(OTHER, what, text.to_owned())]
}

#[test]
fn a_request_takes_what_waits_and_then_what_comes() {
    let (mut session, _) = session();
    assert!(session.attach(here(1)).is_none());
    assert_eq!(take(&mut session, here(1), ROOM), lines("o\n"));
    assert_eq!(take(&mut session, here(1), ROOM), None);
    push(&mut session, "a[\"1\"]\n");
    push(&mut session, "a[\"2\"]\n");
    assert_eq!(take(&mut session, here(1), ROOM), lines("a[\"1\"]\na[\"2\"]\n"));
}

#[test]
fn lines_stop_with_the_one_that_fills_the_room() {
    let (mut session, _) = session();
    session.attach(here(1));
    for _ in 0..3 {
        push(&mut session, "a[\"ä\"]\n");
    }
    // `o` and its end are two characters, the others seven.
    assert_eq!(take(&mut session, here(1), 8), lines("o\na[\"ä\"]\n"));
    assert_eq!(
        take(&mut session, here(1), 7),
        lines("a[\"ä\"]\na[\"ä\"]\n"),
        "as much as fits, and one more"
    );
}

#[test]
fn characters_count_as_in_a_browser() {
    for text in ["", "a", "ä", "€", "🔔", "a\u{10ffff}ä🔔\n"] {
        assert_eq!(length(text.as_bytes()), text.encode_utf16().count() as u64, "{text}");
    }
}

#[test]
fn frames_wait_in_the_outbox_when_there_is_no_room() {
    let (mut session, _) = session();
    session.attach(here(1));
    let cx = &mut Context::from_waker(Waker::noop());
    let half = "x".repeat(LINES_BYTES / 2);
    assert_eq!(push(&mut session, &half).0, half.len());
    assert!(session.poll_room(cx).is_ready());
    assert_eq!(push(&mut session, &half).0, 0, "a frame is taken whole or not at all");
    assert!(session.poll_room(cx).is_pending());
    assert!(take(&mut session, here(1), ROOM).is_some());
    assert!(session.poll_room(cx).is_ready());
    let large = "x".repeat(LINES_BYTES * 2);
    assert_eq!(push(&mut session, &large).0, large.len(), "a frame larger than the bound stalls nobody");
}

#[test]
fn the_last_line_is_known_to_be_the_last() {
    let (mut session, _) = session();
    session.attach(here(1));
    push(&mut session, "c[4200,\"\"]\n");
    assert!(!session.is_drained());
    let taken = take(&mut session, here(1), 0);
    assert_eq!(taken, lines("o\n"));
    let taken = take(&mut session, here(1), 0);
    assert!(matches!(taken, Some(Taken::Lines { last: true, .. })), "{taken:?}");
    assert!(session.is_drained());
}

#[test]
fn a_second_request_ends_the_first() {
    let (mut session, _) = session();
    session.attach(here(1));
    assert!(session.attach(here(2)).is_none());
    assert_eq!(take(&mut session, here(1), ROOM), Some(Taken::Over));
    assert_eq!(take(&mut session, here(2), ROOM), lines("o\n"));
}

#[test]
fn a_session_without_a_request_ends_after_a_while() {
    let (mut session, now) = session();
    session.attach(here(1));
    assert_eq!(session.check(now), now.checked_add(IDLE));
    assert_eq!(session.check(now + IDLE * 9), (now + IDLE * 9).checked_add(IDLE), "it has one");
    session.leave(here(1), Then::Leave, now + IDLE);
    session.check(now + IDLE * 2 - Duration::from_millis(1));
    assert!(!session.is_gone());
    session.check(now + IDLE * 2);
    assert!(session.is_gone());
}

#[test]
fn a_request_that_is_broken_off_ends_the_session() {
    let (mut session, now) = session();
    session.attach(here(1));
    session.attach(here(2));
    session.leave(here(1), Then::End, now);
    assert!(!session.is_gone(), "another receives by now");
    session.leave(here(2), Then::End, now);
    assert!(session.is_gone());
}

#[test]
fn texts_are_bounded_and_too_many_end_the_session() {
    let (mut session, _) = session();
    assert_eq!(session.put(vec!["x".repeat(TEXTS_BYTES)]), Put::Taken);
    assert_eq!(session.next_text().map(|text| text.len()), Some(TEXTS_BYTES));
    assert_eq!(session.put(vec!["x".repeat(TEXTS_BYTES)]), Put::Taken);
    assert!(!session.is_gone());
    assert_eq!(session.put(vec!["x".to_owned()]), Put::Full);
    assert!(session.is_gone());
}

#[test]
fn a_request_elsewhere_takes_lines_in_two_steps() {
    let (mut session, now) = session();
    let session = &mut session;
    assert_eq!(hear(session, OTHER, &asks(What::Take, 7, 0), now), said(What::Lines, "o\n"));
    // The answer was lost.
    assert_eq!(hear(session, OTHER, &asks(What::Take, 7, 0), now), said(What::Lines, "o\n"));
    push(session, "a[\"1\"]\n");
    // The answer to this was lost, too.
    assert_eq!(hear(session, OTHER, &asks(What::Took, 7, 1), now), said(What::Noted, ""));
    assert_eq!(hear(session, OTHER, &asks(What::Took, 7, 1), now), said(What::Noted, ""));
    assert_eq!(hear(session, OTHER, &asks(What::Take, 7, 1), now), said(What::Lines, "a[\"1\"]\n"));
    assert_eq!(hear(session, OTHER, &asks(What::Took, 7, 2), now), said(What::Noted, ""));
    assert_eq!(hear(session, OTHER, &asks(What::Take, 7, 2), now), said(What::Wait, ""));
    let (_, saying) = push(session, "a[\"2\"]\n");
    let (to, word) = saying.expect("somebody waits");
    assert_eq!(vec![shown(to, &word)], said(What::Lines, "a[\"2\"]\n"));
    let (_, saying) = push(session, "a[\"3\"]\n");
    assert!(saying.is_none(), "what it was given comes first");
    // Of what it took long ago it is told nothing.
    assert_eq!(hear(session, OTHER, &asks(What::Take, 7, 1), now), []);
}

#[test]
fn lines_that_did_not_arrive_elsewhere_are_the_next_requests() {
    let (mut session, now) = session();
    let session = &mut session;
    hear(session, OTHER, &asks(What::Take, 7, 0), now);
    push(session, "a[\"1\"]\n");
    let told = session.attach(here(1));
    assert_eq!(told.map(|(to, word)| shown(to, &word)), Some((OTHER, What::Lack, String::new())));
    assert_eq!(take(session, here(1), ROOM), lines("o\na[\"1\"]\n"));
    // Too late: whoever handed these lines over now would hand them over twice.
    assert_eq!(hear(session, OTHER, &asks(What::Took, 7, 1), now), said(What::Lack, ""));
    assert_eq!(
        hear(session, OTHER, &asks(What::Take, 7, 0), now),
        said(What::Lack, ""),
        "it does not come back"
    );
    // One that left by itself hears the same as the first time.
    assert_eq!(hear(session, THIRD, &asks(What::Take, 7, 0), now), [(THIRD, What::Wait, String::new())]);
    let leaves = Word { then: Then::Leave.into(), ..asks(What::Took, 7, 0) };
    for _ in 0..2 {
        assert_eq!(hear(session, THIRD, &leaves, now), [(THIRD, What::Noted, String::new())]);
    }
}

#[test]
fn long_lines_go_in_pieces() {
    let (mut session, now) = session();
    let session = &mut session;
    let line = "x".repeat(PIECE_BYTES + 9);
    session.attach(here(1));
    assert_eq!(take(session, here(1), ROOM), lines("o\n"));
    push(session, &line);
    let mut came = String::new();
    while came.len() < line.len() {
        let word = Word { offset: came.len() as u64, ..asks(What::Take, 7, 0) };
        let (_, answer) = session.hear(OTHER, &word, now).pop().expect("an answer");
        assert_eq!((answer.offset, answer.total), (came.len() as u64, line.len() as u64));
        assert!(answer.bytes.len() <= PIECE_BYTES);
        came.push_str(std::str::from_utf8(&answer.bytes).expect("it is ASCII"));
    }
    assert_eq!(came, line);
    let past = Word { offset: u64::MAX, ..asks(What::Take, 7, 0) };
    assert_eq!(hear(session, OTHER, &past, now), said(What::Lines, ""));
}

#[test]
fn a_node_that_is_silent_receives_no_more() {
    let (mut session, now) = session();
    hear(&mut session, OTHER, &asks(What::Take, 7, 0), now);
    session.check(now + SILENT);
    assert_eq!(hear(&mut session, OTHER, &asks(What::Took, 7, 1), now), said(What::Lack, ""));
    session.attach(here(1));
    assert_eq!(take(&mut session, here(1), ROOM), lines("o\n"), "it may not have got it");
    hear(&mut session, OTHER, &asks(What::Take, 8, 0), now);
    session.check(now + SILENT);
    session.check(now + SILENT + IDLE);
    assert!(session.is_gone());
}

#[test]
fn texts_from_elsewhere_are_taken_once() {
    let (mut session, now) = session();
    let session = &mut session;
    let says = |number, text: &str| Word { texts: vec![text.to_owned()], ..asks(What::Say, number, 0) };
    for _ in 0..2 {
        assert_eq!(hear(session, OTHER, &says(1, "a"), now), said(What::Said, ""));
    }
    assert_eq!(hear(session, OTHER, &says(2, "b"), now), said(What::Said, ""));
    assert_eq!(hear(session, ME, &says(1, "c"), now), [(ME, What::Said, String::new())]);
    let texts: Vec<_> = std::iter::from_fn(|| session.next_text()).collect();
    assert_eq!(texts, ["a", "b", "c"]);
}

#[test]
fn a_session_that_is_over_answers_so() {
    let (mut session, now) = session();
    let session = &mut session;
    assert_eq!(hear(session, OTHER, &asks(What::Find, 1, 0), now), said(What::Have, ""));
    hear(session, OTHER, &asks(What::Take, 7, 0), now);
    let told = session.finish();
    assert_eq!(told.map(|(to, word)| shown(to, &word)), Some((OTHER, What::Lack, String::new())));
    for what in [What::Find, What::Take, What::Took, What::Say] {
        assert_eq!(hear(session, OTHER, &asks(what, 7, 0), now), said(What::Lack, ""));
    }
    assert_eq!(session.check(now), None);
}
