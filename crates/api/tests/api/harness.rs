//! A served API on a free port, and a client that sends bytes as they are.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use carillon_api::{Cached, Channels, Config, Parts, Publisher, Receipt};
use carillon_auth::{KeyId, KeyRecord, KeyRing, Scope, keys::generate};
use carillon_broker::{Broker, Deliver, Lost, MemoryBroker, PublishError, Shard};
use carillon_model::{
    App, AppKey, AppSpace, Apps, ChannelName, ChannelPattern, ClassName, Epoch, ErrorCode, Findings, IdKind,
    Member, NewMessage, Publication, Question, Refusal, RetentionClass, UserId,
};
use carillon_tasks::Tasks;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, pending, ready},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// No test waits longer than this for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The secret of the application `main`, whose key is `app-key`.
pub(crate) const APP_SECRET: &str = "7ad3773142a6692b25b8";

/// What the broker delivered.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<Arc<Publication>>>);

impl Deliver for Heard {
    fn deliver(&self, publication: Arc<Publication>) {
        self.0.lock().unwrap().push(publication);
    }

    fn lost(&self, _lost: &Lost) {}
    fn lost_live(&self, _shards: &[Shard]) {}
}

/// A publisher over the memory broker. The first part of a channel's name chooses what happens.
struct Node {
    broker: MemoryBroker,
}

impl Publisher for Node {
    fn publish(&self, message: NewMessage, deadline: Instant) -> BoxFuture<'_, Result<Receipt, Refusal>> {
        async move {
            let rule = message.channel.as_str().split('.').next().unwrap_or_default().to_owned();
            let published = match rule.as_str() {
                "live" => {
                    return self
                        .broker
                        .publish_live(message, deadline)
                        .await
                        .map(|()| Receipt { position: None, duplicate: false })
                        .map_err(refusal);
                }
                "small" if message.data.len() > 16 => {
                    return Err(Refusal::new(ErrorCode::TooLarge, "the channel takes at most 16 bytes"));
                }
                "stall" => return pending().await,
                // A class that the broker does not have: it answers that it cannot be reached.
                "down" => self.broker.publish(&ClassName::new("none").unwrap(), message, deadline).await,
                _ => self.broker.publish(&ClassName::new("short").unwrap(), message, deadline).await,
            };
            let published = published.map_err(refusal)?;
            Ok(Receipt { position: Some(published.position), duplicate: published.duplicate })
        }
        .boxed()
    }

    fn check(&self, _: &NewMessage) -> Result<(), Refusal> {
        Ok(())
    }
}

/// Channels that some subscribe to.
impl Channels for Node {
    fn ask(&self, question: Question, _: Instant) -> BoxFuture<'_, Arc<Findings>> {
        let all =
            BTreeMap::from([("$user:7".to_owned(), 1), ("a".to_owned(), 2), ("orders.7".to_owned(), 3)]);
        let mut findings = Findings { answered: 1, of: 2, ..Findings::default() };
        match question {
            Question::Counts { app, prefix } if app.as_str().is_empty() => {
                findings.channels = all.into_iter().filter(|(name, _)| name.starts_with(&prefix)).collect();
            }
            Question::Count(channel) if channel.app().is_empty() => {
                findings.total = all.get(channel.as_str()).copied().unwrap_or_default();
            }
            Question::Counts { .. }
            | Question::Count(_)
            | Question::Each(..)
            | Question::Connections(_)
            | Question::Terminate(..) => {}
        }
        ready(Arc::new(findings)).boxed()
    }

    fn members(&self, channel: &ChannelName) -> Vec<Member> {
        let member = |id: &str, info: Option<&'static str>| Member {
            user: UserId::new(id).unwrap(),
            kind: IdKind::Number,
            info: info.map(bytes::Bytes::from),
        };
        match channel.as_str() {
            "orders.7" => vec![member("7", Some(r#"{"name":"Ana"}"#)), member("8", None)],
            _ => Vec::new(),
        }
    }

    fn cached<'a>(
        &'a self,
        _: &'a ChannelName,
        _: Instant,
    ) -> BoxFuture<'a, Result<Option<Cached>, Refusal>> {
        ready(Ok(None)).boxed()
    }
}

fn refusal(why: PublishError) -> Refusal {
    Refusal::new(ErrorCode::Unavailable, why.to_string())
}

/// A served API.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tasks,
    pub(crate) key: String,
    pub(crate) slow_key: String,
    pub(crate) reader_key: String,
    /// Keys of the second application.
    pub(crate) second_key: String,
    pub(crate) second_reader_key: String,
    heard: Arc<Heard>,
}

/// Limits that tests can reach.
pub(crate) fn small() -> Config {
    Config {
        publish_body_max_bytes: 64 << 10,
        batch_body_max_bytes: 128 << 10,
        deadline: Duration::from_millis(200),
        ..Config::default()
    }
}

