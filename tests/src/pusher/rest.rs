//! A backend of the Pusher protocol that may break every rule.
//!
//! **Lives here:** requests in their parts, signing them, sending them.
//! **Called by:** tests of the Pusher dialect.
//! **Must not know:** which answers are right.

use std::net::SocketAddr;

use carillon_tasks::clock;
use serde_json::{Value, json};

use super::{App, hmac_sha256, md5_hex};
use crate::http::{self, Answer};

/// A request in its parts. Each part is sent as it stands, whatever was signed.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, which is signed.
    pub path: String,
    /// The parameters as they are sent, not escaped.
    pub parameters: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// More header lines.
    pub headers: Vec<(&'static str, String)>,
    /// The query as it is sent; without it, the parameters, escaped.
    pub query: Option<String>,
}

impl Request {
    /// Begins a request.
    #[must_use]
    pub fn new(method: &str, path: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            path: path.into(),
            parameters: Vec::new(),
            body: Vec::new(),
            headers: vec![("Content-Type", "application/json".to_owned())],
            query: None,
        }
    }

    /// Adds a parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.parameters.push((name.to_owned(), value.into()));
        self
    }

    /// Removes a parameter.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        let before = self.parameters.len();
        self.parameters.retain(|(known, _)| known != name);
        assert!(self.parameters.len() < before, "no parameter {name}");
        self
    }

    /// Replaces a parameter.
    #[must_use]
    pub fn changed(self, name: &str, value: impl Into<String>) -> Self {
        self.without(name).with(name, value)
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Adds the parameters that every request carries, at a second since 1970.
    #[must_use]
    pub fn stamped_at(mut self, app: &App, seconds: u64) -> Self {
        self = self
            .with("auth_key", app.key)
            .with("auth_timestamp", seconds.to_string())
            .with("auth_version", "1.0");
        if self.body.is_empty() {
            return self;
        }
        let md5 = md5_hex(&self.body);
        self.with("body_md5", md5)
    }

    /// Adds the parameters that every request carries.
    #[must_use]
    pub fn stamped(self, app: &App) -> Self {
        self.stamped_at(app, clock::since_1970().as_secs())
    }

    /// Returns the text that is signed: names in lower case and in their order (PUSHER §2.1).
    #[must_use]
    pub fn to_sign(&self) -> String {
        let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
        let mut parameters: Vec<_> = self.parameters.iter().map(lower).collect();
        parameters.retain(|(name, _)| name != "auth_signature");
        parameters.sort_by(|(one, _), (other, _)| one.cmp(other));
        let pairs: Vec<_> = parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{}\n{}\n{}", self.method, self.path, pairs.join("&"))
    }

    /// Adds the signature of what is there now.
    #[must_use]
    pub fn signed(self, secret: &str) -> Self {
        let signature = hmac_sha256(secret, &self.to_sign());
        self.with("auth_signature", signature)
    }

    /// Returns what is written to the socket.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let pairs =
            self.parameters.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
        let query = self.query.clone().unwrap_or_else(|| pairs.collect::<Vec<_>>().join("&"));
        let headers: String =
            self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (method, path, length) = (&self.method, &self.path, self.body.len());
        let head = format!(
            "{method} {path}?{query} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {headers}\r\n"
        );
        [head.as_bytes(), &self.body].concat()
    }

    /// Sends it.
    pub async fn send(&self, to: SocketAddr) -> Answer {
        http::raw(to, &self.bytes()).await
    }
}

/// Escapes everything that is not unreserved (RFC 3986 §2.3), as Guzzle does.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escape = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(escape).collect()
}

/// A backend of one application at one listener.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    /// The listener.
    pub at: SocketAddr,
    /// The application.
    pub app: App,
}

impl Rest {
    /// Makes a backend.
    #[must_use]
    pub const fn new(at: SocketAddr, app: &App) -> Self {
        Self { at, app: *app }
    }

    /// Begins a request to a path below the application's own.
    #[must_use]
    pub fn request(&self, method: &str, tail: &str) -> Request {
        Request::new(method, format!("/apps/{}{tail}", self.app.id))
    }

    /// Signs a request and sends it.
    pub async fn send(&self, request: Request) -> Answer {
        request.stamped(&self.app).signed(self.app.secret).send(self.at).await
    }

    /// Sends GET with parameters.
    pub async fn get(&self, tail: &str, parameters: &[(&str, &str)]) -> Answer {
        let request = self.request("GET", tail);
        self.send(parameters.iter().fold(request, |request, (name, value)| request.with(name, *value))).await
    }

    /// Sends GET and returns the answer, which must be good.
    ///
    /// # Panics
    /// When it is not.
    pub async fn read(&self, tail: &str, parameters: &[(&str, &str)]) -> Value {
        good(&self.get(tail, parameters).await)
    }

    /// Sends POST.
    pub async fn post(&self, tail: &str, body: &Value) -> Answer {
        self.send(self.request("POST", tail).body(body.to_string())).await
    }

    /// Sends POST and returns the answer, which must be good.
    ///
    /// # Panics
    /// When it is not.
    pub async fn done(&self, tail: &str, body: &Value) -> Value {
        good(&self.post(tail, body).await)
    }

    /// Publishes an event on one channel.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn trigger(&self, channel: &str, event: &str, data: &str) {
        let answer = self.done("/events", &json!({"name": event, "channel": channel, "data": data})).await;
        assert_eq!(answer, json!({}));
    }

    /// Sends POST and returns status and text of the answer, which must be a refusal.
    ///
    /// # Panics
    /// When it is none, or not a line of text.
    pub async fn refused(&self, tail: &str, body: &Value) -> (u16, String) {
        refusal(&self.post(tail, body).await)
    }
}

/// Reads an answer that says yes: exactly 200 and an object (PUSHER §2.2).
fn good(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/json"), "{answer:?}");
    let body = answer.json();
    assert!(body.is_object(), "{answer:?}");
    body
}

/// Reads an answer that says no: one line of text (PUSHER §2.2).
///
/// # Panics
/// When it says yes, or says no in another way.
#[must_use]
pub fn refusal(answer: &Answer) -> (u16, String) {
    assert!((400..600).contains(&answer.status), "{answer:?}");
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{answer:?}");
    let line = answer.body.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {answer:?}"));
    assert!(!line.is_empty(), "{answer:?}");
    (answer.status, line.to_owned())
}
