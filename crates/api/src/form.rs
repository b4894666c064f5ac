//! Reads a publish from `application/x-www-form-urlencoded`, as PHP's `http_build_query` writes it.
//!
//! **Lives here:** pairs, `channels[]`, `channels[0]` and repeated names.
//! **Called by:** `http`.
//! **Must not know:** what makes a member valid; that is `request`.

use std::borrow::Cow;

use carillon_model::{ErrorCode, Refusal};
use percent_encoding::percent_decode_str;

use crate::{
    config::LIST_MAX,
    data::Data,
    request::{Members, bad, unknown_member},
};

/// Reads one publish.
pub(crate) fn members(text: &str) -> Result<Members<'_>, Refusal> {
    let mut members = Members::default();
    let mut data = None;
    for pair in pairs(text) {
        let (name, value) = pair?;
        match list_name(&name) {
            "channel" => set(&mut members.channel, "channel", value)?,
            "user" => set(&mut members.user, "user", value)?,
            "event" => set(&mut members.event, "event", value)?,
            "id" => set(&mut members.id, "id", value)?,
            "data" => set(&mut data, "data", value)?,
            "channels" => push(&mut members.channels, value)?,
            "exclude" => push(&mut members.exclude, value)?,
            nested if nested.starts_with("data[") => {
                return Err(bad(
                    "a form cannot carry nested data; send `data` as one JSON text: json_encode($data)",
                ));
            }
            unknown => return Err(unknown_member(unknown)),
        }
    }
    members.data = data.map(|text| Data::from_json_or_text(&text)).transpose()?;
    Ok(members)
}

/// Reads `name=value&…`, each decoded.
pub(crate) fn pairs(text: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), Refusal>> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name)?, decode(value)?))
    })
}

fn decode(text: &str) -> Result<Cow<'_, str>, Refusal> {
    let not_utf8 = |_e| bad("the form is not UTF-8; in PHP, convert with mb_convert_encoding first");
    if !text.contains('+') {
        return percent_decode_str(text).decode_utf8().map_err(not_utf8);
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(not_utf8)?;
    Ok(Cow::Owned(decoded.into_owned()))
}

/// Strips `[]` or `[3]` from the name of a list.
fn list_name(name: &str) -> &str {
    match name.split_once('[') {
        Some((list @ ("channels" | "exclude"), index))
            if index.strip_suffix(']').is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit())) =>
        {
            list
        }
        _ => name,
    }
}

fn set<'a>(slot: &mut Option<Cow<'a, str>>, name: &str, value: Cow<'a, str>) -> Result<(), Refusal> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(bad(format!("`{name}` is there twice"))),
    }
}

fn push<'a>(slot: &mut Option<Vec<Cow<'a, str>>>, value: Cow<'a, str>) -> Result<(), Refusal> {
    let list = slot.get_or_insert_default();
    if list.len() >= 10 * LIST_MAX {
        return Err(Refusal::new(ErrorCode::LimitExceeded, format!("a list has at most {LIST_MAX} items")));
    }
    list.push(value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Publish, Reach};

    fn any() -> carillon_model::ChannelName {
        carillon_model::ChannelName::new("any").unwrap()
    }

    fn of(text: &str) -> Result<String, Refusal> {
        let publish = Publish::new(members(text)?, Reach::Many)?;
        let message = publish.message(any(), carillon_model::UnixMillis::new(0));
        let data = String::from_utf8_lossy(&message.data);
        Ok(format!("{:?} {data} {}", publish.channels, message.exclude.len()))
    }

    #[test]
    fn what_php_writes_is_read() {
        let read = [
            ("channel=orders.7&data=%7B%22id%22%3A7%7D", "[#orders.7] {\"id\":7} 0"),
            ("channels%5B0%5D=a&channels%5B1%5D=b&data=x+y", "[#a, #b] \"x y\" 0"),
            ("channels[]=a&channels[]=b&channels[]=a&data=1", "[#a, #b] 1 0"),
            ("channels=a&channels=b&data=", "[#a, #b] \"\" 0"),
            ("user=42&data=true&exclude[]=0000000000000&exclude=0000000000001", "[#$user:42] true 2"),
            ("channel=%C3%A9t%C3%A9&data=100%", "[#été] \"100%\" 0"),
        ];
        for (text, expected) in read {
            assert_eq!(of(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let refused = [
            ("data=1", ErrorCode::BadRequest),
            ("channel=a", ErrorCode::BadRequest),
            ("channel=a&channel=b&data=1", ErrorCode::BadRequest),
            ("channel[]=a&data=1", ErrorCode::BadRequest),
            ("channels[x]=a&data=1", ErrorCode::BadRequest),
            ("channel=a&data[x]=1", ErrorCode::BadRequest),
            ("channel=%E9&data=1", ErrorCode::BadRequest),
            ("channel=a&data=1&date=2", ErrorCode::BadRequest),
            ("channel=a&data=1&tags=x", ErrorCode::NotEnabled),
            ("channel=a&data=1&exclude=nobody", ErrorCode::BadRequest),
            ("channel=a&data=1&id=", ErrorCode::BadRequest),
        ];
        for (text, code) in refused {
            assert_eq!(of(text).unwrap_err().code, code, "{text}");
        }
    }
}
