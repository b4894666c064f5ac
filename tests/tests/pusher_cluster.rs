//! The Pusher protocol over two nodes: what happens on one is seen on the other. (PUSHER §1, §2, across nodes)

use std::collections::BTreeSet;

use carillon_tests::{
    pusher::{COUNTED, Cluster, FIRST, Member, PLAIN, SMALL, Socket, WATCHED, cluster},
    raw::eventually,
};
use serde_json::{Value, json};

/// Members that a channel has at most.
const MEMBERS_MAX: usize = 100;

/// Connects a client to each node and subscribes both.
async fn one_on_each(cluster: &Cluster, channel: &str) -> (Socket, Socket) {
    let mut here = Socket::open(cluster.nodes[0].public, &FIRST).await;
    let mut there = Socket::open(cluster.nodes[1].public, &FIRST).await;
    here.subscribe(channel).await;
    there.subscribe(channel).await;
    (here, there)
}

#[tokio::test]
async fn an_event_published_on_either_node_reaches_clients_of_both() {
    let cluster = cluster().await;
    for channel in ["cluster-x", "private-cluster-x", "private-encrypted-cluster-x"] {
        let (mut here, mut there) = one_on_each(&cluster, channel).await;
        for (node, data) in [(0, "0"), (1, "1")] {
            cluster.rest(node, &FIRST).trigger(channel, "x", data).await;
            here.hears(channel, "x", data).await;
            there.hears(channel, "x", data).await;
        }
    }
}

#[tokio::test]
async fn events_and_batches_of_one_backend_arrive_in_order_on_the_other_node() {
    let cluster = cluster().await;
    let rest = cluster.rest(0, &FIRST);
    let (_here, mut there) = one_on_each(&cluster, "cluster-order").await;
    for ten in 0..10 {
        let events: Vec<_> = (0..10)
            .map(|one| json!({"name": "n", "channel": "cluster-order", "data": (ten * 10 + one).to_string()}))
            .collect();
        assert_eq!(rest.done("/batch_events", &json!({"batch": events})).await, json!({}));
    }
    for number in 0..100 {
        there.hears("cluster-order", "n", &number.to_string()).await;
    }
}

#[tokio::test]
async fn a_socket_is_left_out_whichever_node_it_is_on() {
    let cluster = cluster().await;
    let channel = "private-cluster-exclude";
    let (mut here, mut there) = one_on_each(&cluster, channel).await;
    let body = json!({"name": "x", "channel": channel, "data": "1", "socket_id": there.id()});
    assert_eq!(cluster.rest(0, &FIRST).done("/events", &body).await, json!({}));
    cluster.rest(0, &FIRST).trigger(channel, "y", "2").await;
    there.hears(channel, "y", "2").await;
    here.hears(channel, "x", "1").await;
    here.hears(channel, "y", "2").await;
}

