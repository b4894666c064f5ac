use super::*;

fn read(frame: &str) -> Command {
    command(frame).unwrap_or_else(|fault| panic!("{frame}: {fault:?}"))
}

fn refused(frame: &str) -> Undecoded {
    *command(frame).expect_err(frame)
}

fn wanted(frame: &str) -> Wanted {
    let Command::Subscribe { mut channels, reference: None } = read(frame) else { panic!("{frame}") };
    assert_eq!(channels.len(), 1);
    channels.remove(0)
}

#[test]
fn a_subscription_names_a_channel_and_perhaps_a_permission() {
    for frame in [
        r#"{"event":"pusher:subscribe","data":{"channel":"news","auth":""}}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":"news","auth":null,"channel_data":null}}"#,
        r#"{"event":"pusher:subscribe","data":"{\"channel\":\"news\"}"}"#,
        r#"{"event":"pusher:subscribe","data":{"channel":"news","other":[1]},"more":1}"#,
    ] {
        let wanted = wanted(frame);
        assert_eq!(
            (wanted.channel.as_str(), wanted.since, wanted.proof),
            ("news", Since::Now, None),
            "{frame}"
        );
    }
    let private = wanted(
        r#"{"event":"pusher:subscribe","data":{"channel":"private-a","auth":"k:s","channel_data":"x y"}}"#,
    );
    let proof = private.proof.unwrap();
    assert_eq!((proof.auth.as_str(), proof.data.as_deref(), proof.member), ("k:s", Some("x y"), None));
    assert_eq!(wanted(r#"{"event":"pusher:subscribe","data":{"channel":"cache-a"}}"#).since, Since::Last(1));
}

#[test]
fn a_member_is_described_by_the_application() {
    let member = |data: &str| {
        let data = serde_json::to_string(data).unwrap();
        let wanted = wanted(&format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"presence-a","auth":"k:s","channel_data":{data}}}}}"#
        ));
        assert!(wanted.presence);
        let member = wanted.proof.unwrap().member.unwrap();
        let info = member.info.map(|info| String::from_utf8(info.to_vec()).unwrap());
        (member.user.as_str().to_owned(), member.kind, info)
    };
    assert_eq!(member(r#"{"user_id":10}"#), ("10".into(), IdKind::Number, None));
    assert_eq!(member(r#"{"user_id":"10","user_info":null}"#), ("10".into(), IdKind::Text, None));
    assert_eq!(
        member("{\"user_id\":\"a\",\"user_info\":{\n\"n\": 1}}"),
        ("a".into(), IdKind::Text, Some("{ \"n\": 1}".into()))
    );
    for bad in [
        "{}",
        r#"{"user_id":""}"#,
        r#"{"user_id":null}"#,
        r#"{"user_id":{}}"#,
        "[7]",
        "no",
        r#"{"user_id":true}"#,
    ] {
        let data = serde_json::to_string(bad).unwrap();
        let fault = refused(&format!(
            r#"{{"event":"pusher:subscribe","data":{{"channel":"presence-a","auth":"k:s","channel_data":{data}}}}}"#
        ));
        assert_eq!(fault.channel.as_deref(), Some("presence-a"), "{bad}");
    }
}

#[test]
fn what_cannot_be_read_is_told_with_the_reason() {
    for (frame, code, message) in [
        ("no", ErrorCode::BadRequest, "Invalid message"),
        ("[]", ErrorCode::BadRequest, "Invalid message"),
        ("{}", ErrorCode::BadRequest, "Invalid message"),
        (r#"{"event":7}"#, ErrorCode::BadRequest, "Invalid message"),
        (r#"{"event":"pusher:subscribe"}"#, ErrorCode::BadRequest, "Missing parameter: data.channel"),
        (
            r#"{"event":"pusher:subscribe","data":{}}"#,
            ErrorCode::BadRequest,
            "Missing parameter: data.channel",
        ),
        (r#"{"event":"pusher:subscribe","data":7}"#, ErrorCode::BadRequest, "Invalid message: data"),
        (
            r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
            ErrorCode::BadRequest,
            "Invalid message: data",
        ),
        (
            r#"{"event":"pusher:subscribe","data":{"channel":"a b"}}"#,
            ErrorCode::BadRequest,
            "Invalid channel name",
        ),
        (r#"{"event":"client-a","data":1}"#, ErrorCode::BadRequest, "Missing parameter: data.channel"),
        (r#"{"event":"pusher:signin","data":{}}"#, ErrorCode::Unauthorized, "Missing parameter"),
        (
            r#"{"event":"pusher:signin","data":{"auth":"a:b","user_data":"{\"id\":7}"}}"#,
            ErrorCode::Unauthorized,
            "Invalid user_data",
        ),
        (
            r#"{"event":"pusher:signin","data":{"auth":"a:b","user_data":"{\"id\":\"\"}"}}"#,
            ErrorCode::Unauthorized,
            "Invalid user_data",
        ),
        (
            r#"{"event":"client-a","channel":"private-a","data":"\ud800"}"#,
            ErrorCode::BadRequest,
            "Client event rejected - its data holds half",
        ),
        (r#"{"event":"order"}"#, ErrorCode::UnknownType, "Unknown event 'order'"),
    ] {
        let fault = refused(frame);
        assert_eq!(fault.refusal.code, code, "{frame}");
        assert!(fault.refusal.message.starts_with(message), "{frame}: {}", fault.refusal.message);
    }
}

#[test]
fn events_of_clients_keep_their_data() {
    let sent = |frame: &str| {
        let Command::Publish(outgoing) = read(frame) else { panic!("{frame}") };
        (outgoing.event.as_str().to_owned(), String::from_utf8(outgoing.data.to_vec()).unwrap())
    };
    let expected = |data: &str| ("client-a".to_owned(), data.to_owned());
    assert_eq!(
        sent(r#"{"event":"client-a","channel":"private-a","data":{"b": 1},"user_id":"forged"}"#),
        expected(r#"{"b": 1}"#)
    );
    assert_eq!(sent(r#"{"event":"client-a","channel":"private-a"}"#), expected("null"));
}

#[test]
fn a_user_signs_in_with_a_watchlist() {
    let frame = r#"{"event":"pusher:signin","data":{"auth":"k:s","user_data":"{\"id\":\"7\",\"user_info\":{\"a\":1},\"watchlist\":[\"8\",\"9 9\"]}"}}"#;
    let Command::SignIn(sign_in) = read(frame) else { panic!() };
    assert_eq!((sign_in.user.as_str(), sign_in.auth.as_str()), ("7", "k:s"));
    assert_eq!(sign_in.watchlist.iter().map(UserId::as_str).collect::<Vec<_>>(), ["8"]);
    assert_eq!(sign_in.info.as_deref(), Some(&br#"{"a":1}"#[..]));
}

#[test]
fn pings_may_have_data_or_none() {
    assert_eq!(read(r#"{"event":"pusher:ping"}"#), Command::Ping { reference: None });
    assert_eq!(read(r#"{"event":"pusher:ping","data":{}}"#), Command::Ping { reference: None });
    assert_eq!(read(r#"{"event":"pusher:pong","data":"{}"}"#), Command::Pong);
}
