//! The Pusher protocol's presence channels on one node: who is there, who comes, who goes. (PUSHER §1.8)

use carillon_tests::{
    gateway::Gateway,
    pusher::{FIRST, Frame, PLAIN, SMALL, Socket, alone},
};
use serde_json::{Value, json};

/// Members that a channel has at most.
const MEMBERS_MAX: usize = 100;

/// Bytes that a member may say of itself.
const MEMBER_MAX_BYTES: usize = 1024;

/// Connects and joins as a user.
async fn member(gateway: &Gateway, channel: &str, user: &str) -> Socket {
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let _members = socket.join(channel, user).await;
    socket
}

/// Takes the news of somebody who came or went.
fn news(frame: &Frame, event: &str, channel: &str, data: &Value) {
    assert!(frame.is(event, channel), "{frame:?}");
    assert_eq!(&frame.json(), data, "{frame:?}");
}

async fn added(socket: &mut Socket, channel: &str, data: &Value) {
    news(&socket.next().await, "pusher_internal:member_added", channel, data);
}

async fn removed(socket: &mut Socket, channel: &str, user: &Value) {
    let data = json!({"user_id": user});
    news(&socket.next().await, "pusher_internal:member_removed", channel, &data);
}

fn described(user: &str) -> Value {
    json!({"user_id": user, "user_info": {"name": format!("User {user}")}})
}

/// Asks to join with a description, which must be refused, and says why.
async fn refused(socket: &mut Socket, channel: &str, member: &str) -> String {
    socket.ask_as(channel, member).await;
    let (code, message) = socket.refused(channel).await;
    assert!(code.is_none_or(|code| (4300..4400).contains(&code)), "{code:?} {message}");
    message
}