#[tokio::test]
async fn an_event_of_a_client_reaches_the_other_node() {
    let cluster = cluster().await;
    let channel = "private-cluster-whisper";
    let (mut here, mut there) = one_on_each(&cluster, channel).await;
    here.whisper(channel, "client-x", &json!({"a": 1})).await;
    there.hears(channel, "client-x", r#"{"a":1}"#).await;
    there.whisper(channel, "client-y", &json!("2")).await;
    here.hears(channel, "client-y", "2").await;
    let presence = "presence-cluster-whisper";
    let mut one = Member::join(&cluster.nodes[0], presence, "1").await;
    let mut two = Member::join(&cluster.nodes[1], presence, "2").await;
    one.sees(&["1", "2"]).await;
    two.sees(&["1", "2"]).await;
    two.socket.whisper(presence, "client-z", &json!("3")).await;
    let next = one.socket.next().await;
    assert!(next.is("client-z", presence) && next.user_id.as_deref() == Some("2"), "{next:?}");
}

#[tokio::test]
async fn members_of_both_nodes_are_one_list() {
    let cluster = cluster().await;
    let channel = "presence-cluster-list";
    let mut here = Member::join(&cluster.nodes[0], channel, "here").await;
    let mut there = Member::join(&cluster.nodes[1], channel, "there").await;
    here.sees(&["here", "there"]).await;
    there.sees(&["here", "there"]).await;
    let late = Member::join(&cluster.nodes[0], channel, "late").await;
    assert_eq!(late.there.len(), 3, "this node has told of both");
    here.sees(&["here", "late", "there"]).await;
    there.sees(&["here", "late", "there"]).await;
    late.socket.leave().await;
    here.sees(&["here", "there"]).await;
    there.sees(&["here", "there"]).await;
    for node in [0, 1] {
        let answer = cluster.rest(node, &FIRST).read(&format!("/channels/{channel}/users"), &[]).await;
        assert_eq!(answer, json!({"users": [{"id": "here"}, {"id": "there"}]}));
    }
}

#[tokio::test]
async fn a_user_with_a_tab_on_each_node_comes_once_and_goes_with_the_last() {
    let cluster = cluster().await;
    let channel = "presence-cluster-tabs";
    let mut here = Member::join(&cluster.nodes[0], channel, "w").await;
    let mut there = Member::join(&cluster.nodes[1], channel, "v").await;
    here.sees(&["v", "w"]).await;
    there.sees(&["v", "w"]).await;
    let one = Member::join(&cluster.nodes[0], channel, "u").await;
    here.sees(&["u", "v", "w"]).await;
    there.sees(&["u", "v", "w"]).await;
    let other = Member::join(&cluster.nodes[1], channel, "u").await;
    assert_eq!(other.there.len(), 3);
    one.socket.leave().await;
    // What comes next is not about that user: a tab is left.
    let last = Member::join(&cluster.nodes[0], channel, "z").await;
    here.sees(&["u", "v", "w", "z"]).await;
    there.sees(&["u", "v", "w", "z"]).await;
    other.socket.leave().await;
    here.sees(&["v", "w", "z"]).await;
    there.sees(&["v", "w", "z"]).await;
    drop(last);
}

/// However quickly a user jumps, nobody is told twice of a coming or a going, and all agree in the end.
#[tokio::test]
async fn a_user_who_jumps_between_nodes_is_told_of_in_turns() {
    let cluster = cluster().await;
    let channel = "presence-cluster-jumps";
    let mut here = Member::join(&cluster.nodes[0], channel, "here").await;
    let mut there = Member::join(&cluster.nodes[1], channel, "there").await;
    for jump in 0..30 {
        let jumper = Member::join(&cluster.nodes[jump % 2], channel, "jumper").await;
        match jump % 3 {
            0 => jumper.socket.leave().await,
            1 => jumper.socket.raw.reset(),
            _ => drop(jumper),
        }
    }
    let last = Member::join(&cluster.nodes[0], channel, "last").await;
    // The jumper may still be there where the news of its going is on its way.
    here.sees(&["here", "last", "there"]).await;
    there.sees(&["here", "last", "there"]).await;
    last.socket.leave().await;
    here.sees(&["here", "there"]).await;
    there.sees(&["here", "there"]).await;
}

#[tokio::test]
async fn a_hundred_members_on_two_nodes_leave_no_place_on_either() {
    let cluster = cluster().await;
    let channel = "presence-cluster-full";
    let mut here = Member::join(&cluster.nodes[0], channel, "0").await;
    let mut there = Member::join(&cluster.nodes[1], channel, "1").await;
    let mut others = Vec::new();
    for user in 2..MEMBERS_MAX {
        others.push(Member::join(&cluster.nodes[user % 2], channel, &user.to_string()).await);
    }
    while here.there.len() < MEMBERS_MAX {
        let _news = here.learns().await;
    }
    while there.there.len() < MEMBERS_MAX {
        let _news = there.learns().await;
    }
    for node in &cluster.nodes {
        let mut late = Socket::open(node.public, &FIRST).await;
        late.ask_as(channel, r#"{"user_id":"late"}"#).await;
        let _refusal = late.refused(channel).await;
    }
    assert_eq!(here.there, there.there);
}

#[tokio::test]
async fn the_last_event_of_a_cache_channel_is_known_to_both_nodes() {
    let cluster = cluster().await;
    for channel in ["cache-cluster", "private-cache-cluster"] {
        let (mut here, mut there) = one_on_each(&cluster, channel).await;
        cluster.rest(0, &FIRST).trigger(channel, "old", "1").await;
        cluster.rest(1, &FIRST).trigger(channel, "new", "2").await;
        // Both nodes have heard of it.
        for socket in [&mut here, &mut there] {
            assert!(socket.next().await.is("pusher:cache_miss", channel));
            socket.hears(channel, "old", "1").await;
            socket.hears(channel, "new", "2").await;
        }
        for node in &cluster.nodes {
            let mut socket = Socket::open(node.public, &FIRST).await;
            socket.subscribe(channel).await;
            socket.hears(channel, "new", "2").await;
        }
        let info = [("info", "cache")];
        let answer = cluster.rest(0, &FIRST).read(&format!("/channels/{channel}"), &info).await;
        assert_eq!(answer["cache"]["data"], "2");
    }
    let mut foreign = Socket::open(cluster.nodes[0].public, &PLAIN).await;
    foreign.subscribe("cache-cluster").await;
    assert!(foreign.next().await.is("pusher:cache_miss", "cache-cluster"));
}

/// Whoever joins the other node at once gets the event that was published last: as the kept one or, where that node has
/// not heard of it yet, right after the one before.
#[tokio::test]
async fn who_joins_the_other_node_after_the_answer_gets_the_last_event() {
    let cluster = cluster().await;
    let channel = "cache-cluster-at-once";
    let mut socket = Socket::open(cluster.nodes[1].public, &FIRST).await;
    for number in 0..50_i64 {
        cluster.rest(0, &FIRST).trigger(channel, "x", &number.to_string()).await;
        socket.subscribe(channel).await;
        let mut next = socket.next().await;
        let missed = number == 0 && next.is("pusher:cache_miss", channel);
        if missed || next.is("x", channel) && next.json() == number - 1 {
            next = socket.next().await;
        }
        assert!(next.is("x", channel) && next.json() == number, "{number}: {next:?}");
        socket.unsubscribe(channel).await;
        // Before the next event, which may overtake.
        socket.quiet().await;
    }
}

/// Waits for this count of subscribers.
async fn counts_to(socket: &mut Socket, channel: &str, count: u64) {
    loop {
        let next = socket.until("pusher_internal:subscription_count", channel).await;
        if next.json() == json!({"subscription_count": count}) {
            return;
        }
    }
}

#[tokio::test]
async fn subscribers_of_both_nodes_are_counted_together() {
    let cluster = cluster().await;
    let mut here = Socket::open(cluster.nodes[0].public, &COUNTED).await;
    here.subscribe("cluster-counted").await;
    let mut there = Socket::open(cluster.nodes[1].public, &COUNTED).await;
    there.subscribe("cluster-counted").await;
    counts_to(&mut here, "cluster-counted", 2).await;
    counts_to(&mut there, "cluster-counted", 2).await;
    let third = Socket::open(cluster.nodes[1].public, &COUNTED).await;
    there.unsubscribe("cluster-counted").await;
    counts_to(&mut here, "cluster-counted", 1).await;
    drop(third);
}

#[tokio::test]
async fn either_node_counts_what_is_on_both() {
    let cluster = cluster().await;
    let (_here, there) = one_on_each(&cluster, "cluster-asked").await;
    let mut member = Member::join(&cluster.nodes[1], "presence-cluster-asked", "1").await;
    member.sees(&["1"]).await;
    let is = async |tail: &str, parameters: &[(&str, &str)], expected: Value| {
        for node in [0, 1] {
            let rest = cluster.rest(node, &FIRST);
            eventually(tail, || async { (rest.read(tail, parameters).await == expected).then_some(()) })
                .await;
        }
    };
    let info = [("info", "subscription_count")];
    is("/channels/cluster-asked", &info, json!({"occupied": true, "subscription_count": 2})).await;
    let prefix = [("filter_by_prefix", "cluster-asked")];
    is("/channels", &prefix, json!({"channels": {"cluster-asked": {}}})).await;
    let users = [("filter_by_prefix", "presence-cluster-asked"), ("info", "user_count")];
    is("/channels", &users, json!({"channels": {"presence-cluster-asked": {"user_count": 1}}})).await;
    is("/channels/presence-cluster-asked/users", &[], json!({"users": [{"id": "1"}]})).await;
    there.leave().await;
    is("/channels/cluster-asked", &info, json!({"occupied": true, "subscription_count": 1})).await;
}

#[tokio::test]
async fn connections_of_both_nodes_are_counted_together() {
    let cluster = cluster().await;
    // Nobody else here uses this application.
    let _here = Socket::open(cluster.nodes[0].public, &SMALL).await;
    let there = Socket::open(cluster.nodes[1].public, &SMALL).await;
    let asked = async |node: usize| cluster.rest(node, &SMALL).read("/connections", &[]).await;
    for node in [0, 1] {
        eventually("both", || async { (asked(node).await == json!({"connections": 2})).then_some(()) }).await;
    }
    there.leave().await;
    for node in [0, 1] {
        eventually("one", || async { (asked(node).await == json!({"connections": 1})).then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_user_is_reached_on_both_nodes() {
    let cluster = cluster().await;
    let channel = "#server-to-user-cluster-reached";
    let mut sockets = Vec::new();
    for node in &cluster.nodes {
        let mut socket = Socket::open(node.public, &FIRST).await;
        socket.sign_in("cluster-reached").await;
        socket.subscribe(channel).await;
        sockets.push(socket);
    }
    for node in [0, 1] {
        cluster.rest(node, &FIRST).trigger(channel, "x", &node.to_string()).await;
    }
    for socket in &mut sockets {
        let mut data = [socket.next().await.on(channel).1, socket.next().await.on(channel).1];
        data.sort();
        assert_eq!(data, ["0", "1"]);
        socket.quiet().await;
    }
}

#[tokio::test]
async fn a_user_is_terminated_on_both_nodes() {
    let cluster = cluster().await;
    let mut sockets = Vec::new();
    for node in &cluster.nodes {
        let mut socket = Socket::open(node.public, &FIRST).await;
        socket.sign_in("cluster-terminated").await;
        sockets.push(socket);
    }
    let mut other = Socket::open(cluster.nodes[1].public, &FIRST).await;
    other.sign_in("cluster-not-terminated").await;
    let tail = "/users/cluster-terminated/terminate_connections";
    assert_eq!(cluster.rest(0, &FIRST).done(tail, &json!({})).await, json!({}));
    for socket in &mut sockets {
        assert_eq!(socket.closed().await.0, 4009);
    }
    other.quiet().await;
}

#[tokio::test]
async fn friends_on_the_other_node_are_told_of() {
    let cluster = cluster().await;
    let mut here = Socket::open(cluster.nodes[0].public, &WATCHED).await;
    here.ask_sign_in(r#"{"id":"cluster-me","watchlist":["cluster-friend"]}"#).await;
    assert_eq!(here.next().await.event, "pusher:signin_success");
    let told = async |socket: &mut Socket, name: &str| {
        let next = socket.next().await;
        assert_eq!(next.event, "pusher_internal:watchlist_events");
        let expected = json!({"events": [{"name": name, "user_ids": ["cluster-friend"]}]});
        assert_eq!(next.json(), expected);
    };
    told(&mut here, "offline").await;
    let mut friend = Socket::open(cluster.nodes[1].public, &WATCHED).await;
    friend.sign_in("cluster-friend").await;
    told(&mut here, "online").await;
    friend.leave().await;
    told(&mut here, "offline").await;
}

#[tokio::test]
async fn applications_are_apart_on_every_node() {
    let cluster = cluster().await;
    let mut first = Socket::open(cluster.nodes[0].public, &FIRST).await;
    let mut plain = Socket::open(cluster.nodes[1].public, &PLAIN).await;
    first.subscribe("cluster-apart").await;
    plain.subscribe("cluster-apart").await;
    cluster.rest(1, &FIRST).trigger("cluster-apart", "of-first", "1").await;
    cluster.rest(0, &PLAIN).trigger("cluster-apart", "of-plain", "2").await;
    first.hears("cluster-apart", "of-first", "1").await;
    plain.hears("cluster-apart", "of-plain", "2").await;
    first.quiet().await;
    plain.quiet().await;
}

/// What the broker keeps, it keeps once, whichever node the retry goes to.
#[tokio::test]
async fn a_retry_at_the_other_node_is_harmless_where_events_are_kept() {
    let cluster = cluster().await;
    let channel = "cache-cluster-retry";
    let (mut here, mut there) = one_on_each(&cluster, channel).await;
    for socket in [&mut here, &mut there] {
        assert!(socket.next().await.is("pusher:cache_miss", channel));
    }
    for (node, key, data) in [(0, "job-1", "1"), (1, "job-1", "1"), (1, "job-2", "2"), (0, "job-2", "2")] {
        let rest = cluster.rest(node, &FIRST);
        let body = json!({"name": "x", "channel": channel, "data": data}).to_string();
        let request = rest.request("POST", "/events").body(body).header("Idempotency-Key", key);
        assert_eq!(rest.send(request).await.status, 200);
    }
    for socket in [&mut here, &mut there] {
        socket.hears(channel, "x", "1").await;
        socket.hears(channel, "x", "2").await;
    }
    cluster.rest(0, &FIRST).trigger(channel, "after", "").await;
    here.hears(channel, "after", "").await;
    there.hears(channel, "after", "").await;
}

#[tokio::test]
async fn socket_ids_of_two_nodes_differ() {
    let cluster = cluster().await;
    let mut ids = BTreeSet::new();
    for number in 0..100 {
        let socket = Socket::open(cluster.nodes[number % 2].public, &FIRST).await;
        ids.insert(socket.id().to_owned());
    }
    assert_eq!(ids.len(), 100);
}

#[tokio::test]
async fn a_trigger_to_a_hundred_channels_counts_each_on_the_other_node() {
    let cluster = cluster().await;
    let channels: Vec<_> = (0..100).map(|number| format!("cluster-hundred-{number}")).collect();
    let mut there = Socket::open(cluster.nodes[1].public, &FIRST).await;
    for channel in &channels {
        there.subscribe(channel).await;
    }
    let event = json!({"name": "n", "data": "1", "channels": channels, "info": "subscription_count"});
    let told = cluster.rest(0, &FIRST).done("/events", &event).await;
    for channel in &channels {
        assert_eq!(told["channels"][channel], json!({"subscription_count": 1}), "{channel}");
    }
}
