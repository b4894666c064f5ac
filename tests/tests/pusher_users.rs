//! The Pusher protocol's users: sign-in, events for a user, who is online. (PUSHER §1.13, §1.14)

use std::{collections::BTreeSet, time::Duration};

use carillon_tasks::clock;
use carillon_tests::{
    gateway::Gateway,
    pusher::{FIRST, Frame, PLAIN, SECOND_KEY, Socket, WATCHED, alone},
    raw::CLOSE,
};
use serde_json::json;

/// How long somebody may be away before it counts as gone.
const DEBOUNCE: Duration = Duration::from_secs(3);

/// Connects and signs in.
async fn user(gateway: &Gateway, id: &str) -> Socket {
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.sign_in(id).await;
    socket
}

#[tokio::test]
async fn who_signs_in_gets_back_what_it_sent() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let user_data = "{ \"user_info\":{\"name\":\"\\u00fc/ü\"} ,\"id\":\"7-back\",\n\"watchlist\":[] }";
    socket.ask_sign_in(user_data).await;
    let next = socket.next().await;
    assert_eq!((next.event.as_str(), &next.channel), ("pusher:signin_success", &None));
    assert_eq!(next.json(), json!({"user_data": user_data}));
    socket.quiet().await;
}

#[tokio::test]
async fn a_sign_in_with_a_bad_signature_is_refused() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let user_data = r#"{"id":"7-bad"}"#;
    let right = FIRST.user_auth(socket.id(), user_data);
    let other_socket = FIRST.user_auth("1.1", user_data);
    let other_data = FIRST.user_auth(socket.id(), r#"{"id":"8-bad"}"#);
    let other_app = PLAIN.user_auth(socket.id(), user_data);
    let of_channel = FIRST.auth(socket.id(), ":user:", Some(user_data));
    let cut = right[..right.len() - 1].to_owned();
    for auth in [other_socket, other_data, other_app, cut, format!("{}:", FIRST.key)] {
        socket.say("pusher:signin", &json!({"auth": auth, "user_data": user_data})).await;
        let (code, message) = socket.error().await;
        assert!(code.is_none_or(|code| code == 4009), "{code:?} {message}");
        assert!(!message.contains(right.split_once(':').unwrap().1), "{message}");
    }
    // What is signed for a sign-in is spelled `::user::`: nobody can sign it as a channel.
    assert_ne!(of_channel, FIRST.auth(socket.id(), "#server-to-user-7-bad", None));
    socket.ask("#server-to-user-7-bad").await;
    let _refusal = socket.refused("#server-to-user-7-bad").await;
    let auth = SECOND_KEY.user_auth(socket.id(), user_data);
    socket.say("pusher:signin", &json!({"auth": auth, "user_data": user_data})).await;
    assert_eq!(socket.next().await.event, "pusher:signin_success");
}

