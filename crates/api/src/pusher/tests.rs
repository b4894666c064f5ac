//! A REST API over a node that is a few lists.

mod events;
mod hostile;
mod questions;
mod requests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use carillon_auth::{KeyRing, sign};
use carillon_model::{AppKey, AppSpace, Findings, IdKind, Member, NewMessage, Question, UserId};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, pending, ready},
};
use http_body_util::BodyExt as _;
use md5::{Digest as _, Md5};

use super::*;
use crate::{channels::Cached, publisher::Receipt};

const KEY: &str = "278d425bdf160c739803";
const SECRET: &str = "7ad3773142a6692b25b8";

/// What stands in for the node. A channel's name chooses what becomes of its messages.
#[derive(Default)]
struct Lists {
    published: Mutex<Vec<NewMessage>>,
    asked: Mutex<Vec<Question>>,
    subscriptions: BTreeMap<String, u64>,
    members: BTreeMap<String, Vec<&'static str>>,
    cached: BTreeMap<String, Cached>,
    silent: usize,
}

impl Publisher for Lists {
    fn publish(&self, message: NewMessage, _: Instant) -> BoxFuture<'_, Result<Receipt, Refusal>> {
        match message.channel.as_str() {
            "down" => ready(Err(Refusal::new(ErrorCode::Unavailable, "the broker is away"))).boxed(),
            "stall" => pending().boxed(),
            _ => {
                let mut published = self.published.lock().unwrap();
                let duplicate = message.id.is_some()
                    && published
                        .iter()
                        .any(|known| known.channel == message.channel && known.id == message.id);
                published.push(message);
                ready(Ok(Receipt { position: None, duplicate })).boxed()
            }
        }
    }

    fn check(&self, message: &NewMessage) -> Result<(), Refusal> {
        match message.channel.as_str() {
            "nowhere" => Err(Refusal::new(ErrorCode::NotFound, "no channel rule covers `nowhere`")),
            "small" if message.data_bytes() > 16 => {
                Err(Refusal::new(ErrorCode::TooLarge, "at most 16 bytes"))
            }
            _ => Ok(()),
        }
    }
}

impl Channels for Lists {
    fn ask(&self, question: Question, _: Instant) -> BoxFuture<'_, Arc<Findings>> {
        self.asked.lock().unwrap().push(question.clone());
        let mut findings = Findings { answered: 3 - self.silent, of: 3, ..Findings::default() };
        match question {
            Question::Counts { prefix, .. } => {
                let found = self.subscriptions.iter().filter(|(name, _)| name.starts_with(&prefix));
                findings.channels = found.map(|(name, count)| (name.clone(), *count)).collect();
            }
            Question::Count(channel) => {
                findings.total = self.subscriptions.get(channel.as_str()).copied().unwrap_or_default();
            }
            Question::Each(_, channels) => {
                let known = channels.iter().filter_map(|channel| {
                    let count = self.subscriptions.get(channel.as_str())?;
                    Some((channel.as_str().to_owned(), *count))
                });
                findings.channels = known.collect();
            }
            Question::Connections(_) => findings.total = 7,
            Question::Terminate(..) => findings.total = 1,
        }
        ready(Arc::new(findings)).boxed()
    }

    fn members(&self, channel: &ChannelName) -> Vec<Member> {
        let users = self.members.get(channel.as_str()).into_iter().flatten();
        users.map(|id| Member { user: UserId::new(id).unwrap(), kind: IdKind::Text, info: None }).collect()
    }

    fn cached<'a>(
        &'a self,
        channel: &'a ChannelName,
        _: Instant,
    ) -> BoxFuture<'a, Result<Option<Cached>, Refusal>> {
        ready(Ok(self.cached.get(channel.as_str()).cloned())).boxed()
    }
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    status: u16,
    body: String,
    headers: HeaderMap,
}

/// The API of two applications, `1` and `other`.
struct Served {
    lists: Arc<Lists>,
    rest: PusherRest,
}

impl Served {
    fn new() -> Self {
        Self::over(Lists::default())
    }

