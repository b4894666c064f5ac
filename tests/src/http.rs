//! A plain HTTP client.
//!
//! **Lives here:** one request on a connection of its own, read to the end, for tests that look at answers.
//! **Called by:** tests of the whole.
//! **Must not know:** what is asked.

use std::{io, net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::gateway::{Gateway, PATIENCE};

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header lines, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// Returns the value of a header, by its lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|fault| panic!("{fault}: {}", self.body))
    }
}

/// Sends bytes as they stand and reads until the other side closes. Ask for `Connection: close`.
///
/// # Panics
/// When nobody answers in [`PATIENCE`].
pub async fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let bytes = exchange(address, request).await.expect("the listener is there");
    read(&bytes)
}

/// Sends bytes and returns what came back, or why nobody is there.
async fn exchange(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let exchange = async {
        let mut socket = TcpStream::connect(address).await?;
        // The other side may refuse before it has read everything.
        let _refused_early = socket.write_all(request).await.is_err();
        let mut bytes = Vec::new();
        let _reset_after_the_answer = socket.read_to_end(&mut bytes).await.is_err();
        Ok(bytes)
    };
    timeout(PATIENCE, exchange).await.expect("an answer comes in time")
}

/// Reads an answer that is all there.
pub(crate) fn read(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer in {text:?}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Answer { status: status.expect("a status line"), headers, body: body.to_owned() }
}

/// Sends GET.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    raw(address, request.as_bytes()).await
}

/// Sends POST with a body.
pub async fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Answer {
    raw(address, &post_request(path, headers, body.as_ref())).await
}

/// Sends POST to a process that may be on its way out; `None` when nobody answers any more.
pub async fn post_if_there(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Option<Answer> {
    let bytes = exchange(address, &post_request(path, headers, body.as_ref())).await.ok()?;
    (!bytes.is_empty()).then(|| read(&bytes))
}

fn post_request(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

impl Gateway {
    /// Asks the admin listener until the answer to `path` is good enough, and returns that one.
    ///
    /// # Panics
    /// When it is not in [`PATIENCE`].
    pub async fn until(&self, path: &str, enough: impl Fn(&Answer) -> bool) -> Answer {
        let asking = async {
            loop {
                let answer = get(self.admin, path).await;
                if enough(&answer) {
                    return answer;
                }
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(PATIENCE, asking).await.unwrap_or_else(|_late| panic!("{path} is never as awaited"))
    }

    /// Waits until the node is ready for clients.
    pub async fn ready(&self) {
        let _answer = self.until("/readyz", |answer| answer.status == 200).await;
    }

    /// Publishes JSON with the key of development mode.
    pub async fn publish(&self, message: &Value) -> Answer {
        self.publish_as("dev", message).await
    }

    /// Publishes JSON with a key.
    pub async fn publish_as(&self, key: &str, message: &Value) -> Answer {
        let authorization = format!("Bearer {key}");
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        post(self.api, "/v1/publish", &headers, message.to_string()).await
    }

    /// Returns the value of one series of the metrics, by its name and labels as they are written.
    ///
    /// # Panics
    /// When there is no such series.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = get(self.admin, "/metrics").await.body;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        let value = line.and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
    }
}
