//! The fault kit does what it says, on connections and servers of its own.
#![expect(clippy::disallowed_methods, reason = "a test's server runs beside it")]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use carillon_tasks::clock;
use carillon_tests::{
    faults::{
        cable::{Cable, Door, End, Flow, Way, Weather},
        dice::Dice,
        streams::{Stream, Streams},
    },
    gateway::PATIENCE,
    nats::{NatsServer, NatsVersion},
    raw::eventually,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

/// How long nothing must come before it is believed that nothing comes. A slow machine makes this test milder.
const NOTHING: Duration = Duration::from_millis(300);

/// Sends back what it gets.
struct Echo {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = socket.split();
                    let _reset = tokio::io::copy(&mut reads, &mut writes).await.is_err();
                });
            }
        });
        Self { address, task }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An echo, a cable to it, and a connection along it.
async fn laid() -> (Echo, Cable, TcpStream) {
    let echo = Echo::start().await;
    let cable = Cable::seeded(echo.address, 7).await;
    let socket = connect(&cable).await;
    (echo, cable, socket)
}

async fn connect(cable: &Cable) -> TcpStream {
    timeout(PATIENCE, TcpStream::connect(cable.address())).await.expect("in time").expect("it listens")
}

async fn read(socket: &mut TcpStream, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    timeout(PATIENCE, socket.read_exact(&mut bytes)).await.expect("bytes come in time").map(|_| bytes)
}

async fn answers(socket: &mut TcpStream, text: &[u8]) {
    socket.write_all(text).await.expect("a connection");
    assert_eq!(read(socket, text.len()).await.expect("an answer"), text);
}

/// Waits for the end of a connection: nothing but an end, or a reset.
async fn ended(socket: &mut TcpStream) -> End {
    let mut byte = [0; 1];
    match timeout(PATIENCE, socket.read(&mut byte)).await.expect("it ends in time") {
        Ok(0) => End::Fin,
        Ok(_) => panic!("{byte:?} came instead of the end"),
        Err(fault) => {
            assert_eq!(fault.kind(), io::ErrorKind::ConnectionReset);
            End::Rst
        }
    }
}

async fn hears_nothing(socket: &mut TcpStream) {
    let mut byte = [0; 1];
    let heard = timeout(NOTHING, socket.read(&mut byte)).await;
    assert!(heard.is_err(), "{heard:?} {byte:?}");
}

fn noise(length: usize) -> Vec<u8> {
    let mut dice = Dice::new(3);
    (0..length).map(|_| dice.draw().to_le_bytes()[0]).collect()
}

/// Sends much and reads it back at the same time.
async fn much_comes_back(socket: &mut TcpStream, length: usize) {
    let sent = noise(length);
    let (mut reads, mut writes) = socket.split();
    let mut came = vec![0; length];
    let both = async { tokio::try_join!(writes.write_all(&sent), reads.read_exact(&mut came)) };
    timeout(PATIENCE, both).await.expect("in time").expect("a connection");
    assert!(came == sent, "not the same bytes");
}

#[tokio::test]
async fn fine_weather_passes_everything_and_ends_as_the_ends_do() {
    let (_echo, _cable, mut socket) = laid().await;
    much_comes_back(&mut socket, 2_000_000).await;
    socket.shutdown().await.unwrap();
    assert_eq!(ended(&mut socket).await, End::Fin);
}

#[tokio::test]
async fn a_snap_ends_what_is_open_and_lets_new_ones_in() {
    for end in [End::Fin, End::Rst] {
        let (_echo, cable, mut socket) = laid().await;
        answers(&mut socket, b"before").await;
        cable.snap(end);
        assert_eq!(ended(&mut socket).await, end);
        answers(&mut connect(&cable).await, b"after").await;
    }
}

