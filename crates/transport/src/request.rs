//! What a client says with its first request.
//!
//! **Lives here:** channels, places and tokens in URLs, headers and bodies; whether this machine speaks to itself.
//! **Called by:** `door` and `visit`.
//! **Must not know:** what is done with them.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr, time::Duration};

use carillon_dialect_native::{Named, Place};
use carillon_model::{ChannelName, Epoch, ErrorCode, Offset, Position, Refusal, Since};
use carillon_node::{Opening, Whose};
use carillon_session::{Heartbeat, Wanted};
use hyper::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, HOST, HeaderName, HeaderValue, IF_NONE_MATCH, ORIGIN, SEC_WEBSOCKET_PROTOCOL},
    http::uri::Authority,
};

use crate::poll::Wish;

/// The subprotocol of the native dialect.
pub(crate) const SUBPROTOCOL: &str = "carillon.v1";

/// A subprotocol that is really a token: browsers can send no headers with a WebSocket.
const BEARER: &str = "bearer.";

/// Where a browser's EventSource goes on (HTML standard, §9.2.4).
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Longest time that a poll may wait.
pub(crate) const POLL_MAX: Duration = Duration::from_secs(55);

/// What a poll waits when it does not say.
const POLL_DEFAULT: Duration = Duration::from_secs(25);

/// Most messages that a poll may ask for, and how many it gets when it does not say.
const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;

