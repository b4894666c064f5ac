use carillon_model::{ChannelName, UnixMillis};

use super::*;
use crate::request::{Publish, Reach};

fn any() -> ChannelName {
    ChannelName::new("any").unwrap()
}

/// Reads a publish and shows what became of it.
fn of(text: &str) -> Result<String, Refusal> {
    let publish = Publish::new(members(text)?, Reach::Many)?;
    let message = publish.message(any(), UnixMillis::new(0));
    let event = message.event.map(|event| event.to_string()).unwrap_or_default();
    let id = message.id.map(|id| id.to_string()).unwrap_or_default();
    let data = String::from_utf8_lossy(&message.data);
    Ok(format!("{:?} {event}/{id}/{} {data}", publish.channels, message.exclude.len()))
}

#[test]
fn a_publish_is_read() {
    let read = [
        (r#"{"channel":"orders.7","data":{"id":7}}"#, "[#orders.7] //0 {\"id\":7}"),
        (r#"{"channels":["a","b","a"],"data":null,"event":"e","id":"k-1"}"#, "[#a, #b] e/k-1/0 null"),
        (r#"{"channels":"a","data":1}"#, "[#a] //0 1"),
        (r#"{"user":42,"id":1042,"data":"x"}"#, "[#$user:42] /1042/0 \"x\""),
        (r#"{"channel":"a","data":1,"event":null,"id":null,"exclude":null,"user":null}"#, "[#a] //0 1"),
        (r#"{"channel":"a","data":1,"exclude":[]}"#, "[#a] //0 1"),
        (r#"{"channel":"a","data":1,"exclude":"0000000000000"}"#, "[#a] //1 1"),
        (r#"{"ch\u0061nnel":"\u0061\/b","data":"\/"}"#, "[#a/b] //0 \"\\/\""),
        ("\n{\"channel\":\"a\",\n\"data\":[1,\n2]}\n", "[#a] //0 [1, 2]"),
    ];
    for (text, expected) in read {
        assert_eq!(of(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn the_message_says_which_member_is_wrong() {
    let refused = [
        (r#"{"data":1}"#, "name where to publish"),
        (r#"{"channel":"a"}"#, "`data` is missing"),
        (r#"{"channel":"a","channels":["b"],"data":1}"#, "exclude each other"),
        (r#"{"channels":[],"data":1}"#, "`channels` is empty"),
        (
            r#"{"channels":{"0":"a"},"data":1}"#,
            "`channels`: invalid type: map, expected a list of strings (in PHP",
        ),
        (r#"{"channel":["a"],"data":1}"#, "`channel`: invalid type: sequence, expected a string"),
        (r#"{"channel":1.5,"data":1}"#, "`channel`: invalid type: floating point"),
        (r#"{"channel":"a b","data":1}"#, "cannot contain ' '"),
        (r#"{"channel":"a.*","data":1}"#, "cannot contain '*'"),
        (r#"{"channel":"a.>","data":1}"#, "cannot contain '>'"),
        (r#"{"channel":"$user:7","data":1}"#, "send `user`"),
        (r#"{"channel":"","data":1}"#, "cannot be empty"),
        (r#"{"channel":"a\u0000b","data":1}"#, "cannot contain '\\0'"),
        (r#"{"channel":"a","channel":"b","data":1}"#, "`channel` is there twice"),
        (r#"{"channel":null,"channel":"b","data":1}"#, "`channel` is there twice"),
        (r#"{"channel":"a","data":1,"data":2}"#, "`data` is there twice"),
        (
            r#"{"channel":"a","data":1,"evnt":"x"}"#,
            "`evnt` is not a member of a publish; known are `channel`",
        ),
        (r#"{"channel":"a","data":1e999}"#, "out of range"),
        (r#"{"channel":"a","data":"\ud800"}"#, "surrogate"),
        (r#"{"channel":"\ud800","data":1}"#, "`channel`:"),
        (r#"{"channel":"a","data":}"#, "`data`: expected value"),
        (r#"{"channel":"a","data":1"#, "EOF"),
        (r#"{"channel":"a","data":1}{}"#, "trailing characters"),
        (r#"{"channel":"a","id":"a b","data":1}"#, "`id`: an id has"),
        (r#"{"channel":"a","event":"","data":1}"#, "`event`: an event name has"),
        (r#"{"channel":"a","exclude":["x"],"data":1}"#, "`exclude`: a connection id"),
        (r#"["channel"]"#, "expected an object such as"),
        ("null", "expected an object"),
        ("7", "expected an object"),
        ("channel=a", "expected value"),
        ("", "EOF"),
    ];
    for (text, part) in refused {
        let refusal = of(text).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::BadRequest, "{text}");
        assert!(refusal.message.contains(part), "{text}: {}", refusal.message);
    }
}

#[test]
fn limits_and_what_is_not_supported_have_their_own_codes() {
    let many = |count: usize| {
        let names: Vec<_> = (0..count).map(|n| format!("\"c{n}\"")).collect();
        format!(r#"{{"channels":[{}],"data":1}}"#, names.join(","))
    };
    assert!(of(&many(100)).is_ok());
    assert_eq!(of(&many(101)).unwrap_err().code, ErrorCode::LimitExceeded);
    assert!(of(&many(100_000)).is_err());
    assert_eq!(of(r#"{"channel":"a","data":1,"tags":[]}"#).unwrap_err().code, ErrorCode::NotEnabled);
}

#[test]
fn bombs_do_not_overflow_the_stack() {
    let deep = "[".repeat(200_000);
    for text in [
        format!(r#"{{"channel":"a","data":{deep}}}"#),
        format!(r#"{{"channel":"a","data":{deep}{}}}"#, "]".repeat(200_000)),
        format!(r#"{{"channel":{deep}}}"#),
        format!(r#"{{"exclude":{deep}}}"#),
        format!(r#"{{"unknown":{deep}}}"#),
        format!(r#"{{"tags":{deep}}}"#),
        deep,
        r#"{"data":"#.repeat(100_000),
    ] {
        assert!(of(&text).is_err());
        assert!(items(&text).is_err());
    }
}

#[test]
fn a_batch_is_a_list_of_at_most_a_hundred() {
    let batch = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    assert_eq!(items(&batch(0)).unwrap().len(), 0);
    assert_eq!(items(&batch(100)).unwrap().len(), 100);
    assert_eq!(items(&batch(101)).unwrap_err().code, ErrorCode::LimitExceeded);
    assert_eq!(items(&batch(50_000)).unwrap_err().code, ErrorCode::LimitExceeded);
    for text in ["{}", "[1,]", "", "[", r#"{"batch":[]}"#] {
        assert_eq!(items(text).unwrap_err().code, ErrorCode::BadRequest, "{text}");
    }
}