    fn over(lists: Lists) -> Self {
        Self::with(lists, AppLimits::default())
    }

    fn with(lists: Lists, limits: AppLimits) -> Self {
        let app = |id: &str, space, key: &str, secret: &str| {
            let keys = vec![AppKey { key: key.to_owned(), secret: secret.to_owned() }];
            App { keys, limits, ..App::bare(id, space) }
        };
        let other = app("other", AppSpace::new("other").unwrap(), "other-key", SECRET);
        let off = app("off", AppSpace::new("off").unwrap(), "off-key", SECRET);
        let off = App { enabled: false, ..off };
        let lists = Arc::new(lists);
        let parts = Parts {
            keys: Arc::new(KeyRing::default()),
            apps: Apps::new(vec![app("1", AppSpace::default(), KEY, SECRET), other, off]),
            publisher: Arc::clone(&lists) as Arc<dyn Publisher>,
            channels: Arc::clone(&lists) as Arc<dyn Channels>,
        };
        let config = Config { deadline: Duration::from_millis(200), ..Config::default() };
        Self { rest: PusherRest::new(&config, &parts), lists }
    }

    async fn raw(&self, method: &str, uri: &str, headers: &HeaderMap, body: &[u8]) -> Told {
        let mut request = Request::builder().method(method).uri(uri);
        *request.headers_mut().unwrap() = headers.clone();
        let request = request.body(Full::from(body.to_vec())).unwrap();
        let response = self.rest.serve(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Told { status: parts.status.as_u16(), body, headers: parts.headers }
    }

    /// Sends a signed request. `query` is in the order of its names, and not encoded.
    async fn send(&self, key: &str, method: &str, path: &str, query: &str, body: &[u8]) -> Told {
        self.raw(method, &uri(key, method, path, query, body), &HeaderMap::new(), body).await
    }

    async fn get(&self, path: &str, query: &str) -> Told {
        self.send(KEY, "GET", path, query, b"").await
    }

    async fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Told {
        self.send(KEY, "POST", path, "", body.as_ref()).await
    }

    async fn trigger(&self, body: impl AsRef<[u8]>) -> Told {
        self.post("/apps/1/events", body).await
    }

    async fn batch(&self, body: impl AsRef<[u8]>) -> Told {
        self.post("/apps/1/batch_events", body).await
    }

    /// Takes what was published: `app#channel event data` each.
    fn published(&self) -> Vec<String> {
        let show = |message: NewMessage| {
            let event = message.event.map_or_else(String::new, |event| event.to_string());
            assert_eq!(message.kind, carillon_model::DataKind::Text);
            format!("{:?} {event} {}", message.channel, str::from_utf8(&message.data).unwrap())
        };
        std::mem::take(&mut *self.lists.published.lock().unwrap()).into_iter().map(show).collect()
    }
}

/// Returns the URI of a request that was signed now.
fn uri(key: &str, method: &str, path: &str, query: &str, body: &[u8]) -> String {
    let time = clock::since_1970().as_secs();
    let mut all = format!("auth_key={key}&auth_timestamp={time}&auth_version=1.0");
    if !body.is_empty() {
        let digest: String = Md5::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
        all += &format!("&body_md5={digest}");
    }
    if !query.is_empty() {
        all += &format!("&{query}");
    }
    let signature = sign(SECRET, format!("{method}\n{path}\n{all}").as_bytes());
    format!("{path}?{all}&auth_signature={signature}")
}

impl Told {
    /// Returns a header of the answer; empty when it is not there.
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Says that the answer is this JSON, to the key.
    fn is(&self, json: &str) {
        assert_eq!((self.status, self.header("content-type")), (200, "application/json"), "{self:?}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&self.body), value(json));
    }

    /// Says that the answer is a refusal in plain text that contains `text`.
    fn refuses(&self, status: u16, text: &str) {
        assert_eq!(self.header("content-type"), "text/plain; charset=utf-8");
        let lines = self.body.lines().count();
        assert!(
            self.status == status && self.body.contains(text) && self.body.ends_with('\n') && lines == 1,
            "should be {status} {text}: {self:?}"
        );
    }
}
