//! A WebSocket client nobody here wrote: tokio-tungstenite's, with patience.
//!
//! **Lives here:** connecting, sending, waiting for frames.
//! **Called by:** tests of the whole.
//! **Must not know:** the gateway's insides.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async, connect_async,
    tungstenite::{Message, client::IntoClientRequest as _, protocol::CloseFrame},
};

use futures_util::{SinkExt as _, StreamExt as _};

use crate::gateway::PATIENCE;

/// What the system may keep for a client that connects narrowly.
const NARROW_BYTES: u32 = 8 * 1024;

/// One client.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What a client got.
#[derive(Clone, Debug, PartialEq)]
pub enum Got {
    /// A text frame, as it came.
    Text(String),
    /// The close frame, if there was one.
    Closed(Option<(u16, String)>),
    /// The connection broke without a closing handshake: what browsers call 1006.
    Broken(String),
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    /// When the handshake fails.
    pub async fn connect(url: &str) -> Self {
        Self::connect_with(url, &[]).await
    }

    /// Connects with header lines.
    ///
    /// # Panics
    /// When the handshake fails.
    pub async fn connect_with(url: &str, headers: &[(&'static str, &str)]) -> Self {
        let mut request = url.into_client_request().expect("a WebSocket URL");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header's value"));
        }
        let connected = timeout(PATIENCE, connect_async(request)).await.expect("the handshake ends in time");
        let (socket, _response) = connected.unwrap_or_else(|fault| panic!("{url}: {fault}"));
        Self { socket }
    }

    /// Connects with room for so few bytes in the system that what is not read waits in the gateway.
    ///
    /// # Panics
    /// When the handshake fails.
    pub async fn connect_narrowly(address: SocketAddr, url: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("the system has sockets");
        socket.set_recv_buffer_size(NARROW_BYTES).expect("the system's least buffer is smaller");
        let connect = async {
            let stream = MaybeTlsStream::Plain(socket.connect(address).await.expect("the listener is there"));
            client_async(url, stream).await.unwrap_or_else(|fault| panic!("{url}: {fault}"))
        };
        let (socket, _response) = timeout(PATIENCE, connect).await.expect("the handshake ends in time");
        Self { socket }
    }

    /// Connects, and waits until it is welcome and has joined `channels`.
    ///
    /// # Panics
    /// When it is not, or cannot join one of them.
    pub async fn subscribed(base: &str, channels: &[&str]) -> Self {
        let query: Vec<_> = channels.iter().map(|channel| format!("channel={channel}")).collect();
        let mut client = Self::connect(&format!("{base}{}", query.join("&"))).await;
        assert_eq!(client.frame().await["type"], "welcome");
        for _ in channels {
            let frame = client.frame().await;
            assert_eq!(frame["type"], "subscribed", "{frame}");
        }
        client
    }

    /// Sends one JSON frame.
    ///
    /// # Panics
    /// When the connection is broken.
    pub async fn send(&mut self, frame: &Value) {
        self.send_message(Message::text(frame.to_string())).await;
    }

    /// Sends a frame as it stands.
    ///
    /// # Panics
    /// When the connection is broken.
    pub async fn send_message(&mut self, message: Message) {
        timeout(PATIENCE, self.socket.send(message)).await.expect("room to send").expect("a connection");
    }

    /// Subscribes to a channel and returns the answer.
    pub async fn subscribe(&mut self, channel: &str) -> Value {
        self.send(&json!({"type": "subscribe", "channel": channel, "ref": 1})).await;
        self.frame().await
    }

    /// Waits for whatever comes next; pings are answered and not shown.
    ///
    /// # Panics
    /// When nothing comes in [`PATIENCE`].
    pub async fn next(&mut self) -> Got {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await.expect("something comes in time");
            match next {
                Some(Ok(Message::Text(text))) => return Got::Text(text.as_str().to_owned()),
                Some(Ok(Message::Close(close))) => return Got::Closed(close.map(parts)),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(other)) => panic!("the gateway sends no {other:?}"),
                Some(Err(fault)) => return Got::Broken(fault.to_string()),
                None => return Got::Broken("the end".to_owned()),
            }
        }
    }

    /// Waits for the next frame.
    ///
    /// # Panics
    /// When the connection ends instead.
    pub async fn frame(&mut self) -> Value {
        match self.next().await {
            Got::Text(text) => serde_json::from_str(&text).expect("frames are JSON"),
            other @ (Got::Closed(_) | Got::Broken(_)) => panic!("a frame was awaited, not {other:?}"),
        }
    }

    /// Waits for the next message, past control frames, and returns its data.
    ///
    /// # Panics
    /// When the connection ends instead, or the channel has a gap.
    pub async fn data(&mut self) -> Value {
        self.message().await["data"].take()
    }

    /// Waits for the next message, past control frames.
    ///
    /// # Panics
    /// When the connection ends instead, or the channel has a gap.
    pub async fn message(&mut self) -> Value {
        loop {
            let frame = self.frame().await;
            match frame["type"].as_str() {
                Some("message") => return frame,
                Some("gap") => panic!("{frame}"),
                _ => {}
            }
        }
    }

    /// Waits for the end, past frames, and returns the close code and reason.
    ///
    /// # Panics
    /// When the connection breaks without one.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Got::Text(_) => {}
                Got::Closed(Some(close)) => return close,
                other @ (Got::Closed(None) | Got::Broken(_)) => {
                    panic!("a close code was awaited, not {other:?}")
                }
            }
        }
    }
}

fn parts(close: CloseFrame) -> (u16, String) {
    (close.code.into(), close.reason.as_str().to_owned())
}
