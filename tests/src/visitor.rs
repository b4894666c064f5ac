//! A client that stays: it comes back when it is told to, as `README.md` asks of clients.
//!
//! **Lives here:** connecting, reading, coming back by the close code and the goodbye, and what it lived through.
//! **Called by:** tests that stop gateways under their clients.
//! **Must not know:** which gateway it is on.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::gateway::PATIENCE;

/// What a client waits after a close with 41xx, at least.
const SECOND: Duration = Duration::from_secs(1);

/// What a client waits when nobody told it how long.
const UNTOLD: Duration = Duration::from_millis(200);

/// Pause of a client that comes and goes.
const BETWEEN_VISITS: Duration = Duration::from_millis(20);

/// What a client lived through.
#[derive(Debug, Default)]
pub struct Story {
    /// Connections that were welcome.
    pub welcomes: usize,
    /// The close codes, in order.
    pub closes: Vec<u16>,
    /// Connections that ended without a close frame, or did not begin: browsers call both 1006.
    pub abnormal: Vec<String>,
    /// What was wrong with the frames: a gap, a message that is missing or comes twice, a refusal.
    pub faults: Vec<String>,
    /// Messages that were read.
    pub messages: usize,
}

/// How a connection ended.
enum End {
    /// With a close frame: its code, and what the goodbye before it said.
    Closed(u16, Option<Duration>),
    /// Without.
    Abnormal(String),
    /// By ourselves.
    Enough,
}

/// Stays at `url` until `enough`, whatever happens to the gateways.
///
/// Messages carry `{"from": …, "number": …}`: the numbers of one publisher follow one another on each connection.
pub async fn stay(url: String, mut enough: watch::Receiver<bool>) -> Story {
    let mut story = Story::default();
    loop {
        let end = match timeout(PATIENCE, connect_async(&url)).await {
            Ok(Ok((socket, _response))) => visit(socket, &mut story, &mut enough).await,
            Ok(Err(fault)) => End::Abnormal(format!("handshake: {fault}")),
            Err(_late) => End::Abnormal("handshake: no answer".to_owned()),
        };
        let wait = match end {
            End::Enough => return story,
            End::Closed(code, told) => {
                story.closes.push(code);
                match code {
                    4200..4300 => told.unwrap_or(UNTOLD),
                    4100..4200 => SECOND,
                    // A client that is told not to come back is one that the test counts as lost.
                    _ => return story,
                }
            }
            End::Abnormal(why) => {
                story.abnormal.push(why);
                UNTOLD
            }
        };
        // Whoever was sent away comes back, and leaves then if it is enough.
        sleep(wait).await;
    }
}

/// Comes, waits for its welcome, leaves, and comes again, until `enough`.
pub async fn pass_by(url: String, enough: watch::Receiver<bool>) -> Story {
    let mut story = Story::default();
    while !*enough.borrow() {
        let (_leave, mut at_once) = watch::channel(true);
        match timeout(PATIENCE, connect_async(&url)).await {
            Ok(Ok((socket, _response))) => match visit(socket, &mut story, &mut at_once).await {
                End::Enough => {}
                End::Closed(code, _told) => story.closes.push(code),
                End::Abnormal(why) => story.abnormal.push(why),
            },
            Ok(Err(fault)) => story.abnormal.push(format!("handshake: {fault}")),
            Err(_late) => story.abnormal.push("handshake: no answer".to_owned()),
        }
        sleep(BETWEEN_VISITS).await;
    }
    story
}

/// Waits until it is enough, or nobody is left to say so.
async fn is_over(enough: &mut watch::Receiver<bool>) {
    let _nobody_left = enough.wait_for(|enough| *enough).await.is_err();
}

/// One connection, from its welcome to its end.
async fn visit(
    mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    story: &mut Story,
    enough: &mut watch::Receiver<bool>,
) -> End {
    let (mut told, mut last, mut welcome, mut leaving) = (None, BTreeMap::new(), false, false);
    loop {
        let next = tokio::select! {
            next = timeout(PATIENCE, socket.next()) => next,
            // Nobody leaves before the welcome.
            () = is_over(enough), if welcome && !leaving => {
                leaving = true;
                let close = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                let _closed_already = socket.close(Some(close)).await.is_err();
                continue;
            }
        };
        match next {
            Ok(Some(Ok(Message::Text(text)))) => {
                let frame: Value = serde_json::from_str(&text).expect("frames are JSON");
                match frame["type"].as_str() {
                    Some("welcome") => {
                        welcome = true;
                        story.welcomes += 1;
                    }
                    Some("message") => story.read(&frame, &mut last),
                    Some("goodbye") => told = frame["retry_after_ms"].as_u64().map(Duration::from_millis),
                    Some("subscribed" | "ping") => {}
                    _ => story.faults.push(frame.to_string()),
                }
            }
            Ok(Some(Ok(Message::Close(close)))) => {
                // Reads on to the end, which sends our answer. How the socket ends after that is nobody's concern.
                let _ended =
                    timeout(PATIENCE, async { while let Some(Ok(_)) = socket.next().await {} }).await;
                return match close {
                    _ if leaving => End::Enough,
                    Some(close) => End::Closed(close.code.into(), told),
                    None => End::Abnormal("a close frame without a code".to_owned()),
                };
            }
            Ok(Some(Ok(_ping_or_pong))) => {}
            Ok(Some(Err(fault))) => return End::Abnormal(fault.to_string()),
            Ok(None) => return End::Abnormal("the end".to_owned()),
            Err(_silence) => return End::Abnormal("silence".to_owned()),
        }
    }
}

impl Story {
    /// Looks at a message's number. A channel without history may lose one, and says nothing.
    fn read(&mut self, message: &Value, last: &mut BTreeMap<String, u64>) {
        self.messages += 1;
        let from = message["data"]["from"].to_string();
        let number = message["data"]["number"].as_u64().expect("publishers count");
        let before = last.insert(from, number);
        let follows = |before| if message["id"].is_null() { number > before } else { number == before + 1 };
        if !before.is_none_or(follows) {
            self.faults.push(format!("after {before:?}: {message}"));
        }
    }
}
