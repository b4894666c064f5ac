//! Webhooks as an application's server sees them: bytes on a socket. The work queue is the one in memory or a real NATS.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use carillon_backend::{Egress, Event, Network, Webhooks};
use carillon_broker::{MemoryQueue, Shard, WorkQueue};
use carillon_model::{App, AppKey, AppSpace, Apps, ChannelName, UnixMillis, Webhook, WebhookEvent};
use carillon_tasks::{Phase, Tasks, clock};
use carillon_tests::{
    conformance::{PATIENCE, channel},
    nats::{NatsServer, NatsVersion},
    nats_node::{Node, config},
};
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::Notify,
    task::JoinSet,
    time::{sleep, timeout},
};

const KEY: &str = "278d425bdf160c739803";
const SECRET: &str = "7ad3773142a6692b25b8";

/// What an application does with a request.
#[derive(Clone, Debug)]
enum Answer {
    /// Answers with these bytes, and keeps the connection.
    Bytes(String),
    /// Answers with these bytes, and closes.
    Last(String),
    /// Answers with these bytes and then without end.
    Endless(String),
    /// Never answers.
    Silence,
}

fn status(status: u16) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\nok"))
}

/// A request that came.
#[derive(Clone, Debug)]
struct Request {
    /// The connection that it came on, by the order in which they were made.
    connection: usize,
    at: Instant,
    /// The request line and the headers, as they were written.
    head: Vec<String>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }

    /// Returns the channels or users that are told of.
    fn subjects(&self) -> Vec<String> {
        let events = self.json();
        let events = events["events"].as_array().expect("there are events").clone();
        let subject =
            |event: &Value| event.get("user_id").unwrap_or(&event["channel"]).as_str().map(str::to_owned);
        events.iter().filter_map(subject).collect()
    }
}

/// An application's server. Ends when it is dropped.
struct Site {
    address: SocketAddr,
    requests: Arc<Requests>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Requests {
    came: Mutex<Vec<Request>>,
    changed: Notify,
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Site {
    /// `answer` is asked with the number of requests that came before.
    async fn start(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_to_read(move |before, _| answer(before)).await
    }

    /// `answer` is asked with the request, too.
    async fn start_to_read(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("there is a port");
        let address = listener.local_addr().expect("it has an address");
        let (requests, answer) = (Arc::new(Requests::default()), Arc::new(answer));
        let (mut tasks, all) = (JoinSet::new(), Arc::clone(&requests));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let number = connections.len();
                connections.spawn(serve(socket, number, Arc::clone(&all), Arc::clone(&answer)));
            }
        });
        Self { address, requests, _tasks: tasks }
    }

    async fn that_accepts() -> Self {
        Self::start(|_| status(200)).await
    }

    fn url(&self) -> String {
        format!("http://{}/hook?a=b%20c", self.address)
    }

    fn came(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    fn subjects(&self) -> Vec<String> {
        self.came().iter().flat_map(Request::subjects).collect()
    }

    /// The same without what came again: on a machine that stands still an answer may be too late.
    fn subjects_once(&self) -> Vec<String> {
        let mut came = self.came();
        came.dedup_by(|again, before| again.body == before.body);
        came.iter().flat_map(Request::subjects).collect()
    }

    async fn until(&self, what: &str, done: impl Fn(&[Request]) -> bool) {
        let waited = timeout(PATIENCE * 3, async {
            loop {
                let changed = self.requests.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if done(&self.requests.lock()) {
                    return;
                }
                changed.await;
            }
        });
        assert!(waited.await.is_ok(), "never came: {what}; {:#?}", self.came());
    }
}

async fn serve(
    mut socket: TcpStream,
    connection: usize,
    requests: Arc<Requests>,
    answer: Arc<impl Fn(usize, &Request) -> Answer + Send + Sync>,
) {
    let mut read = Vec::new();
    loop {
        let Some((head, body)) = next_request(&mut socket, &mut read).await else { return };
        let request = Request { connection, at: clock::now(), head, body };
        let answer = {
            let mut came = requests.lock();
            let answer = answer(came.len(), &request);
            came.push(request);
            answer
        };
        requests.changed.notify_waiters();
        let (bytes, more, close) = match answer {
            Answer::Bytes(bytes) => (bytes, false, false),
            Answer::Last(bytes) => (bytes, false, true),
            Answer::Endless(bytes) => (bytes, true, true),
            Answer::Silence => return std::future::pending().await,
        };
        if socket.write_all(bytes.as_bytes()).await.is_err() {
            return;
        }
        while more && socket.write_all(&[b'x'; 4096]).await.is_ok() {}
        if close {
            return;
        }
    }
}

