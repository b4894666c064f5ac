//! Reads publishes from JSON.
//!
//! **Lives here:** one pass over the members; the data is only walked over.
//! **Called by:** `http`.
//! **Must not know:** what makes a member valid; that is `request`.

use std::{borrow::Cow, cell::Cell, fmt, marker::PhantomData};

use carillon_model::{ErrorCode, Refusal};
use serde::{
    Deserialize, Deserializer as _,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    config::LIST_MAX,
    data::Data,
    request::{Members, bad, unknown_member},
};

/// Reads one publish.
pub(crate) fn members(text: &str) -> Result<Members<'_>, Refusal> {
    let reading = Reading::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let seed = MembersSeed { reading: &reading };
    let members = seed.deserialize(&mut json).and_then(|members| json.end().map(|()| members));
    members.map_err(|why| reading.refusal(&why))
}

/// Reads the items of a batch, each still a text.
pub(crate) fn items(text: &str) -> Result<Vec<&RawValue>, Refusal> {
    let mut json = serde_json::Deserializer::from_str(text);
    let items = json.deserialize_seq(ItemsVisitor).and_then(|items| json.end().map(|()| items));
    let items = items.map_err(|why| bad(format!("the batch cannot be read: {why}")))?;
    if items.len() > LIST_MAX {
        return Err(Refusal::new(
            ErrorCode::LimitExceeded,
            format!("a batch has at most {LIST_MAX} items; nothing was published, send several batches"),
        ));
    }
    Ok(items)
}

/// What was being read when reading failed: serde's errors do not say.
#[derive(Default)]
struct Reading {
    member: Cell<Option<Member>>,
    refusal: Cell<Option<Refusal>>,
}

impl Reading {
    fn refusal(&self, why: &serde_json::Error) -> Refusal {
        match (self.refusal.take(), self.member.get()) {
            (Some(refusal), _) => refusal,
            (None, Some(member)) => bad(format!("`{}`: {why}", member.name())),
            (None, None) => bad(format!("the body is not a JSON publish: {why}")),
        }
    }

    /// Keeps a refusal that says more than serde's error can.
    fn refuse<E: de::Error>(&self, refusal: Refusal) -> E {
        self.refusal.set(Some(refusal));
        E::custom("")
    }
}

#[derive(Clone, Copy)]
enum Member {
    Channel,
    Channels,
    User,
    Event,
    Data,
    Id,
    Exclude,
}

impl Member {
    const fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Channels => "channels",
            Self::User => "user",
            Self::Event => "event",
            Self::Data => "data",
            Self::Id => "id",
            Self::Exclude => "exclude",
        }
    }

    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "channel" => Self::Channel,
            "channels" => Self::Channels,
            "user" => Self::User,
            "event" => Self::Event,
            "data" => Self::Data,
            "id" => Self::Id,
            "exclude" => Self::Exclude,
            _ => return None,
        })
    }
}

struct MembersSeed<'r> {
    reading: &'r Reading,
}

impl<'de> DeserializeSeed<'de> for MembersSeed<'_> {
    type Value = Members<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersSeed<'_> {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object such as {\"channel\":\"orders.7\",\"data\":{}}")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members::default();
        let mut seen = 0_u8;
        while let Some(member) = map.next_key_seed(NameSeed { reading: self.reading })? {
            let bit = 1 << member as u8;
            if seen & bit != 0 {
                return Err(self.reading.refuse(bad(format!("`{}` is there twice", member.name()))));
            }
            seen |= bit;
            self.reading.member.set(Some(member));
            match member {
                Member::Channel => members.channel = text(&mut map)?,
                Member::Channels => members.channels = list(&mut map)?,
                Member::User => members.user = text(&mut map)?,
                Member::Event => members.event = text(&mut map)?,
                Member::Id => members.id = text(&mut map)?,
                Member::Exclude => members.exclude = list(&mut map)?,
                Member::Data => {
                    let raw = map.next_value::<&RawValue>()?;
                    members.data = Some(Data::from_raw(raw).map_err(|why| self.reading.refuse(why))?);
                }
            }
            self.reading.member.set(None);
        }
        Ok(members)
    }
}

fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
    Ok(map.next_value::<Option<Text<'de>>>()?.map(|text| text.0))
}

fn list<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Option<Vec<Cow<'de, str>>>, A::Error> {
    Ok(map.next_value::<Option<TextList<'de>>>()?.map(|list| list.0))
}

/// A member's name, without a copy.
struct NameSeed<'r> {
    reading: &'r Reading,
}

impl<'de> DeserializeSeed<'de> for NameSeed<'_> {
    type Value = Member;

    fn deserialize<D: de::Deserializer<'de>>(self, json: D) -> Result<Member, D::Error> {
        json.deserialize_str(self)
    }
}

impl Visitor<'_> for NameSeed<'_> {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Member, E> {
        Member::of(name).ok_or_else(|| self.reading.refuse(unknown_member(name)))
    }
}

/// A text. A whole number is taken as its digits: ids of PHP programs are often integers.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: de::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(TextVisitor(PhantomData))
    }
}

struct TextVisitor<'a>(PhantomData<&'a str>);

impl<'de> Visitor<'de> for TextVisitor<'de> {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Text(Cow::Owned(number.to_string())))
    }
}

/// A list of texts, or one text for a list of one.
struct TextList<'a>(Vec<Cow<'a, str>>);

impl<'de> Deserialize<'de> for TextList<'de> {
    fn deserialize<D: de::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        json.deserialize_any(TextListVisitor(PhantomData))
    }
}

struct TextListVisitor<'a>(PhantomData<&'a str>);

impl<'de> Visitor<'de> for TextListVisitor<'de> {
    type Value = TextList<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings (in PHP, array_values() makes a list of any array)")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(text) = seq.next_element::<Text<'de>>()? {
            // Ten times the limit: names that repeat are counted once, and what is over it is refused later.
            if list.len() >= 10 * LIST_MAX {
                return Err(de::Error::custom(format_args!("more than {LIST_MAX} items")));
            }
            list.push(text.0);
        }
        Ok(TextList(list))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(TextList(vec![Cow::Borrowed(text)]))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(TextList(vec![Cow::Owned(text.to_owned())]))
    }
}

struct ItemsVisitor;

impl<'de> Visitor<'de> for ItemsVisitor {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of publishes: [{…},{…}]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        // One more than the limit is enough to know; the rest is not kept.
        while let Some(item) = seq.next_element()? {
            if items.len() <= LIST_MAX {
                items.push(item);
            }
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests;
