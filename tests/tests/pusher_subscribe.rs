//! The Pusher protocol's subscriptions: names, signatures, answers, refusals. (PUSHER §1.6, §1.7, §1.9)

use carillon_tests::{
    pusher::{App, FIRST, PLAIN, SECOND_KEY, Socket, alone},
    raw::{TEXT, frame},
};
use serde_json::{Value, json};

/// Longest name of a channel.
const NAME_MAX: usize = 164;

/// Asks for a channel with an `auth` and perhaps `channel_data`.
async fn ask_with(socket: &mut Socket, channel: &str, auth: &str, channel_data: Option<&str>) {
    let mut data = json!({"channel": channel, "auth": auth});
    if let Some(channel_data) = channel_data {
        data["channel_data"] = channel_data.into();
    }
    socket.say("pusher:subscribe", &data).await;
}

/// Makes sure that a channel was not joined: an event on it is not heard, one on another channel after it is.
async fn is_not_in(socket: &mut Socket, channel: &str) {
    let rest = alone().await.rest(&FIRST);
    let other = format!("other-than-{channel}");
    socket.subscribe(&other).await;
    rest.trigger(channel, "unheard", "").await;
    rest.trigger(&other, "heard", "").await;
    socket.hears(&other, "heard", "").await;
    socket.unsubscribe(&other).await;
}

#[tokio::test]
async fn a_subscription_is_acknowledged_with_an_empty_object_as_text() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.ask("ack").await;
    let got: Value = serde_json::from_str(&socket.text().await).unwrap();
    let expected = json!({"event": "pusher_internal:subscription_succeeded", "channel": "ack", "data": "{}"});
    assert_eq!(got, expected);
    socket.quiet().await;
}

#[tokio::test]
async fn a_missing_an_empty_and_a_null_auth_are_the_same_for_a_public_channel() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let cases = [
        json!({"channel": "auth-1"}),
        json!({"channel": "auth-2", "auth": ""}),
        json!({"channel": "auth-3", "auth": null}),
        json!({"channel": "auth-4", "auth": null, "channel_data": null, "more": [1, {"x": 2}]}),
    ];
    for data in cases {
        socket.say("pusher:subscribe", &data).await;
        socket.subscribed(data["channel"].as_str().unwrap()).await;
    }
}

#[tokio::test]
async fn a_second_subscription_is_refused_and_the_first_goes_on() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("twice").await;
    socket.ask("twice").await;
    // Nothing is wrong with the channel, so the channel says nothing.
    let error = socket.error().await;
    assert_eq!(error, (None, "Existing subscription to channel twice".to_owned()));
    gateway.rest(&FIRST).trigger("twice", "once", "1").await;
    socket.hears("twice", "once", "1").await;
    socket.quiet().await;
}

#[tokio::test]
async fn a_refusal_is_also_an_event_of_the_channel_unless_that_is_switched_off() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    ask_with(&mut socket, "private-told", "nonsense:x", None).await;
    let (_, message) = socket.error().await;
    let next = socket.next().await;
    assert!(next.is("pusher:subscription_error", "private-told"), "{next:?}");
    assert_eq!(next.json(), json!({"type": "AuthError", "error": message, "status": 401}));
    let mut socket = Socket::open(gateway.public, &PLAIN).await;
    ask_with(&mut socket, "private-told", "nonsense:x", None).await;
    let (code, _) = socket.error().await;
    assert_eq!(code, None);
    socket.quiet().await;
}

#[tokio::test]
async fn a_subscription_without_a_channel_is_refused() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for data in [json!({}), json!({"auth": ""}), json!({"channel": null})] {
        socket.say("pusher:subscribe", &data).await;
        let error = socket.error().await;
        assert_eq!(error, (None, "Missing parameter: data.channel".to_owned()), "{data}");
        socket.quiet().await;
    }
}

/// PUSHER §1.6: nothing of a channel comes before it is acknowledged, however busy it is.
#[tokio::test]
async fn the_acknowledgement_comes_before_every_event() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let publishing = async {
        for number in 0..150 {
            rest.trigger("busy", "n", &number.to_string()).await;
        }
    };
    let subscribing = async {
        for _ in 0..30 {
            let mut socket = Socket::open(gateway.public, &FIRST).await;
            socket.subscribe("busy").await;
        }
    };
    tokio::join!(publishing, subscribing);
}

/// What is published after the acknowledgement arrives, in its order and once.
#[tokio::test]
async fn everything_after_the_acknowledgement_arrives_in_order() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("ordered").await;
    let rest = gateway.rest(&FIRST);
    for number in 0..100 {
        rest.trigger("ordered", "n", &number.to_string()).await;
    }
    for number in 0..100 {
        socket.hears("ordered", "n", &number.to_string()).await;
    }
    socket.quiet().await;
}

