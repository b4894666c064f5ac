use std::{fmt::Write as _, sync::Arc};

use carillon_model::{ChannelPattern, Position, Since, UnixMillis, Unrecovered, UserId};
use carillon_tasks::clock;

use super::*;
use crate::{Expiry, Recovered};

const LIMITS: Limits = Limits {
    heartbeat: Duration::from_secs(25),
    pong_timeout: Duration::from_secs(10),
    frame_max_bytes: 65_536,
    channels_max: 2,
};

/// Plays a script and compares what the session did. A line of the script is `<millis> <who> <what> …`.
fn check(script: &str, expected: &str) {
    let start = clock::now();
    let mut session =
        Session::open(ConnectionId::from_bits(1), None, Vec::new(), Heartbeat::Transport, &LIMITS, start);
    let mut did = String::new();
    report(&mut session, 0, &mut did);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [at, rest @ ..] = words.as_slice() else { unreachable!("an empty line") };
        let millis = at.parse().expect(line);
        let now = start + Duration::from_millis(millis);
        play(&mut session, rest, now, start);
        report(&mut session, millis, &mut did);
    }
    let trimmed =
        |text: &str| text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(&did), trimmed(expected));
}

fn play(session: &mut Session, words: &[&str], now: Instant, start: Instant) {
    let name = |text: &str| ChannelName::new(text).unwrap();
    match words {
        ["subscribe", channel, rest @ ..] => {
            let since = match rest {
                [] => Since::Now,
                ["oldest"] => Since::Oldest,
                [position, ..] => Since::After(position.parse().unwrap()),
            };
            let channels = vec![Wanted::new(name(channel), since)];
            session.handle_command(Ok(Command::Subscribe { channels, reference: Some(1) }), &LIMITS, now);
        }
        ["unsubscribe", channel] => {
            let command = Command::Unsubscribe { channels: vec![name(channel)], reference: Some(2) };
            session.handle_command(Ok(command), &LIMITS, now);
        }
        ["ping"] => session.handle_command(Ok(Command::Ping { reference: Some(3) }), &LIMITS, now),
        ["nonsense"] => {
            let refusal = Refusal::new(ErrorCode::BadRequest, "no");
            let undecoded = Undecoded { refusal, channel: None, reference: None };
            session.handle_command(Err(Box::new(undecoded)), &LIMITS, now);
        }
        ["joined", channel, position, rest @ ..] => {
            let position = position.parse::<Position>().ok();
            let recovered = match rest {
                [] => None,
                ["epoch"] => Some(Recovered::No(Unrecovered::Epoch)),
                [replayed, ..] => Some(Recovered::All { replayed: replayed.parse().unwrap() }),
            };
            session.handle_answer(Answer::Joined {
                channel: name(channel),
                position,
                recovered,
                members: None,
                reference: None,
            });
        }
        ["refused", channel] => {
            let refusal = Refusal::new(ErrorCode::Forbidden, "no grant");
            session.handle_answer(Answer::Refused { channel: name(channel), refusal, reference: None });
        }
        ["verified", user, "until", millis] => {
            let at = start + Duration::from_millis(millis.parse().unwrap());
            let identity = Identity {
                user: UserId::new(user).unwrap(),
                grants: Arc::from([ChannelPattern::new("*").unwrap()]),
                info: None,
                expiry: Some(Expiry { time: UnixMillis::from_seconds(9), at }),
            };
            session.handle_answer(Answer::Verified { identity, reference: None });
        }
        ["revoked", channel] => {
            session.handle_revoked(name(channel), Refusal::new(ErrorCode::Forbidden, "no grant"));
        }
        ["heard"] => session.handle_heard(now),
        ["tick"] => session.handle_timeout(&LIMITS, now),
        ["drain", "at", millis] => {
            let at = start + Duration::from_millis(millis.parse().unwrap());
            session.handle_leave(CloseReason::Draining, at, Duration::from_millis(700));
        }
        ["old", "at", millis] => {
            let at = start + Duration::from_millis(millis.parse().unwrap());
            session.handle_leave(CloseReason::MaxAge, at, Duration::ZERO);
        }
        other => unreachable!("{other:?}"),
    }
}

fn report(session: &mut Session, millis: u64, did: &mut String) {
    while let Some(effect) = session.next_effect() {
        let shown = match effect {
            Effect::Say(push) => said(&push),
            Effect::Join { wanted, .. } => format!("join {}", wanted.channel),
            Effect::Leave(channel) => format!("leave {channel}"),
            Effect::Verify { token, .. } => format!("verify {token}"),
            Effect::SignIn(sign_in) => format!("sign-in {}", sign_in.user),
            Effect::Publish(outgoing) => format!("publish {}", outgoing.channel),
            Effect::Members { channel, .. } => format!("members {channel}"),
            Effect::ProbePeer => "probe".to_owned(),
            Effect::Close(reason) => format!("close {}", reason.name()),
        };
        writeln!(did, "{millis} {shown}").unwrap();
    }
}