/// The members of a URL's query.
pub(crate) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(crate) fn of(uri: &'a Uri) -> Self {
        Self(form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect())
    }

    fn all(&self, name: &'static str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| &**value)
    }

    pub(crate) fn first(&self, name: &'static str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns a number within its bounds.
    fn number<T>(&self, name: &'static str, preset: T, bounds: [T; 2]) -> Result<T, Refusal>
    where
        T: FromStr + PartialOrd + fmt::Display,
    {
        let Some(text) = self.first(name) else { return Ok(preset) };
        let [least, most] = bounds;
        match text.parse() {
            Ok(value) if (&least..=&most).contains(&&value) => Ok(value),
            Ok(_) | Err(_) => Err(bad(format!("`{name}` is a whole number from {least} to {most}"))),
        }
    }

    /// Says whether events are sent as they were published.
    ///
    /// # Errors
    /// The refusal of a format that is not known.
    pub(crate) fn is_raw(&self) -> Result<bool, Refusal> {
        match self.first("format") {
            None => Ok(false),
            Some("raw") => Ok(true),
            Some(_) => Err(bad("`format` is `raw`, or is left out".to_owned())),
        }
    }

    /// Returns what a poll waits for. `since` and `If-None-Match` are read by [`listening`].
    ///
    /// # Errors
    /// The refusal of a number that is out of its bounds.
    pub(crate) fn wish(&self, headers: &HeaderMap) -> Result<Wish, Refusal> {
        let timeout = self.number("timeout", POLL_DEFAULT.as_secs(), [0, POLL_MAX.as_secs()])?;
        let limit = self.number("limit", LIMIT_DEFAULT, [1, LIMIT_MAX])?;
        let conditional = header_place(headers).is_some();
        let is_first = !conditional && self.first("since").is_none_or(|since| since == "$");
        Ok(Wish { timeout: Duration::from_secs(timeout), limit, is_first, conditional })
    }
}

/// Reads the first request of a WebSocket. What is wrong with a channel is told in the conversation, where a browser
/// can see it.
pub(crate) fn opening(uri: &Uri, headers: &HeaderMap) -> Opening {
    let query = Query::of(uri);
    let token = authorization(headers)
        .or_else(|| subprotocols(headers).find_map(|offered| offered.strip_prefix(BEARER).map(str::to_owned)))
        .or_else(|| query.first("token").map(str::to_owned));
    let heartbeat = if query.all("heartbeat").any(|value| value == "1") {
        Heartbeat::InBand
    } else {
        Heartbeat::Transport
    };
    Opening { whose: whose(&query), token, wanted: wanted(&query, None), heartbeat }
}

/// Reads the request of a client that only listens. Where a header names a place, that goes before the URL and the body,
/// which are the same again and again.
pub(crate) fn listening(query: &Query<'_>, headers: &HeaderMap, body: Option<Named>) -> Opening {
    let place = header_place(headers);
    let mut wanted = wanted(query, place.as_ref());
    let (named, token) = body.map_or_else(Default::default, |body| (body.channels, body.token));
    wanted.extend(named.into_iter().map(|(channel, own)| {
        let since = place.as_ref().and_then(|place| place.of(&channel)).or(own).unwrap_or(Since::Now);
        Ok(Wanted::new(channel, since))
    }));
    let token = authorization(headers).or(token).or_else(|| query.first("token").map(str::to_owned));
    Opening { whose: whose(query), token, wanted, heartbeat: Heartbeat::OneWay }
}

/// Reads whose channels are meant.
fn whose(query: &Query<'_>) -> Whose {
    query.first("app").map_or(Whose::First, |id| Whose::Named(id.to_owned()))
}

/// Returns the place that a header names. One that cannot be read was once some server's: the client is told that what
/// followed cannot be brought, and goes on from now. A refusal would have its browser give up for good.
fn header_place(headers: &HeaderMap) -> Option<Place> {
    let value = headers.get(LAST_EVENT_ID).or_else(|| headers.get(IF_NONE_MATCH))?;
    let text = value.to_str().unwrap_or_default();
    let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
    // No stream gets as far.
    let nowhere = Position { epoch: Epoch::from_bits(0), offset: Offset::new(u64::MAX) };
    let place = Place::read(text).unwrap_or(Place::Since(Since::After(nowhere)));
    (!value.is_empty()).then_some(place)
}

/// Reads the channels of a URL. Under other names they are refused as channels are: who listens to none knows why.
fn wanted(query: &Query<'_>, place: Option<&Place>) -> Vec<Result<Wanted, (String, Refusal)>> {
    let common = query.first("since").map(Place::read).transpose();
    let read = |name: &str| {
        let refused = |message: String| (name.chars().take(64).collect(), bad(message));
        let channel = ChannelName::new(name).map_err(|fault| refused(fault.to_string()))?;
        let common = common.as_ref().map_err(|message| refused((*message).to_owned()))?.as_ref();
        let since = [place, common].into_iter().flatten().find_map(|place| place.of(&channel));
        Ok(Wanted::new(channel, since.unwrap_or(Since::Now)))
    };
    // `channels`, `channel[]`, `channels[0]`: what lists are called elsewhere.
    let misnamed = query.0.iter().filter(|(name, _)| name.starts_with("channel") && name != "channel");
    let misnamed = misnamed.map(|(name, value)| {
        let name: String = name.chars().take(64).collect();
        let message = format!("`{name}=` names no channels in a URL; write `channel=` once for each of them");
        Err((value.chars().take(64).collect(), bad(message)))
    });
    query.all("channel").map(read).chain(misnamed).collect()
}

pub(crate) fn bad(message: String) -> Refusal {
    Refusal::new(ErrorCode::BadRequest, message)
}

/// Returns the subprotocol to answer with. A browser that offered some fails the connection unless one is chosen.
pub(crate) fn chosen_subprotocol(headers: &HeaderMap) -> Option<String> {
    subprotocols(headers)
        .find(|offered| *offered == SUBPROTOCOL)
        .or_else(|| subprotocols(headers).find(|offered| offered.starts_with(BEARER)))
        .map(str::to_owned)
}

/// Returns the name that this was asked for by, unless it is one of this machine. A website can have its own name lead
/// here and then read what is here as its own (DNS rebinding).
pub(crate) fn foreign_host(headers: &HeaderMap) -> Option<String> {
    headers.get(HOST).filter(|host| !host.to_str().is_ok_and(is_this_machine)).map(shown)
}

/// Returns the website that a browser asks for, unless it is of this machine, on any port, or has a name that nobody
/// can own on the internet. A file says `null`, and so does a sandboxed frame of any website.
pub(crate) fn foreign_origin(headers: &HeaderMap) -> Option<String> {
    let is_ours =
        |origin: &str| origin == "null" || origin.split_once("://").is_some_and(|(_, host)| is_at_home(host));
    headers.get(ORIGIN).filter(|origin| !origin.to_str().is_ok_and(is_ours)).map(shown)
}

/// Returns the website that a request comes from or was meant for, where that is not of this machine. A page that reads
/// what it takes for its own website says no origin with a GET.
pub(crate) fn foreign_visitor(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST).filter(|host| !host.to_str().is_ok_and(is_at_home));
    foreign_origin(headers).or_else(|| host.map(shown))
}

