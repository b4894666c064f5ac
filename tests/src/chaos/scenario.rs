//! One kind of trouble at a time, with the figures that are promised for it.
//!
//! **Lives here:** rolling restarts, a killed node, a storm of reconnects, NATS away.
//! **Called by:** the program `chaos` and tests.
//! **Must not know:** how clients do it.

use std::{net::SocketAddr, time::Duration};

use carillon_tasks::clock;
use tokio::time::sleep;

use crate::http;

use super::{
    PATIENT, begin, end,
    ledger::{Ledger, percentiles},
    nemesis::Done,
    plan::{Plan, Transport},
    stand::{NODES, Stand},
    world::{Cause, World},
};

/// How long a storm may last before it is called lost.
const STORM: Duration = Duration::from_secs(120);

/// Within this time everybody shares what was read for one.
const SHARED: Duration = Duration::from_secs(15);

/// Pause between two looks at something that will change.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Every node is restarted, one after another, again and again until the time is over.
pub async fn roll(plan: &Plan) -> Ledger {
    let (stand, world, crowd) = begin(plan, PATIENT).await;
    let (ends, mut rounds, mut wrong) = (clock::now() + plan.time, 0_u32, Vec::new());
    while rounds == 0 || clock::now() < ends {
        for node in 0..NODES {
            world.trouble(node, Cause::Term);
            let code = stand.end_node(node, "TERM").await;
            if code != Some(0) {
                wrong.push(format!("node {node} ended with {code:?}"));
            }
            stand.start_node(node).await;
            stand.node_is_ready(node).await;
            world.trouble(node, Cause::Other);
        }
        rounds += 1;
    }
    let mut ledger = end(plan, &stand, &world, crowd, Vec::<Done>::new()).await;
    ledger.figures.push(("rounds", rounds.to_string()));
    ledger.wrong = wrong;
    ledger.keep("roll", stand.folder());
    ledger
}

/// One node is killed, and its clients catch up elsewhere.
pub async fn kill(plan: &Plan) -> Ledger {
    let (stand, world, crowd) = begin(plan, PATIENT).await;
    sleep(plan.time / 2).await;
    world.trouble(0, Cause::Kill);
    let _code = stand.end_node(0, "KILL").await;
    sleep(plan.time / 2).await;
    stand.start_node(0).await;
    let mut ledger = end(plan, &stand, &world, crowd, Vec::new()).await;
    let (count, [p50, _, p99, max]) = percentiles(&ledger.caught_up(Cause::Kill));
    ledger.figures.push((
        "caught up after kill -9",
        format!("{count} clients, p50 {p50} ms, p99 {p99} ms, max {max} ms"),
    ));
    if count == 0 {
        ledger.wrong.push("nobody was on the node that was killed".to_owned());
    }
    ledger.keep("kill", stand.folder());
    ledger
}

/// All nodes are killed at once, and everybody comes back at once to nodes that remember nothing.
pub async fn storm(plan: &Plan) -> Ledger {
    let plan = &Plan { joins: (1, 0), cables: false, transports: vec![Transport::WebSocket], ..plan.clone() };
    let (stand, world, crowd) = begin(plan, &format!("{PATIENT}[public]\naccept_rate = 10000\n")).await;
    sleep(plan.time / 2).await;
    world.gate.send_replace(false);
    for node in 0..NODES {
        world.trouble(node, Cause::Kill);
        let _code = stand.end_node(node, "KILL").await;
    }
    for node in 0..NODES {
        stand.start_node(node).await;
    }
    for node in 0..NODES {
        stand.node_is_ready(node).await;
    }
    sleep(plan.time / 2).await;
    let opened = clock::now();
    world.gate.send_replace(true);
    let caught_up =
        || world.counted.lock().map_or(0, |counted| counted.caught_up.values().map(Vec::len).sum());
    while caught_up() < plan.clients && clock::now() - opened < STORM {
        sleep(LOOK_AGAIN).await;
    }
    let (took, count) = (clock::now() - opened, caught_up());
    let mut reads = Vec::new();
    for node in &world.nodes {
        reads.push(metric(node.admin, "carillon_broker_history_reads_total{broker=\"nats\"}").await);
    }
    let mut ledger = end(plan, &stand, &world, crowd, Vec::new()).await;
    ledger.figures.push(("caught up", format!("{count} clients in {} ms", took.as_millis())));
    ledger.figures.push(("history reads by node", format!("{reads:?} for {} channels", plan.channels.0)));
    if took < SHARED && reads.iter().any(|reads| *reads > f64::from(plan.channels.0)) {
        ledger.wrong.push(format!("more than one history read for a channel on a node: {reads:?}"));
    }
    if count < plan.clients {
        ledger.wrong.push(format!("{count} of {} clients have caught up", plan.clients));
    }
    ledger.keep("storm", stand.folder());
    ledger
}

/// Returns the value of a series of the metrics.
async fn metric(admin: SocketAddr, series: &str) -> f64 {
    let text = http::get(admin, "/metrics").await.body;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let value = line.and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("no series {series} in\n{text}"))
}

/// NATS is away as long as is planned.
pub async fn away(plan: &Plan) -> Ledger {
    let (stand, world, crowd) = begin(plan, PATIENT).await;
    for server in 0..NODES {
        stand.nats(server, crate::nats::NatsServer::kill);
    }
    let refused = refusals(&world, &stand, plan.time).await;
    for server in 0..NODES {
        stand.nats(server, crate::nats::NatsServer::restart);
    }
    stand.streams_are_whole().await;
    let back = clock::now();
    stand.is_well().await;
    let well: Duration = clock::now() - back;
    let mut ledger = end(plan, &stand, &world, crowd, Vec::new()).await;
    let (count, [p50, p90, p99, max]) = percentiles(&refused);
    let figure = format!("{count} publications, p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, max {max} ms");
    ledger.figures.push(("refused while NATS is away", figure));
    ledger.figures.push(("healthy after NATS is whole", format!("{} ms", well.as_millis())));
    if ledger.disconnects() > 0 {
        ledger.wrong.push(format!("{} clients were disconnected", ledger.disconnects()));
    }
    ledger.keep("away", stand.folder());
    ledger
}

/// Publishes to every node while NATS is away, and returns how long each took to refuse once it knew.
async fn refusals(world: &World, stand: &Stand, time: Duration) -> Vec<Duration> {
    let ends = clock::now() + time;
    for node in 0..NODES {
        stand.node_is(node, |answer| answer.body.contains("degraded")).await;
    }
    let authorization = format!("Bearer {}", world.key);
    let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
    // Were one of them taken, it would be a phantom.
    let body = r#"{"channel":"safe.0","data":"nobody takes this"}"#;
    let mut took = Vec::new();
    while took.is_empty() || clock::now() < ends {
        for node in &world.nodes {
            let asked = clock::now();
            let answer = http::post(node.api[0], "/v1/publish", &headers, body).await;
            took.push(clock::now() - asked);
            assert_eq!(answer.status, 503, "{}", answer.body);
        }
        sleep(LOOK_AGAIN).await;
    }
    took
}