async fn next_request(socket: &mut TcpStream, read: &mut Vec<u8>) -> Option<(Vec<String>, String)> {
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(read[..end].to_vec()).expect("a head is text");
            let head: Vec<_> = head.split("\r\n").map(str::to_owned).collect();
            let length = head.iter().find_map(|line| line.strip_prefix("Content-Length: "));
            let length: usize = length.expect("a body has a length").parse().expect("a length is a number");
            let all = end + 4 + length;
            if read.len() >= all {
                let body = String::from_utf8(read[end + 4..all].to_vec()).expect("a body is text");
                read.drain(..all);
                return Some((head, body));
            }
        }
        if socket.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}

/// What one node does. Its tasks end when it is dropped.
struct Teller {
    webhooks: Arc<Webhooks>,
    tasks: Tasks,
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.tasks.enter(Phase::Cut);
    }
}

impl Teller {
    fn start(apps: &Apps, queue: Arc<dyn WorkQueue>) -> Self {
        let tasks = Tasks::new(Handle::current());
        let home = Network { address: IpAddr::V4(Ipv4Addr::LOCALHOST), bits: 32 };
        let webhooks = Webhooks::start(apps, &queue, Egress::new(vec![home]), &tasks);
        Self { webhooks: webhooks.expect("good webhooks"), tasks }
    }

    fn in_memory(apps: &Apps) -> Self {
        Self::start(apps, Arc::new(MemoryQueue::default()))
    }

    fn tell(&self, channel: &ChannelName, event: &Event) {
        self.webhooks.tell(channel, event, None, UnixMillis::new(now()));
    }

    /// Tells that so many users came, one after the other.
    fn come(&self, channel: &ChannelName, users: std::ops::Range<u32>) {
        for user in users {
            self.tell(channel, &came(user));
        }
    }
}

fn now() -> u64 {
    u64::try_from(clock::since_1970().as_millis()).expect("it is not that late")
}

fn came(user: u32) -> Event {
    Event::MemberAdded { user_id: user.to_string() }
}

fn users(users: std::ops::Range<u32>) -> Vec<String> {
    users.map(|user| user.to_string()).collect()
}

fn hook(url: String, events: &[WebhookEvent], batch: bool) -> Webhook {
    Webhook { url, events: events.to_vec(), batch }
}

fn app(id: &str, space: AppSpace, webhooks: Vec<Webhook>) -> App {
    let key = |key: &str, secret: &str| AppKey { key: key.to_owned(), secret: secret.to_owned() };
    // The first signs.
    let keys = vec![key(KEY, SECRET), key("another", "another secret")];
    App { keys, webhooks, ..App::bare(id, space) }
}

/// One application that is told everything.
fn apps(url: String, batch: bool) -> Apps {
    Apps::new(vec![app("shop", AppSpace::default(), vec![hook(url, &WebhookEvent::ALL, batch)])])
}

