use proptest::prelude::*;

use super::*;

fn message() -> NewMessage {
    NewMessage {
        channel: ChannelName::new("news").unwrap(),
        event: Some(EventName::new("posted").unwrap()),
        data: Bytes::from_static(br#"{"a":[1,"zwei"]}"#),
        kind: DataKind::Json,
        time: UnixMillis::new(1_700_000_000_123),
        user: Some(UserId::new("ana").unwrap()),
        exclude: Box::new([ConnectionId::from_bits(7), ConnectionId::from_bits(u64::MAX)]),
        id: Some(IdempotencyKey::new("k-1").unwrap()),
    }
}

#[track_caller]
fn assert_same(left: &NewMessage, right: &NewMessage) {
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
}

#[test]
fn a_message_reads_back() {
    let full = message();
    let bare = NewMessage { event: None, user: None, exclude: Box::default(), id: None, ..full.clone() };
    let data = Bytes::from_static(br#""{\"a\":\u00fc}""#);
    let text = NewMessage { data, kind: DataKind::Text, ..full.clone() };
    for (message, stamp) in
        [(full, None), (bare, Some(Stamp { publisher: u64::MAX, count: 1 })), (text, None)]
    {
        let (read, count) = decode(message.channel.clone(), &encode(&message, stamp)).unwrap();
        assert_same(&read, &message);
        assert_eq!(count, stamp);
    }
}

#[test]
fn the_bytes_are_those_of_every_version() {
    let payload = encode(&NewMessage { exclude: Box::new([ConnectionId::from_bits(1)]), ..message() }, None);
    let expected = b"\x0a\x06posted\x12\x10{\"a\":[1,\"zwei\"]}\x18\xfb\xd0\x95\xff\xbc\x31\x22\x03ana\x2a\x08\x01\0\0\0\0\0\0\0\x32\x03k-1";
    assert_eq!(payload.as_ref(), expected);
    let stamp = Stamp { publisher: 2, count: 300 };
    let message = NewMessage { event: None, user: None, exclude: Box::default(), id: None, ..message() };
    let expected =
        b"\x12\x10{\"a\":[1,\"zwei\"]}\x18\xfb\xd0\x95\xff\xbc\x31\x39\x02\0\0\0\0\0\0\0\x40\xac\x02";
    assert_eq!(encode(&message, Some(stamp)).as_ref(), expected);
    let message = NewMessage { data: Bytes::from_static(b"\"a\""), kind: DataKind::Text, ..message };
    assert_eq!(encode(&message, None).as_ref(), b"\x12\x03\"a\"\x18\xfb\xd0\x95\xff\xbc\x31\x48\x01");
}

/// What a later version could write.
#[derive(Clone, PartialEq, prost::Message)]
struct Later {
    #[prost(bytes = "bytes", tag = "2")]
    data: Bytes,
    #[prost(uint64, tag = "3")]
    time_ms: u64,
    #[prost(string, tag = "15")]
    colour: String,
    #[prost(message, optional, tag = "200")]
    nested: Option<Box<Self>>,
}

#[test]
fn a_reader_ignores_fields_that_it_does_not_know() {
    let later = Later {
        data: Bytes::from_static(b"1"),
        time_ms: 5,
        colour: "red".to_owned(),
        nested: Some(Box::default()),
    };
    let (read, stamp) = decode(ChannelName::new("news").unwrap(), &later.encode_to_vec()).unwrap();
    assert_eq!(stamp, None);
    assert_eq!((read.data.as_ref(), read.time.get()), (b"1".as_slice(), 5));
}

#[test]
fn a_later_reader_reads_what_this_version_writes() {
    let read = Later::decode(encode(&message(), Some(Stamp { publisher: 9, count: 8 }))).unwrap();
    assert_eq!((read.time_ms, read.colour.as_str(), read.nested), (1_700_000_000_123, "", None));
}

#[test]
fn garbage_is_refused() {
    let channel = || ChannelName::new("news").unwrap();
    assert_eq!(decode(channel(), b"\xff\xff").unwrap_err(), Garbage::Protobuf);
    assert_eq!(decode(channel(), b"").unwrap_err(), Garbage::Data);
    for data in ["", "{", "1\n", "\"\u{1}\"", "1 2", "nul"] {
        let payload = encode(&NewMessage { data: Bytes::from(data.to_owned()), ..message() }, None);
        assert_eq!(decode(channel(), &payload).unwrap_err(), Garbage::Data, "{data:?}");
    }
    for data in ["1", "[\"a\"]", " \"a\"", "\"a\" ", "{}", "\"", "\"a", "null"] {
        let text = NewMessage { data: Bytes::from(data.to_owned()), kind: DataKind::Text, ..message() };
        assert_eq!(decode(channel(), &encode(&text, None)).unwrap_err(), Garbage::Data, "{data:?}");
    }
    let broken = Later { data: Bytes::from_static(b"\"\xff\""), ..Later::default() };
    assert_eq!(decode(channel(), &broken.encode_to_vec()).unwrap_err(), Garbage::Data);
    let user = Envelope { user: "a b".to_owned(), data: Bytes::from_static(b"1"), ..Envelope::default() };
    assert_eq!(decode(channel(), &user.encode_to_vec()).unwrap_err(), Garbage::Text);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _read = decode(ChannelName::new("news").unwrap(), &payload);
    }
}
