//! What can be done to the streams of a NATS cluster while they are used.
//!
//! **Lives here:** stepping down, deleting, purging, asking whether every copy is current.
//! **Called by:** fault tests, `chaos`.
//! **Must not know:** what the streams hold.

use std::time::Duration;

use async_nats::{Client, ConnectOptions};
use serde_json::Value;
use tokio::time::timeout;

/// How long JetStream may take over one request. A stream without a leader does not answer.
const ANSWER: Duration = Duration::from_secs(5);

/// A connection beside those of the gateways.
#[derive(Debug)]
pub struct Streams(Client);

/// A stream as its leader sees it.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub messages: u64,
    /// The server that leads it, if one does.
    pub leader: Option<String>,
    /// Its other copies that have all that the leader has.
    pub current: usize,
}

impl Streams {
    /// Connects to whichever server is there.
    ///
    /// # Panics
    /// When an address is none.
    pub async fn on(urls: &[String]) -> Self {
        Self(ConnectOptions::new().retry_on_initial_connect().connect(urls).await.expect("good addresses"))
    }

    /// Lists those whose names begin with `prefix` and whose leaders answer.
    ///
    /// # Errors
    /// Why JetStream does not answer.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Stream>, String> {
        let answer = self.ask("LIST").await?;
        let streams = answer["streams"].as_array().map_or(&[][..], Vec::as_slice);
        let read = |info: &Value| {
            let name = info["config"]["name"].as_str()?;
            let copies = info["cluster"]["replicas"].as_array().map_or(&[][..], Vec::as_slice);
            let is_current = |copy: &&Value| copy["current"] == true && copy["offline"] != true;
            Some(Stream {
                name: name.to_owned(),
                messages: info["state"]["messages"].as_u64()?,
                leader: info["cluster"]["leader"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
                current: copies.iter().filter(is_current).count(),
            })
        };
        Ok(streams.iter().filter_map(read).filter(|stream| stream.name.starts_with(prefix)).collect())
    }

    /// Makes the leader of a stream give way to another.
    ///
    /// # Errors
    /// Why it did not.
    pub async fn step_down(&self, stream: &str) -> Result<(), String> {
        self.ask(&format!("LEADER.STEPDOWN.{stream}")).await.map(drop)
    }

    /// Deletes a stream and all that it holds.
    ///
    /// # Errors
    /// Why it is still there, as far as is known.
    pub async fn delete(&self, stream: &str) -> Result<(), String> {
        self.ask(&format!("DELETE.{stream}")).await.map(drop)
    }

    /// Removes all that a stream holds.
    ///
    /// # Errors
    /// Why it is still there, as far as is known.
    pub async fn purge(&self, stream: &str) -> Result<(), String> {
        self.ask(&format!("PURGE.{stream}")).await.map(drop)
    }

    async fn ask(&self, what: &str) -> Result<Value, String> {
        let asked = timeout(ANSWER, self.0.request(format!("$JS.API.STREAM.{what}"), "".into())).await;
        let answer = asked.map_err(|late| format!("{what}: {late}"))?;
        let answer = answer.map_err(|fault| format!("{what}: {fault}"))?;
        let answer: Value =
            serde_json::from_slice(&answer.payload).map_err(|fault| format!("{what}: {fault}"))?;
        if answer["error"].is_object() { Err(format!("{what}: {}", answer["error"])) } else { Ok(answer) }
    }
}
