//! pusher-js as a page loads it, in Chromium, on one of two nodes.

use std::{fs, net::SocketAddr, time::Duration};

use carillon_tasks::clock;
use carillon_tests::{
    browser::Page,
    document::root,
    front::Front,
    gateway::{Gateway, PATIENCE},
    pusher::{App, Cluster, FIRST, cluster},
    raw::eventually,
};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Opens a page of another origin than the gateway's public listener, with pusher-js and its encryption in it.
fn page(gateway: &Gateway) -> Page {
    let script = root().join("tests/js/node_modules/pusher-js/dist/web/pusher-with-encryption.js");
    let script = fs::read_to_string(&script)
        .unwrap_or_else(|fault| panic!("{}: {fault}; run `make tools`", script.display()));
    let page = Page::open(&format!("http://{}/livez", gateway.admin));
    let _null = page.evaluate(&format!("{script}; null"));
    page
}

/// What a page does to connect in a way of pusher-js: what must be signed waits in `asked` for its signature.
fn connects(to: SocketAddr, app: &App, transport: &str) -> String {
    let (host, port) = (to.ip(), to.port());
    format!(
        "window.heard = []; window.asked = []; window.complaints = [];
         const ask = (params, done) => asked.push({{...params, done}});
         window.pusher = new Pusher({:?}, {{
             cluster: '', forceTLS: false, enabledTransports: [{transport:?}],
             wsHost: '{host}', wsPort: {port}, httpHost: '{host}', httpPort: {port},
             channelAuthorization: {{customHandler: ask}}, userAuthentication: {{customHandler: ask}},
         }});
         pusher.connection.bind('error', error => complaints.push(error));
         pusher.bind_global((event, data) => heard.push([event, data])); null",
        app.key
    )
}

/// Waits until an expression on a page is true.
async fn until(page: &Page, code: &str) {
    let deadline = clock::now() + PATIENCE;
    while page.evaluate(code) != true {
        let shown = "JSON.stringify([pusher.connection.state, heard, complaints])";
        assert!(clock::now() < deadline, "{code}: {}", page.evaluate(shown));
        sleep(Duration::from_millis(50)).await;
    }
}

/// Signs for what a page asks next: a channel, or without one a user.
async fn sign(page: &Page, data: Option<&Value>) {
    until(page, "asked.length > 0").await;
    let asked = page.evaluate("({channel: asked[0].channelName, socket: asked[0].socketId})");
    let socket = asked["socket"].as_str().expect("a socket id");
    let data = data.map(Value::to_string);
    let mut answer = json!({});
    if let Some(channel) = asked["channel"].as_str() {
        answer["auth"] = FIRST.auth(socket, channel, data.as_deref()).into();
        answer["channel_data"] = data.into();
    } else {
        let data = data.expect("a user has data");
        answer["auth"] = FIRST.user_auth(socket, &data).into();
        answer["user_data"] = data.into();
    }
    let _null = page.evaluate(&format!("asked.shift().done(null, {answer}); null"));
}

async fn joined(page: &Page, channel: &str) {
    until(page, &format!("pusher.channel({channel:?}).subscribed === true")).await;
}

fn heard(page: &Page) -> Value {
    let ours = "heard.filter(([event]) => !event.startsWith('pusher:'))";
    page.evaluate(ours)
}

async fn hears_every_kind_of_channel(transport: &str) {
    let cluster = cluster().await;
    let [told, listened] = &cluster.nodes[..] else { panic!("two nodes") };
    let rest = told.rest(&FIRST);
    let page = page(listened);
    let _null = page.evaluate(&connects(listened.public, &FIRST, transport));
    let ana = json!({"user_id": "ana", "user_info": {"name": "Ana"}});
    let channels = ["open", "private", "presence"].map(|kind| format!("{kind}-{transport}"));
    for channel in &channels {
        let _null = page.evaluate(&format!("pusher.subscribe({channel:?}); null"));
        if channel.starts_with("presence-") {
            sign(&page, Some(&ana)).await;
        } else if channel.starts_with("private-") {
            sign(&page, None).await;
        }
        joined(&page, channel).await;
        rest.trigger(channel, "App\\Events\\Said", &json!({"on": channel, "text": "Grüße 🔔"}).to_string())
            .await;
    }
    until(&page, "heard.filter(([event]) => !event.startsWith('pusher:')).length === 3").await;
    let said = |channel: &String| json!(["App\\Events\\Said", {"on": channel, "text": "Grüße 🔔"}]);
    assert_eq!(heard(&page), Value::from_iter(channels.iter().map(said)));
    let me = format!("pusher.channel('presence-{transport}').members.me");
    assert_eq!(page.evaluate(&me), json!({"id": "ana", "info": {"name": "Ana"}}));
    assert_eq!(page.evaluate("pusher.connection.connection.transport.name"), *transport);
    assert_eq!(page.evaluate("complaints"), json!([]));
    let _null = page.evaluate("pusher.disconnect(); null");
    let empty = || async {
        let answer = rest.read(&format!("/channels/presence-{transport}"), &[]).await;
        (answer["occupied"] == false).then_some(())
    };
    eventually("the page has left", empty).await;
}

