//! What a client says with its first request.
//!
//! **Lives here:** channels, `since` and tokens in URLs and headers.
//! **Called by:** `door`.
//! **Must not know:** what is done with them.

use std::borrow::Cow;

use carillon_dialect_native::since;
use carillon_model::{ChannelName, ErrorCode, Refusal};
use carillon_node::Opening;
use carillon_session::{Heartbeat, Since, Wanted};
use hyper::{
    HeaderMap, Uri,
    header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL},
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
        assert_eq!(second.as_ref().unwrap().since, Since::Past);
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
}
