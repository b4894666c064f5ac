//! Webhooks of two nodes, believed by the libraries of Pusher that receive them.

use std::process::Command;

use carillon_tests::{
    daemon::Net,
    gateway::Gateway,
    nats::{NatsServer, NatsVersion},
    pusher::FIRST,
    scenario::{node, python, run, world},
};

/// Everything that can be told.
const EVENTS: [&str; 5] =
    ["channel_existence", "presence", "client_events", "cache_channels", "subscription_count"];

/// Runs a scenario that listens on an address which two nodes tell everything.
async fn told(mut scenario: Command, last: u8) {
    let site = Net::free(&[(last, 8080)]).at(last, 8080);
    let nats = NatsServer::start(NatsVersion::Newest);
    let config = format!(
        "[[apps]]\nid = \"{}\"\nkeys = [\"{}:{}\"]\nclient_events = true\nsubscription_count = true\n\
         webhooks = [\"http://{site}/\"]\nwebhook_events = {EVENTS:?}\n[webhooks]\negress = [\"127.0.0.0/8\"]\n\
         [[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n\
         [broker]\nkind = \"nats\"\n[broker.nats]\nservers = [{:?}]\nreplicas = 1\n",
        FIRST.id,
        FIRST.key,
        FIRST.secret,
        nats.url()
    );
    let nodes = [Gateway::serve(&config), Gateway::serve(&config)];
    for node in &nodes {
        node.ready().await;
    }
    scenario.env("WEBHOOK", site.to_string());
    run(scenario, world(&nodes)).await;
}

#[tokio::test]
async fn everything_is_told_once() {
    told(node("webhooks", "everythingIsToldOnce"), 60).await;
}

#[tokio::test]
async fn with_python_a_webhook_is_believed() {
    told(python("clients.py", "a_webhook_is_believed"), 61).await;
}