impl Served {
    pub(crate) async fn start(config: Config) -> Self {
        let heard = Arc::new(Heard::default());
        let class = RetentionClass {
            name: ClassName::new("short").unwrap(),
            max_age: Duration::from_mins(10),
            max_messages: 1000,
            max_bytes: 1 << 24,
        };
        let broker = MemoryBroker::new(Epoch::from_bits(7), &[class], heard.clone());
        let mut records = Vec::new();
        let mut key = |app, id, scope, channels: &[&str], rate| {
            let id = KeyId::new(app, id).unwrap();
            let fresh = generate(&id).unwrap();
            records.push(KeyRecord {
                id,
                secret: fresh.secret,
                scopes: [scope].into(),
                channels: channels.iter().map(|text| ChannelPattern::new(text).unwrap()).collect(),
                publishes_per_second: NonZeroU32::new(rate),
            });
            fresh.text
        };
        let all = ["a*", "orders.*", "live.*", "small.*", "stall.*", "down.*", "$user:*", "é*"];
        let web = key("main", "web", Scope::Publish, &all, 0);
        let slow = key("main", "slow", Scope::Publish, &["*"], 2);
        let reader = key("main", "reader", Scope::Read, &["orders.*", "b*"], 0);
        let second = key("second", "web", Scope::Publish, &["*"], 0);
        let second_reader = key("second", "reader", Scope::Read, &["*"], 0);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tasks = Tasks::new(tokio::runtime::Handle::current());
        let keys = Arc::new(KeyRing::new(records).unwrap());
        let node = Arc::new(Node { broker });
        let app_key = AppKey { key: "app-key".to_owned(), secret: APP_SECRET.to_owned() };
        let main = App { keys: vec![app_key], ..App::bare("main", AppSpace::default()) };
        let other = App::bare("second", AppSpace::new("second").unwrap());
        let apps = Apps::new(vec![main, other]);
        let parts = Parts { keys, apps, publisher: Arc::clone(&node) as _, channels: node };
        carillon_api::serve(listener, config, parts, &tasks).await;
        Self {
            address,
            tasks,
            key: web,
            slow_key: slow,
            reader_key: reader,
            second_key: second,
            second_reader_key: second_reader,
            heard,
        }
    }

    /// Returns `channel event data` of everything delivered, in order.
    pub(crate) fn heard(&self) -> Vec<String> {
        let show = |publication: &Arc<Publication>| {
            let message = &publication.message;
            let event = message.event.as_ref().map_or("-", |event| event.as_str());
            let app = message.channel.app();
            format!("{app}{} {event} {}", message.channel, str::from_utf8(&message.data).unwrap())
        };
        self.heard.0.lock().unwrap().iter().map(show).collect()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends a request with the usual headers and reads the answer.
    pub(crate) async fn send(&self, request: &Ask<'_>) -> Answer {
        let mut socket = self.connect().await;
        socket.write_all(&request.bytes(self)).await.unwrap();
        Answer::read(&mut socket).await
    }

    /// Posts JSON with the key that may do everything.
    pub(crate) async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.send(&Ask::post(path, body.as_ref())).await
    }

    /// Sends bytes as they are, on a connection of their own, and reads until it closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut socket = self.connect().await;
        // The server may answer and close before it has read all.
        let _all_sent = socket.write_all(bytes).await.is_ok();
        let mut answer = Vec::new();
        let _reset = timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap().is_err();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// A request. Headers that are given replace the usual ones; an empty value removes one.
#[derive(Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'a str, String)>,
    pub(crate) body: &'a [u8],
}

impl<'a> Ask<'a> {
    pub(crate) fn post(path: &'a str, body: &'a [u8]) -> Self {
        Self { method: "POST", path, headers: Vec::new(), body }
    }

    pub(crate) fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn bytes(&self, served: &Served) -> Vec<u8> {
        let mut headers = BTreeMap::from([
            ("Host", "carillon".to_owned()),
            ("Authorization", format!("Bearer {}", served.key)),
            ("Content-Type", "application/json".to_owned()),
            ("Content-Length", self.body.len().to_string()),
        ]);
        headers.extend(self.headers.iter().cloned());
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            bytes.extend(format!("{name}: {value}\r\n").into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(self.body);
        bytes
    }
}

/// An answer of HTTP/1 with a length.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn read(socket: &mut TcpStream) -> Self {
        timeout(PATIENCE, Self::read_now(socket)).await.unwrap()
    }

    async fn read_now(socket: &mut TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pair = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        let headers: BTreeMap<_, _> = lines.filter_map(pair).collect();
        let length: usize = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await.unwrap();
        Self { status, headers, body: String::from_utf8(body).unwrap() }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Returns `status error` of a problem, after checking its form.
    pub(crate) fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{self:?}");
        (self.status, problem["error"].as_str().unwrap().to_owned())
    }

    pub(crate) fn detail(&self) -> String {
        self.json()["detail"].as_str().unwrap_or_default().to_owned()
    }
}
