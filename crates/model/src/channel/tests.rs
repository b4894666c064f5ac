use super::*;

fn name(text: &str) -> ChannelName {
    ChannelName::any(text).unwrap()
}

#[test]
fn a_name_is_printable_text_without_wildcards() {
    for good in ["a", "orders.7", "größe/ü", "a:b@c=d;e", &"x".repeat(200)] {
        assert!(ChannelName::new(good).is_ok(), "{good}");
    }
    let cases = [
        ("", BadChannel::Empty),
        ("$user:1", BadChannel::Reserved),
        ("orders.*", BadChannel::Character { character: '*' }),
        ("orders.>", BadChannel::Character { character: '>' }),
        ("a b", BadChannel::Character { character: ' ' }),
        ("a\r\nb", BadChannel::Character { character: '\r' }),
        ("a\0", BadChannel::Character { character: '\0' }),
        ("a\u{a0}b", BadChannel::Character { character: '\u{a0}' }),
        ("a\u{2028}b", BadChannel::Character { character: '\u{2028}' }),
    ];
    for (text, why) in cases {
        assert_eq!(ChannelName::new(text), Err(why), "{text:?}");
    }
    assert_eq!(ChannelName::new(&"x".repeat(201)), Err(BadChannel::TooLong { bytes: 201 }));
}

#[test]
fn a_star_stands_for_any_run_of_characters() {
    let covers = |pattern: &str, channel: &str| ChannelPattern::new(pattern).unwrap().covers(&name(channel));
    for (pattern, channel) in [
        ("*", "a"),
        ("a", "a"),
        ("orders.*", "orders.7.x"),
        ("*.eu", "a.eu"),
        ("a*b*c", "aXbbYc"),
        ("a*", "a"),
    ] {
        assert!(covers(pattern, channel), "{pattern} should cover {channel}");
    }
    for (pattern, channel) in
        [("a", "ab"), ("orders.*", "order.7"), ("*.eu", "a.eux"), ("a*b*c", "acb"), ("ab*ba", "aba")]
    {
        assert!(!covers(pattern, channel), "{pattern} should not cover {channel}");
    }
}
