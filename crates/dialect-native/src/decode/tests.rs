use super::*;

fn name(text: &str) -> ChannelName {
    ChannelName::new(text).unwrap()
}

fn refused(frame: &str) -> (ErrorCode, Option<Reference>, String) {
    let undecoded = command(frame).expect_err(frame);
    (undecoded.refusal.code, undecoded.reference, undecoded.refusal.message.into_owned())
}

#[test]
fn channels_are_named_one_by_one_or_together() {
    let now = |channel: &str| Wanted::new(name(channel), Since::Now);
    assert_eq!(
        command(r#"{"type":"subscribe","channel":"a","ref":7,"unknown":[1]}"#),
        Ok(Command::Subscribe { channels: vec![now("a")], reference: Some(7) })
    );
    let past = Wanted::new(name("b"), Since::After("abcd12-9".parse().unwrap()));
    assert_eq!(
        command(r#"{"type":"subscribe","channels":["a",{"channel":"b","since":"abcd12-9"}]}"#),
        Ok(Command::Subscribe { channels: vec![now("a"), past], reference: None })
    );
    assert_eq!(
        command(r#"{"type":"unsubscribe","channel":"a"}"#),
        Ok(Command::Unsubscribe { channels: vec![name("a")], reference: None })
    );
}

#[test]
fn a_long_value_in_the_wrong_place_is_not_told_back() {
    let frame = format!(r#"{{"type":"ping","ref":"{}"}}"#, "x".repeat(60_000));
    let (code, _, message) = refused(&frame);
    assert!(code == ErrorCode::BadRequest && message.len() < 300, "{message}");
}

#[test]
fn a_frame_that_cannot_be_read_says_what_a_good_one_looks_like() {
    for bad in [
        "",
        "x",
        "[]",
        r#"["ping",null,null,null,null,null]"#,
        "null",
        "{}",
        r#"{"type":7}"#,
        r#"{"type":"subscribe","channel":5}"#,
    ] {
        let (code, _, message) = refused(bad);
        assert_eq!(code, ErrorCode::BadRequest, "{bad}");
        assert!(message.contains("a frame is one JSON object such as"), "{bad}: {message}");
    }
}

#[test]
fn nesting_costs_no_stack() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(command(&deep).is_err());
    assert!(command(&format!(r#"{{"type":"subscribe","channels":{deep}}}"#)).is_err());
    // A member that is not known is skipped, however deep it is.
    assert_eq!(command(&format!(r#"{{"type":"ping","x":{deep}}}"#)), Ok(Command::Ping { reference: None }));
}

#[test]
fn the_reference_is_echoed_when_another_member_is_wrong() {
    assert_eq!(refused(r#"{"type":"subscribe","channel":5,"ref":3}"#).1, Some(3));
    assert_eq!(refused(r#"{"type":"subscribe","ref":4}"#).1, Some(4));
    assert_eq!(refused(r#"{"type":"subscribe","channel":"a.*","ref":5}"#).1, Some(5));
}

#[test]
fn unknown_types_and_missing_features_differ() {
    assert_eq!(refused(r#"{"type":"shout"}"#).0, ErrorCode::UnknownType);
    for later in ["publish", "history", "call"] {
        assert_eq!(refused(&format!(r#"{{"type":"{later}"}}"#)).0, ErrorCode::NotEnabled);
    }
}

#[test]
fn presence_is_asked_for_with_a_subscription_and_about_one_channel() {
    let wanted = |frame: &str| match command(frame) {
        Ok(Command::Subscribe { channels, .. }) => {
            channels.into_iter().map(|wanted| wanted.presence).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(wanted(r#"{"type":"subscribe","channels":["a","b"],"presence":true}"#), [true, true]);
    assert_eq!(wanted(r#"{"type":"subscribe","channel":"a"}"#), [false]);
    let members = Command::Members { channel: name("presence-a"), reference: Some(3) };
    assert_eq!(command(r#"{"type":"presence","channel":"presence-a","ref":3}"#), Ok(members));
    assert_eq!(refused(r#"{"type":"presence","channels":["a","b"]}"#).0, ErrorCode::BadRequest);
}

#[test]
fn since_has_a_grammar() {
    let since = |text| Place::read(text).map(|place| place.of(&name("a")).unwrap());
    assert_eq!(since("$"), Ok(Since::Now));
    assert_eq!(since("0"), Ok(Since::Oldest));
    assert_eq!(since("-10"), Ok(Since::Last(10)));
    assert_eq!(since("@1795205265123"), Ok(Since::Time(UnixMillis::new(1_795_205_265_123))));
    for bad in
        ["", "-", "@", "-x", "-+1", "-4294967296", "@18446744073709551616", "yesterday", "1", "abcd12-"]
    {
        assert!(since(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_cursor_gives_each_channel_its_own_place() {
    let mut cursor = Cursor::default();
    cursor.stand(&name("a"), "abcd12-9".parse().unwrap());
    let text = cursor.text();
    let wanted = |channel: &str, since| Wanted::new(name(channel), since);
    let after = Since::After("abcd12-9".parse().unwrap());
    let frame = |since: &str| {
        format!(
            r#"{{"type":"subscribe","channels":["a","b",{{"channel":"c","since":"0"}}],"since":"{since}"}}"#
        )
    };
    let channels = vec![wanted("a", after), wanted("b", Since::Now), wanted("c", Since::Oldest)];
    assert_eq!(command(&frame(&text)), Ok(Command::Subscribe { channels, reference: None }));
    let (code, _, message) = refused(&frame(text.strip_suffix(char::is_alphanumeric).unwrap_or("c1.")));
    assert_eq!(code, ErrorCode::BadRequest);
    assert!(message.contains("a cursor as it was sent"), "{message}");
}

#[test]
fn a_body_names_channels_and_a_token() {
    let named = named(r#"{"channels":["a",{"channel":"b","since":"0"}],"token":"t","unknown":1}"#).unwrap();
    assert_eq!(named.channels, [(name("a"), None), (name("b"), Some(Since::Oldest))]);
    assert_eq!(named.token.as_deref(), Some("t"));
    let none = super::named("{}").unwrap();
    assert_eq!((none.channels, none.token), (vec![], None));
    for bad in ["", "[]", r#"{"channels":"a"}"#, r#"{"channels":[""]}"#, r#"{"channels":["a"],"since":"x"}"#]
    {
        let refusal = super::named(bad).expect_err(bad);
        assert!(refusal.code == ErrorCode::BadRequest && refusal.message.len() < 300, "{refusal:?}");
    }
}
