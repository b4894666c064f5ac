//! `carillon tail`.
//!
//! **Lives here:** a WebSocket client that prints every frame.
//! **Called by:** `main`.
//! **Must not know:** what the frames say.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue, http::header::AUTHORIZATION},
};

use crate::{complain, say};

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
    /// Prints frames until the node closes, or for ever.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let subscribe = serde_json::json!({"type": "subscribe", "channels": self.channels});
        if let Some(path) = path(&self.url) {
            bail!("`{}` has the path {path}; leave it out, as in ws://127.0.0.1:8000", self.url);
        }
        let mut request = format!("{}/v1/ws", self.url.trim_end_matches('/'))
            .into_client_request()
            .with_context(|| format!("`{}` is not a URL such as ws://127.0.0.1:8000", self.url))?;
        if let Some(token) = self.token {
            let value =
                HeaderValue::from_str(&format!("Bearer {token}")).context("the token is not a JWT")?;
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        let (mut socket, _response) =
            connect_async(request).await.with_context(|| format!("cannot connect to {}", self.url))?;
        futures_util::SinkExt::send(&mut socket, Message::text(subscribe.to_string())).await?;
        while let Some(message) = socket.next().await {
            match message? {
                Message::Text(text) => say(&text),
                Message::Close(close) => {
                    let why =
                        close.map_or_else(String::new, |close| format!(": {} {}", close.code, close.reason));
                    complain(&format!("the node closed the connection{why}"));
                    break;
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(ExitCode::FAILURE)
    }
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
