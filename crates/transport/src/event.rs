//! Server-sent events as text (HTML standard, §9.2).
//!
//! **Lives here:** blocks and fields, and how a text with line breaks becomes lines of `data`.
//! **Called by:** `render` for publications, `stream` for what one client is told.
//! **Must not know:** sockets, channels.

use std::{fmt::Write as _, time::Duration};

use carillon_model::Publication;

/// What a browser waits before it comes back, unless a goodbye said otherwise.
const RETRY: Duration = Duration::from_secs(2);

/// The least that a goodbye tells a browser to wait: it would wait no longer for as long as nobody answers.
const RETRY_LEAST: Duration = Duration::from_millis(250);

/// Returns the first block. Something comes at once, so that the page knows that it is connected.
pub(crate) fn welcome() -> String {
    format!("retry: {}\n: welcome\n\n", RETRY.as_millis())
}

/// Returns an event for `addEventListener("control", …)`; `text` has no line breaks. `id` is where the client stands
/// from here on.
pub(crate) fn control(text: &str, id: Option<&str>) -> String {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: control\n{id}data: {text}\n\n")
}

/// Returns the last event, which tells the browser when to come back.
pub(crate) fn goodbye(text: &str, retry_after: Option<Duration>) -> String {
    let retry = retry_after.unwrap_or(RETRY).max(RETRY_LEAST);
    format!("retry: {}\n{}", retry.as_millis(), control(text, None))
}

/// Writes a publication as its own event: its name, and its data as the page finds it in `event.data`. A text is
/// itself, everything else is JSON.
pub(crate) fn raw(publication: &Publication) -> String {
    let data = carillon_dialect_native::data_of(&publication.message);
    let text = serde_json::from_str::<String>(&data);
    let data = text.as_deref().unwrap_or(&data);
    let mut out = String::with_capacity(data.len() + 32);
    if let Some(event) = &publication.message.event {
        let _infallible = writeln!(out, "event: {}", event.as_str());
    }
    // CR LF is one break, as for whoever reads it.
    for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
        let _infallible = writeln!(out, "data: {line}");
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use carillon_model::{ChannelName, EventName, NewMessage, UnixMillis};

    use super::*;

    fn publication(event: Option<&str>, data: &str) -> Publication {
        let message = NewMessage {
            channel: ChannelName::new("a").unwrap(),
            event: event.map(|event| EventName::new(event).unwrap()),
            data: Bytes::from(data.to_owned()),
            kind: carillon_model::DataKind::Json,
            time: UnixMillis::new(0),
            user: None,
            exclude: Box::default(),
            id: None,
        };
        Publication::new(message, None)
    }

    #[test]
    fn a_text_is_itself_line_by_line() {
        let html = r#""<ul>\n<li>data: a\r<li>\r\n\u2028</ul>""#;
        let expected = "event: cart\ndata: <ul>\ndata: <li>data: a\ndata: <li>\ndata: \u{2028}</ul>\n\n";
        assert_eq!(raw(&publication(Some("cart"), html)), expected);
        assert_eq!(raw(&publication(None, r#""""#)), "data: \n\n");
        assert_eq!(raw(&publication(None, r#"" id: 7\n\n""#)), "data:  id: 7\ndata: \ndata: \n\n");
    }

    #[test]
    fn anything_else_is_json() {
        for data in ["7", "null", r#"["a\nb"]"#, r#"{"id": 7}"#] {
            assert_eq!(raw(&publication(None, data)), format!("data: {data}\n\n"));
        }
    }

    #[test]
    fn nobody_is_told_to_come_back_at_once_for_ever() {
        assert!(goodbye("{}", Some(Duration::ZERO)).starts_with("retry: 250\nevent: control\n"));
        assert!(goodbye("{}", Some(Duration::from_millis(1700))).starts_with("retry: 1700\n"));
        assert!(goodbye("{}", None).starts_with("retry: 2000\n"));
    }
}
