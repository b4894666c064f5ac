//! A publisher: it publishes by HTTP or gRPC, tries again under the same id while it does not know, and keeps the books.
//!
//! **Lives here:** attempts, retries, outcomes.
//! **Called by:** `chaos` starts them.
//! **Must not know:** subscribers.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_api::proto::{
    PublishRequest, publish_request::Data, publish_service_client::PublishServiceClient,
};
use carillon_model::Position;
use carillon_tasks::clock;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, sleep_until, timeout},
};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::{
    checker::{Name, Outcome, Published},
    faults::dice::Dice,
};

use super::{content, world::World};

/// How long an answer may take: more than the deadline of the API.
const ANSWER: Duration = Duration::from_secs(2);

/// For how long a publication is tried again; then its outcome is unknown. The nodes remember ids for a minute.
const TRIES: Duration = Duration::from_secs(25);

/// What a publisher waits before it tries again, at most, when it is not told.
const PAUSE: Duration = Duration::from_millis(300);

/// Once in so many times the data is larger than is allowed, and must be refused.
const TOO_LARGE: u64 = 100;

/// Bytes of data: what is allowed, and most of what is sent.
pub(super) const DATA_MAX: usize = 4096;
const DATA_USUAL: u64 = 300;

/// What an attempt came to.
enum Answer {
    Stored(Position),
    Refused,
    /// Try again, after a pause.
    Unknown(String, Option<Duration>),
}

pub(super) struct Publisher {
    world: Arc<World>,
    number: u16,
    /// Whose numbers rise with each publication, by channel.
    counters: Vec<u32>,
    dice: Dice,
    /// By node and by way: gRPC channels, for who speaks it.
    grpc: Option<Vec<[PublishServiceClient<Channel>; 2]>>,
    node: usize,
    pub(super) books: Vec<Published>,
    /// How long each publication took until its outcome was known.
    pub(super) took: Vec<Duration>,
}

impl Publisher {
    pub(super) fn new(world: &Arc<World>, number: u16) -> Self {
        let lazy = |address: SocketAddr| {
            let endpoint =
                Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URL");
            PublishServiceClient::new(endpoint.connect_timeout(ANSWER).timeout(ANSWER).connect_lazy())
        };
        let grpc = (number % 2 == 1).then(|| world.nodes.iter().map(|node| node.api.map(lazy)).collect());
        Self {
            world: Arc::clone(world),
            number,
            counters: vec![0; world.channels.len()],
            dice: Dice::of(world.seed, u64::from(number)),
            grpc,
            node: usize::from(number) % world.nodes.len(),
            books: Vec::new(),
            took: Vec::new(),
        }
    }

    /// Publishes every `interval`, until it is quiet.
    pub(super) async fn work(&mut self, interval: Duration) {
        let mut quiet = self.world.quiet.subscribe();
        let mut next = clock::now() + self.dice.time(Duration::ZERO, interval);
        let channels = u16::try_from(self.world.channels.len()).unwrap_or(u16::MAX);
        loop {
            tokio::select! {
                () = sleep_until(next.into()) => {}
                _over = quiet.wait_for(|quiet| *quiet) => return,
            }
            // Who was held up does not hurry afterwards.
            next = clock::now().max(next) + interval;
            let channel = u16::try_from(self.dice.below(u64::from(channels))).unwrap_or(0);
            let large = self.dice.once_in(TOO_LARGE);
            let more =
                if large { DATA_MAX } else { self.dice.place(usize::try_from(DATA_USUAL).unwrap_or(0)) };
            let _outcome = self.publish(channel, more, TRIES).await;
        }
    }

    /// Publishes one message, and returns where it is stored, if it is known to be.
    pub(super) async fn publish(&mut self, channel: u16, more: usize, tries: Duration) -> Option<Position> {
        let counter = self.counters.get_mut(usize::from(channel))?;
        *counter += 1;
        let what = Name { channel, publisher: self.number, counter: *counter };
        let data = content::data(&self.world, what, more);
        let content = content::hash(data.as_bytes());
        let began = clock::now();
        let outcome = self.insist(what, data, began + tries).await;
        self.took.push(clock::now() - began);
        self.books.push(Published { what, content, outcome });
        match outcome {
            Outcome::Stored(position) => Some(position),
            Outcome::Refused | Outcome::Unknown => None,
        }
    }