/// PUSHER §1.6: pusher-js waits for each answer, so each subscription has one.
#[tokio::test]
async fn every_subscription_of_a_sequence_is_answered() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for _ in 0..5 {
        socket.ask("again").await;
        socket.unsubscribe("again").await;
    }
    socket.ask("again").await;
    for _ in 0..6 {
        socket.subscribed("again").await;
    }
    gateway.rest(&FIRST).trigger("again", "one", "1").await;
    socket.hears("again", "one", "1").await;
    socket.quiet().await;
}

#[tokio::test]
async fn leaving_is_not_answered_and_ends_the_events() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("left").await;
    socket.subscribe("stayed").await;
    socket.unsubscribe("left").await;
    socket.quiet().await;
    rest.trigger("left", "x", "").await;
    rest.trigger("stayed", "y", "").await;
    socket.hears("stayed", "y", "").await;
    socket.subscribe("left").await;
    rest.trigger("left", "z", "").await;
    socket.hears("left", "z", "").await;
}

/// PUSHER §1.6: silence and an error without a code are both good; the connection goes on.
#[tokio::test]
async fn leaving_twice_or_what_was_never_joined_does_no_harm() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("left-twice").await;
    for channel in ["left-twice", "left-twice", "never-joined", "private-never", "#server-to-user-x"] {
        socket.unsubscribe(channel).await;
        socket.say("pusher:ping", &json!({})).await;
        let mut next = socket.next().await;
        if let Some((code, message)) = &next.error {
            assert_eq!(*code, None, "{message}");
            next = socket.next().await;
        }
        assert_eq!(next.event, "pusher:pong", "{next:?}");
    }
    socket.subscribe("left-twice").await;
}

#[tokio::test]
async fn one_connection_has_many_channels() {
    let gateway = alone().await;
    let rest = gateway.rest(&FIRST);
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let channels: Vec<_> = (0..100).map(|number| format!("private-many-{number}")).collect();
    for channel in &channels {
        socket.ask(channel).await;
    }
    for channel in &channels {
        socket.subscribed(channel).await;
    }
    for channel in channels.iter().rev() {
        rest.trigger(channel, "x", channel).await;
    }
    for channel in channels.iter().rev() {
        socket.hears(channel, "x", channel).await;
    }
}

#[tokio::test]
async fn every_allowed_character_may_be_in_a_name() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let rest = gateway.rest(&FIRST);
    let all = "-azAZ09_=@,.;";
    for name in [all.to_owned(), format!("private-{all}"), ";".to_owned(), ",".to_owned(), "=@.".to_owned()] {
        socket.subscribe(&name).await;
        rest.trigger(&name, "x", "1").await;
        socket.hears(&name, "x", "1").await;
    }
}

#[tokio::test]
async fn no_other_character_may_be_in_a_name() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let mut characters: Vec<char> = (0..=0x7f_u8).map(char::from).collect();
    characters.retain(|c| !c.is_ascii_alphanumeric() && !"-_=@,.;".contains(*c));
    characters.extend(['ü', '\u{a0}', '\u{200b}', '中', '😀', '\u{feff}', '\u{80}']);
    let names = characters.iter().flat_map(|c| [format!("bad{c}name"), format!("{c}bad"), format!("bad{c}")]);
    for name in names.chain([String::new(), "#server-to-user-".to_owned(), "#private-x".to_owned()]) {
        socket.ask(&name).await;
        // The channel's own event follows where there is a channel to speak of.
        let error = socket.turned_down().await;
        assert_eq!(error.0, None, "{name:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_name_of_164_characters_is_taken_and_one_more_is_refused() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for prefix in ["", "private-", "cache-", "private-encrypted-cache-"] {
        let longest = format!("{prefix}{}", "n".repeat(NAME_MAX - prefix.len()));
        socket.subscribe(&longest).await;
        if prefix.contains("cache-") {
            assert!(socket.next().await.is("pusher:cache_miss", &longest));
        }
        let longer = format!("{longest}n");
        socket.ask(&longer).await;
        let (code, _) = socket.refused(&longer).await;
        assert_eq!(code, None);
    }
    for prefix in ["presence-", "presence-cache-"] {
        let longest = format!("{prefix}{}", "n".repeat(NAME_MAX - prefix.len()));
        let member = r#"{"user_id":"1"}"#;
        socket.ask_as(&longest, member).await;
        assert_eq!(socket.joined(&longest).await["count"], 1);
        if prefix.contains("cache-") {
            assert!(socket.next().await.is("pusher:cache_miss", &longest));
        }
        let longer = format!("{longest}n");
        socket.ask_as(&longer, member).await;
        let (code, _) = socket.refused(&longer).await;
        assert_eq!(code, None);
    }
}

