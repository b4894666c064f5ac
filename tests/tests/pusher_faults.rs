//! The Pusher protocol over nodes that die, stop, come, and lose NATS: nobody stays who has gone, nobody goes who is
//! there. (PUSHER §1.8, §1.10)

use std::{collections::BTreeSet, time::Duration};

use carillon_tests::{
    gateway::Gateway,
    pusher::{COUNTED, Cluster, FIRST, Socket, refusal},
    raw::eventually,
};
use serde_json::json;
use tokio::time::sleep;

/// Longer than a node may be silent.
const LONG_SILENCE: Duration = Duration::from_secs(10);

async fn member(node: &Gateway, channel: &str, user: &str) -> Socket {
    let mut socket = Socket::open(node.public, &FIRST).await;
    let _members = socket.join(channel, user).await;
    socket
}

/// Takes the next news of a member.
async fn news(socket: &mut Socket, channel: &str) -> (String, String) {
    let next = socket.next().await;
    assert_eq!(next.channel.as_deref(), Some(channel), "{next:?}");
    let name =
        next.event.strip_prefix("pusher_internal:member_").unwrap_or_else(|| panic!("{next:?}")).to_owned();
    (name, next.json()["user_id"].as_str().expect("a text").to_owned())
}

fn is(name: &str, user: &str) -> (String, String) {
    (name.to_owned(), user.to_owned())
}

/// Takes news until these have come, in any order.
async fn all_news(socket: &mut Socket, channel: &str, expected: &[(&str, &str)]) {
    let mut open: BTreeSet<_> = expected.iter().map(|(name, user)| is(name, user)).collect();
    while !open.is_empty() {
        let next = news(socket, channel).await;
        assert!(open.remove(&next), "{next:?} is not among {open:?}");
    }
}

/// PUSHER §1.8: the members of a node that was killed go, each once; whoever has another tab stays.
#[tokio::test]
async fn members_of_a_killed_node_go_once() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    let channel = "presence-killed";
    let mut watcher = member(&cluster.nodes[0], channel, "watcher").await;
    let mut dead = Vec::new();
    for user in ["dies-1", "dies-2", "lives"] {
        dead.push(member(&cluster.nodes[1], channel, user).await);
        assert_eq!(news(&mut watcher, channel).await, is("added", user));
    }
    let mut tab = Socket::open(cluster.nodes[0].public, &FIRST).await;
    assert_eq!(tab.join(channel, "lives").await["count"], 4);
    cluster.nodes[1].signal("KILL");
    let expected = [("removed", "dies-1"), ("removed", "dies-2")];
    all_news(&mut watcher, channel, &expected).await;
    all_news(&mut tab, channel, &expected).await;
    // A node that comes later knows who is there, and what it tells of comes after nothing else.
    cluster.join();
    cluster.ready().await;
    let mut late = Socket::open(cluster.nodes[2].public, &FIRST).await;
    let members = late.join(channel, "late").await;
    let mut there: BTreeSet<_> =
        members["ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    while there.len() < 3 {
        let (name, user) = news(&mut late, channel).await;
        assert_eq!(name, "added");
        there.insert(user);
    }
    assert_eq!(there.iter().map(String::as_str).collect::<Vec<_>>(), ["late", "lives", "watcher"]);
    assert_eq!(news(&mut watcher, channel).await, is("added", "late"));
    tab.leave().await;
    assert_eq!(news(&mut watcher, channel).await, is("removed", "lives"));
    assert_eq!(news(&mut late, channel).await, is("removed", "lives"));
    watcher.quiet().await;
}

#[tokio::test]
async fn members_of_a_node_that_stops_go_and_come_back_elsewhere() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    let channel = "presence-stopped";
    let mut watcher = member(&cluster.nodes[0], channel, "watcher").await;
    let mut moves = member(&cluster.nodes[1], channel, "moves").await;
    assert_eq!(news(&mut watcher, channel).await, is("added", "moves"));
    cluster.nodes[1].signal("TERM");
    assert_eq!(moves.closed().await.0, 4200);
    assert_eq!(news(&mut watcher, channel).await, is("removed", "moves"));
    let moved = member(&cluster.nodes[0], channel, "moves").await;
    assert_eq!(news(&mut watcher, channel).await, is("added", "moves"));
    assert!(cluster.nodes[1].ended().success());
    watcher.quiet().await;
    moved.leave().await;
    assert_eq!(news(&mut watcher, channel).await, is("removed", "moves"));
}