#[tokio::test]
async fn a_sign_in_whose_auth_has_no_colon_is_told_the_format() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for auth in ["nonsense", ""] {
        socket.say("pusher:signin", &json!({"auth": auth, "user_data": r#"{"id":"7-colon"}"#})).await;
        let (code, message) = socket.error().await;
        assert!(code.is_none_or(|code| code == 4009), "{code:?} {message}");
        assert_eq!(message, "Invalid format: auth must have the format key:signature");
    }
    socket.quiet().await;
}

/// PUSHER §1.13: pusher-js throws a sign-in away whose id is no text.
#[tokio::test]
async fn the_id_of_a_user_is_a_text_that_is_not_empty() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for user_data in [
        r#"{"id":7}"#,
        r#"{"id":""}"#,
        r#"{"id":null}"#,
        r#"{"user_id":"7"}"#,
        "{}",
        "[]",
        "null",
        r#""7""#,
        "not JSON",
        "",
    ] {
        socket.ask_sign_in(user_data).await;
        let (code, message) = socket.error().await;
        assert!(code.is_none_or(|code| code == 4009), "{user_data}: {code:?} {message}");
        socket.quiet().await;
    }
    let longer = json!({"id": "u".repeat(129)}).to_string();
    socket.ask_sign_in(&longer).await;
    let _refusal = socket.error().await;
    socket.sign_in(&"u".repeat(128)).await;
}

#[tokio::test]
async fn a_connection_is_one_user_and_may_say_so_twice() {
    let gateway = alone().await;
    let mut socket = user(&gateway, "same").await;
    socket.sign_in("same").await;
    socket.ask_sign_in(r#"{"id":"another"}"#).await;
    let _refusal = socket.error().await;
    socket.ask("#server-to-user-another").await;
    let _refusal = socket.refused("#server-to-user-another").await;
    socket.subscribe("#server-to-user-same").await;
}

#[tokio::test]
async fn the_channel_of_a_user_is_for_who_signed_in_as_exactly_that() {
    let gateway = alone().await;
    let mut stranger = Socket::open(gateway.public, &FIRST).await;
    stranger.ask("#server-to-user-exact").await;
    assert_eq!(stranger.refused("#server-to-user-exact").await.0, None);
    // No signature helps.
    let auth = FIRST.auth(stranger.id(), "#server-to-user-exact", None);
    let data = json!({"channel": "#server-to-user-exact", "auth": auth});
    stranger.say("pusher:subscribe", &data).await;
    assert_eq!(stranger.refused("#server-to-user-exact").await.0, None);
    let mut socket = user(&gateway, "exact").await;
    for other in ["#server-to-user-exac", "#server-to-user-exactly", "#server-to-user-Exact"] {
        socket.ask(other).await;
        assert_eq!(socket.refused(other).await.0, None, "{other}");
    }
    socket.subscribe("#server-to-user-exact").await;
    socket.quiet().await;
}

#[tokio::test]
async fn an_event_for_a_user_reaches_its_connections_that_subscribed() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let channel = "#server-to-user-reached";
    let mut one = user(&gateway, "reached").await;
    let mut two = user(&gateway, "reached").await;
    let mut deaf = user(&gateway, "reached").await;
    let mut other = user(&gateway, "not-reached").await;
    for socket in [&mut one, &mut two] {
        socket.subscribe(channel).await;
    }
    other.subscribe("#server-to-user-not-reached").await;
    rest.trigger(channel, "hello", r#"{"a":1}"#).await;
    one.hears(channel, "hello", r#"{"a":1}"#).await;
    two.hears(channel, "hello", r#"{"a":1}"#).await;
    two.unsubscribe(channel).await;
    two.quiet().await;
    rest.trigger(channel, "again", "2").await;
    one.hears(channel, "again", "2").await;
    for socket in [&mut two, &mut deaf, &mut other] {
        socket.quiet().await;
    }
}

#[tokio::test]
async fn users_of_two_applications_are_two() {
    let gateway = alone().await;
    let channel = "#server-to-user-of-two";
    let mut first = user(&gateway, "of-two").await;
    first.subscribe(channel).await;
    let mut plain = Socket::open(gateway.public, &PLAIN).await;
    plain.sign_in("of-two").await;
    plain.subscribe(channel).await;
    gateway.rest(&PLAIN).trigger(channel, "x", "1").await;
    plain.hears(channel, "x", "1").await;
    first.quiet().await;
}

#[tokio::test]
async fn terminating_a_user_closes_its_connections_with_4009_and_no_others() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut one = user(&gateway, "terminated").await;
    let mut two = user(&gateway, "terminated").await;
    two.subscribe("#server-to-user-terminated").await;
    let mut other = user(&gateway, "terminated-not").await;
    // A member of a presence channel has not signed in.
    let mut member = Socket::open(gateway.public, &FIRST).await;
    let _members = member.join("presence-terminated", "terminated").await;
    let mut foreign = Socket::open(gateway.public, &PLAIN).await;
    foreign.sign_in("terminated").await;
    assert_eq!(rest.done("/users/terminated/terminate_connections", &json!({})).await, json!({}));
    assert_eq!(one.closed().await.0, 4009);
    assert_eq!(two.closed().await.0, 4009);
    for socket in [&mut other, &mut member, &mut foreign] {
        socket.quiet().await;
    }
    // Whoever has a new signature may come back.
    let _back = user(&gateway, "terminated").await;
    assert_eq!(rest.done("/users/nobody-there/terminate_connections", &json!({})).await, json!({}));
}

/// PUSHER §1.5: the close frame alone tells clients of protocols 6 and 7; of one close pusher-js makes two `error`s by
/// itself. Older ones are told by an event first.
#[tokio::test]
async fn a_user_who_is_terminated_is_told_once() {
    let gateway = alone().await;
    for (protocol, events) in [(5, 1), (6, 0), (7, 0)] {
        let path = format!("/app/{}?protocol={protocol}&client=js&version=8.6.0", FIRST.key);
        let mut socket = Socket::greeted(gateway.public, &FIRST, &path).await;
        let id = format!("terminated-{protocol}");
        socket.sign_in(&id).await;
        let tail = format!("/users/{id}/terminate_connections");
        assert_eq!(gateway.rest(&FIRST).done(&tail, &json!({})).await, json!({}));
        for _ in 0..events {
            assert_eq!(socket.error().await.0, Some(4009));
        }
        let next = socket.raw.frame().await.expect("a close");
        assert_eq!((next.first, next.close().0), (CLOSE, 4009), "protocol {protocol}: {next:?}");
    }
}

/// Takes the news about friends out of a frame.
fn changes(frame: &Frame) -> Vec<(String, String)> {
    assert_eq!(
        (frame.event.as_str(), &frame.channel),
        ("pusher_internal:watchlist_events", &None),
        "{frame:?}"
    );
    let data = frame.json();
    let mut changes = Vec::new();
    for event in data["events"].as_array().expect("a list of events") {
        let name = event["name"].as_str().expect("a name");
        assert!(["online", "offline"].contains(&name), "{event}");
        for user in event["user_ids"].as_array().expect("a list of users") {
            changes.push((name.to_owned(), user.as_str().expect("a text").to_owned()));
        }
    }
    changes
}

fn change(name: &str, user: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), user.to_owned())]
}

