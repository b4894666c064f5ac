//! The HTTP fallback of pusher-js on two nodes: every request may come to either. Nothing is lost or told twice between
//! them, and what cannot be brought ends the session. (PUSHER §4)

use carillon_tests::{
    gateway::Gateway,
    listener::Listener,
    pusher::{Cluster, FIRST, Line, Socket, Xhr, cluster, lines, socket_id},
    raw::eventually,
};
use serde_json::{Value, json};

const SUBSCRIBED: &str = "pusher_internal:subscription_succeeded";

/// Polls until so many frames have come: at one node, then at the other.
async fn poll_for(session: &Xhr, nodes: &[Gateway], count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    let mut turns = nodes.iter().rev().cycle();
    while all.len() < count {
        let node = turns.next().expect("it goes round");
        for line in session.poll(node.public).await {
            match line {
                Line::Frames(frames) => all.extend(frames),
                Line::Alive | Line::Open | Line::Closed(..) => panic!("{line:?} after {all:?}"),
            }
        }
    }
    all
}

/// Begins a session at a node by a poll, and opens its stream at another.
async fn across(session: &Xhr, begins: &Gateway, receives: &Gateway) -> Listener {
    session.begin(begins.public).await;
    let stream = session.stream(receives.public).await;
    // It is what receives.
    session.subscribe(begins.public, "xhr-across").await;
    let mut stream = stream;
    assert_eq!(stream.frame_of_fallback().await["event"], SUBSCRIBED);
    stream
}

fn closed(line: Option<Line>) -> u64 {
    let Some(Line::Closed(code, _)) = line else { panic!("{line:?}") };
    code
}

#[tokio::test]
async fn a_session_is_one_whichever_node_is_asked() {
    let cluster = cluster().await;
    let [one, other] = &cluster.nodes[..] else { panic!("two nodes") };
    let (session, channel) = (Xhr::new(&FIRST), "presence-xhr-two");
    let mut ben = Socket::open(one.public, &FIRST).await;
    ben.join(channel, "ben").await;
    let socket = session.begin(one.public).await;
    session.join(other.public, &socket, channel, "ana").await;
    assert_eq!(ben.next().await.event, "pusher_internal:member_added");
    let came = poll_for(&session, &cluster.nodes, 1).await;
    assert_eq!((&came[0]["event"], &came[0]["channel"]), (&json!(SUBSCRIBED), &json!(channel)));
    for n in 0..6 {
        let at = &cluster.nodes[n % 2];
        let event = json!({"event": "client-n", "channel": channel, "data": {"n": n}});
        session.say(at.public, &[event]).await;
        assert_eq!(ben.next().await.data, Some(format!("{{\"n\":{n}}}")));
        ben.whisper(channel, "client-n", &json!(n)).await;
        let came = poll_for(&session, &cluster.nodes, 1).await;
        assert_eq!(came[0]["data"], n.to_string());
    }
    // The last request was broken off at the node that does not have the session.
    let mut poll = Listener::connect(other.public).await;
    poll.send(session.request("xhr")).await;
    ben.whisper(channel, "client-last", &json!(0)).await;
    assert_eq!(lines(&poll.answer().await).len(), 1);
    poll.send(session.request("xhr")).await;
    drop(poll);
    assert_eq!(ben.next().await.event, "pusher_internal:member_removed");
}

/// What is published while the client polls at one node and at the other comes once and in order. All of it together is
/// less than may wait for a client, however slow it is.
#[tokio::test]
async fn polls_that_change_nodes_lose_nothing() {
    let cluster = cluster().await;
    let (session, channel) = (Xhr::new(&FIRST), "xhr-many");
    session.begin(cluster.nodes[0].public).await;
    session.subscribe(cluster.nodes[1].public, channel).await;
    assert_eq!(poll_for(&session, &cluster.nodes, 1).await[0]["event"], SUBSCRIBED);
    let (rest, filler) = (cluster.rest(1, &FIRST), "\u{e4}\u{1f514}".repeat(700));
    let publishing = async {
        for batch in 0..20 {
            let event = |n: u32| json!({"channel": channel, "name": format!("{n}"), "data": filler});
            let batch: Vec<Value> = (batch * 10..batch * 10 + 10).map(event).collect();
            rest.done("/batch_events", &json!({"batch": batch})).await;
        }
    };
    let ((), came) = tokio::join!(publishing, poll_for(&session, &cluster.nodes, 200));
    for (n, frame) in came.iter().enumerate() {
        assert_eq!((&frame["event"], &frame["data"]), (&json!(n.to_string()), &json!(filler)));
    }
    assert_eq!(came.len(), 200);
}

/// The same for streams, which the client changes once it has 256 Ki characters and whole lines of one.
#[tokio::test]
async fn streams_that_change_nodes_lose_nothing() {
    let cluster = cluster().await;
    let (session, channel) = (Xhr::new(&FIRST), "xhr-streams");
    let (rest, filler) = (cluster.rest(0, &FIRST), "\u{e4}\u{1f514}".repeat(700));
    session.begin(cluster.nodes[0].public).await;
    session.subscribe(cluster.nodes[0].public, channel).await;
    assert_eq!(poll_for(&session, &cluster.nodes, 1).await[0]["event"], SUBSCRIBED);
    let publishing = async {
        for n in 0..200 {
            rest.trigger(channel, &n.to_string(), &filler).await;
        }
    };
    let reading = async {
        let (mut heard, mut streams) = (0, 0);
        while heard < 200 {
            streams += 1;
            let mut stream = session.stream(cluster.nodes[streams % 2].public).await;
            let mut length = 0;
            while length <= 256 * 1024 && heard < 200 {
                let line = stream.until("\n").await.expect("a stream is not ended before its time");
                length += line.encode_utf16().count() + 1;
                match Line::read(&line) {
                    Line::Frames(frames) => {
                        assert_eq!(frames[0]["event"], heard.to_string());
                        heard += 1;
                    }
                    Line::Alive => {}
                    line @ (Line::Open | Line::Closed(..)) => panic!("{line:?}"),
                }
            }
        }
        streams
    };
    let ((), streams) = tokio::join!(publishing, reading);
    assert!(streams > 1, "one stream was enough");
}

