//! The data of a message: always one JSON text on one line.
//!
//! **Lives here:** what is refused although JSON's grammar allows it, and the three ways in: JSON, text, bytes.
//! **Called by:** `json`, `form`, `http` and `grpc`.
//! **Must not know:** what the data means. It is never parsed into values.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use carillon_model::{ErrorCode, Refusal, json};
use serde_json::value::RawValue;

/// A message's data, checked.
#[derive(Clone, Debug)]
pub(crate) struct Data(pub(crate) Bytes);

impl Data {
    /// Takes a JSON text of unknown quality.
    pub(crate) fn from_json(text: &str) -> Result<Self, Refusal> {
        let raw: &RawValue =
            serde_json::from_str(text).map_err(|e| bad(format!("the data is not JSON: {e}")))?;
        Self::from_raw(raw)
    }

    /// Takes a JSON text whose grammar was checked, and copies it: a slice of the body would keep all of the body
    /// in memory for as long as the history keeps the message.
    pub(crate) fn from_raw(raw: &RawValue) -> Result<Self, Refusal> {
        json::one_line(raw.get()).map(Self).map_err(|why| bad(format!("the data {why}")))
    }

    /// Takes text as a JSON string.
    pub(crate) fn from_text(text: &str) -> Self {
        Self(serde_json::to_vec(text).expect("a string is always JSON").into())
    }

    /// Takes JSON where the text is JSON, and any other text as a string.
    pub(crate) fn from_json_or_text(text: &str) -> Result<Self, Refusal> {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) => Self::from_raw(raw),
            Err(_not_json) => Ok(Self::from_text(text)),
        }
    }

    /// Takes a JSON string as the text it stands for, and any other JSON as its text without space between values. Either
    /// way the data is a JSON string.
    pub(crate) fn from_raw_as_text(raw: &RawValue) -> Result<Self, Refusal> {
        let text = raw.get();
        if text.starts_with('"') {
            return Self::from_raw(raw);
        }
        let _checked = json::one_line(text).map_err(|why| bad(format!("the data {why}")))?;
        Ok(Self::from_text(&compact(text)))
    }

    /// Takes bytes as `{"base64":"…"}`.
    pub(crate) fn from_binary(bytes: &[u8]) -> Self {
        Self(format!(r#"{{"base64":"{}"}}"#, STANDARD.encode(bytes)).into())
    }
}

/// Leaves the space between values out of a valid JSON text.
fn compact(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keeps = |character: &char| {
        let kept = in_string || !matches!(character, ' ' | '\t' | '\r' | '\n');
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        kept
    };
    text.chars().filter(keeps).collect()
}

fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<String, String> {
        match Data::from_json(text) {
            Ok(data) => Ok(String::from_utf8_lossy(&data.0).into_owned()),
            Err(refusal) => Err(refusal.message.into_owned()),
        }
    }

    #[test]
    fn json_passes_through_untouched() {
        for text in [
            "null",
            "0",
            "-0.0",
            "1e308",
            r#""""#,
            r#""a\"b\\""#,
            r#""\\u d""#,
            r#""\u0000""#,
            r#""\ud83d\ude00 \\ud800""#,
            r#"{"a":1,"a":2}"#,
            r#"{"price":1.10,"n":12345678901234567890}"#,
            "\"line\u{2028}separator\"",
        ] {
            assert_eq!(of(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn line_breaks_become_spaces_and_outer_space_goes() {
        assert_eq!(of(" {\r\n\"a\":\n\"x\\ny\"}\n ").as_deref(), Ok("{  \"a\": \"x\\ny\"}"));
    }

    #[test]
    fn what_readers_cannot_read_is_refused() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(of(&deep(100)).is_ok());
        let refused = [
            deep(101),
            deep(100_000),
            r#"{"a":"#.repeat(100_000),
            "1e999".into(),
            "-1E+999".into(),
            "9".repeat(400),
            r#"{"a":["\ud800"]}"#.into(),
            r#""\udc00""#.into(),
            r#""\ud800\ud800""#.into(),
            r#""\ud800x""#.into(),
            "\"\0\"".into(),
            "\"a\nb\"".into(),
            "nul".into(),
            "{'a':1}".into(),
            "[1,]".into(),
            "01".into(),
            "NaN".into(),
            "".into(),
            "1 2".into(),
        ];
        for text in refused {
            assert!(of(&text).is_err(), "{text:.40}");
        }
    }

    #[test]
    fn what_is_no_text_becomes_its_own_text() {
        let text = |json: &str| {
            let data =
                Data::from_raw_as_text(serde_json::from_str(json).unwrap()).map_err(|why| why.message)?;
            Ok::<_, String>(String::from_utf8_lossy(&data.0).into_owned())
        };
        for untouched in [r#""""#, r#""a b""#, r#""{\"a\": 1}""#, r#""\u00e9\/""#] {
            assert_eq!(text(untouched).as_deref(), Ok(untouched));
        }
        for (json, expected) in [
            ("5", r#""5""#),
            (" true ", r#""true""#),
            ("{ \"a\" :\r\n\t[1, 2.50, \"x  \\\" y\" ] }", r#""{\"a\":[1,2.50,\"x  \\\" y\"]}""#),
            (r#"{"\\": " "}"#, r#""{\"\\\\\":\" \"}""#),
        ] {
            assert_eq!(text(json).as_deref(), Ok(expected));
        }
        for refused in [r#"["\ud800"]"#.to_owned(), format!("{}{}", "[".repeat(101), "]".repeat(101))] {
            assert!(text(&refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn text_and_bytes_become_json() {
        assert_eq!(Data::from_text("a\"\n\0é").0, r#""a\"\n\u0000é""#.as_bytes());
        assert_eq!(Data::from_binary(b"\xff\x00").0, r#"{"base64":"/wA="}"#.as_bytes());
        assert_eq!(Data::from_json_or_text("[1]").unwrap().0, "[1]".as_bytes());
        assert_eq!(Data::from_json_or_text("[1").unwrap().0, "\"[1\"".as_bytes());
        assert!(Data::from_json_or_text("1e999").is_err());
    }
}