#[tokio::test]
async fn who_joins_is_told_who_is_there_itself_included() {
    let gateway = alone().await;
    let channel = "presence-roster";
    let mut first = Socket::open(gateway.public, &FIRST).await;
    let alone = first.join(channel, "1").await;
    assert_eq!(alone, json!({"ids": ["1"], "hash": {"1": {"name": "User 1"}}, "count": 1}));
    let mut second = Socket::open(gateway.public, &FIRST).await;
    second.ask_as(channel, r#"{"user_id":"2"}"#).await;
    let both = second.joined(channel).await;
    assert_eq!(both, json!({"ids": ["1", "2"], "hash": {"1": {"name": "User 1"}, "2": null}, "count": 2}));
    second.quiet().await;
}

#[tokio::test]
async fn the_answer_is_a_text_with_the_member_presence_and_no_other() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.ask_as("presence-text", r#"{"user_id":"1","user_info":{"a":[1,{"b":null}],"ü":"\u00fc"}}"#).await;
    let next = socket.next().await;
    assert!(next.is("pusher_internal:subscription_succeeded", "presence-text"), "{next:?}");
    let info = json!({"a": [1, {"b": null}], "ü": "ü"});
    assert_eq!(next.json(), json!({"presence": {"ids": ["1"], "hash": {"1": info}, "count": 1}}));
}

#[tokio::test]
async fn the_others_are_told_of_who_comes_and_it_is_not() {
    let gateway = alone().await;
    let channel = "presence-come";
    let (mut one, mut two) = (member(&gateway, channel, "1").await, member(&gateway, channel, "2").await);
    added(&mut one, channel, &described("2")).await;
    let mut three = member(&gateway, channel, "3").await;
    added(&mut one, channel, &described("3")).await;
    added(&mut two, channel, &described("3")).await;
    for socket in [&mut one, &mut two, &mut three] {
        socket.quiet().await;
    }
}

/// PUSHER §1.8: by leaving the channel, by closing, by breaking off.
#[tokio::test]
async fn the_others_are_told_of_who_goes_however_it_goes() {
    let gateway = alone().await;
    let channel = "presence-go";
    let mut stays = member(&gateway, channel, "stays").await;
    for how in ["unsubscribes", "closes", "resets", "hangs-up"] {
        let mut socket = member(&gateway, channel, how).await;
        added(&mut stays, channel, &described(how)).await;
        match how {
            "unsubscribes" => {
                socket.unsubscribe(channel).await;
                removed(&mut stays, channel, &json!(how)).await;
                socket.quiet().await;
                continue;
            }
            "closes" => socket.leave().await,
            "resets" => socket.raw.reset(),
            _ => drop(socket),
        }
        removed(&mut stays, channel, &json!(how)).await;
    }
    stays.quiet().await;
    let _new = member(&gateway, channel, "new").await;
    added(&mut stays, channel, &described("new")).await;
}

#[tokio::test]
async fn a_user_with_two_tabs_comes_once_and_goes_with_the_last() {
    let gateway = alone().await;
    let channel = "presence-tabs";
    let mut watcher = member(&gateway, channel, "watcher").await;
    let mut one = member(&gateway, channel, "7").await;
    added(&mut watcher, channel, &described("7")).await;
    let mut other = Socket::open(gateway.public, &FIRST).await;
    let members = other.join(channel, "7").await;
    assert_eq!(members["count"], 2);
    assert_eq!(members["ids"], json!(["7", "watcher"]));
    // Neither the other tab nor anybody else is told.
    one.quiet().await;
    watcher.quiet().await;
    one.unsubscribe(channel).await;
    one.quiet().await;
    let mut third = member(&gateway, channel, "third").await;
    added(&mut watcher, channel, &described("third")).await;
    added(&mut other, channel, &described("third")).await;
    other.leave().await;
    removed(&mut watcher, channel, &json!("7")).await;
    removed(&mut third, channel, &json!("7")).await;
}

#[tokio::test]
async fn who_leaves_hears_nothing_more_and_who_comes_back_sees_the_present() {
    let gateway = alone().await;
    let channel = "presence-back";
    let mut one = member(&gateway, channel, "1").await;
    let mut two = member(&gateway, channel, "2").await;
    added(&mut one, channel, &described("2")).await;
    one.unsubscribe(channel).await;
    removed(&mut two, channel, &json!("1")).await;
    let _three = member(&gateway, channel, "3").await;
    added(&mut two, channel, &described("3")).await;
    one.quiet().await;
    let members = one.join(channel, "1").await;
    assert_eq!((&members["ids"], &members["count"]), (&json!(["1", "2", "3"]), &json!(3)));
    added(&mut two, channel, &described("1")).await;
}

/// PUSHER §1.8: an id keeps its type in events, and is a text in lists.
#[tokio::test]
async fn a_numeric_id_stays_a_number_in_events_and_is_a_text_in_lists() {
    let gateway = alone().await;
    let channel = "presence-number";
    let mut watcher = member(&gateway, channel, "w").await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.ask_as(channel, r#"{"user_id":10,"user_info":{"name":"Mr. Channels"}}"#).await;
    let members = socket.joined(channel).await;
    assert_eq!(members["ids"], json!(["10", "w"]));
    assert_eq!(members["hash"]["10"], json!({"name": "Mr. Channels"}));
    let came = json!({"user_id": 10, "user_info": {"name": "Mr. Channels"}});
    added(&mut watcher, channel, &came).await;
    // As a text it is the same user.
    let mut as_text = Socket::open(gateway.public, &FIRST).await;
    as_text.ask_as(channel, r#"{"user_id":"10"}"#).await;
    assert_eq!(as_text.joined(channel).await["count"], 2);
    as_text.unsubscribe(channel).await;
    as_text.quiet().await;
    socket.leave().await;
    removed(&mut watcher, channel, &json!(10)).await;
    watcher.quiet().await;
}

#[tokio::test]
async fn a_second_tab_with_another_description_does_not_change_the_first() {
    let gateway = alone().await;
    let channel = "presence-first-info";
    let mut one = Socket::open(gateway.public, &FIRST).await;
    one.ask_as(channel, r#"{"user_id":"7","user_info":"first"}"#).await;
    assert_eq!(one.joined(channel).await["hash"], json!({"7": "first"}));
    let mut other = Socket::open(gateway.public, &FIRST).await;
    other.ask_as(channel, r#"{"user_id":"7","user_info":"second"}"#).await;
    assert_eq!(other.joined(channel).await["hash"], json!({"7": "first"}));
    let mut third = Socket::open(gateway.public, &FIRST).await;
    assert_eq!(third.join(channel, "8").await["hash"]["7"], "first");
}

#[tokio::test]
async fn a_description_without_a_user_is_refused() {
    let gateway = alone().await;
    let channel = "presence-nobody";
    let mut watcher = member(&gateway, channel, "w").await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for member in [
        "{}",
        r#"{"user_id":null}"#,
        r#"{"user_id":""}"#,
        r#"{"user_id":{}}"#,
        r#"{"user_id":["1"]}"#,
        r#"{"user_id":true}"#,
        r#"{"user_info":{"name":"x"}}"#,
        "not JSON",
        r#"["user_id","1"]"#,
        r#""user_id""#,
        "7",
        "null",
        r#"{"user_id":"1""#,
        r#"{"user_id":"1"}}"#,
    ] {
        let _message = refused(&mut socket, channel, member).await;
        socket.quiet().await;
    }
    watcher.quiet().await;
    // Without any description, too, though the signature is right.
    let auth = FIRST.auth(socket.id(), channel, None);
    for data in [
        json!({"channel": channel, "auth": auth}),
        json!({"channel": channel, "auth": auth, "channel_data": null}),
    ] {
        socket.say("pusher:subscribe", &data).await;
        let _refusal = socket.refused(channel).await;
    }
    let _members = socket.join(channel, "1").await;
    added(&mut watcher, channel, &described("1")).await;
}

#[tokio::test]
async fn a_description_that_was_not_signed_is_refused() {
    let gateway = alone().await;
    let channel = "presence-forged";
    let mut watcher = member(&gateway, channel, "w").await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let auth = FIRST.auth(socket.id(), channel, Some(r#"{"user_id":"1"}"#));
    let data = json!({"channel": channel, "auth": auth, "channel_data": r#"{"user_id":"2"}"#});
    socket.say("pusher:subscribe", &data).await;
    let (code, message) = socket.refused(channel).await;
    let signed = format!(r#"{}:{channel}:{{"user_id":"2"}}"#, socket.id());
    assert!(code.is_none() && message.contains(&signed), "{message}");
    watcher.quiet().await;
}

#[tokio::test]
async fn an_id_of_128_characters_is_taken_and_one_more_is_refused() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let longest = "u".repeat(128);
    let members = socket.join("presence-id", &longest).await;
    assert_eq!(members["ids"], json!([longest]));
    let longer = json!({"user_id": format!("{longest}u")}).to_string();
    let _message = refused(&mut socket, "presence-id-longer", &longer).await;
}

#[tokio::test]
async fn an_id_has_the_characters_of_channel_names() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let members = socket.join("presence-characters", "-azAZ09_=@,.;").await;
    assert_eq!(members["count"], 1);
    for bad in ["a b", "a*", "a>", "a\n", "\u{0}"] {
        let member = json!({"user_id": bad}).to_string();
        let _message = refused(&mut socket, "presence-characters-bad", &member).await;
    }
}

#[tokio::test]
async fn a_description_of_1_kib_is_taken_and_one_byte_more_is_refused() {
    let gateway = alone().await;
    let of_size = |bytes: usize| {
        let frame = r#"{"user_id":"1","user_info":""}"#;
        format!(r#"{{"user_id":"1","user_info":"{}"}}"#, "i".repeat(bytes - frame.len()))
    };
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.ask_as("presence-size", &of_size(MEMBER_MAX_BYTES)).await;
    assert_eq!(socket.joined("presence-size").await["count"], 1);
    let _message = refused(&mut socket, "presence-size-more", &of_size(MEMBER_MAX_BYTES + 1)).await;
}

#[tokio::test]
async fn a_channel_has_100_members_and_the_next_comes_when_one_has_gone() {
    let gateway = alone().await;
    let channel = "presence-full";
    let mut sockets = Vec::new();
    for user in 1..=MEMBERS_MAX {
        let mut socket = Socket::open(gateway.public, &FIRST).await;
        assert_eq!(socket.join(channel, &user.to_string()).await["count"], user);
        sockets.push(socket);
    }
    let mut late = Socket::open(gateway.public, &FIRST).await;
    let _message = refused(&mut late, channel, &described("late").to_string()).await;
    // A second tab takes no place.
    let mut tab = Socket::open(gateway.public, &FIRST).await;
    assert_eq!(tab.join(channel, "100").await["count"], MEMBERS_MAX);
    let leaves = sockets.remove(0);
    leaves.leave().await;
    let gone = tab.next().await;
    news(&gone, "pusher_internal:member_removed", channel, &json!({"user_id": "1"}));
    let members = late.join(channel, "late").await;
    assert_eq!(members["count"], MEMBERS_MAX);
    let ids = members["ids"].as_array().unwrap();
    assert!(
        ids.len() == MEMBERS_MAX && ids.contains(&json!("late")) && !ids.contains(&json!("1")),
        "{ids:?}"
    );
    added(&mut tab, channel, &described("late")).await;
    let mut later = Socket::open(gateway.public, &FIRST).await;
    let _message = refused(&mut later, channel, &described("later").to_string()).await;
}

#[tokio::test]
async fn an_application_may_have_another_limit_of_members() {
    let gateway = alone().await;
    let channel = "presence-two";
    let mut sockets = Vec::new();
    for user in ["1", "2"] {
        let mut socket = Socket::open(gateway.public, &SMALL).await;
        let _members = socket.join(channel, user).await;
        sockets.push(socket);
    }
    let mut third = Socket::open(gateway.public, &SMALL).await;
    let _message = refused(&mut third, channel, r#"{"user_id":"3"}"#).await;
}

#[tokio::test]
async fn applications_have_members_of_their_own() {
    let gateway = alone().await;
    let channel = "presence-apart";
    let mut first = member(&gateway, channel, "1").await;
    let mut plain = Socket::open(gateway.public, &PLAIN).await;
    assert_eq!(plain.join(channel, "2").await["ids"], json!(["2"]));
    first.quiet().await;
    plain.leave().await;
    first.quiet().await;
    assert_eq!(
        gateway.rest(&FIRST).read(&format!("/channels/{channel}/users"), &[]).await["users"],
        json!([{"id": "1"}])
    );
}

#[tokio::test]
async fn backends_publish_to_presence_channels_too() {
    let gateway = alone().await;
    let channel = "presence-event";
    let mut one = member(&gateway, channel, "1").await;
    let mut two = member(&gateway, channel, "2").await;
    added(&mut one, channel, &described("2")).await;
    let body = json!({"name": "x", "data": "1", "channel": channel, "socket_id": one.id()});
    assert_eq!(gateway.rest(&FIRST).done("/events", &body).await, json!({}));
    two.hears(channel, "x", "1").await;
    one.quiet().await;
}

/// PUSHER §1.8: who has signed in is known already; then nothing but the channel is signed.
#[tokio::test]
async fn who_has_signed_in_joins_without_a_description() {
    let gateway = alone().await;
    let channel = "presence-signed-in";
    let mut watcher = member(&gateway, channel, "w").await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.ask_sign_in(r#"{"id":"42","user_info":{"name":"Ana"},"more":1}"#).await;
    assert_eq!(socket.next().await.event, "pusher:signin_success");
    let auth = FIRST.auth(socket.id(), channel, None);
    socket.say("pusher:subscribe", &json!({"channel": channel, "auth": auth})).await;
    let members = socket.joined(channel).await;
    assert_eq!((&members["ids"], &members["hash"]["42"]), (&json!(["42", "w"]), &json!({"name": "Ana"})));
    added(&mut watcher, channel, &json!({"user_id": "42", "user_info": {"name": "Ana"}})).await;
}

#[tokio::test]
async fn a_second_subscription_to_a_presence_channel_changes_nothing() {
    let gateway = alone().await;
    let channel = "presence-twice";
    let mut watcher = member(&gateway, channel, "w").await;
    let mut socket = member(&gateway, channel, "1").await;
    added(&mut watcher, channel, &described("1")).await;
    socket.ask_as(channel, r#"{"user_id":"2"}"#).await;
    assert_eq!(socket.error().await, (None, format!("Existing subscription to channel {channel}")));
    watcher.quiet().await;
    socket.leave().await;
    removed(&mut watcher, channel, &json!("1")).await;
    watcher.quiet().await;
}

/// Quick changes are told in their order, each once.
#[tokio::test]
async fn comings_and_goings_alternate() {
    let gateway = alone().await;
    let channel = "presence-churn";
    let mut watcher = member(&gateway, channel, "w").await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    const TIMES: usize = 30;
    for _ in 0..TIMES {
        socket.ask_as(channel, r#"{"user_id":"1"}"#).await;
        socket.unsubscribe(channel).await;
    }
    for _ in 0..TIMES {
        let _members = socket.joined(channel).await;
    }
    let mut there = false;
    for _ in 0..TIMES {
        for expected in ["pusher_internal:member_added", "pusher_internal:member_removed"] {
            let next = watcher.next().await;
            assert!(next.is(expected, channel), "{next:?}");
            there = !there;
        }
    }
    assert!(!there);
    watcher.quiet().await;
}
