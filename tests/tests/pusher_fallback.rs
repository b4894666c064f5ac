//! pusher-js without WebSockets, as behind proxies that know none: streams and polls. nginx sends every request to the
//! next of two nodes, so that no request finds the node of the one before.

use std::{process::Command, time::Duration};

use carillon_tests::{
    front::Front,
    gateway::Gateway,
    pusher::{Cluster, FIRST, cluster},
    scenario::{node, passes, run, start, world},
};
use serde_json::Value;
use tokio::{task::spawn_blocking, time::sleep};

const TRANSPORTS: [&str; 2] = ["xhr_streaming", "xhr_polling"];

/// What a scenario knows: who has no WebSocket meets the proxy, all others the nodes.
fn behind(front: &Front, nodes: &[Gateway]) -> String {
    let mut world: Value = serde_json::from_str(&world(nodes)).expect("it is JSON");
    world["nodes"][0]["public"] = front.at.to_string().into();
    world.to_string()
}

fn by(transport: &str, scenario: &str) -> Command {
    let mut command = node("fallback", scenario);
    command.env("TRANSPORT", transport);
    command
}

async fn fallback(scenario: &str) {
    let cluster = cluster().await;
    let front = Front::start(&cluster.nodes).await;
    for transport in TRANSPORTS {
        run(by(transport, scenario), behind(&front, &cluster.nodes)).await;
    }
}

/// Kills the node that has the client's session.
async fn comes_back_when_its_node_dies(transport: &str) {
    let cluster = Cluster::start(2);
    cluster.ready().await;
    let front = Front::start(&cluster.nodes).await;
    let client = start(by(transport, "aClientComesBackWhenItsNodeDies"), &behind(&front, &cluster.nodes));
    let listens = spawn_blocking(move || {
        let _listens = client.says("listening");
        client
    });
    let client = listens.await.expect("it listens");
    let [one, other] = &cluster.nodes[..] else { panic!("two nodes") };
    let has = r#"carillon_connections{transport="xhr",protocol="pusher"}"#;
    let (dies, lives) = if one.metric(has).await > 0.5 { (one, other) } else { (other, one) };
    assert!(dies.metric(has).await > 0.5, "one of them has it");
    dies.signal("KILL");
    let rest = lives.rest(&FIRST);
    let mut passed = spawn_blocking(|| passes(client));
    loop {
        tokio::select! {
            ended = &mut passed => break ended.expect("it passes"),
            () = sleep(Duration::from_millis(100)) => rest.trigger("killed", "after", "1").await,
        }
    }
}

#[tokio::test]
async fn every_kind_of_channel_is_heard() {
    fallback("everyKindOfChannelIsHeard").await;
}

#[tokio::test]
async fn nothing_is_lost_between_two_requests() {
    fallback("nothingIsLostBetweenTwoRequests").await;
}

#[tokio::test]
async fn clients_talk_to_each_other() {
    fallback("clientsTalkToEachOther").await;
}

#[tokio::test]
async fn a_user_signs_in_and_is_terminated() {
    fallback("aUserSignsInAndIsTerminated").await;
}

#[tokio::test]
async fn an_unknown_key_is_refused() {
    fallback("anUnknownKeyIsRefused").await;
}

#[tokio::test]
async fn a_client_that_streams_comes_back_when_its_node_dies() {
    comes_back_when_its_node_dies("xhr_streaming").await;
}

#[tokio::test]
async fn a_client_that_polls_comes_back_when_its_node_dies() {
    comes_back_when_its_node_dies("xhr_polling").await;
}
