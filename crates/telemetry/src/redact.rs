//! Taking secrets out of addresses before they are written down.
//!
//! **Lives here:** which parameters are secrets.
//! **Called by:** whoever logs an address that a client sent.
//! **Must not know:** where the address goes.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Parameters whose values are never written down, in lower case.
const SECRETS: &[&str] = &[
    "token",
    "access_token",
    "refresh_token",
    "jwt",
    "key",
    "api_key",
    "secret",
    "password",
    "auth_signature",
];

const HIDDEN: &str = "[redacted]";

/// Returns a query, or an address with one, with the values of secret parameters replaced.
///
/// Names are compared as a server would read them: decoded, without regard to case. What is not a parameter stays
/// as it is.
#[must_use]
pub fn redact_query(text: &str) -> Cow<'_, str> {
    let mut hidden = String::new();
    let mut copied = 0;
    let mut from = 0;
    for part in text.split(['?', '&', ';', '#']) {
        let end = from + part.len();
        if let Some((name, value)) = part.split_once('=')
            && !value.is_empty()
            && is_secret(name)
        {
            hidden.push_str(text.get(copied..end - value.len()).unwrap_or_default());
            hidden.push_str(HIDDEN);
            copied = end;
        }
        // One past the separator, each of which is one byte.
        from = end + 1;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    hidden.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(hidden)
}

fn is_secret(name: &str) -> bool {
    let decoded = percent_decode_str(name).decode_utf8_lossy();
    let name = decoded.trim().trim_matches('+');
    SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_stand() {
        for (text, redacted) in [
            ("token=abc", "token=[redacted]"),
            ("/v1/ws?token=abc", "/v1/ws?token=[redacted]"),
            (
                "wss://h/v1/ws?channel=a&token=a.b.c&since=$",
                "wss://h/v1/ws?channel=a&token=[redacted]&since=$",
            ),
            ("?token=a&token=b", "?token=[redacted]&token=[redacted]"),
            ("?TOKEN=a", "?TOKEN=[redacted]"),
            ("?%74oken=a", "?%74oken=[redacted]"),
            ("?%54%4F%4b%45%4e=a", "?%54%4F%4b%45%4e=[redacted]"),
            ("?+token=a", "?+token=[redacted]"),
            ("?token=a=b==", "?token=[redacted]"),
            ("?x=1;token=a;y=2", "?x=1;token=[redacted];y=2"),
            ("/app#access_token=a", "/app#access_token=[redacted]"),
            ("?token=größe&channel=ü", "?token=[redacted]&channel=ü"),
        ] {
            assert_eq!(redact_query(text), redacted);
        }
    }

    #[test]
    fn what_is_no_secret_is_not_touched() {
        for text in [
            "",
            "?",
            "&&&",
            "=",
            "token",
            "?token=",
            "?channel=token",
            "/token/1",
            "?tokens=3",
            "?%zz=%",
            "ü",
        ] {
            assert!(matches!(redact_query(text), Cow::Borrowed(same) if same == text), "{text}");
        }
    }
}
