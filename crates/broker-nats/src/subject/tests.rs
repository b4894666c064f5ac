use proptest::prelude::*;

use super::*;

fn names() -> Names {
    Names { prefix: "gw".to_owned(), app: "main".to_owned() }
}

#[test]
fn names_are_spelled_as_documented() {
    for (name, token) in [
        ("news", "news"),
        ("orders.7", "orders=2E7"),
        ("$user:ana", "=24user=3Aana"),
        ("a=b", "a=3Db"),
        ("zürich", "z=C3=BCrich"),
    ] {
        let channel = ChannelName::any(name).unwrap();
        assert_eq!(encode(&channel), token);
        assert_eq!(decode(token), Some(channel));
    }
}

#[test]
fn a_channel_is_found_in_its_application() {
    let (names, first) = (names(), ChannelName::any("a.b").unwrap());
    let other = first.within(&AppSpace::new("shop-2").unwrap());
    for (channel, place) in [(&first, "main.a=2Eb"), (&other, "shop-2.a=2Eb")] {
        assert_eq!(names.place(channel), place);
        assert_eq!(names.channel(place).as_ref(), Some(channel));
    }
    assert_eq!(names.live(Shard::all().nth(3).unwrap(), "shop-2.a=2Eb"), "gw.e.3.shop-2.a=2Eb");
    for place in ["main", "main.", ".a", "Shop.a", "shop_2.a", "main.a.b", "", &names.probe()] {
        assert_eq!(names.channel(place), None, "{place}");
    }
}

#[test]
fn what_encode_does_not_write_is_not_read() {
    for token in ["", "=", "=2", "=2e", "=41", "a.b", "a b", "=FF", "a*", ">", "=20", "\u{a0}"] {
        assert_eq!(decode(token), None, "{token}");
    }
}

proptest! {
    #[test]
    fn every_name_reads_back(name in "\\PC{1,60}") {
        if let Ok(channel) = ChannelName::any(&name) {
            let token = encode(&channel);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-=".contains(&b)));
            prop_assert_eq!(decode(&token), Some(channel));
        }
    }

    #[test]
    fn a_token_that_is_read_is_the_only_one_of_its_channel(token in "[a-z=0-9A-F._-]{0,12}") {
        if let Some(channel) = decode(&token) {
            prop_assert_eq!(encode(&channel), token);
        }
    }
}