#[tokio::test]
async fn a_cut_ends_what_is_open_and_what_comes_until_it_is_mended() {
    for end in [End::Fin, End::Rst] {
        let (_echo, cable, mut socket) = laid().await;
        answers(&mut socket, b"before").await;
        cable.cut_with(end);
        assert_eq!(ended(&mut socket).await, end);
        assert_eq!(ended(&mut connect(&cable).await).await, end);
        cable.mend();
        answers(&mut connect(&cable).await, b"after").await;
    }
}

#[tokio::test]
async fn behind_a_half_open_cable_nobody_is_there_until_it_is_reset() {
    let (_echo, cable, mut old) = laid().await;
    answers(&mut old, b"before").await;
    cable.set(Weather::half_open());
    let mut new = connect(&cable).await;
    for socket in [&mut old, &mut new] {
        socket.write_all(b"hello").await.unwrap();
        hears_nothing(socket).await;
    }
    cable.mend();
    for mut socket in [old, new] {
        assert_eq!(ended(&mut socket).await, End::Rst);
    }
    answers(&mut connect(&cable).await, b"after").await;
}

#[tokio::test]
async fn what_waits_one_way_comes_later_and_in_order() {
    let waits = Way { flow: Flow::Waits, ..Way::default() };
    for weather in
        [Weather { up: waits, ..Weather::default() }, Weather { down: waits, ..Weather::default() }]
    {
        let (_echo, cable, mut socket) = laid().await;
        cable.set(weather);
        // More than the cable holds, so that the rest waits with the sender.
        let sent = noise(3_000_000);
        let (mut reads, mut writes) = socket.split();
        let mut came = vec![0; sent.len()];
        let mend = async {
            tokio::time::sleep(NOTHING).await;
            cable.mend();
            io::Result::Ok(())
        };
        let all = async { tokio::try_join!(writes.write_all(&sent), reads.read_exact(&mut came), mend) };
        let began = clock::now();
        timeout(PATIENCE, all).await.expect("in time").expect("a connection");
        assert!(clock::now() - began >= NOTHING);
        assert!(came == sent, "not the same bytes");
    }
}

#[tokio::test]
async fn what_was_swallowed_never_comes_and_the_connection_is_reset() {
    let (_echo, cable, mut socket) = laid().await;
    answers(&mut socket, b"before").await;
    cable.set(Weather { up: Way { flow: Flow::Swallows, ..Way::default() }, ..Weather::default() });
    socket.write_all(b"lost").await.unwrap();
    hears_nothing(&mut socket).await;
    cable.mend();
    assert_eq!(ended(&mut socket).await, End::Rst);
}

#[tokio::test]
async fn delayed_bytes_come_later_and_in_order() {
    const DELAY: Duration = Duration::from_millis(40);
    let (_echo, cable, mut socket) = laid().await;
    cable.set(Weather::both(Way { delay: DELAY, jitter: DELAY, ..Way::default() }));
    let began = clock::now();
    answers(&mut socket, b"there and back").await;
    assert!(clock::now() - began >= 2 * DELAY);
    much_comes_back(&mut socket, 500_000).await;
}

#[tokio::test]
async fn sliced_bytes_are_the_same_bytes() {
    let (_echo, cable, mut socket) = laid().await;
    cable.set(Weather::both(Way { slice_bytes: 13, ..Way::default() }));
    much_comes_back(&mut socket, 20_000).await;
}

#[tokio::test]
async fn throttled_bytes_take_their_time() {
    let (_echo, cable, mut socket) = laid().await;
    cable.set(Weather { down: Way { bytes_per_second: 100_000, ..Way::default() }, ..Weather::default() });
    let began = clock::now();
    much_comes_back(&mut socket, 50_000).await;
    assert!(clock::now() - began >= Duration::from_millis(400), "the last twentieth is free");
}