/// Connects to the application that tells who is online, and signs in; takes the answer only.
async fn watcher(gateway: &Gateway, id: &str, friends: &[&str]) -> Socket {
    let mut socket = Socket::open(gateway.public, &WATCHED).await;
    socket.ask_sign_in(&json!({"id": id, "watchlist": friends}).to_string()).await;
    assert_eq!(socket.next().await.event, "pusher:signin_success");
    socket
}

#[tokio::test]
async fn who_signs_in_with_a_watchlist_is_told_who_is_online_and_who_is_not() {
    let gateway = alone().await;
    let _friend = watcher(&gateway, "list-on", &[]).await;
    let mut socket = watcher(&gateway, "list-me", &["list-off", "list-on"]).await;
    let mut told: BTreeSet<_> = changes(&socket.next().await).into_iter().collect();
    if told.len() < 2 {
        told.extend(changes(&socket.next().await));
    }
    let expected =
        [change("offline", "list-off"), change("online", "list-on")].concat().into_iter().collect();
    assert_eq!(told, expected);
    socket.quiet().await;
}

#[tokio::test]
async fn friends_who_come_and_go_are_told_once() {
    let gateway = alone().await;
    let mut socket = watcher(&gateway, "friends-me", &["friends-a"]).await;
    assert_eq!(changes(&socket.next().await), change("offline", "friends-a"));
    let one = watcher(&gateway, "friends-a", &[]).await;
    assert_eq!(changes(&socket.next().await), change("online", "friends-a"));
    let other = watcher(&gateway, "friends-a", &[]).await;
    one.leave().await;
    socket.quiet().await;
    other.raw.reset();
    assert_eq!(changes(&socket.next().await), change("offline", "friends-a"));
    socket.quiet().await;
}

/// PUSHER §1.14: a page that is loaded again is away for less than three seconds.
#[tokio::test]
async fn a_friend_who_comes_back_at_once_was_never_away() {
    let gateway = alone().await;
    let mut socket = watcher(&gateway, "reload-me", &["reload-a", "reload-b"]).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(changes(&socket.next().await));
    }
    let mut friend = watcher(&gateway, "reload-a", &[]).await;
    assert_eq!(changes(&socket.next().await), change("online", "reload-a"));
    // On a slow machine coming back may take longer than is allowed: then it is tried again.
    for attempt in 0.. {
        assert!(attempt < 10, "never quick enough");
        let began = clock::now();
        friend.leave().await;
        friend = watcher(&gateway, "reload-a", &[]).await;
        if began.elapsed() < DEBOUNCE / 2 {
            break;
        }
        watcher(&gateway, "reload-b", &[]).await.leave().await;
        while changes(&socket.next().await) != change("offline", "reload-b") {}
    }
    // Somebody else who goes later is missed earlier.
    let other = watcher(&gateway, "reload-b", &[]).await;
    assert_eq!(changes(&socket.next().await), change("online", "reload-b"));
    other.leave().await;
    assert_eq!(changes(&socket.next().await), change("offline", "reload-b"));
    socket.quiet().await;
    friend.quiet().await;
}

#[tokio::test]
async fn a_watchlist_of_100_is_taken_and_of_more_the_first_100() {
    let gateway = alone().await;
    let names: Vec<String> = (0..101).map(|number| format!("crowd-{number:03}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut exact = watcher(&gateway, "crowd-me", &all[..100]).await;
    let mut told = Vec::new();
    while told.len() < 100 {
        told.extend(changes(&exact.next().await));
    }
    exact.quiet().await;
    let mut more = watcher(&gateway, "crowd-you", &all).await;
    let (mut told, mut errors) = (Vec::new(), Vec::new());
    while told.len() < 100 || errors.is_empty() {
        let next = more.next().await;
        match next.error {
            Some((code, _)) => errors.push(code),
            None => told.extend(changes(&next)),
        }
    }
    assert_eq!(errors, [Some(4302)]);
    let users: BTreeSet<_> = told.iter().map(|(_, user)| user.as_str()).collect();
    assert_eq!(users, all[..100].iter().copied().collect());
    // The first of the list is watched, the last is not.
    let _unwatched = watcher(&gateway, all[100], &[]).await;
    let _watched = watcher(&gateway, all[0], &[]).await;
    assert_eq!(changes(&more.next().await), change("online", all[0]));
    more.quiet().await;
}

#[tokio::test]
async fn an_application_without_the_switch_tells_nothing_of_friends() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.ask_sign_in(r#"{"id":"unwatched-me","watchlist":["unwatched-a"]}"#).await;
    assert_eq!(socket.next().await.event, "pusher:signin_success");
    let _friend = user(&gateway, "unwatched-a").await;
    socket.quiet().await;
}

#[tokio::test]
async fn who_has_left_is_told_nothing_and_who_signs_in_again_is_told_the_present() {
    let gateway = alone().await;
    let _friend = watcher(&gateway, "present-a", &[]).await;
    let first = watcher(&gateway, "present-me", &["present-a"]).await;
    first.leave().await;
    let mut again = watcher(&gateway, "present-me", &["present-a"]).await;
    assert_eq!(changes(&again.next().await), change("online", "present-a"));
    again.quiet().await;
}