fn said(push: &Push) -> String {
    match push {
        Push::Welcome { .. } => "welcome".to_owned(),
        Push::Subscribed { channel, recovered, .. } => match recovered {
            None => format!("subscribed {channel}"),
            Some(Recovered::All { replayed }) => format!("subscribed {channel} recovered {replayed}"),
            Some(Recovered::No(reason)) => format!("subscribed {channel} lost {reason:?}"),
        },
        Push::Unsubscribed { channel, .. } => format!("unsubscribed {channel}"),
        Push::NotSubscribed { channel, .. } => format!("error not_found {channel}"),
        Push::SignedIn { user_data } => format!("signed in {user_data}"),
        Push::Came { .. }
        | Push::Went { .. }
        | Push::Members { .. }
        | Push::Counted { .. }
        | Push::Missed { .. }
        | Push::Watched { .. } => unreachable!("the node says it"),
        Push::Authenticated { .. } => "authenticated".to_owned(),
        Push::Gap { channel, .. } => format!("gap {channel}"),
        Push::Error { refusal, channel, .. } => {
            format!("error {} {}", refusal.code.name(), channel.as_deref().unwrap_or("-"))
        }
        Push::Ping => "ping".to_owned(),
        Push::Pong { reference } => format!("pong {}", reference.unwrap()),
        Push::Goodbye { reason, retry_after } => format!("goodbye {} {retry_after:?}", reason.name()),
    }
}

/// An answer takes the place of its question, whatever was decided behind it.
#[test]
fn answers_stand_in_the_order_of_what_was_named() {
    let now = clock::now();
    let mut session =
        Session::open(ConnectionId::from_bits(1), None, Vec::new(), Heartbeat::Transport, &LIMITS, now);
    let wanted = |name: &str| Wanted::new(ChannelName::new(name).unwrap(), Since::Now);
    let channels = vec![wanted("a"), wanted("a"), wanted("b"), wanted("c")];
    session.handle_command(Ok(Command::Subscribe { channels, reference: None }), &LIMITS, now);
    let leave = Command::Unsubscribe { channels: vec![ChannelName::new("a").unwrap()], reference: None };
    session.handle_command(Ok(leave), &LIMITS, now);
    let mut did = Vec::new();
    while let Some(effect) = session.next_effect() {
        match effect {
            Effect::Say(push) => did.push(said(&push)),
            Effect::Join { wanted, reference } => {
                let Wanted { channel, .. } = wanted;
                session.handle_answer(Answer::Joined {
                    channel,
                    position: None,
                    recovered: None,
                    members: None,
                    reference,
                });
            }
            Effect::Leave(_)
            | Effect::Verify { .. }
            | Effect::SignIn(_)
            | Effect::Publish(_)
            | Effect::Members { .. }
            | Effect::ProbePeer
            | Effect::Close(_) => {}
        }
    }
    let expected =
        ["welcome", "error already_subscribed a", "subscribed b", "error limit_exceeded c", "unsubscribed a"];
    assert_eq!(did, expected);
}

#[test]
fn a_client_joins_and_leaves() {
    check(
        "
        5  subscribe news
        9  joined news abcdef-3
        20 subscribe news
        30 unsubscribe news
        31 unsubscribe news
        40 ping
        50 nonsense
        ",
        "
        0 welcome
        5 join news
        9 subscribed news
        20 error already_subscribed news
        30 leave news
        30 unsubscribed news
        31 error not_found news
        40 pong 3
        50 error bad_request -
        ",
    );
}

#[test]
fn a_channel_that_was_refused_may_be_asked_for_again_and_does_not_count() {
    check(
        "
        1 subscribe a
        2 refused a
        3 subscribe a
        4 subscribe b
        5 subscribe c
        ",
        "
        0 welcome
        1 join a
        2 error forbidden a
        3 join a
        4 join b
        5 error limit_exceeded c
        ",
    );
}

#[test]
fn a_client_is_told_what_became_of_its_past_unless_it_left_meanwhile() {
    check(
        "
        1 subscribe a abcdef-3
        2 joined a abcdef-3 7
        3 subscribe b oldest
        4 joined b fedcba-3 epoch
        5 unsubscribe b
        6 subscribe c abcdef-3
        7 unsubscribe c
        8 joined c abcdef-3 7
        ",
        "
        0 welcome
        1 join a
        2 subscribed a recovered 7
        3 join b
        4 subscribed b lost Epoch
        5 leave b
        5 unsubscribed b
        6 join c
        7 leave c
        7 unsubscribed c
        ",
    );
}