fn is_at_home(host: &str) -> bool {
    is_this_machine(host) || is_nobodys(host)
}

/// Returns a header's value as it can be told: its beginning.
pub(crate) fn shown(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).chars().take(64).collect()
}

/// Says whether this is a name for development: one without a dot, or below a name that is not given away (RFC 6761,
/// RFC 6762, and ICANN's for `internal`).
fn is_nobodys(authority: &str) -> bool {
    const RESERVED: [&str; 4] = ["test", "localhost", "local", "internal"];
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    match authority.host().rsplit_once('.') {
        Some((_, last)) => RESERVED.iter().any(|reserved| last.eq_ignore_ascii_case(reserved)),
        None => !authority.host().contains(':') && authority.as_str().starts_with(authority.host()),
    }
}

fn is_this_machine(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn authorization(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str, headers: &[(&str, &str)]) -> Opening {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let name: HeaderName = name.parse().unwrap();
                (name, value.parse().unwrap())
            })
            .collect();
        opening(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn channels_and_since_come_from_the_url() {
        let read = read("/v1/ws?channel=orders.7&channel=gr%C3%B6%C3%9Fe&channel=a.*&since=0", &[]);
        let [first, second, third] = read.wanted.as_slice() else { panic!("{read:?}") };
        assert_eq!(first.as_ref().unwrap().channel.as_str(), "orders.7");
        assert_eq!(second.as_ref().unwrap().channel.as_str(), "größe");
        assert_eq!(second.as_ref().unwrap().since, Since::Oldest);
        let (name, refusal) = third.as_ref().unwrap_err();
        assert_eq!((name.as_str(), refusal.code), ("a.*", ErrorCode::BadRequest));
    }

    fn places(uri: &str, headers: &[(&'static str, &str)], body: &str) -> Vec<Since> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let body = (!body.is_empty()).then(|| carillon_dialect_native::named(body).unwrap());
        let uri = uri.parse().unwrap();
        let wanted = listening(&Query::of(&uri), &headers, body).wanted;
        wanted.into_iter().map(|one| one.unwrap().since).collect()
    }

    #[test]
    fn a_header_s_place_goes_before_the_url_s_for_the_channels_that_it_names() {
        let at = |text: &str| Since::After(text.parse().unwrap());
        let url = "/v1/sse?channel=a&channel=b&since=0";
        let mut cursor = carillon_dialect_native::Cursor::default();
        cursor.stand(&ChannelName::new("b").unwrap(), "abcdef-9".parse().unwrap());
        assert_eq!(places(url, &[], ""), [Since::Oldest, Since::Oldest]);
        assert_eq!(places(url, &[("last-event-id", &cursor.text())], ""), [Since::Oldest, at("abcdef-9")]);
        let etag = format!("W/\"{}\"", cursor.text());
        assert_eq!(places(url, &[("if-none-match", &etag)], ""), [Since::Oldest, at("abcdef-9")]);
        assert_eq!(places(url, &[("last-event-id", "")], ""), [Since::Oldest, Since::Oldest]);
        let body = r#"{"channels":["a",{"channel":"b","since":"abcdef-3"}],"since":"-5"}"#;
        assert_eq!(places("/v1/sse", &[], body), [Since::Last(5), at("abcdef-3")]);
        assert_eq!(
            places("/v1/sse", &[("last-event-id", &cursor.text())], body),
            [Since::Last(5), at("abcdef-9")]
        );
    }

    #[test]
    fn an_id_of_another_server_is_a_place_that_nobody_has() {
        for id in ["urn:uuid:1", "c1.AAAA", "17", "\u{fc}"] {
            let [place] = places("/v1/sse?channel=a&since=0", &[("last-event-id", id)], "")[..] else {
                panic!()
            };
            let Since::After(position) = place else { panic!("{id}: {place:?}") };
            assert_eq!(position.offset.get(), u64::MAX);
        }
    }

    #[test]
    fn a_poll_s_numbers_have_bounds() {
        let wish =
            |query: &str| Query::of(&format!("/v1/poll?{query}").parse().unwrap()).wish(&HeaderMap::new());
        let preset = wish("").unwrap();
        assert_eq!((preset.timeout.as_secs(), preset.limit, preset.is_first), (25, 100, true));
        let asked = wish("timeout=0&limit=1000&since=0").unwrap();
        assert_eq!((asked.timeout.as_secs(), asked.limit, asked.is_first), (0, 1000, false));
        for bad in ["timeout=56", "timeout=-1", "timeout=1.5", "limit=0", "limit=1001", "limit="] {
            assert_eq!(wish(bad).unwrap_err().code, ErrorCode::BadRequest, "{bad}");
        }
    }

    #[test]
    fn a_header_goes_before_a_subprotocol_and_that_before_the_url() {
        let header = ("authorization", "bearer one");
        let protocol = ("sec-websocket-protocol", "carillon.v1, bearer.two");
        let token = |headers: &[(&str, &str)]| read("/v1/ws?token=three", headers).token.unwrap();
        assert_eq!(token(&[header, protocol]), "one");
        assert_eq!(token(&[protocol]), "two");
        assert_eq!(token(&[]), "three");
        assert!(read("/v1/ws", &[("authorization", "Basic x")]).token.is_none());
    }

    #[test]
    fn only_names_of_this_machine_are_not_foreign() {
        let names = [
            "localhost",
            "LOCALHOST:8000",
            "127.0.0.1:8000",
            "127.9.8.7",
            "[::1]:8000",
            "[::1]",
            "127.0.0.1:80",
        ];
        let others = [
            "example.com:8000",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "localhost@example.com",
            "example.com:127",
            "10.0.0.1:8000",
            "0.0.0.0:8000",
            "[::2]:8000",
            "",
            "é",
        ];
        let headers =
            |name, value: String| HeaderMap::from_iter([(name, HeaderValue::try_from(value).unwrap())]);
        let asked = |host: &str| foreign_host(&headers(HOST, host.to_owned())).is_some();
        let from = |origin: &str| foreign_origin(&headers(ORIGIN, origin.to_owned())).is_some();
        for name in names {
            assert!(!asked(name) && !from(&format!("http://{name}")), "{name}");
        }
        for other in others {
            assert!(asked(other) && from(&format!("http://{other}")), "{other}");
        }
        assert!(asked("null") && from("file.example") && !from("null"));
        for name in
            ["shop.test", "shop.test:8080", "a.b.localhost", "shop.local", "shop.internal", "shop:8080"]
        {
            assert!(asked(name) && !from(&format!("http://{name}")), "{name}");
        }
        for other in ["test.example.com", "shop.testing", "shop@example.com", "example.com:test"] {
            assert!(from(&format!("http://{other}")), "{other}");
        }
        assert!(foreign_host(&HeaderMap::new()).is_none() && foreign_origin(&HeaderMap::new()).is_none());
    }
}