async fn pages_talk_to_each_other(transport: &str) {
    let channel = format!("private-pages-{transport}");
    let cluster = cluster().await;
    let pages: Vec<_> = cluster.nodes.iter().map(page).collect();
    for (page, node) in pages.iter().zip(&cluster.nodes) {
        let connects = connects(node.public, &FIRST, transport);
        let _null = page.evaluate(&format!("{connects}; pusher.subscribe({channel:?}); null"));
        sign(page, None).await;
        joined(page, &channel).await;
    }
    let [one, other] = &pages[..] else { panic!("two pages") };
    let says =
        |who: &str| format!("pusher.channel({channel:?}).trigger('client-typing', {{who: {who:?}}}); null");
    let _null = one.evaluate(&says("one"));
    until(other, "heard.some(([event]) => event === 'client-typing')").await;
    let _null = other.evaluate(&says("other"));
    until(one, "heard.some(([event]) => event === 'client-typing')").await;
    assert_eq!(heard(one), json!([["client-typing", {"who": "other"}]]));
    assert_eq!(heard(other), json!([["client-typing", {"who": "one"}]]));
}

#[tokio::test]
async fn a_page_hears_every_kind_of_channel() {
    hears_every_kind_of_channel("ws").await;
}

#[tokio::test]
async fn a_page_hears_them_by_a_stream() {
    hears_every_kind_of_channel("xhr_streaming").await;
}

#[tokio::test]
async fn a_page_hears_them_by_polls() {
    hears_every_kind_of_channel("xhr_polling").await;
}

#[tokio::test]
async fn pages_on_two_nodes_talk_to_each_other() {
    pages_talk_to_each_other("ws").await;
}

#[tokio::test]
async fn pages_with_streams_talk_to_each_other() {
    pages_talk_to_each_other("xhr_streaming").await;
}

#[tokio::test]
async fn pages_that_poll_talk_to_each_other() {
    pages_talk_to_each_other("xhr_polling").await;
}

#[tokio::test]
async fn a_page_signs_in_and_is_reached_until_it_is_terminated() {
    let cluster = cluster().await;
    let [told, listened] = &cluster.nodes[..] else { panic!("two nodes") };
    let rest = told.rest(&FIRST);
    let page = page(listened);
    let _null = page.evaluate(&format!("{}; pusher.signin(); null", connects(listened.public, &FIRST, "ws")));
    sign(&page, Some(&json!({"id": "browser-ana"}))).await;
    until(&page, "pusher.user.serverToUserChannel?.subscribed === true").await;
    let _null = page.evaluate("pusher.user.bind('note', data => heard.push(['to the user', data])); null");
    rest.trigger("#server-to-user-browser-ana", "note", r#"{"n":1}"#).await;
    until(&page, "heard.some(([event]) => event === 'to the user')").await;
    assert_eq!(rest.done("/users/browser-ana/terminate_connections", &json!({})).await, json!({}));
    until(&page, "pusher.connection.state === 'disconnected'").await;
    // By the error, and by the close code.
    let codes = page.evaluate("complaints.map(({data, error}) => (data ?? error.data).code)");
    assert!(
        codes.as_array().is_some_and(|codes| !codes.is_empty() && codes.iter().all(|code| code == 4009)),
        "{codes}"
    );
}

/// A node that stops says so, and its page is at another one within moments.
#[tokio::test]
async fn a_page_moves_to_another_node_when_its_own_stops() {
    let mut cluster = Cluster::start(2);
    cluster.ready().await;
    cluster.acquainted().await;
    let front = Front::start(&cluster.nodes).await;
    let page = page(&cluster.nodes[0]);
    let connects = connects(front.at, &FIRST, "ws");
    let _null = page.evaluate(&format!("{connects}; pusher.subscribe('moving'); null"));
    joined(&page, "moving").await;
    let before = page.evaluate("pusher.connection.socket_id");
    let open = r#"carillon_connections{transport="websocket",protocol="pusher"}"#;
    let on_first = cluster.nodes[0].metric(open).await > 0.5;
    let mut stops = cluster.nodes.remove(usize::from(!on_first));
    stops.signal("TERM");
    until(&page, &format!("pusher.connection.socket_id !== {before} && pusher.channel('moving').subscribed"))
        .await;
    cluster.rest(0, &FIRST).trigger("moving", "there", "5").await;
    until(&page, "heard.some(([event]) => event === 'there')").await;
    // A closing handshake, not an accident: nothing turned to another transport.
    assert_eq!(page.evaluate("pusher.connection.connection.transport.name"), "ws");
    assert_eq!(
        page.evaluate("complaints.every(({data, error}) => (data ?? error.data).code === 4200)"),
        true
    );
    assert!(stops.ended().success());
}