#[test]
fn a_client_that_cannot_answer_is_pinged_on_and_on() {
    let start = clock::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut session =
        Session::open(ConnectionId::from_bits(1), None, Vec::new(), Heartbeat::OneWay, &LIMITS, start);
    while session.next_effect().is_some() {}
    for seconds in [25, 50, 75, 1000] {
        assert!(session.next_deadline(&LIMITS).is_some_and(|due| due <= at(seconds)));
        session.handle_timeout(&LIMITS, at(seconds));
        assert!(matches!(session.next_effect(), Some(Effect::ProbePeer)), "{seconds}");
        assert!(session.next_effect().is_none() && !session.is_closed());
    }
}

#[test]
fn silence_is_probed_once_and_then_ends_the_connection() {
    check(
        "
        24999 tick
        25000 tick
        26000 tick
        34999 tick
        35000 tick
        35001 subscribe news
        ",
        "
        0 welcome
        25000 probe
        35000 goodbye idle_timeout None
        35000 close idle_timeout
        ",
    );
    check("25000 tick\n30000 heard\n35000 tick\n55000 tick", "0 welcome\n25000 probe\n55000 probe");
}

#[test]
fn a_page_that_watches_for_pings_sees_them() {
    let start = clock::now();
    let heartbeat = Heartbeat::InBand;
    let mut session = Session::open(ConnectionId::from_bits(1), None, Vec::new(), heartbeat, &LIMITS, start);
    let mut did = String::new();
    session.handle_timeout(&LIMITS, start + Duration::from_secs(25));
    report(&mut session, 25_000, &mut did);
    assert_eq!(did, "25000 welcome\n25000 probe\n25000 ping\n");
}

#[test]
fn a_token_ends_when_it_says() {
    check(
        "
        10   verified ana until 5000
        4999 tick
        5000 tick
        ",
        "
        0 welcome
        10 authenticated
        5000 goodbye token_expired Some(1s)
        5000 close token_expired
        ",
    );
}

#[test]
fn a_token_is_refreshed_by_its_user_and_nobody_else() {
    check(
        "
        10   verified ana until 5000
        20   verified eve until 9000
        30   verified ana until 8000
        5000 tick
        8000 tick
        ",
        "
        0 welcome
        10 authenticated
        20 error forbidden -
        30 authenticated
        8000 goodbye token_expired Some(1s)
        8000 close token_expired
        ",
    );
}

#[test]
fn a_channel_that_a_new_token_does_not_cover_is_taken_away() {
    check(
        "
        1 subscribe a
        2 revoked a
        3 revoked a
        4 subscribe a
        ",
        "
        0 welcome
        1 join a
        2 leave a
        2 unsubscribed a
        4 join a
        ",
    );
}

#[test]
fn whoever_sends_nothing_but_nonsense_is_sent_away() {
    let start = clock::now();
    let mut session =
        Session::open(ConnectionId::from_bits(1), None, Vec::new(), Heartbeat::Transport, &LIMITS, start);
    let mut nonsense = |count: u8| {
        for _ in 0..count {
            play(&mut session, &["nonsense"], start, start);
        }
        play(&mut session, &["ping"], start, start);
        session.is_closed()
    };
    assert!(!nonsense(NONSENSE_MAX - 1));
    assert!(!nonsense(NONSENSE_MAX - 1), "a command between forgives");
    assert!(nonsense(NONSENSE_MAX));
}

#[test]
fn a_draining_node_serves_until_its_time_and_then_says_goodbye() {
    check(
        "
        0   drain at 300
        100 subscribe news
        299 tick
        300 tick
        301 tick
        ",
        "
        0 welcome
        100 join news
        300 goodbye draining Some(700ms)
        300 close draining
        ",
    );
}

#[test]
fn a_client_leaves_at_the_earliest_time_that_was_named() {
    check(
        "
        0 old at 600
        100 drain at 300
        299 tick
        300 tick
        ",
        "
        0 welcome
        300 goodbye draining Some(700ms)
        300 close draining
        ",
    );
    check(
        "
        0 old at 200
        100 drain at 300
        200 tick
        300 tick
        ",
        "
        0 welcome
        200 goodbye max_age Some(0ns)
        200 close max_age
        ",
    );
}

#[test]
fn the_next_deadline_is_the_nearest() {
    let start = clock::now();
    let mut session =
        Session::open(ConnectionId::from_bits(1), None, Vec::new(), Heartbeat::Transport, &LIMITS, start);
    let after = |session: &Session| session.next_deadline(&LIMITS).map(|at| at - start);
    assert_eq!(after(&session), Some(Duration::from_secs(25)));
    session.handle_timeout(&LIMITS, start + Duration::from_secs(25));
    assert_eq!(after(&session), Some(Duration::from_secs(35)));
    session.handle_leave(CloseReason::Draining, start + Duration::from_secs(30), Duration::ZERO);
    assert_eq!(after(&session), Some(Duration::from_secs(30)));
    session.handle_timeout(&LIMITS, start + Duration::from_secs(30));
    assert_eq!(after(&session), None);
}