/// While NATS is away no node can tell the living from the dead: nobody goes.
#[tokio::test]
async fn nobody_goes_while_nats_is_away() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    let channel = "presence-away";
    let mut here = member(&cluster.nodes[0], channel, "here").await;
    let mut there = member(&cluster.nodes[1], channel, "there").await;
    let leaves = member(&cluster.nodes[1], channel, "leaves").await;
    all_news(&mut here, channel, &[("added", "there"), ("added", "leaves")]).await;
    assert_eq!(news(&mut there, channel).await, is("added", "leaves"));
    cluster.nats.kill();
    // Whoever publishes meanwhile is told so at once, and nobody is disconnected.
    let body = json!({"name": "x", "channel": channel, "data": "1"});
    eventually("publishing is refused", || async {
        let answer = cluster.rest(0, &FIRST).post("/events", &body).await;
        (answer.status != 200).then(|| assert_eq!(refusal(&answer).0, 503))
    })
    .await;
    leaves.leave().await;
    assert_eq!(news(&mut there, channel).await, is("removed", "leaves"));
    sleep(LONG_SILENCE).await;
    here.quiet().await;
    there.quiet().await;
    cluster.nats.restart();
    // What happened meanwhile is told afterwards, and nothing else.
    assert_eq!(news(&mut here, channel).await, is("removed", "leaves"));
    cluster.ready().await;
    let later = member(&cluster.nodes[1], channel, "later").await;
    assert_eq!(news(&mut here, channel).await, is("added", "later"));
    assert_eq!(news(&mut there, channel).await, is("added", "later"));
    later.leave().await;
    assert_eq!(news(&mut here, channel).await, is("removed", "later"));
    eventually("publishing works again", || async {
        (cluster.rest(1, &FIRST).post("/events", &body).await.status == 200).then_some(())
    })
    .await;
    here.hears(channel, "x", "1").await;
}

/// A node that hangs is dead for the others; when it goes on, its members are there again.
#[tokio::test]
async fn members_of_a_node_that_hangs_go_and_come_back_with_it() {
    let cluster = Cluster::start(2);
    cluster.ready().await;
    let channel = "presence-hangs";
    let mut watcher = member(&cluster.nodes[0], channel, "watcher").await;
    let mut hangs = member(&cluster.nodes[1], channel, "hangs").await;
    assert_eq!(news(&mut watcher, channel).await, is("added", "hangs"));
    cluster.nodes[1].signal("STOP");
    assert_eq!(news(&mut watcher, channel).await, is("removed", "hangs"));
    cluster.nodes[1].signal("CONT");
    assert_eq!(news(&mut watcher, channel).await, is("added", "hangs"));
    // It may have thought the same of the watcher meanwhile.
    let late = member(&cluster.nodes[0], channel, "late").await;
    assert_eq!(news(&mut watcher, channel).await, is("added", "late"));
    let mut there = BTreeSet::from(["hangs".to_owned(), "watcher".to_owned()]);
    while there.len() < 3 {
        let (name, user) = news(&mut hangs, channel).await;
        let fits = if name == "added" { there.insert(user.clone()) } else { there.remove(&user) };
        assert!(fits, "{name} {user}");
    }
    drop(late);
}

/// PUSHER §1.10: the broker keeps the event, not a node.
#[tokio::test]
async fn a_cache_channel_outlives_every_node() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    cluster.rest(0, &FIRST).trigger("cache-outlives", "kept", "{\"a\": 1}").await;
    for node in &mut cluster.nodes {
        node.signal("KILL");
        let _status = node.ended();
    }
    cluster.join();
    cluster.nodes[2].ready().await;
    let mut socket = Socket::open(cluster.nodes[2].public, &FIRST).await;
    socket.subscribe("cache-outlives").await;
    socket.hears("cache-outlives", "kept", "{\"a\": 1}").await;
}

#[tokio::test]
async fn subscribers_of_a_killed_node_are_not_counted_for_long() {
    let cluster = Cluster::start(2);
    cluster.ready().await;
    let mut here = Socket::open(cluster.nodes[0].public, &COUNTED).await;
    here.subscribe("killed-counted").await;
    let mut there = Socket::open(cluster.nodes[1].public, &COUNTED).await;
    there.subscribe("killed-counted").await;
    let counts_to = async |socket: &mut Socket, count: u64| {
        let wanted = json!({"subscription_count": count});
        while socket.until("pusher_internal:subscription_count", "killed-counted").await.json() != wanted {}
    };
    counts_to(&mut here, 2).await;
    cluster.nodes[1].signal("KILL");
    counts_to(&mut here, 1).await;
    let rest = cluster.rest(0, &COUNTED);
    let info = [("info", "subscription_count")];
    let expected = json!({"occupied": true, "subscription_count": 1});
    eventually("one", || async {
        (rest.read("/channels/killed-counted", &info).await == expected).then_some(())
    })
    .await;
}