#[tokio::test]
async fn names_that_only_resemble_a_prefix_are_public() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for name in [
        "privateer",
        "private_x",
        "presencefoo",
        "presence",
        "private",
        "cachefoo",
        "Private-x",
        "PRESENCE-x",
    ] {
        socket.say("pusher:subscribe", &json!({"channel": name, "auth": ""})).await;
        socket.subscribed(name).await;
        // Neither a cache nor members speak up.
        socket.quiet().await;
    }
}

#[tokio::test]
async fn every_guarded_prefix_needs_a_signature() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for name in [
        "private-x",
        "private-",
        "private-cache-x",
        "private-encrypted-x",
        "private-encrypted-cache-x",
        "presence-x",
        "presence-cache-x",
    ] {
        for data in [json!({"channel": name}), json!({"channel": name, "auth": ""})] {
            socket.say("pusher:subscribe", &data).await;
            let (code, _) = socket.refused(name).await;
            assert_eq!(code, None, "{name}");
            socket.quiet().await;
        }
    }
    is_not_in(&mut socket, "private-x").await;
}

#[tokio::test]
async fn a_signed_private_channel_is_joined() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    socket.subscribe("private-signed").await;
    gateway.rest(&FIRST).trigger("private-signed", "x", "1").await;
    socket.hears("private-signed", "x", "1").await;
}

#[tokio::test]
async fn a_wrong_signature_is_told_with_what_should_have_been_signed() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let wrong = "0123456789abcdef".repeat(4);
    ask_with(&mut socket, "private-wrong", &format!("{}:{wrong}", FIRST.key), None).await;
    let (code, message) = socket.refused("private-wrong").await;
    let signed = format!("{}:private-wrong", socket.id());
    let expected = format!("Invalid signature: Expected HMAC SHA256 hex digest of {signed}, but got {wrong}");
    assert_eq!((code, message), (None, expected));
    let right = FIRST.auth(socket.id(), "private-wrong", None);
    let (_, right) = right.split_once(':').unwrap();
    assert!(!gateway.log().contains(right), "the right signature is nobody's business");
    is_not_in(&mut socket, "private-wrong").await;
}

#[tokio::test]
async fn a_signature_that_differs_in_one_digit_or_is_cut_is_refused() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let right = FIRST.auth(socket.id(), "private-digit", None);
    let flipped = |at: usize| {
        let mut bytes = right.clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        String::from_utf8(bytes).unwrap()
    };
    let first = FIRST.key.len() + 1;
    let cases = [
        flipped(first),
        flipped(right.len() - 1),
        right[..right.len() - 1].to_owned(),
        format!("{right}0"),
        right[..first].to_owned(),
        format!("{}:{}", FIRST.key, &right),
        format!(" {right}"),
        format!("{right} "),
    ];
    for auth in cases {
        ask_with(&mut socket, "private-digit", &auth, None).await;
        let (code, message) = socket.refused("private-digit").await;
        assert_eq!(code, None, "{auth}: {message}");
    }
    // The connection is none the worse, and may try again.
    socket.subscribe("private-digit").await;
}

#[tokio::test]
async fn a_key_that_is_not_the_applications_is_named_in_the_refusal() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let foreign = PLAIN.auth(socket.id(), "private-foreign", None);
    ask_with(&mut socket, "private-foreign", &foreign, None).await;
    let error = socket.refused("private-foreign").await;
    let expected = format!("Invalid key in subscription auth data: '{}'", PLAIN.key);
    assert_eq!(error, (None, expected));
    // Neither does the right key with the secret of another.
    let mixed = App { secret: PLAIN.secret, ..FIRST }.auth(socket.id(), "private-foreign", None);
    ask_with(&mut socket, "private-foreign", &mixed, None).await;
    assert_eq!(socket.refused("private-foreign").await.0, None);
    let swapped = App { secret: SECOND_KEY.secret, ..FIRST }.auth(socket.id(), "private-foreign", None);
    ask_with(&mut socket, "private-foreign", &swapped, None).await;
    assert_eq!(socket.refused("private-foreign").await.0, None);
    is_not_in(&mut socket, "private-foreign").await;
    // The other key of the application does.
    let second = SECOND_KEY.auth(socket.id(), "private-foreign", None);
    ask_with(&mut socket, "private-foreign", &second, None).await;
    socket.subscribed("private-foreign").await;
}

#[tokio::test]
async fn an_auth_without_a_colon_is_refused() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    for auth in ["nonsense", FIRST.key, "ü", "\u{0}"] {
        ask_with(&mut socket, "private-colon", auth, None).await;
        assert_eq!(socket.refused("private-colon").await.0, None, "{auth}");
    }
}