fn signature(body: &str) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length is a key");
    mac.update(body.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_request_is_written_as_the_protocol_has_it() {
    let site = Site::that_accepts().await;
    let teller = Teller::in_memory(&apps(site.url(), false));
    let before = now();
    let event = Event::Client {
        event: "client-typing".to_owned(),
        data: "{\"a\": \"\u{fc}\"}".to_owned(),
        socket_id: "123.456".to_owned(),
        user_id: Some("7".to_owned()),
    };
    teller.tell(&channel("presence-room"), &event);
    site.until("a request", |came| came.len() == 1).await;
    let request = &site.came()[0];
    let mut head = request.head.clone();
    assert_eq!(head.remove(0), "POST /hook?a=b%20c HTTP/1.1");
    head.sort();
    let length = format!("Content-Length: {}", request.body.len());
    let signed = format!("X-Pusher-Signature: {}", signature(&request.body));
    assert_eq!(
        head,
        [
            &length,
            "Content-Type: application/json",
            &format!("Host: {}", site.address),
            &format!("User-Agent: carillon/{}", env!("CARGO_PKG_VERSION")),
            &format!("X-Pusher-Key: {KEY}"),
            &signed,
        ]
    );
    let time = request.json()["time_ms"].as_u64().expect("there is a time");
    assert!((before..=now()).contains(&time));
    let expected = format!(
        "{{\"time_ms\":{time},\"events\":[{{\"name\":\"client_event\",\"channel\":\"presence-room\",\
         \"event\":\"client-typing\",\"data\":\"{{\\\"a\\\": \\\"\u{fc}\\\"}}\",\"socket_id\":\"123.456\",\
         \"user_id\":\"7\"}}]}}"
    );
    assert_eq!(request.body, expected);
}

#[tokio::test]
async fn each_webhook_is_told_what_it_asks_for_and_each_application_of_its_own_channels() {
    let (presence, existence, other) =
        (Site::that_accepts().await, Site::that_accepts().await, Site::that_accepts().await);
    let space = AppSpace::new("other").expect("a good id");
    let first = vec![
        hook(presence.url(), &[WebhookEvent::Presence], false),
        hook(existence.url(), &[WebhookEvent::ChannelExistence], false),
        // The same endpoint, which is told of each event once all the same.
        hook(existence.url(), &[WebhookEvent::ChannelExistence, WebhookEvent::CacheChannels], false),
    ];
    let second = vec![hook(other.url(), &WebhookEvent::ALL, false)];
    let apps = Apps::new(vec![
        app("shop", AppSpace::default(), first),
        app("other", space.clone(), second),
        App::bare("silent", AppSpace::new("silent").expect("a good id")),
    ]);
    let teller = Teller::in_memory(&apps);
    let a = channel("presence-cache-a");
    let reserved = channel("$user:7");
    let silent = a.within(&AppSpace::new("silent").expect("a good id"));
    for channel in [&a, &reserved, &silent, &a.within(&space)] {
        teller.tell(channel, &Event::Occupied);
        teller.tell(channel, &came(7));
        teller.tell(channel, &Event::CacheMiss);
        teller.tell(channel, &Event::CacheMiss);
        teller.tell(channel, &Event::SubscriptionCount(1));
        teller.tell(channel, &Event::MemberRemoved { user_id: "7".to_owned() });
        teller.tell(channel, &Event::Vacated);
    }
    let all = [
        "channel_occupied",
        "member_added",
        "cache_miss",
        "subscription_count",
        "member_removed",
        "channel_vacated",
    ];
    for (site, names) in [
        (&presence, &["member_added", "member_removed"][..]),
        (&existence, &["channel_occupied", "cache_miss", "channel_vacated"]),
        (&other, &all),
    ] {
        site.until("all of it", |came| came.len() >= names.len()).await;
        let told: Vec<_> = site.came().iter().map(|request| request.json()["events"][0].clone()).collect();
        let told_names: Vec<_> = told.iter().filter_map(|event| event["name"].as_str()).collect();
        assert_eq!(told_names, names);
        assert!(told.iter().all(|event| event["channel"] == "presence-cache-a"), "{told:?}");
    }
}

#[tokio::test]
async fn a_channel_is_told_of_in_order_one_request_after_the_other_on_one_connection() {
    let site = Site::that_accepts().await;
    let teller = Teller::in_memory(&apps(site.url(), false));
    let a = channel("presence-a");
    teller.come(&a, 0..200);
    site.until("all of it", |came| came.iter().any(|request| request.subjects() == ["199"])).await;
    assert_eq!(site.subjects_once(), users(0..200));
    let connections: std::collections::BTreeSet<_> = site.came().iter().map(|came| came.connection).collect();
    assert!(connections.len() < 20, "a connection is used again: {}", connections.len());
}

#[tokio::test]
async fn what_failed_is_sent_again_with_the_same_bytes_before_what_follows() {
    let redirect = "HTTP/1.1 307 x\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".to_owned();
    let answers = [
        status(500),
        Answer::Bytes(redirect),
        Answer::Last(String::new()),
        Answer::Last("no HTTP\r\n\r\n".to_owned()),
    ];
    let failures = answers.len();
    let answer = move |n: usize| answers.get(n).cloned().unwrap_or_else(|| status(204));
    let site = Site::start(answer).await;
    let teller = Teller::in_memory(&apps(site.url(), false));
    let a = channel("presence-a");
    teller.come(&a, 1..4);
    site.until("all of it", |came| came.len() >= failures + 3).await;
    let came = site.came();
    let tried: Vec<_> = std::iter::repeat_n("1", failures + 1).chain(["2", "3"]).collect();
    assert_eq!(site.subjects(), tried);
    for again in &came[1..=failures] {
        assert_eq!((&again.head, &again.body), (&came[0].head, &came[0].body));
        assert_eq!(again.header("X-Pusher-Signature"), Some(signature(&again.body).as_str()));
    }
    // 1, 2, 4 and 8 s, a quarter less at most.
    for (n, seconds) in [1.0, 2.0, 4.0, 8.0].into_iter().enumerate() {
        let pause = came[n + 1].at.duration_since(came[n].at);
        assert!(pause >= Duration::from_secs_f64(seconds * 0.75), "attempt {n}: {pause:?}");
    }
}

#[tokio::test]
async fn an_event_that_is_five_minutes_old_is_given_up_and_what_follows_is_told() {
    let site = Site::start(|n| if n == 0 { status(500) } else { status(200) }).await;
    let teller = Teller::in_memory(&apps(site.url(), false));
    let a = channel("presence-a");
    let five_minutes_ago = UnixMillis::new(now() - 5 * 60 * 1000);
    teller.webhooks.tell(&a, &came(0), None, five_minutes_ago);
    teller.come(&a, 1..3);
    site.until("what follows", |came| came.iter().any(|request| request.subjects() == ["2"])).await;
    assert_eq!(site.subjects(), ["0", "1", "2"]);
}

#[tokio::test]
async fn an_endpoint_that_fails_holds_up_nobody_else() {
    let (dead, well) = (Site::start(|_| Answer::Silence).await, Site::that_accepts().await);
    let hooks = [&dead, &well].map(|site| hook(site.url(), &WebhookEvent::ALL, false)).to_vec();
    let teller = Teller::in_memory(&Apps::new(vec![app("shop", AppSpace::default(), hooks)]));
    teller.come(&channel("presence-a"), 0..20);
    well.until("all of it", |came| came.iter().any(|request| request.subjects() == ["19"])).await;
    assert_eq!(well.subjects_once(), users(0..20));
    // The first is tried again after 5 s without an answer.
    dead.until("another attempt", |came| came.len() >= 2).await;
    let came = dead.came();
    assert_eq!(came[0].body, came[1].body);
    assert!(came[1].at.duration_since(came[0].at) >= Duration::from_secs(5));
}

#[tokio::test]
async fn answers_without_end_are_cut_off() {
    let length = "HTTP/1.1 200 x\r\nContent-Length: 1000000000\r\n\r\n".to_owned();
    let until_closed = "HTTP/1.1 200 x\r\n\r\n".to_owned();
    let header = "HTTP/1.1 200 x\r\nX-Long: ".to_owned();
    let answers = [Answer::Endless(length), Answer::Endless(until_closed), Answer::Endless(header)];
    let answer = move |n: usize| answers.get(n).cloned().unwrap_or_else(|| status(200));
    let site = Site::start(answer).await;
    let teller = Teller::in_memory(&apps(site.url(), false));
    teller.come(&channel("presence-a"), 0..4);
    site.until("all of it", |came| came.len() >= 5).await;
    // A status is an answer, whatever follows it; a header that never ends is none.
    assert_eq!(site.subjects(), ["0", "1", "2", "2", "3"]);
}

#[tokio::test]
async fn several_events_go_into_one_request_where_that_is_asked_for() {
    let site = Site::start(|n| if n == 0 { status(503) } else { status(200) }).await;
    let teller = Teller::in_memory(&apps(site.url(), true));
    let a = channel("presence-a");
    teller.come(&a, 0..120);
    site.until("the last", |came| came.iter().any(|request| request.subjects().contains(&"119".to_owned())))
        .await;
    let came = site.came();
    assert_eq!((&came[0].head, &came[0].body), (&came[1].head, &came[1].body));
    assert_eq!(site.subjects_once(), users(0..120));
    let largest = came.iter().map(|request| request.subjects().len()).max();
    assert_eq!(largest, Some(50));
    for request in &came {
        assert_eq!(request.header("X-Pusher-Signature"), Some(signature(&request.body).as_str()));
    }
}

#[tokio::test]
async fn an_address_inside_the_network_is_not_called_unless_it_is_allowed() {
    let site = Site::that_accepts().await;
    let port = site.address.port();
    let tasks = Tasks::new(Handle::current());
    let queue: Arc<dyn WorkQueue> = Arc::new(MemoryQueue::default());
    let urls = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0"];
    let hooks = urls.map(|host| hook(format!("http://{host}:{port}/"), &WebhookEvent::ALL, false)).to_vec();
    let apps = Apps::new(vec![app("shop", AppSpace::default(), hooks)]);
    let webhooks = Webhooks::start(&apps, &queue, Egress::default(), &tasks).expect("good webhooks");
    webhooks.tell(&channel("a"), &Event::Occupied, None, UnixMillis::new(now()));
    // Long enough for each to be tried more than once.
    sleep(Duration::from_secs(3)).await;
    assert!(site.came().is_empty(), "{:?}", site.came());
    tasks.enter(Phase::Cut);
    let allowed = Teller::in_memory(&apps);
    allowed.tell(&channel("a"), &Event::Occupied);
    // All but 0.0.0.0 lead there.
    site.until("those that are allowed", |came| came.len() >= 3).await;
}

/// A node on NATS.
async fn node(server: &NatsServer) -> Node {
    let node = Node::start(config(server, vec![])).expect("a good configuration");
    node.connected().await;
    node
}

/// Returns a channel of each shard.
fn one_of_each_shard() -> Vec<ChannelName> {
    let of = |shard| {
        let names = (0..).map(|n: u32| channel(&format!("presence-{n}")));
        names.into_iter().find(|name| Shard::of(name) == shard).expect("there are enough names")
    };
    Shard::all().map(of).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_told_twice_when_a_node_dies_but_what_it_had_in_hand() {
    const EACH: u32 = 40;
    let server = NatsServer::start(NatsVersion::Newest);
    let (a, b) = (node(&server).await, node(&server).await);
    // Nodes are told apart by the key with which they sign. From some time on the first one's requests are not answered.
    let is_first = |request: &Request| request.header("X-Pusher-Key") == Some(KEY);
    let site =
        Site::start_to_read(
            move |before, request| {
                if before >= 100 && is_first(request) { Answer::Silence } else { status(200) }
            },
        );
    let site = site.await;
    let apps = apps(site.url(), false);
    let mut rotated = App::clone(apps.first());
    rotated.keys.reverse();
    let first = Teller::start(&apps, a.broker.clone());
    let channels = one_of_each_shard();
    for channel in &channels {
        first.come(channel, 0..1);
    }
    site.until("the first of each lane", |came| came.len() >= channels.len()).await;
    let second = Teller::start(&Apps::new(vec![rotated]), b.broker.clone());
    for channel in &channels {
        second.come(channel, 1..EACH);
    }
    site.until("what the first has in hand", |came| came.iter().skip(100).any(is_first)).await;
    drop((first, a));
    let of = |came: &[Request], channel: &ChannelName| {
        let of = |request: &&Request| request.json()["events"][0]["channel"] == channel.as_str();
        came.iter().filter(of).flat_map(Request::subjects).collect::<Vec<_>>()
    };
    let last = (EACH - 1).to_string();
    site.until("all of it", |came| channels.iter().all(|channel| of(came, channel).contains(&last))).await;
    let (came, mut again) = (site.came(), 0);
    for channel in &channels {
        let mut told = of(&came, channel);
        let count = told.len();
        told.dedup();
        assert_eq!(told, users(0..EACH), "{channel}");
        again += count - told.len();
    }
    // At most one of each lane, and as much again on a machine that stands still.
    assert!((1..=2 * channels.len()).contains(&again), "{again} came again, with {} lanes", channels.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_nodes_say_under_one_key_is_told_once() {
    let server = NatsServer::start(NatsVersion::Oldest);
    let (a, b) = (node(&server).await, node(&server).await);
    let site = Site::that_accepts().await;
    let apps = apps(site.url(), false);
    let tellers = [&a, &b].map(|node| Teller::start(&apps, node.broker.clone()));
    let (c, second) = (channel("presence-c"), now() / 1000 * 1000);
    for teller in &tellers {
        for user in 0..5 {
            let key = format!("a key of any length and of any character \u{e9} {user} {}", "x".repeat(500));
            teller.webhooks.tell(&c, &came(user), Some(&key), UnixMillis::new(now()));
        }
        // Both find it empty in the same second.
        teller.webhooks.tell(&c, &Event::CacheMiss, None, UnixMillis::new(second));
        site.until("what was said", |came| came.iter().any(|request| request.subjects() == ["presence-c"]))
            .await;
    }
    tellers[1].tell(&c, &came(99));
    site.until("the last", |came| came.iter().any(|request| request.subjects() == ["99"])).await;
    assert_eq!(site.subjects_once(), ["0", "1", "2", "3", "4", "presence-c", "99"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_wait_while_nats_is_away_and_keep_their_order() {
    let mut server = NatsServer::start(NatsVersion::Newest);
    let node = node(&server).await;
    let site = Site::that_accepts().await;
    let teller = Teller::start(&apps(site.url(), false), node.broker.clone());
    let a = channel("presence-a");
    teller.come(&a, 0..10);
    site.until("the first", |came| came.len() >= 10).await;
    server.kill();
    node.degraded().await;
    teller.come(&a, 10..20);
    server.restart();
    teller.come(&a, 20..30);
    site.until("the last", |came| came.iter().any(|request| request.subjects() == ["29"])).await;
    assert_eq!(site.subjects_once(), users(0..30));
}
