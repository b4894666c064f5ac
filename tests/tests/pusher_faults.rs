//! The Pusher protocol over nodes that die, stop, come, and lose NATS: nobody stays who has gone, nobody goes who is
//! there. (PUSHER §1.8, §1.10)

use std::time::Duration;

use carillon_tests::{
    pusher::{COUNTED, Cluster, FIRST, Member, Socket, refusal},
    raw::eventually,
};
use serde_json::json;
use tokio::time::sleep;

/// Longer than a node may be silent.
const LONG_SILENCE: Duration = Duration::from_secs(10);

/// PUSHER §1.8: the members of a node that was killed go, each once; whoever has another tab stays.
#[tokio::test]
async fn members_of_a_killed_node_go_once() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    let channel = "presence-killed";
    let mut watcher = Member::join(&cluster.nodes[0], channel, "watcher").await;
    let mut dead = Vec::new();
    for user in ["dies-1", "dies-2", "lives"] {
        dead.push(Member::join(&cluster.nodes[1], channel, user).await);
        watcher.learns_that("added", user).await;
    }
    let mut tab = Member::join(&cluster.nodes[0], channel, "lives").await;
    assert_eq!(tab.there.len(), 4);
    cluster.nodes[1].signal("KILL");
    watcher.sees(&["lives", "watcher"]).await;
    tab.sees(&["lives", "watcher"]).await;
    // A node that comes later learns who is there, and what it tells of comes after nothing else.
    cluster.join();
    cluster.nodes[2].ready().await;
    let mut late = Member::join(&cluster.nodes[2], channel, "late").await;
    late.sees(&["late", "lives", "watcher"]).await;
    watcher.learns_that("added", "late").await;
    tab.socket.leave().await;
    watcher.learns_that("removed", "lives").await;
    late.learns_that("removed", "lives").await;
    watcher.learns_nothing().await;
}

#[tokio::test]
async fn members_of_a_node_that_stops_go_and_come_back_elsewhere() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    cluster.acquainted().await;
    let channel = "presence-stopped";
    let mut watcher = Member::join(&cluster.nodes[0], channel, "watcher").await;
    let mut moves = Member::join(&cluster.nodes[1], channel, "moves").await;
    watcher.learns_that("added", "moves").await;
    cluster.nodes[1].signal("TERM");
    assert_eq!(moves.socket.closed().await.0, 4200);
    watcher.learns_that("removed", "moves").await;
    let moved = Member::join(&cluster.nodes[0], channel, "moves").await;
    watcher.learns_that("added", "moves").await;
    assert!(cluster.nodes[1].ended().success());
    watcher.learns_nothing().await;
    moved.socket.leave().await;
    watcher.learns_that("removed", "moves").await;
}

/// While NATS is away no node can tell the living from the dead: nobody goes.
#[tokio::test]
async fn nobody_goes_while_nats_is_away() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    let channel = "presence-away";
    let mut here = Member::join(&cluster.nodes[0], channel, "here").await;
    let mut there = Member::join(&cluster.nodes[1], channel, "there").await;
    let leaves = Member::join(&cluster.nodes[1], channel, "leaves").await;
    here.sees(&["here", "leaves", "there"]).await;
    there.sees(&["here", "leaves", "there"]).await;
    cluster.nats.kill();
    // Whoever publishes meanwhile is told so at once, and nobody is disconnected.
    let body = json!({"name": "x", "channel": "away-elsewhere", "data": "1"});
    eventually("publishing is refused", || async {
        let answer = cluster.rest(0, &FIRST).post("/events", &body).await;
        (answer.status != 200).then(|| assert_eq!(refusal(&answer).0, 503))
    })
    .await;
    leaves.socket.leave().await;
    there.learns_that("removed", "leaves").await;
    sleep(LONG_SILENCE).await;
    here.learns_nothing().await;
    there.learns_nothing().await;
    cluster.nats.restart();
    // What happened meanwhile is told afterwards, and nothing else.
    here.learns_that("removed", "leaves").await;
    cluster.ready().await;
    let later = Member::join(&cluster.nodes[1], channel, "later").await;
    here.learns_that("added", "later").await;
    there.learns_that("added", "later").await;
    later.socket.leave().await;
    here.learns_that("removed", "later").await;
    eventually("publishing works again", || async {
        (cluster.rest(1, &FIRST).post("/events", &body).await.status == 200).then_some(())
    })
    .await;
    cluster.rest(1, &FIRST).trigger(channel, "x", "1").await;
    let next = here.socket.until("x", channel).await;
    assert_eq!(next.data.as_deref(), Some("1"));
}

/// PUSHER §1.6: every subscription is answered, also by a node that has lost NATS.
#[tokio::test]
async fn who_subscribes_while_nats_is_away_is_answered_and_hears_what_is_published_later() {
    let mut cluster = Cluster::start(1);
    cluster.ready().await;
    let mut socket = Socket::open(cluster.nodes[0].public, &FIRST).await;
    cluster.nats.kill();
    socket.subscribe("away-public").await;
    socket.subscribe("private-away").await;
    cluster.nats.restart();
    let rest = cluster.rest(0, &FIRST);
    for channel in ["away-public", "private-away"] {
        let body = json!({"name": "back", "channel": channel, "data": "1"});
        eventually("publishing works again", || async {
            (rest.post("/events", &body).await.status == 200).then_some(())
        })
        .await;
        let next = socket.until("back", channel).await;
        assert_eq!(next.data.as_deref(), Some("1"));
    }
}

/// A node that hangs is dead for the others; when it goes on, its members are there again.
#[tokio::test]
async fn members_of_a_node_that_hangs_go_and_come_back_with_it() {
    let cluster = Cluster::start(2);
    cluster.ready().await;
    let channel = "presence-hangs";
    let mut watcher = Member::join(&cluster.nodes[0], channel, "watcher").await;
    let mut hangs = Member::join(&cluster.nodes[1], channel, "hangs").await;
    watcher.learns_that("added", "hangs").await;
    cluster.nodes[1].signal("STOP");
    watcher.learns_that("removed", "hangs").await;
    cluster.nodes[1].signal("CONT");
    watcher.learns_that("added", "hangs").await;
    // It may have thought the same of the watcher meanwhile.
    let _late = Member::join(&cluster.nodes[0], channel, "late").await;
    watcher.learns_that("added", "late").await;
    hangs.sees(&["hangs", "late", "watcher"]).await;
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
