//! Clients nobody here wrote: Chromium's EventSource, the npm package in two versions, fetch, curl; in front of them
//! nginx as Debian installs it, which gathers what it passes on unless it is told not to.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use carillon_tasks::clock;
use carillon_tests::{
    browser::Page,
    daemon::{Daemon, Folder, Net},
    faults::dice::Dice,
    gateway::{self, Gateway, PATIENCE},
    http,
    listener::Listener,
    nats::{NatsServer, NatsVersion},
    process::Process,
    raw::eventually,
};
use serde_json::{Value, json};
use tokio::time::sleep;

const NGINX: (u8, u16) = (20, 8000);
const LIBRARIES: [&str; 2] = ["eventsource-2", "eventsource-4"];

/// What a page does that listens; `heard` are the numbers of its messages, `told` its control objects.
fn listening(url: &str) -> String {
    format!(
        "window.heard = []; window.told = []; window.source = new EventSource({url:?});
         source.onmessage = event => heard.push(JSON.parse(event.data).data);
         source.addEventListener('control', event => told.push(JSON.parse(event.data)));"
    )
}

/// Opens a page of another origin than the gateway's public listener.
fn elsewhere(gateway: &Gateway) -> Page {
    Page::open(&format!("http://{}/livez", gateway.admin))
}

/// Waits until an expression on a page is true.
async fn until(page: &Page, code: &str) {
    let began = clock::now();
    while page.evaluate(code) != true {
        let late = clock::now() - began > PATIENCE;
        assert!(!late, "{code}: {}", page.evaluate("[heard, told, source.readyState]"));
        sleep(Duration::from_millis(50)).await;
    }
}

fn node(library: &str, url: &str) -> Process {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("js/listen.mjs");
    Process::start(Command::new("node").arg(script).args([library, url]))
}

fn curl(arguments: &[&str]) -> Process {
    Process::start(Command::new("curl").args(["--silent", "--show-error", "--no-buffer"]).args(arguments))
}