#[tokio::test]
async fn a_session_that_no_node_has_takes_nothing() {
    let cluster = cluster().await;
    for node in &cluster.nodes {
        // A node that has just come does not know yet whom to ask; then it says so.
        let unknown = || async {
            match Xhr::new(&FIRST).send_body(node.public, "[]").await.status {
                404 => Some(()),
                503 => None,
                status => panic!("{status}"),
            }
        };
        eventually("nobody has it", unknown).await;
    }
}

#[tokio::test]
async fn a_request_at_another_node_ends_the_one_before() {
    let cluster = cluster().await;
    let [one, other] = &cluster.nodes[..] else { panic!("two nodes") };
    let session = Xhr::new(&FIRST);
    let mut there = across(&session, one, other).await;
    let mut here = session.stream(one.public).await;
    assert_eq!(closed(there.line_of_fallback().await), 4200);
    assert_eq!(there.line_of_fallback().await, None);
    session.subscribe(other.public, "xhr-before").await;
    assert_eq!(here.frame_of_fallback().await["event"], SUBSCRIBED);
    let mut there = session.stream(other.public).await;
    assert_eq!(closed(here.line_of_fallback().await), 4200);
    session.subscribe(other.public, "xhr-before-that").await;
    assert_eq!(there.frame_of_fallback().await["event"], SUBSCRIBED);
}

#[tokio::test]
async fn a_session_that_ends_says_why_at_any_node() {
    let cluster = cluster().await;
    let [one, other] = &cluster.nodes[..] else { panic!("two nodes") };
    let session = Xhr::new(&FIRST);
    let socket = session.begin(one.public).await;
    let mut stream = session.stream(other.public).await;
    let user_data = json!({"id": "xhr-ben"}).to_string();
    let auth = FIRST.user_auth(&socket, &user_data);
    let sign_in = json!({"event": "pusher:signin", "data": {"auth": auth, "user_data": user_data}});
    session.say(other.public, &[sign_in]).await;
    assert_eq!(stream.frame_of_fallback().await["event"], "pusher:signin_success");
    cluster.rest(0, &FIRST).done("/users/xhr-ben/terminate_connections", &json!({})).await;
    assert_eq!(closed(stream.line_of_fallback().await), 4009);
    assert_eq!(stream.line_of_fallback().await, None);
}

/// The client learns it by the code with which it comes back at once.
#[tokio::test]
async fn a_session_dies_with_its_node() {
    let cluster = Cluster::start(2);
    cluster.ready().await;
    let [one, other] = &cluster.nodes[..] else { panic!("two nodes") };
    let session = Xhr::new(&FIRST);
    let mut stream = across(&session, one, other).await;
    one.signal("KILL");
    assert_eq!(closed(stream.line_of_fallback().await), 4200);
    assert_eq!(stream.line_of_fallback().await, None);
    let mut again = Xhr::new(&FIRST).stream(other.public).await;
    assert_eq!(again.line_of_fallback().await, Some(Line::Open));
    let _id = socket_id(&again.line_of_fallback().await.expect("a greeting"));
}

#[tokio::test]
async fn a_node_that_stops_asks_the_clients_of_others_to_move() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    cluster.acquainted().await;
    let mut stopping = cluster.nodes.pop().expect("two nodes");
    let one = &cluster.nodes[0];
    let session = Xhr::new(&FIRST);
    let mut stream = across(&session, one, &stopping).await;
    stopping.signal("TERM");
    assert_eq!(closed(stream.line_of_fallback().await), 4200);
    assert_eq!(stream.line_of_fallback().await, None);
    assert!(stopping.ended().success());
}

/// pusher-js does not look at what becomes of what it sends: a session that something was lost of must end.
#[tokio::test]
async fn what_cannot_be_brought_to_its_node_ends_the_session() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    let session = Xhr::new(&FIRST);
    session.begin(cluster.nodes[0].public).await;
    let mut stream = session.stream(cluster.nodes[0].public).await;
    // The other node knows where the session is.
    session.subscribe(cluster.nodes[1].public, "xhr-before-nats-went").await;
    assert_eq!(stream.frame_of_fallback().await["event"], SUBSCRIBED);
    cluster.nats.kill();
    let subscribe = json!({"event": "pusher:subscribe", "data": {"channel": "xhr-without-nats"}});
    let body = json!([subscribe.to_string()]).to_string();
    assert_eq!(session.send_body(cluster.nodes[1].public, body).await.status, 503);
    cluster.nats.restart();
    loop {
        match stream.line_of_fallback().await {
            // Of what was published meanwhile nobody knows.
            Some(Line::Frames(frames)) => assert_eq!(frames[0]["event"], "carillon:gap"),
            Some(Line::Alive) => {}
            end => break assert_eq!(closed(end), 4200),
        }
    }
    assert_eq!(stream.line_of_fallback().await, None);
}