    async fn insist(&mut self, what: Name, data: String, deadline: Instant) -> Outcome {
        let id = format!("{}-{}-{}", what.channel, what.publisher, what.counter);
        loop {
            let answer = match &self.grpc {
                Some(_) => self.by_grpc(what.channel, &id, data.clone()).await,
                None => self.by_http(what.channel, &id, &data).await,
            };
            let (why, told) = match answer {
                Answer::Stored(position) => return Outcome::Stored(position),
                Answer::Refused => return Outcome::Refused,
                Answer::Unknown(why, told) => (why, told),
            };
            self.world.count(|counted| *counted.refusals.entry(why).or_default() += 1);
            if clock::now() > deadline {
                return Outcome::Unknown;
            }
            self.node = (self.node + 1) % self.world.nodes.len();
            sleep(told.unwrap_or(PAUSE).min(PAUSE) / 2 + self.dice.time(Duration::ZERO, PAUSE / 2)).await;
        }
    }

    async fn by_grpc(&mut self, channel: u16, id: &str, data: String) -> Answer {
        let unknown = |why: String, told| Answer::Unknown(format!("publish by grpc: {why}"), told);
        let way = usize::from(self.dice.once_in(2));
        let client = self.grpc.as_ref().and_then(|nodes| nodes.get(self.node)?.get(way).cloned());
        let Some(mut client) = client else { return unknown("no client".to_owned(), None) };
        let mut request = Request::new(PublishRequest {
            channel: self.world.name(channel).to_owned(),
            data: Some(Data::Json(data)),
            id: id.to_owned(),
            ..PublishRequest::default()
        });
        let bearer = format!("Bearer {}", self.world.key).parse().expect("a key is ASCII");
        request.metadata_mut().insert("authorization", bearer);
        match client.publish(request).await {
            Ok(answer) => {
                let results = answer.into_inner().results;
                let position = results.first().and_then(|result| result.id.parse().ok());
                position.map_or_else(|| unknown("no id".to_owned(), None), Answer::Stored)
            }
            Err(status)
                if status.metadata().get("carillon-error").is_some_and(|name| name == "too_large") =>
            {
                Answer::Refused
            }
            Err(status) => {
                let told = status.metadata().get("carillon-retry-after-ms");
                let told = told.and_then(|value| value.to_str().ok()?.parse().ok());
                unknown(format!("{:?}", status.code()), told.map(Duration::from_millis))
            }
        }
    }

    async fn by_http(&mut self, channel: u16, id: &str, data: &str) -> Answer {
        let unknown = |why: &str, told| Answer::Unknown(format!("publish by http: {why}"), told);
        let way = usize::from(self.dice.once_in(2));
        let address = self.world.nodes.get(self.node).map(|node| node.api[way]);
        let Some(address) = address else { return unknown("no address", None) };
        let data: &serde_json::value::RawValue = serde_json::from_str(data).expect("it is JSON");
        let message = json!({"channel": self.world.name(channel), "id": id}).to_string();
        // The data goes verbatim, which a JSON value would not keep.
        let body = format!("{},\"data\":{data}}}", message.trim_end_matches('}'));
        let request = format!(
            "POST /v1/publish HTTP/1.1\r\nHost: test\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.world.key,
            body.len()
        );
        let exchange = async {
            let mut socket = TcpStream::connect(address).await.ok()?;
            let _refused_early = socket.write_all(request.as_bytes()).await.is_err();
            let mut bytes = Vec::new();
            let _reset_after_the_answer = socket.read_to_end(&mut bytes).await.is_err();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let Ok(Some(text)) = timeout(ANSWER, exchange).await else { return unknown("no answer", None) };
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return unknown("half an answer", None) };
        let status = head.split(' ').nth(1).unwrap_or("");
        let answer: Value = serde_json::from_str(body).unwrap_or_default();
        match status.parse::<u16>() {
            Ok(200) => {
                let id = answer.pointer("/results/0/id").and_then(Value::as_str);
                id.and_then(|id| id.parse().ok()).map_or_else(|| unknown("no id", None), Answer::Stored)
            }
            Ok(400..=407 | 409..=428) => Answer::Refused,
            _ => unknown(status, answer["retry_after_ms"].as_u64().map(Duration::from_millis)),
        }
    }
}
