#![expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "a test may panic")]

use carillon_model::{Epoch, Offset};

use super::*;
use crate::Place;

fn name(number: u64) -> ChannelName {
    ChannelName::new(&format!("orders.{number}")).unwrap()
}

/// A generator of our own: the same scripts on every machine (splitmix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// A cursor over some of `channels`, with offsets of every length.
    fn cursor(&mut self, channels: u64) -> Cursor {
        let epochs = [self.roll(), self.roll(), self.roll()];
        let mut cursor = Cursor::default();
        for number in 0..channels {
            if self.below(4) > 0 {
                let any = self.roll() >> self.below(64);
                let since = match self.below(8) {
                    0 => Since::Oldest,
                    1 => Since::Last(u32::try_from(any >> 32).unwrap()),
                    2 => Since::Time(UnixMillis::new(any)),
                    3 => Since::Now,
                    epoch => {
                        let epoch = Epoch::from_bits(epochs[usize::try_from(epoch).unwrap() % 3]);
                        Since::After(Position { epoch, offset: Offset::new(any) })
                    }
                };
                cursor.want(&name(number), since);
            }
        }
        cursor
    }
}

#[test]
fn a_cursor_reads_back_what_it_writes() {
    for seed in 0..2_000 {
        let mut dice = Dice(seed);
        let channels = dice.below(60);
        let cursor = dice.cursor(channels);
        let text = cursor.text();
        assert_eq!(Cursor::read(&text).as_ref(), Some(&cursor), "seed {seed}: {text}");
        assert_eq!(Place::read(&text), Ok(Place::Cursor(cursor)), "seed {seed}");
        assert!(text.parse::<Position>().is_err(), "no id looks like {text}");
    }
}

#[test]
fn a_channel_that_is_not_named_has_no_place() {
    let position: Position = "k3f9ab-1042".parse().unwrap();
    let mut cursor = Cursor::default();
    cursor.stand(&name(1), position);
    let place = Place::read(&cursor.text()).unwrap();
    assert_eq!((place.of(&name(1)), place.of(&name(2))), (Some(Since::After(position)), None));
    let empty = Place::read(&Cursor::default().text()).unwrap();
    assert_eq!(empty.of(&name(1)), None);
}

#[test]
fn what_was_cut_or_altered_is_refused_as_a_whole() {
    for seed in 0..300 {
        let mut dice = Dice(seed);
        let text = dice.cursor(10).text();
        for end in 0..text.len() {
            let cut = &text[..end];
            assert_eq!(Cursor::read(cut), None, "seed {seed}: {cut}");
        }
        for place in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[place] = b"AQgwz059-_.= \n\xff"[usize::try_from(dice.below(14)).unwrap()];
            let Ok(altered) = String::from_utf8(altered) else { continue };
            assert!(altered == text || Place::read(&altered).is_err(), "seed {seed}: {altered}");
        }
        assert_eq!(Cursor::read(&format!("{text}A")), None);
        assert_eq!(Cursor::read(&format!("{text}{}", &text[3..])), None);
    }
}

#[test]
fn whoever_forges_the_checksum_only_names_places() {
    for seed in 0..20_000 {
        let mut dice = Dice(seed);
        let length = dice.below(80);
        let mut bytes: Vec<u8> = (0..length)
            .map(|_| if dice.below(3) > 0 { b'a' } else { u8::try_from(dice.below(256)).unwrap() })
            .collect();
        bytes.extend(checksum(&bytes));
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes));
        if let Some(cursor) = Cursor::read(&text) {
            assert!(cursor.0.len() <= bytes.len() / TAG_BYTES, "seed {seed}");
        }
    }
    // More channels than any text could hold, and a number that does not end.
    for bytes in [
        b"abcdef\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".as_slice(),
        b"abcdef\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let whole = [bytes, &checksum(bytes)].concat();
        assert_eq!(Cursor::read(&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(whole))), None);
    }
}

#[test]
fn two_hundred_channels_fit() {
    let mut cursor = Cursor::default();
    for number in 0..200 {
        let epoch = Epoch::from_bits(number % 64 + 0x1234_5678);
        cursor.stand(&name(number), Position { epoch, offset: Offset::new((1 << 42) - number - 1) });
    }
    let text = cursor.text();
    assert!(text.len() <= CURSOR_MAX_BYTES, "{} bytes", text.len());
    assert_eq!(Cursor::read(&text), Some(cursor));
    assert_eq!(Cursor::read(&format!("{PREFIX}{}", "A".repeat(CURSOR_MAX_BYTES))), None);
}
