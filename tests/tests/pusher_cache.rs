//! The Pusher protocol's cache channels, and the count of subscribers. (PUSHER §1.10, §1.11)

use std::time::Duration;

use carillon_tasks::clock;
use carillon_tests::{
    pusher::{COUNTED, FIRST, PLAIN, Socket, alone},
    raw::eventually,
};
use serde_json::json;

/// Subscribers above which the count is told now and then only, and how often that is.
const MANY: u64 = 100;
const NOW_AND_THEN: Duration = Duration::from_secs(5);

/// Waits for the news that nothing is kept.
async fn missed(socket: &mut Socket, channel: &str) {
    let next = socket.next().await;
    assert!(next.is("pusher:cache_miss", channel), "{next:?}");
    assert!(next.data.as_deref().is_none_or(|data| data == "{}"), "{next:?}");
}

/// Takes frames of a counted channel up to this count.
async fn counts_to(socket: &mut Socket, channel: &str, count: u64) {
    loop {
        let next = socket.until("pusher_internal:subscription_count", channel).await;
        if next.json() == json!({"subscription_count": count}) {
            return;
        }
    }
}

#[tokio::test]
async fn who_joins_an_empty_cache_channel_is_told_of_the_miss() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for channel in ["cache-empty", "private-cache-empty", "private-encrypted-cache-empty"] {
        socket.subscribe(channel).await;
        missed(&mut socket, channel).await;
    }
    socket.ask_as("presence-cache-empty", r#"{"user_id":"1"}"#).await;
    let _members = socket.joined("presence-cache-empty").await;
    missed(&mut socket, "presence-cache-empty").await;
    socket.quiet().await;
}

/// PUSHER §1.10: kept with nobody there, and given to whoever comes, after the acknowledgement.
#[tokio::test]
async fn the_last_event_is_kept_without_any_subscriber() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    for channel in ["cache-kept", "private-cache-kept", "private-encrypted-cache-kept"] {
        rest.trigger(channel, "App\\Events\\First", "1").await;
        rest.trigger(channel, "App\\Events\\Last", "{ \"two\" : 2 }").await;
        let mut socket = Socket::open(gateway.public, &FIRST).await;
        socket.subscribe(channel).await;
        socket.hears(channel, "App\\Events\\Last", "{ \"two\" : 2 }").await;
        socket.quiet().await;
        rest.trigger(channel, "live", "3").await;
        socket.hears(channel, "live", "3").await;
    }
}

#[tokio::test]
async fn a_presence_channel_keeps_its_last_event_and_not_its_comings_and_goings() {
    let gateway = alone().await;
    let channel = "presence-cache-kept";
    let mut first = Socket::open(gateway.public, &FIRST).await;
    let _members = first.join(channel, "1").await;
    missed(&mut first, channel).await;
    gateway.rest(&FIRST).trigger(channel, "kept", "1").await;
    first.hears(channel, "kept", "1").await;
    let mut second = Socket::open(gateway.public, &FIRST).await;
    let _members = second.join(channel, "2").await;
    second.hears(channel, "kept", "1").await;
    assert!(first.next().await.is("pusher_internal:member_added", channel));
    second.leave().await;
    assert!(first.next().await.is("pusher_internal:member_removed", channel));
    let mut third = Socket::open(gateway.public, &FIRST).await;
    let _members = third.join(channel, "3").await;
    third.hears(channel, "kept", "1").await;
}

#[tokio::test]
async fn an_event_of_a_client_is_not_kept() {
    let gateway = alone().await;
    let channel = "private-cache-whisper";
    let mut sender = Socket::open(gateway.public, &FIRST).await;
    let mut other = Socket::open(gateway.public, &FIRST).await;
    for socket in [&mut sender, &mut other] {
        socket.subscribe(channel).await;
        missed(socket, channel).await;
    }
    sender.whisper(channel, "client-x", &json!("1")).await;
    other.hears(channel, "client-x", "1").await;
    let mut late = Socket::open(gateway.public, &FIRST).await;
    late.subscribe(channel).await;
    missed(&mut late, channel).await;
    gateway.rest(&FIRST).trigger(channel, "kept", "2").await;
    other.hears(channel, "kept", "2").await;
    sender.hears(channel, "kept", "2").await;
    sender.whisper(channel, "client-x", &json!("3")).await;
    other.hears(channel, "client-x", "3").await;
    let mut later = Socket::open(gateway.public, &FIRST).await;
    later.subscribe(channel).await;
    later.hears(channel, "kept", "2").await;
}

