//! What a body is said to be.
//!
//! **Lives here:** reading `Content-Type` and `Content-Encoding`.
//! **Called by:** `http`.
//! **Must not know:** the bodies.

use carillon_model::{ErrorCode, Refusal};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

/// The kinds of bodies that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/json` and every `+json`.
    Json,
    /// `application/x-www-form-urlencoded`, also what curl says of anything given with `-d`.
    Form,
    /// `text/*`.
    Text,
    /// Any other type.
    Binary,
    /// No type was given.
    Unsaid,
}

impl Media {
    /// Reads the headers.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let coded = headers.get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity");
        if coded {
            return Err(unsupported(
                "compressed bodies are not read; send the body without Content-Encoding",
            ));
        }
        let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Self::Unsaid) };
        let value = value.to_str().map_err(|_e| unsupported("the Content-Type is not ASCII"))?;
        if value == "application/json" {
            return Ok(Self::Json);
        }
        let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
        let essence = essence.trim().to_ascii_lowercase();
        let media = match essence.as_str() {
            "application/json" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            "multipart/form-data" => {
                return Err(unsupported(
                    "multipart bodies are not read; in PHP give CURLOPT_POSTFIELDS a string: \
                     http_build_query($fields), or json_encode($fields) with Content-Type: application/json",
                ));
            }
            other if other.ends_with("+json") => Self::Json,
            other if other.starts_with("text/") => Self::Text,
            _ => Self::Binary,
        };
        if media != Self::Binary && !is_utf8(parameters) {
            return Err(unsupported("only UTF-8 is read; convert the body and send charset=utf-8"));
        }
        Ok(media)
    }
}

fn is_utf8(parameters: &str) -> bool {
    let charset = parameters
        .split(';')
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))
        .map(|(_, value)| value.trim().trim_matches('"').to_ascii_lowercase());
    charset.is_none_or(|name| matches!(name.as_str(), "utf-8" | "utf8" | "us-ascii"))
}

/// Says that the body's type is not read here.
pub(crate) fn unsupported(detail: &'static str) -> Refusal {
    Refusal::new(ErrorCode::UnsupportedMediaType, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_apart() {
        let cases = [
            ("application/json", Some(Media::Json)),
            ("Application/JSON ; charset=UTF-8", Some(Media::Json)),
            ("application/vnd.api+json", Some(Media::Json)),
            ("application/json; charset=iso-8859-1", None),
            ("application/x-www-form-urlencoded", Some(Media::Form)),
            ("text/plain;charset=\"utf-8\"", Some(Media::Text)),
            ("text/plain; charset=latin1", None),
            ("multipart/form-data; boundary=x", None),
            ("image/png", Some(Media::Binary)),
            ("", Some(Media::Binary)),
        ];
        for (value, expected) in cases {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(Media::of(&headers).ok(), expected, "{value}");
        }
        assert_eq!(Media::of(&HeaderMap::new()), Ok(Media::Unsaid));
        let headers = HeaderMap::from_iter([(CONTENT_ENCODING, "gzip".parse().unwrap())]);
        assert_eq!(Media::of(&headers).unwrap_err().code, ErrorCode::UnsupportedMediaType);
    }
}
