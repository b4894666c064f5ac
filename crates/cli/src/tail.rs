//! `carillon tail`.
//!
//! **Lives here:** a WebSocket client that prints every frame.
//! **Called by:** `main`.
//! **Must not know:** what the frames say, but for a channel's refusal.

use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    client_async,
    tungstenite::{
        Error, Message, client::IntoClientRequest as _, http::HeaderValue, http::header::AUTHORIZATION,
    },
};

use crate::{ask, complain, say};

/// Arguments of `carillon tail`.
#[derive(Debug, clap::Args)]
pub(crate) struct Tail {
    /// The channels to listen to.
    #[arg(required = true)]
    channels: Vec<String>,
    /// The public listener of a node.
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8000")]
    url: String,
    /// A token, for channels that are not public.
    #[arg(long)]
    token: Option<String>,
}

impl Tail {
    /// Prints frames until the node closes or has refused every channel, or for ever.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if let Some(path) = path(&self.url) {
            bail!("`{}` has the path {path}; leave it out, as in ws://127.0.0.1:8000", self.url);
        }
        let mut request = format!("{}/v1/ws", self.url.trim_end_matches('/'))
            .into_client_request()
            .with_context(|| format!("`{}` is not a URL such as ws://127.0.0.1:8000", self.url))?;
        let address = ask::address(request.uri(), "ws")?;
        if let Some(token) = self.token {
            let value =
                HeaderValue::from_str(&format!("Bearer {token}")).context("the token is not a JWT")?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let socket =
            TcpStream::connect(&address).await.with_context(|| format!("nobody answers at {address}"))?;
        let connected = client_async(request, socket).await.map_err(|fault| told(&self.url, &fault));
        let (mut socket, _response) = connected?;
        // One by one: what is wrong with one channel's name does not hinder the others.
        for channel in &self.channels {
            let subscribe = json!({"type": "subscribe", "channel": channel});
            socket.send(Message::text(subscribe.to_string())).await.map_err(anyhow::Error::msg)?;
        }
        let mut left = self.channels.len();
        while left > 0
            && let Some(message) = socket.next().await
        {
            match message.map_err(anyhow::Error::msg)? {
                Message::Text(text) => {
                    say(&text);
                    left -= usize::from(refuses_channel(&text));
                }
                Message::Close(close) => {
                    let why =
                        close.map_or_else(String::new, |close| format!(": {} {}", close.code, close.reason));
                    complain(&format!("the node closed the connection{why}"));
                    break;
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        if left == 0 {
            complain("no channel is left to listen to");
        }
        Ok(ExitCode::FAILURE)
    }
}

/// Says whether a frame refuses a channel that was asked for.
fn refuses_channel(frame: &str) -> bool {
    let frame: Value = serde_json::from_str(frame).unwrap_or_default();
    frame["type"] == "error" && frame["channel"].is_string()
}

/// Says why there is no connection. The library's text has its cause in it already.
fn told(url: &str, fault: &Error) -> anyhow::Error {
    if let Error::Http(answer) = fault
        && answer.status() == StatusCode::NOT_FOUND
    {
        return anyhow!(
            "{url} is another listener (HTTP 404): clients connect to the public listener (port 8000 by default)"
        );
    }
    anyhow!("cannot connect to {url}: {fault}")
}

/// Returns the path of a URL, and what follows it, where there is more than `/`.
fn path(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_scheme, rest)| rest);
    let path = rest.find(['/', '?', '#']).and_then(|at| rest.get(at..))?;
    (path != "/").then_some(path)
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn a_path_is_found_where_there_is_one() {
        for (url, found) in [
            ("ws://127.0.0.1:8000", None),
            ("ws://[::1]:8000/", None),
            ("ws://127.0.0.1:8000/v1/ws", Some("/v1/ws")),
            ("ws://127.0.0.1:8000?channel=news", Some("?channel=news")),
        ] {
            assert_eq!(path(url), found, "{url}");
        }
    }
}
