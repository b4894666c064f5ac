//! What a client says with its first request.
//!
//! **Lives here:** channels, `since` and tokens in URLs and headers; whether this machine speaks to itself.
//! **Called by:** `door`.
//! **Must not know:** what is done with them.

use std::{borrow::Cow, net::IpAddr};

use carillon_dialect_native::since;
use carillon_model::{ChannelName, ErrorCode, Refusal, Since};
use carillon_node::Opening;
use carillon_session::{Heartbeat, Wanted};
use hyper::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL},
    http::uri::Authority,
};

/// The subprotocol of the native dialect.
pub(crate) const SUBPROTOCOL: &str = "carillon.v1";

/// A subprotocol that is really a token: browsers can send no headers with a WebSocket.
const BEARER: &str = "bearer.";

/// Reads a first request. What is wrong with a channel is told in the conversation, where a browser can see it.
pub(crate) fn opening(uri: &Uri, headers: &HeaderMap) -> Opening {
    let query: Vec<_> = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).collect();
    let named = |name: &'static str| query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value);
    let from = named("since").next().map_or(Ok(Since::Now), |text| since(text));
    let wanted = named("channel").map(|name| wanted(name, from)).collect();
    let token = authorization(headers)
        .or_else(|| subprotocols(headers).find_map(|offered| offered.strip_prefix(BEARER).map(str::to_owned)))
        .or_else(|| named("token").next().map(Cow::to_string));
    let heartbeat =
        if named("heartbeat").any(|value| value == "1") { Heartbeat::InBand } else { Heartbeat::Transport };
    Opening { token, wanted, heartbeat }
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
    let is_ours = |origin: &str| {
        let host = |(_, host): (_, &'_ _)| is_this_machine(host) || is_nobodys(host);
        origin == "null" || origin.split_once("://").is_some_and(host)
    };
    headers.get(ORIGIN).filter(|origin| !origin.to_str().is_ok_and(is_ours)).map(shown)
}

fn shown(value: &HeaderValue) -> String {
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

fn wanted(name: &str, from: Result<Since, &'static str>) -> Result<Wanted, (String, Refusal)> {
    let refused =
        |message: String| (name.chars().take(64).collect(), Refusal::new(ErrorCode::BadRequest, message));
    let channel = ChannelName::new(name).map_err(|fault| refused(fault.to_string()))?;
    let since = from.map_err(|message| refused(message.to_owned()))?;
    Ok(Wanted { channel, since })
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
                let name: hyper::header::HeaderName = name.parse().unwrap();
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