#[tokio::test]
async fn an_event_without_data_is_a_hit() {
    let gateway = alone().await;
    gateway.rest(&FIRST).trigger("cache-blank", "blank", "").await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("cache-blank").await;
    socket.hears("cache-blank", "blank", "").await;
    socket.quiet().await;
}

/// Who is left out of an event gets it when it joins: leaving out is for those who are there.
#[tokio::test]
async fn an_event_is_kept_whoever_is_left_out() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let body = json!({"name": "x", "data": "1", "channel": "cache-left-out", "socket_id": socket.id()});
    assert_eq!(gateway.rest(&FIRST).done("/events", &body).await, json!({}));
    socket.subscribe("cache-left-out").await;
    socket.hears("cache-left-out", "x", "1").await;
}

#[tokio::test]
async fn who_comes_back_gets_the_last_event_again() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    rest.trigger("cache-again", "x", "1").await;
    for _ in 0..3 {
        socket.subscribe("cache-again").await;
        socket.hears("cache-again", "x", "1").await;
        socket.unsubscribe("cache-again").await;
        socket.quiet().await;
    }
    rest.trigger("cache-again", "x", "2").await;
    socket.subscribe("cache-again").await;
    socket.hears("cache-again", "x", "2").await;
}

#[tokio::test]
async fn what_goes_to_many_channels_is_kept_on_each_and_in_its_application_only() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let body = json!({"name": "both", "data": "1", "channels": ["cache-many-a", "cache-many-b", "many-c"]});
    assert_eq!(rest.done("/events", &body).await, json!({}));
    let batch = json!({"batch": [
        {"name": "one", "channel": "cache-many-d", "data": "1"},
        {"name": "two", "channel": "cache-many-d", "data": "2"},
    ]});
    assert_eq!(rest.done("/batch_events", &batch).await, json!({}));
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for (channel, event, data) in
        [("cache-many-a", "both", "1"), ("cache-many-b", "both", "1"), ("cache-many-d", "two", "2")]
    {
        socket.subscribe(channel).await;
        socket.hears(channel, event, data).await;
    }
    socket.subscribe("many-c").await;
    socket.quiet().await;
    let mut stranger = Socket::open(gateway.public, &PLAIN).await;
    stranger.subscribe("cache-many-a").await;
    missed(&mut stranger, "cache-many-a").await;
}

/// The event that is kept and those that are live meet without a hole and without a double.
#[tokio::test]
async fn who_joins_a_busy_cache_channel_gets_the_last_event_and_all_after_it() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    const EVENTS: u64 = 200;
    rest.trigger("cache-busy", "n", "0").await;
    let publishing = async {
        for number in 1..EVENTS {
            rest.trigger("cache-busy", "n", &number.to_string()).await;
        }
    };
    let joining = async {
        let mut sockets = Vec::new();
        for _ in 0..30 {
            let mut socket = Socket::open(gateway.public, &FIRST).await;
            socket.subscribe("cache-busy").await;
            sockets.push(socket);
        }
        sockets
    };
    let ((), sockets) = tokio::join!(publishing, joining);
    for mut socket in sockets {
        let first = socket.next().await.json().as_u64().unwrap();
        for number in first + 1..EVENTS {
            socket.hears("cache-busy", "n", &number.to_string()).await;
        }
        socket.quiet().await;
    }
}

/// PUSHER §1.6: acknowledgement, count, kept event, live events.
#[tokio::test]
async fn the_count_comes_before_the_kept_event() {
    let gateway = alone().await;
    gateway.rest(&COUNTED).trigger("cache-order", "kept", "1").await;
    let mut socket = Socket::open(gateway.public, &COUNTED).await;
    socket.subscribe("cache-order").await;
    let next = socket.next().await;
    assert!(next.is("pusher_internal:subscription_count", "cache-order"), "{next:?}");
    socket.hears("cache-order", "kept", "1").await;
    socket.subscribe("cache-order-empty").await;
    let next = socket.next().await;
    assert!(next.is("pusher_internal:subscription_count", "cache-order-empty"), "{next:?}");
    missed(&mut socket, "cache-order-empty").await;
}

