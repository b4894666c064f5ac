use bytes::Bytes;
use carillon_model::EventName;
use carillon_tasks::clock;

use super::*;

fn event(channel: &str, bytes: usize) -> Outgoing {
    Outgoing {
        channel: ChannelName::new(channel).unwrap(),
        event: EventName::new("client-typing").unwrap(),
        data: Bytes::from(vec![b'1'; bytes]),
        reference: None,
    }
}

fn name(channel: &str) -> ChannelName {
    ChannelName::new(channel).unwrap()
}

#[test]
fn events_go_to_guarded_channels_that_the_client_has() {
    let now = clock::now();
    let mut manners = Manners::new(true, 100, 10, None, now);
    for channel in
        ["private-a", "presence-a", "private-cache-a", "news", "private-encrypted-a", "private-left"]
    {
        manners.handle_joined(&name(channel));
    }
    manners.handle_left(&name("private-left"));
    for (channel, expected) in [
        ("private-a", None),
        ("presence-a", None),
        ("private-cache-a", None),
        ("private-b", Some(ErrorCode::Forbidden)),
        ("private-left", Some(ErrorCode::Forbidden)),
        ("news", Some(ErrorCode::Forbidden)),
        ("privateer", Some(ErrorCode::Forbidden)),
        ("private-encrypted-a", Some(ErrorCode::Forbidden)),
    ] {
        let answer = manners.handle_event(&event(channel, 1), now);
        assert_eq!(answer.err().map(|refusal| refusal.code), expected, "{channel}");
    }
    let mut silent = Manners::new(false, 100, 10, None, now);
    silent.handle_joined(&name("private-a"));
    let refusal = silent.handle_event(&event("private-a", 1), now).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NotEnabled);
}

#[test]
fn as_many_events_as_allowed_pass_in_each_second() {
    let start = clock::now();
    let mut manners = Manners::new(true, 100, 3, None, start);
    manners.handle_joined(&name("private-a"));
    let mut send = |after: u64, bytes: usize| {
        let now = start + Duration::from_millis(after);
        manners.handle_event(&event("private-a", bytes), now).map_err(|refusal| refusal.code)
    };
    for millis in [0, 1, 2] {
        assert_eq!(send(millis, 100), Ok(()));
    }
    assert_eq!(send(999, 1), Err(ErrorCode::RateLimited));
    assert_eq!(send(1000, 1), Ok(()));
    assert_eq!(send(1001, 101), Err(ErrorCode::TooLarge));
    assert_eq!(send(1002, 1), Ok(()));
}

#[test]
fn a_guarded_channel_or_a_sign_in_shows_who_a_client_is() {
    let now = clock::now();
    let by = now.checked_add(Duration::from_secs(5));
    let mut manners = Manners::new(true, 100, 3, by, now);
    manners.handle_joined(&ChannelName::new("news").unwrap());
    assert_eq!(manners.authorize_by(), by);
    manners.handle_joined(&ChannelName::new("private-a").unwrap());
    assert_eq!(manners.authorize_by(), None);
    let mut other = Manners::new(true, 100, 3, by, now);
    other.handle_signed_in();
    assert_eq!(other.authorize_by(), None);
}