/// nginx with nothing but `proxy_pass`: HTTP/1.0 to the gateways, buffering, 60 s.
fn start_nginx(net: Net, folder: &Folder, nodes: &[&Gateway]) -> Daemon {
    let (last, port) = NGINX;
    let here = folder.path().display();
    let servers: String = nodes.iter().map(|node| format!("server {};", node.public)).collect();
    let config = format!(
        "worker_processes 1; pid {here}/nginx.pid; error_log stderr warn;
         events {{ worker_connections 1000; }}
         http {{
             access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
             upstream gateways {{ {servers} }}
             server {{ listen {}; location / {{ proxy_pass http://gateways; }} }}
         }}",
        net.at(last, port)
    );
    let config = folder.write("nginx.conf", &config);
    let mut command = Command::new("/usr/sbin/nginx");
    command.args(["-g", "daemon off;", "-p", &format!("{here}/"), "-c"]).arg(config);
    Daemon::start("nginx", &mut command, folder)
}

/// Returns the numbers of the messages that a client in Node.js heard.
fn heard(output: &str) -> Vec<Value> {
    let lines = output.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|line| line["message"]["data"].clone()).filter(|data| !data.is_null()).collect()
}

fn numbers(upto: u64) -> Vec<Value> {
    (1..=upto).map(Value::from).collect()
}

/// The largest promise to those who only listen: a node is killed, and nobody misses or hears twice anything.
#[tokio::test]
async fn behind_nginx_a_killed_node_costs_nobody_a_message() {
    let (code, printed, complaints) = gateway::run(&["key", "new"], &[]);
    assert_eq!(code, Some(0), "{complaints}");
    let key = printed.lines().next().expect("the key is the first line");
    let keys = &printed[printed.find("[[keys]]").expect("its configuration follows")..];
    let nats = NatsServer::start(NatsVersion::Newest);
    let config = format!(
        "{keys}\n[broker]\nkind = \"nats\"\n[broker.nats]\nservers = [\"{}\"]\nreplicas = 1\n\
         [client]\nheartbeat = \"1s\"\n\
         [[channels]]\nname = \"kept\"\nmatch = \"*\"\nhistory = \"long\"\nauth = \"public\"\n",
        nats.url()
    );
    let (dies, stays) = (Gateway::serve(&config), Gateway::serve(&config));
    dies.ready().await;
    stays.ready().await;
    let (folder, net) = (Folder::new("eventsource"), Net::free(&[NGINX]));
    let _nginx = start_nginx(net, &folder, &[&dies, &stays]);
    let front = net.at(NGINX.0, NGINX.1);
    eventually("nginx listens", || async { tokio::net::TcpStream::connect(front).await.ok() }).await;
    let url = format!("http://{front}/v1/sse?channel=a&channel=b");
    let publish = async |number: u64| {
        let channel = if number.is_multiple_of(3) { "b" } else { "a" };
        let answer = stays.publish_as(key, &json!({"channel": channel, "data": number})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let page = elsewhere(&stays);
    let _source = page.evaluate(&format!("{{ {} }}; null", listening(&url)));
    let mut nodes: Vec<_> =
        [LIBRARIES, LIBRARIES].concat().into_iter().map(|name| node(name, &url)).collect();
    until(&page, "told.length == 3").await;
    for node in &nodes {
        let _subscribed = node.says(r#""type":"subscribed","channel":"b""#);
    }
    for number in 1..=30 {
        publish(number).await;
    }
    // What comes through at once was not gathered by nginx.
    until(&page, "heard.length == 30").await;
    let open = r#"carillon_connections{transport="sse",protocol="native"}"#;
    assert!(dies.metric(open).await > 0.5, "somebody is there");
    dies.signal("KILL");
    for number in 31..=60 {
        publish(number).await;
    }
    until(&page, "heard.length >= 60").await;
    publish(61).await;
    until(&page, "heard.includes(61)").await;
    let in_order = |all: Vec<Value>, who: &str| {
        for keep in [true, false] {
            let of = |all: &[Value]| {
                let mine =
                    all.iter().filter(|one| one.as_u64().is_some_and(|one| one.is_multiple_of(3)) == keep);
                mine.cloned().collect::<Vec<_>>()
            };
            assert_eq!(of(&all), of(&numbers(61)), "{who}");
        }
    };
    in_order(page.evaluate("heard").as_array().expect("a list").clone(), "the page");
    for node in &mut nodes {
        let _last = node.says(r#""data":61"#);
        in_order(heard(&node.output()), "a library");
    }
}

#[tokio::test]
async fn a_browser_gives_up_on_what_will_not_pass_and_comes_back_from_what_will() {
    let config = |more: &str| {
        format!(
            "{more}\n[broker]\nkind = \"memory\"\n\
             [[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n"
        )
    };
    let strict = Gateway::serve(&config("[client]\nallowed_origins = [\"https://shop.example\"]"));
    let page = elsewhere(&strict);
    let _source = page.evaluate(&format!(
        "{{ {} }}; null",
        listening(&format!("http://{}/v1/sse?channel=a", strict.public))
    ));
    until(&page, "source.readyState == EventSource.CLOSED").await;
    let full = Gateway::serve(&config("[public]\nmax_connections = 1"));
    let inside = Listener::open(full.public, "/v1/stream?channel=a", &[]).await;
    let page = elsewhere(&full);
    let _source = page
        .evaluate(&format!("{{ {} }}; null", listening(&format!("http://{}/v1/sse?channel=a", full.public))));
    until(&page, "told.some(one => one.error == 'unavailable')").await;
    assert_ne!(page.evaluate("source.readyState"), 2);
    drop(inside);
    until(&page, "told.some(one => one.type == 'subscribed')").await;
}

#[tokio::test]
async fn a_page_of_another_website_polls_and_reads_lines() {
    let gateway = Gateway::dev(&[]);
    let page = elsewhere(&gateway);
    let asked = page.evaluate(&format!(
        "(async () => {{
            const at = 'http://{}/v1/poll?channel=a';
            const first = await fetch(at, {{ headers: {{ 'If-None-Match': '' }} }});
            const etag = first.headers.get('etag');
            const quiet = await fetch(at + '&timeout=0', {{ headers: {{ 'If-None-Match': etag }} }});
            return [first.status, (await first.json()).cursor, etag, quiet.status];
        }})()",
        gateway.public
    ));
    assert_eq!((&asked[0], &asked[3]), (&json!(200), &json!(304)), "{asked}");
    assert_eq!(asked[2], format!("\"{}\"", asked[1].as_str().expect("a cursor")));
    let lines = node("fetch", &format!("http://{}/v1/stream?channel=a", gateway.public));
    let _subscribed = lines.says(r#""type":"subscribed""#);
    assert_eq!(gateway.publish(&json!({"channel": "a", "data": {"text": "grüße\n"}})).await.status, 200);
    let line: Value = serde_json::from_str(&lines.says(r#""type":"message""#)).expect("JSON");
    assert_eq!(line["line"]["data"]["text"], "grüße\n");
}

/// HTML standard §9.2.6, from the other side: whatever text is published, every reader finds it, with line feeds for
/// line breaks of all kinds.
#[tokio::test]
async fn a_raw_text_comes_out_as_it_went_in() {
    let gateway = Gateway::dev(&[]);
    let url = format!("http://{}/v1/sse?channel=a&format=raw&since=-100", gateway.public);
    let parts = [
        "\n",
        "\r",
        "\r\n",
        ":",
        " ",
        "data: ",
        "id: 9\n",
        "event: x",
        "retry: 1\n\n",
        "\u{2028}",
        "\0",
        "ü",
        "\u{feff}",
        "x",
    ];
    let mut dice = Dice::new(7);
    let mut texts: Vec<String> = vec![String::new()];
    for _ in 0..80 {
        texts.push((0..dice.below(9)).filter_map(|_| dice.pick(&parts).copied()).collect());
    }
    texts.push("the last".to_owned());
    for text in &texts {
        assert_eq!(gateway.publish(&json!({"channel": "a", "data": text})).await.status, 200);
    }
    let expected: Vec<String> =
        texts.iter().map(|text| text.replace("\r\n", "\n").replace('\r', "\n")).collect();
    let page = elsewhere(&gateway);
    let listening = format!(
        "{{ window.heard = []; window.told = []; window.source = new EventSource({url:?});
           source.onmessage = event => heard.push(event.data); }}; null"
    );
    let _source = page.evaluate(&listening);
    until(&page, "heard.includes('the last')").await;
    assert_eq!(page.evaluate("heard"), json!(expected));
    for library in LIBRARIES {
        let node = node(library, &url);
        let _last = node.says("the last");
        let lines: Vec<Value> =
            node.output().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let read: Vec<_> =
            lines.iter().map(|line| &line["message"]).filter(|data| data.is_string()).collect();
        assert_eq!(json!(read), json!(expected), "{library}");
    }
}

#[tokio::test]
async fn curl_shows_what_comes_when_it_comes() {
    let gateway = Gateway::dev(&[]);
    let (folder, net) = (Folder::new("curl"), Net::free(&[NGINX]));
    let _nginx = start_nginx(net, &folder, &[&gateway]);
    let front = net.at(NGINX.0, NGINX.1);
    eventually("nginx listens", || async { tokio::net::TcpStream::connect(front).await.ok() }).await;
    for at in [gateway.public, front] {
        for version in ["--http1.1", "--http1.0"] {
            let events = curl(&[version, &format!("http://{at}/v1/sse?channel=a")]);
            let lines = curl(&[version, &format!("http://{at}/v1/stream?channel=a")]);
            let _joined = (events.says(r#""type":"subscribed""#), lines.says(r#""type":"subscribed""#));
            assert_eq!(gateway.publish(&json!({"channel": "a", "data": "now"})).await.status, 200);
            assert!(events.says(r#""data":"now""#).starts_with("data: {"));
            assert!(lines.says(r#""data":"now""#).starts_with('{'));
        }
        // nginx takes the place of a gateway for those who poll, too.
        let answer = http::get(at, "/v1/poll?channel=a&since=0&limit=1").await;
        assert_eq!(answer.json()["messages"][0]["data"], "now", "{answer:?}");
    }
}

/// A comment comes before any proxy loses its patience; here they are all in more of a hurry.
#[tokio::test]
async fn a_quiet_stream_stays_open_behind_nginx() {
    let gateway = Gateway::dev(&[("CARILLON__CLIENT__HEARTBEAT", "1s")]);
    let (folder, net) = (Folder::new("quiet"), Net::free(&[NGINX]));
    let _nginx = start_nginx(net, &folder, &[&gateway]);
    let front = net.at(NGINX.0, NGINX.1);
    eventually("nginx listens", || async { tokio::net::TcpStream::connect(front).await.ok() }).await;
    let mut quiet = Listener::connect(front).await;
    // nginx would cut the response to a newer request into chunks of its own.
    quiet.send("GET /v1/sse?channel=a HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").await;
    assert_eq!(quiet.head().await.status, 200);
    let began: Instant = clock::now();
    let mut beats = 0;
    while beats < 5 {
        beats += usize::from(quiet.event().await.comments == [""]);
    }
    assert!(clock::now() - began < PATIENCE, "comments come one by one, not when a buffer is full");
}