#[tokio::test]
async fn subscribers_are_told_how_many_they_are() {
    let gateway = alone().await;
    for channel in ["counted", "private-counted"] {
        let mut first = Socket::open(gateway.public, &COUNTED).await;
        first.subscribe(channel).await;
        first.hears(channel, "pusher_internal:subscription_count", r#"{"subscription_count":1}"#).await;
        let mut second = Socket::open(gateway.public, &COUNTED).await;
        second.subscribe(channel).await;
        for socket in [&mut second, &mut first] {
            socket.hears(channel, "pusher_internal:subscription_count", r#"{"subscription_count":2}"#).await;
        }
        second.unsubscribe(channel).await;
        first.hears(channel, "pusher_internal:subscription_count", r#"{"subscription_count":1}"#).await;
        second.quiet().await;
        let mut third = Socket::open(gateway.public, &COUNTED).await;
        third.subscribe(channel).await;
        counts_to(&mut first, channel, 2).await;
        third.raw.reset();
        counts_to(&mut first, channel, 1).await;
        first.quiet().await;
    }
}

#[tokio::test]
async fn members_of_a_presence_channel_are_not_counted_as_subscribers() {
    let gateway = alone().await;
    let mut first = Socket::open(gateway.public, &COUNTED).await;
    let _members = first.join("presence-uncounted", "1").await;
    let mut second = Socket::open(gateway.public, &COUNTED).await;
    let _members = second.join("presence-uncounted", "2").await;
    assert!(first.next().await.is("pusher_internal:member_added", "presence-uncounted"));
    first.quiet().await;
    second.quiet().await;
}

#[tokio::test]
async fn an_application_without_the_switch_is_not_told() {
    let gateway = alone().await;
    let mut first = Socket::open(gateway.public, &FIRST).await;
    first.subscribe("switch-off").await;
    let mut second = Socket::open(gateway.public, &FIRST).await;
    second.subscribe("switch-off").await;
    gateway.rest(&FIRST).trigger("switch-off", "x", "1").await;
    first.hears("switch-off", "x", "1").await;
    second.hears("switch-off", "x", "1").await;
}

/// PUSHER §1.11: above a hundred, at most every five seconds, and the last number comes in the end.
#[tokio::test]
async fn a_crowd_is_counted_now_and_then() {
    let gateway = alone().await;
    let mut watcher = Socket::open(gateway.public, &COUNTED).await;
    watcher.subscribe("crowd").await;
    let mut crowd = Vec::new();
    for _ in 1..MANY {
        let mut socket = Socket::open(gateway.public, &COUNTED).await;
        socket.subscribe("crowd").await;
        crowd.push(socket);
    }
    counts_to(&mut watcher, "crowd", MANY).await;
    let began = clock::now();
    for _ in 0..50 {
        let mut socket = Socket::open(gateway.public, &COUNTED).await;
        socket.subscribe("crowd").await;
        crowd.push(socket);
    }
    let mut told = Vec::new();
    while told.last() != Some(&(MANY + 50)) {
        let next = watcher.next().await;
        assert!(next.is("pusher_internal:subscription_count", "crowd"), "{next:?}");
        told.push(next.json()["subscription_count"].as_u64().unwrap());
    }
    // Intervals that have begun, and the one that the first hundred began.
    let intervals = began.elapsed().as_secs() / NOW_AND_THEN.as_secs() + 2;
    assert!(told.len() as u64 <= intervals, "{told:?} in {:?}", began.elapsed());
    assert!(told.is_sorted(), "{told:?}");
}

/// A broken connection is no subscriber for long, whoever asks.
#[tokio::test]
async fn the_count_of_the_api_is_the_one_that_subscribers_are_told() {
    let gateway = alone().await;
    let rest = gateway.rest(&COUNTED);
    let mut first = Socket::open(gateway.public, &COUNTED).await;
    let mut second = Socket::open(gateway.public, &COUNTED).await;
    first.subscribe("agreed").await;
    second.subscribe("agreed").await;
    counts_to(&mut first, "agreed", 2).await;
    let asked = async || {
        let answer = rest.read("/channels/agreed", &[("info", "subscription_count")]).await;
        answer["subscription_count"].as_u64().unwrap_or(0)
    };
    eventually("two subscribers", || async { (asked().await == 2).then_some(()) }).await;
    second.raw.reset();
    counts_to(&mut first, "agreed", 1).await;
    eventually("one subscriber", || async { (asked().await == 1).then_some(()) }).await;
}