#[tokio::test]
async fn weather_changes_under_an_open_connection() {
    let (_echo, cable, mut socket) = laid().await;
    for way in [
        Way { slice_bytes: 3, ..Way::default() },
        Way { delay: Duration::from_millis(5), ..Way::default() },
        Way { bytes_per_second: 1_000_000, ..Way::default() },
        Way::default(),
    ] {
        cable.set(Weather::both(way));
        much_comes_back(&mut socket, 10_000).await;
    }
    cable.set(Weather { door: Door::Shut(End::Rst), ..Weather::default() });
    answers(&mut socket, b"an open connection does not care for the door").await;
}

#[test]
fn dice_repeat_themselves() {
    let draw = |mut dice: Dice| (0..100).map(|_| dice.below(1000)).collect::<Vec<_>>();
    assert_eq!(draw(Dice::of(1, 2)), draw(Dice::of(1, 2)));
    assert_ne!(draw(Dice::of(1, 2)), draw(Dice::of(1, 3)));
    assert_ne!(draw(Dice::of(1, 2)), draw(Dice::of(2, 2)));
    let mut dice = Dice::new(1);
    let (from, to) = (Duration::from_millis(5), Duration::from_millis(9));
    let times: std::collections::BTreeSet<_> = (0..200).map(|_| dice.time(from, to)).collect();
    assert_eq!((times.len(), times.first(), times.last()), (5, Some(&from), Some(&to)));
}

/// Waits until the stream is as it should be.
async fn stream_is(streams: &Streams, what: &str, is: impl Fn(Option<&Stream>) -> bool) -> Option<Stream> {
    let look = || async {
        let stream = streams.list("crumbs").await.ok()?.pop();
        is(stream.as_ref()).then_some(stream)
    };
    eventually(what, look).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_and_servers_of_a_cluster_can_be_disturbed_and_recover() {
    let grace = "lame_duck_duration: \"30s\"\nlame_duck_grace_period: \"100ms\"";
    let mut servers = NatsServer::cluster_with(NatsVersion::Newest, "no_advertise: true", grace);
    let urls: Vec<_> = servers.iter().map(NatsServer::url).collect();
    let streams = Streams::on(&urls).await;
    let client = async_nats::connect(&urls[0]).await.unwrap();
    let config = r#"{"name":"crumbs","subjects":["crumbs.*"],"num_replicas":3}"#;
    let create = || async {
        let made = client.request("$JS.API.STREAM.CREATE.crumbs", config.into()).await.ok()?;
        (!String::from_utf8_lossy(&made.payload).contains("\"error\"")).then_some(())
    };
    let whole = |stream: Option<&Stream>| stream.is_some_and(|s| s.leader.is_some() && s.current == 2);
    eventually("a stream", create).await;
    let before = stream_is(&streams, "three copies", whole).await.unwrap();

    let _sent = client.request("crumbs.1", "x".into()).await.unwrap();
    streams.step_down("crumbs").await.unwrap();
    let moved = |stream: Option<&Stream>| whole(stream) && stream.is_some_and(|s| s.leader != before.leader);
    let after = stream_is(&streams, "another leader", moved).await.unwrap();
    assert_eq!(after.messages, 1);

    // The one that the client is on stays.
    let retired = 1 + usize::from(after.leader.as_deref() == Some("n3"));
    tokio::task::block_in_place(|| servers[retired].retire());
    let short = |stream: Option<&Stream>| stream.is_some_and(|s| s.leader.is_some() && s.current < 2);
    let _left = stream_is(&streams, "two copies", short).await;
    tokio::task::block_in_place(|| servers[retired].restart());
    let _back = stream_is(&streams, "three copies", whole).await;

    streams.purge("crumbs").await.unwrap();
    let _empty = stream_is(&streams, "nothing", |stream| stream.is_some_and(|s| s.messages == 0)).await;
    streams.delete("crumbs").await.unwrap();
    let _gone = stream_is(&streams, "no stream", |stream| stream.is_none()).await;
    assert!(streams.delete("crumbs").await.is_err_and(|why| why.contains("not found")));
}