#[tokio::test]
async fn a_signature_for_another_socket_or_channel_is_refused() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let mut other = Socket::open(gateway.public, &FIRST).await;
    let of_other = FIRST.auth(other.id(), "private-mine", None);
    let of_channel = FIRST.auth(socket.id(), "private-yours", None);
    for auth in [of_other, of_channel] {
        ask_with(&mut socket, "private-mine", &auth, None).await;
        assert_eq!(socket.refused("private-mine").await.0, None);
    }
    is_not_in(&mut socket, "private-mine").await;
    other.subscribe("private-mine").await;
}

/// PUSHER §1.7: `channel_data` is signed wherever it is sent, and as the bytes that were sent.
#[tokio::test]
async fn channel_data_of_a_private_channel_is_part_of_what_is_signed() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let data = "{\"user_id\" : 1,  \"x\":\"\\u00fc\"}";
    let (two, three) =
        (FIRST.auth(socket.id(), "private-data", None), FIRST.auth(socket.id(), "private-data", Some(data)));
    ask_with(&mut socket, "private-data", &two, Some(data)).await;
    let (_, message) = socket.refused("private-data").await;
    assert!(message.contains(&format!("{}:private-data:{data}", socket.id())), "{message}");
    ask_with(&mut socket, "private-data", &three, None).await;
    assert_eq!(socket.refused("private-data").await.0, None);
    // The same value in another spelling is another text.
    ask_with(&mut socket, "private-data", &three, Some(r#"{"user_id":1,"x":"ü"}"#)).await;
    assert_eq!(socket.refused("private-data").await.0, None);
    ask_with(&mut socket, "private-data", &three, Some(data)).await;
    socket.subscribed("private-data").await;
}

#[tokio::test]
async fn channel_data_that_is_null_is_absent() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let auth = FIRST.auth(socket.id(), "private-null", None);
    let data = json!({"channel": "private-null", "auth": auth, "channel_data": null});
    socket.say("pusher:subscribe", &data).await;
    socket.subscribed("private-null").await;
}

/// PUSHER §1.6: a client that has reconnected uses an old signature once, and a new one then.
#[tokio::test]
async fn an_old_signature_after_a_reconnect_is_an_error_and_the_next_try_works() {
    let gateway = alone().await;
    let old = Socket::open(gateway.public, &FIRST).await;
    let auth = FIRST.auth(old.id(), "private-stale", None);
    old.leave().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    ask_with(&mut socket, "private-stale", &auth, None).await;
    assert_eq!(socket.refused("private-stale").await.0, None);
    socket.subscribe("private-stale").await;
}

#[tokio::test]
async fn an_encrypted_channel_is_joined_like_a_private_one_and_its_data_is_not_looked_at() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let auth = format!("{}:{}", FIRST.key, "f".repeat(64));
    ask_with(&mut socket, "private-encrypted-x", &auth, None).await;
    assert_eq!(socket.refused("private-encrypted-x").await.0, None);
    socket.subscribe("private-encrypted-x").await;
    let data = r#"{"nonce":"4sVYwy4j/8dCcjyxtPCWyk19GaaViaW9","ciphertext":"/GMESnFGlbNn01BuBjp31XYa3i9vZsGKR8fgR9EDhXKx3lzGiUD501A="}"#;
    gateway.rest(&FIRST).trigger("private-encrypted-x", "secret", data).await;
    socket.hears("private-encrypted-x", "secret", data).await;
}

#[tokio::test]
async fn clients_send_no_events_on_an_encrypted_channel() {
    let gateway = alone().await;
    let mut sender = Socket::open(gateway.public, &FIRST).await;
    let mut other = Socket::open(gateway.public, &FIRST).await;
    sender.subscribe("private-encrypted-y").await;
    other.subscribe("private-encrypted-y").await;
    sender.whisper("private-encrypted-y", "client-x", &json!("1")).await;
    let error = sender.error().await;
    let expected = "Client event rejected - only supported on private and presence channels";
    assert_eq!(error, (None, expected.to_owned()));
    gateway.rest(&FIRST).trigger("private-encrypted-y", "after", "2").await;
    other.hears("private-encrypted-y", "after", "2").await;
}

/// Many texts in one packet, and one text in many: frames are frames.
#[tokio::test]
async fn frames_may_come_together_or_in_pieces() {
    let gateway = alone().await;
    let mut socket = Socket::open(gateway.public, &FIRST).await;
    let ask =
        |name: &str| frame(TEXT, json!({"event": "pusher:subscribe", "data": {"channel": name}}).to_string());
    socket.raw.send([ask("together-1"), ask("together-2"), ask("together-3")].concat()).await;
    for name in ["together-1", "together-2", "together-3"] {
        socket.subscribed(name).await;
    }
    for byte in ask("in-pieces") {
        socket.raw.send([byte]).await;
    }
    socket.subscribed("in-pieces").await;
}
