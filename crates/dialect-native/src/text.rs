//! Texts and data as this dialect writes them.
//!
//! **Lives here:** JSON strings, and the data of a message that was published as text.
//! **Called by:** `encode`; transports where they send data without its message.
//! **Must not know:** frames.

use std::borrow::Cow;

use carillon_model::{DataKind, NewMessage, json};
use serde_json::value::RawValue;

/// Returns a message's data as a JSON text without line breaks: what was published as text is its content where that is
/// JSON, and a string where it is not.
#[must_use]
pub fn data_of(message: &NewMessage) -> Cow<'_, str> {
    let literal = String::from_utf8_lossy(&message.data);
    if message.kind == DataKind::Json {
        return literal;
    }
    let content = serde_json::from_str::<Cow<'_, str>>(&literal).ok();
    let json = content.as_deref().and_then(|content| serde_json::from_str::<&RawValue>(content).ok());
    match json.and_then(|json| json::one_line(json.get()).ok()) {
        Some(json) => Cow::Owned(String::from_utf8_lossy(&json).into_owned()),
        None => literal,
    }
}

pub(crate) fn data(out: &mut String, message: &NewMessage) {
    out.push_str(&data_of(message));
}

/// Adds a JSON string.
pub(crate) fn text(out: &mut String, value: &str) {
    let quoted = serde_json::to_string(value).unwrap_or_default();
    out.push_str(&quoted);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use carillon_model::{ChannelName, UnixMillis};

    use super::*;

    #[test]
    fn text_is_shown_as_the_json_that_it_holds() {
        let shown = |data: &str, kind| {
            let message = NewMessage {
                channel: ChannelName::new("news").unwrap(),
                event: None,
                data: Bytes::from(data.to_owned()),
                kind,
                time: UnixMillis::new(1),
                user: None,
                exclude: Box::default(),
                id: None,
            };
            data_of(&message).into_owned()
        };
        assert_eq!(shown(r#""{\"a\":1}""#, DataKind::Json), r#""{\"a\":1}""#);
        assert_eq!(shown(r#""{\"a\":\n 1}""#, DataKind::Text), r#"{"a":  1}"#);
        assert_eq!(shown(r#""hello""#, DataKind::Text), r#""hello""#);
        assert_eq!(shown(r#""\"hello\"""#, DataKind::Text), r#""hello""#);
        assert_eq!(shown(r#""""#, DataKind::Text), r#""""#);
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(
            shown(&format!("\"{deep}\""), DataKind::Text),
            format!("\"{deep}\""),
            "readers give up there"
        );
    }
}
