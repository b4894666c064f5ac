//! The page for trying it, in Chromium: what a newcomer sees and copies.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use carillon_tests::{
    browser::Page,
    gateway::{Gateway, binary},
    http,
    nats::{NatsServer, NatsVersion},
    php,
    process::Process,
};
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, client::IntoClientRequest as _},
};

/// A name that means something in every language that it is written in.
const CHANNEL: &str = r#"it's-"$HOME"`id`\n\'</script<img/src=x&amp;%41$(id)!!-é🔔"#;
const EVENT: &str = r#"-o'r "d$e r" \ `id` ?> <b>bold</b> {$x}"#;

/// Data with everything that quoting could lose.
const DATA: &str = r#"{
  "text": "it's \"quoted\" $HOME ${HOME} $(id) `id` \\ \\' \n\t </script><img src=x onerror=alert(1)> <?php ?> %41 !! 🔔",
  "o'key \\": {"0": "zero", "1": "one"}, "empty": {}, "list": [], "nested": [[1, -2.5], [true, false, null]],
  "huge": 9007199254740991, "<b>": "&lt;"
}"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn open(gateway: &Gateway) -> Page {
    open_with(gateway, &json!({}))
}

/// Opens the page of a gateway and waits until it listens to the channel that it begins with.
fn open_with(gateway: &Gateway, options: &Value) -> Page {
    let page = Page::open_with(&format!("http://{}/", gateway.public), options);
    listening(&page, "news");
    page
}

fn listening(page: &Page, channel: &str) {
    page.until("#state[data-state=connected]", "Connected");
    page.until("#channels .listening", channel);
}

fn publish_from_php(gateway: &Gateway, text: &str) {
    let code = r"
        $patience = ['connect_timeout_ms' => 20000, 'timeout_ms' => 20000];
        $carillon = new Carillon\Client(getenv('API'), 'dev', $patience);
        $carillon->publish('news', ['from' => getenv('TEXT')], ['event' => 'greeting']);
    ";
    let api = format!("http://{}", gateway.api);
    let (status, output, complaints) = php::piece(code, &[("API", &api), ("TEXT", text)]).ended();
    assert!(status.success(), "{output}{complaints}");
}

fn assert_quiet(page: &Page) {
    assert_eq!(page.complaints(), Vec::<String>::new());
}

#[test]
fn what_php_publishes_is_shown() {
    let gateway = Gateway::dev(&[]);
    let page = open(&gateway);
    page.until("#nothing", "Press Publish");
    publish_from_php(&gateway, "PHP <b>itself</b>");
    page.until("#messages li", r#"{"from":"PHP <b>itself</b>"}"#);
    page.until("#messages .event", "greeting");
    page.until("#messages .latency", "ms from gateway");
    assert_eq!(page.evaluate("document.getElementById('nothing').hidden"), true);
    assert_quiet(&page);
}

#[test]
fn the_first_message_takes_one_click() {
    let gateway = Gateway::dev(&[]);
    let page = open(&gateway);
    page.click("#send");
    page.until("#messages li", r#"{"hello":"world"}"#);
    page.until("#messages .latency", "ms from click");
    page.until("#outcome", "Published, stored as");
    page.click("summary");
    page.until("#frames .sent", r#"{"type":"subscribe","channel":"news","ref":1}"#);
    page.until("#frames .received", r#""data":{"hello":"world"},"time":"#);

    page.click("#connect");
    page.until("#state", "Disconnected");
    assert_eq!(page.text("#connect"), "Connect");
    page.click("#connect");
    listening(&page, "news");
    assert_quiet(&page);
}

#[test]
fn the_keyboard_is_enough() {
    let gateway = Gateway::dev(&[]);
    let page = open(&gateway);
    let mut order = Vec::new();
    while order.last().is_none_or(|id| id != "send") {
        assert!(order.len() < 20, "{order:?}");
        page.press("Tab");
        order.push(page.evaluate("document.activeElement.id"));
        let outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle");
        assert_eq!(outline, "solid", "{order:?}");
    }
    assert_eq!(order, ["connect", "channel", "event", "data", "send"]);
    page.press("Enter");
    page.until("#messages li", "hello");
    assert_quiet(&page);
}

#[test]
fn two_pages_on_two_nodes_see_the_same() {
    let nats = NatsServer::start(NatsVersion::Newest);
    let url = nats.url();
    let environment = [
        ("CARILLON__BROKER__KIND", "nats"),
        ("CARILLON__BROKER__NATS__SERVERS", url.as_str()),
        ("CARILLON__BROKER__NATS__REPLICAS", "1"),
        ("CARILLON__API__DEADLINE", "20s"),
    ];
    let nodes = [Gateway::dev(&environment), Gateway::dev(&environment)];
    let pages = nodes.each_ref().map(|node| {
        let page = open(node);
        page.until("#here", &format!("node {} · broker nats", node.public));
        page
    });
    pages[0].click("#send");
    for page in &pages {
        page.until("#messages li", r#"{"hello":"world"}"#);
    }
    pages[0].until("#messages .latency", "ms from click");
    pages[1].until("#messages .latency", "ms from gateway");
    publish_from_php(&nodes[1], "node two");
    for page in &pages {
        page.until("#messages li", "node two");
        assert_quiet(page);
    }
}

/// Returns addresses that this process has to itself, on ports that the system gives to no outgoing connection: a
/// gateway can come back to them.
fn own_addresses() -> [SocketAddr; 3] {
    static NEXT: AtomicU16 = AtomicU16::new(18_000);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = NEXT.fetch_add(3, Ordering::Relaxed);
    // A process's number has 22 bits.
    [0, 1, 2].map(|more| SocketAddr::from(([127, 64 | high, middle, low], port + more)))
}

/// Stops the gateway under the page with a signal, brings it back, and expects the page to have healed.
fn heals_after(signal: &str) -> Page {
    let addresses = own_addresses();
    let mut gateway = Gateway::dev_at(addresses, &[]);
    let page = open(&gateway);
    page.click("summary");
    gateway.signal(signal);
    let _status = gateway.ended();
    page.until("#state", "The gateway does not answer. Connecting again");
    page.click("#send");
    page.until("#outcome", "does not answer. It is unknown whether it was published.");

    let gateway = Gateway::dev_at(addresses, &[]);
    listening(&page, "news");
    page.until("#messages .notice", "Connected again.");
    // The embedded broker forgot what it had, and the page says so.
    page.until("#messages .notice", "news: what was published in between cannot be had any more.");
    publish_from_php(&gateway, signal);
    page.until("#messages li", signal);
    page.click("#send");
    page.until("#messages li", "hello");
    page
}

#[test]
fn a_killed_gateway_is_found_again() {
    let page = heals_after("KILL");
    // The browser itself complains of an address where nobody is.
    for complaint in page.complaints() {
        let of_the_network = ["WebSocket connection to", "Failed to load resource"];
        assert!(of_the_network.iter().any(|start| complaint.starts_with(start)), "{complaint}");
    }
}

#[test]
fn a_gateway_that_said_goodbye_is_found_again() {
    let page = heals_after("TERM");
    page.until("#frames .received", r#"{"type":"goodbye","code":4201,"error":"draining""#);
}

/// The gateway stands still, the page gives it up, and messages are published before it is back: none is missing.
#[test]
fn what_was_published_while_the_page_was_away_follows() {
    let gateway = Gateway::dev(&[("CARILLON__CLIENT__HEARTBEAT", "1s")]);
    let page = open(&gateway);
    publish_from_php(&gateway, "before");
    page.until("#messages li", "before");
    page.click("#connect");
    page.until("#state", "Disconnected.");
    publish_from_php(&gateway, "while away, one");
    publish_from_php(&gateway, "while away, two");
    page.click("#connect");
    page.until("#messages .notice", "news: 2 that were published in between.");
    page.until("#messages li", "while away, one");
    page.until("#messages li", "while away, two");
    assert_quiet(&page);
}

#[test]
fn a_gateway_that_fell_silent_is_given_up() {
    let gateway = Gateway::dev(&[("CARILLON__CLIENT__HEARTBEAT", "1s")]);
    let page = open(&gateway);
    gateway.signal("STOP");
    page.until("#state", "The gateway has been silent for too long.");
    gateway.signal("CONT");
    listening(&page, "news");
}

#[test]
fn mistakes_are_told_in_words() {
    let gateway = Gateway::dev(&[]);
    let page = open(&gateway);
    page.fill("#data", "hello");
    page.click("#send");
    page.until("#fault", "This is not JSON: ");
    page.until("#fault", r#"A string needs double quotes: "hello"."#);
    assert_eq!(page.evaluate("document.activeElement.id"), "data");
    page.fill("#data", " ");
    page.until("#fault", "The data is empty. Write null for none.");
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for levels in [101, 9000, 100_000] {
        page.fill("#data", &nested(levels));
        page.until("#fault", "The data is nested deeper than 100 levels.");
    }
    page.fill("#data", &nested(100));
    page.click("#send");
    page.until("#outcome", "Published, stored as");
    assert_quiet(&page);

    page.fill("#data", "1");
    page.fill("#channel", "a b");
    page.click("#send");
    page.until("#outcome", "Refused (400 bad_request): a channel name cannot contain ' '");
    page.fill("#channel", "elsewhere");
    page.click("#send");
    page.until("#outcome", "This page does not listen to that channel.");

    page.fill("#more", "a*b");
    page.press("Enter");
    page.until("#refused", "a*b is refused: a channel name cannot contain '*'");
    page.until("#channels .refused", "a*b");
    page.click("#channels .refused button");
    assert_eq!(page.evaluate(&drawn("document.getElementById('refused').hidden")), true);
    // More than the gateway reads in one frame: it would hang up.
    page.fill("#more", &"é".repeat(50_000));
    page.press("Enter");
    page.until("#refused", "is refused: a channel name has at most 200 bytes, this one has 100000.");
    page.click("#connect");
    page.click("#connect");
    listening(&page, "news");
    page.click("#channels .refused button");
    page.fill("#more", "elsewhere");
    page.press("Enter");
    listening(&page, "elsewhere");
    listening(&page, "news");
}

/// Returns an expression's value after what has changed is drawn.
fn drawn(code: &str) -> String {
    format!("new Promise(requestAnimationFrame).then(() => {code})")
}

#[test]
fn names_that_are_refused_or_that_a_terminal_obeys_are_in_no_command() {
    let gateway = Gateway::dev(&[]);
    let page = Page::open(&format!("http://{}/#channel=%15touch+OWNED%0A", gateway.public));
    listening(&page, "news");
    for refused in ["a*b", "\u{15}touch"] {
        page.fill("#more", refused);
        page.press("Enter");
        page.until("#refused", &format!("{refused} is refused"));
    }
    page.click("#connect");
    page.until("#state", "Disconnected");
    page.until("#channels li", "not yet listening");
    assert!(copied(&page, "tail").ends_with(" -- news"));
    assert_eq!(page.evaluate("location.hash"), "#channel=news");
    page.click("summary");
    page.click("#connect");
    listening(&page, "news");
    assert_eq!(page.evaluate(&drawn("document.querySelectorAll('#channels .refused').length")), 2);
    page.until("#frames .sent", r#"{"type":"subscribe","channel":"news","ref":3,"since":""#);
    let asked =
        "[...document.querySelectorAll('#frames .sent')].filter(sent => sent.textContent.includes('a*b'))";
    assert_eq!(page.evaluate(&format!("{asked}.length")), 1, "asked for once");

    page.fill("#channel", "a\u{15}b");
    page.fill("#event", "c\u{1b}d");
    page.fill("#data", "{\n\t\"\u{7f}\": 1}");
    for name in ["curl", "publish"] {
        let command = copied(&page, name);
        assert!(!command.contains(|c: char| c.is_control() && c != '\n'), "{command:?}");
        assert!(command.contains(r#"{\n "\u007f": 1}"#.replace("\\n", "\n").as_str()), "{command:?}");
    }
    assert_quiet(&page);
}

#[test]
fn a_long_link_does_not_freeze_the_page() {
    let gateway = Gateway::dev(&[]);
    let channels: String = (0..20_000).map(|number| format!("&channel=c{number}")).collect();
    let page = Page::open(&format!("http://{}/#{channels}", gateway.public));
    listening(&page, "c99");
    page.click("#send");
    page.until("#outcome", "This page does not listen to that channel.");
    assert_eq!(page.evaluate("document.querySelectorAll('#channels li').length"), 100);
    assert_quiet(&page);
}

#[test]
fn a_browser_that_keeps_the_address_does_not_stop_the_page() {
    let gateway = Gateway::dev(&[]);
    let page = open(&gateway);
    let _null = page.evaluate("void (history.replaceState = () => { throw new Error('too often'); })");
    page.fill("#more", "elsewhere");
    page.press("Enter");
    listening(&page, "elsewhere");
    assert!(copied(&page, "tail").ends_with(" -- news elsewhere"));
    assert_quiet(&page);
}

/// Frames of a gateway that is none. An object like this one cannot be made a text.
const NO_FRAMES: &[&str] = &[
    "",
    "no JSON",
    "null",
    "7",
    "[]",
    r#"{"type":{"toString":1,"valueOf":1}}"#,
    r#"{"type":"message","channel":{"toString":1,"valueOf":1},"id":"x-1","data":1,"time":1}"#,
    r#"{"type":"message","channel":"news","id":{"toString":1,"valueOf":1},"data":1,"time":1}"#,
    r#"{"type":"message","channel":"news","id":"x-2","event":{"toString":1,"valueOf":1},"data":1,"time":1}"#,
    r#"{"type":"message","channel":"news","id":"x-3","data":1,"time":{"toString":1,"valueOf":1}}"#,
    r#"{"type":"error","channel":"news","message":{"toString":1,"valueOf":1}}"#,
    r#"{"type":"gap","channel":{"toString":1,"valueOf":1}}"#,
    r#"{"type":"goodbye","retry_after_ms":{"toString":1,"valueOf":1}}"#,
    r#"{"type":"welcome","ping":{"toString":1,"valueOf":1}}"#,
];

#[test]
fn frames_that_are_none_are_shown_and_do_no_harm() {
    let gateway = Gateway::dev(&[]);
    let page = open(&gateway);
    page.click("summary");
    page.click("#connect");
    // The page's own socket, with what comes out of it in our hands.
    let _null = page.evaluate(
        "void (window.WebSocket = class extends WebSocket { constructor(url) { super(url); window.socket = this; } })",
    );
    page.click("#connect");
    listening(&page, "news");
    for frame in NO_FRAMES {
        let frame = Value::from(*frame);
        let _null =
            page.evaluate(&format!("socket.onmessage(new MessageEvent('message', {{ data: {frame} }}))"));
    }
    page.until("#frames .received", r#"{"type":"goodbye","retry_after_ms":{"toString":1,"valueOf":1}}"#);
    page.click("#send");
    page.until("#messages li", r#"{"hello":"world"}"#);
    listening(&page, "news");
    assert_eq!(
        page.evaluate("document.querySelectorAll('#messages li').length"),
        2,
        "one message, one notice"
    );
    assert_quiet(&page);
}

#[test]
fn what_cannot_be_drawn_does_not_stop_what_comes_after_it() {
    let gateway = Gateway::dev(&[]);
    let page = open(&gateway);
    let code = "(async () => {
        const { Feed } = await import('/page/feed.js');
        const list = document.createElement('ol');
        const feed = new Feed(list, 5, thing => document.createTextNode(thing.text.trim()));
        const failed = new Promise(resolve => addEventListener('error', resolve, { once: true }));
        feed.add({});
        await failed;
        const drawn = new Promise(resolve => new MutationObserver(resolve).observe(list, { childList: true }));
        feed.add({ text: 'next' });
        await drawn;
        return list.textContent;
    })()";
    assert_eq!(page.evaluate(code), "next");
}

#[test]
fn a_narrow_page_does_not_scroll_sideways() {
    let gateway = Gateway::dev(&[]);
    let page = open_with(&gateway, &json!({"viewport": {"width": 360, "height": 740}}));
    let long = "x".repeat(180);
    page.fill("#channel", &long);
    page.fill("#event", &long);
    page.fill("#data", &json!({ &long: long }).to_string());
    page.fill("#more", &long);
    page.click("#listen button");
    listening(&page, &long);
    page.click("#send");
    page.until("#messages li", &long);
    page.click("summary");
    page.until("#frames li", &long);
    assert_eq!(page.evaluate("document.documentElement.scrollWidth"), 360);
    assert_quiet(&page);
}

/// Runs a command of the page as somebody would who has copied it.
fn shell(command: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", command]).current_dir(root());
    shell
}

/// Returns a command as the page's own button copies it.
fn copied(page: &Page, name: &str) -> String {
    page.click(&format!("#command-{name} button"));
    let title = page.text(&format!("#command-{name} h3"));
    page.until("#copied", &format!("{title}: copied"));
    let text = page.evaluate("navigator.clipboard.readText()");
    let text = text.as_str().expect("a text is copied").to_owned();
    assert_eq!(text, page.text(&format!("#command-{name} code")));
    text
}

#[test]
fn hostile_names_and_data_are_only_texts_and_the_commands_carry_them() {
    let gateway = Gateway::dev(&[]);
    let page = open(&gateway);
    page.fill("#more", CHANNEL);
    page.press("Enter");
    listening(&page, CHANNEL);
    page.fill("#channel", CHANNEL);
    page.fill("#event", EVENT);
    page.fill("#data", DATA);

    let tail = Process::start(&mut shell(&copied(&page, "tail")));
    let undici = root().join("tests/js/node_modules/undici");
    let script = format!(
        "globalThis.WebSocket = require({undici:?}).WebSocket;\n{}\n\
         console.log = (...all) => process.stdout.write(JSON.stringify(all) + '\\n');\n\
         socket.addEventListener('message', event => process.stderr.write(event.data + '\\n'));",
        copied(&page, "js")
    );
    let node = Process::start(Command::new("node").args(["-e", &script]));
    let quoted = serde_json::to_string(CHANNEL).expect("a text is JSON");
    let subscribed = format!(r#"{{"type":"subscribed","channel":{quoted}"#);
    let _line = tail.says(&subscribed);
    let _line = node.complains(&subscribed);

    // The client's second is enough for a person's machine, and may not be for one that runs tests.
    let patient = "'dev', ['connect_timeout_ms' => 20000, 'timeout_ms' => 20000])";
    let php = copied(&page, "php").replace("'dev')", patient);
    assert!(php.contains(patient), "{php}");
    let commands =
        [copied(&page, "curl"), copied(&page, "publish"), format!("php <<'END-OF-PHP'\n{php}\nEND-OF-PHP")];
    for command in &commands {
        let (status, output, complaints) = Process::start(&mut shell(command)).ended();
        assert!(status.success(), "{command}\n{output}{complaints}");
    }
    page.click("#send");
    page.until("#outcome", "Published, stored as");

    let data: Value = serde_json::from_str(DATA).expect("the data is JSON");
    for number in 1..=commands.len() + 1 {
        let line = tail.says(&format!("-{number}\",\"event\""));
        let message: Value = serde_json::from_str(&line).expect("a frame is JSON");
        assert_eq!(message["channel"], CHANNEL, "{number}");
        assert_eq!(message["event"], EVENT, "{number}");
        assert_eq!(message["data"], data, "{number}");
    }
    let line = node.says(CHANNEL_START);
    let [channel, heard]: [Value; 2] = serde_json::from_str(&line).expect("JSON was written");
    assert_eq!((channel.as_str(), heard), (Some(CHANNEL), data));

    page.until("#messages .latency", "ms from click");
    for (selector, text) in [(".channel", CHANNEL), (".event", EVENT)] {
        let code = format!("document.querySelector('#messages {selector}').textContent");
        assert_eq!(page.evaluate(&code), text);
    }
    let shown = page.evaluate("document.querySelector('#messages pre').textContent");
    // Verbatim, but for breaks of lines between the members.
    assert_eq!(shown.as_str().expect("a text"), DATA.replace('\n', " "));
    let injected = "document.querySelectorAll('main img, main script, main b, script:not([src])').length";
    assert_eq!(page.evaluate(injected), 0);
    assert_quiet(&page);
}

/// How JSON writes the beginning of the channel's name.
const CHANNEL_START: &str = r#"["it's-\"$HOME"#;

/// Asks the public listener for something by a name that leads to it.
async fn ask(gateway: &Gateway, method: &str, path: &str, host: String) -> http::Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    http::raw(gateway.public, request.as_bytes()).await
}

/// Returns the status of a handshake that a page of `origin` makes.
async fn handshake(gateway: &Gateway, origin: &str) -> u16 {
    let mut request = gateway.ws("").into_client_request().expect("a URL");
    request.headers_mut().insert("origin", origin.parse().expect("a header"));
    match connect_async(request).await {
        Ok((_socket, response)) => response.status().as_u16(),
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(fault) => panic!("{origin}: {fault}"),
    }
}

#[tokio::test]
async fn only_pages_of_this_machine_are_answered() {
    let gateway = Gateway::dev(&[]);
    let port = gateway.public.port();
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "localhost".to_owned()] {
        assert_eq!(ask(&gateway, "GET", "/page/here.json", host).await.status, 200);
    }
    for path in ["/", "/page/here.json"] {
        let answer = ask(&gateway, "GET", path, format!("example.com:{port}")).await;
        assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("forbidden")));
        assert!(!answer.body.contains("\"dev\""), "{}", answer.body);
    }
    for ours in ["http://127.0.0.1:8080", "https://localhost", "http://[::1]:1", "http://shop.test", "null"] {
        assert_eq!(handshake(&gateway, ours).await, 101, "{ours}");
    }
    for strange in ["http://example.com", "https://localhost.example.com", "http://10.0.0.1:8000"] {
        assert_eq!(handshake(&gateway, strange).await, 403, "{strange}");
    }
    let _line = gateway.logged("a website of another machine was refused");
}

#[test]
fn a_website_whose_name_leads_here_reads_nothing() {
    let gateway = Gateway::dev(&[]);
    let site = Page::open(&format!("http://website.example:{}/", gateway.public.port()));
    site.until("body", "is not of this machine");
    assert_eq!(site.evaluate("fetch('/page/here.json').then(answer => answer.status)"), 403);
    let opens = |page: &Page| {
        page.evaluate(&format!(
            "new Promise(resolve => {{
                const socket = new WebSocket('{}');
                socket.onopen = () => resolve(true);
                socket.onclose = () => resolve(false);
            }})",
            gateway.ws("channel=news")
        ))
    };
    assert_eq!(opens(&site), false);
    // Somebody's first page may be a file.
    let file = Page::open(&format!("file://{}", root().join("README.md").display()));
    assert_eq!(opens(&file), true);
}

#[tokio::test]
async fn only_the_pages_own_files_are_served_and_strictly() {
    let gateway = Gateway::dev(&[]);
    let ask =
        |method: &'static str, path: &'static str| ask(&gateway, method, path, gateway.public.to_string());
    let page = ask("GET", "/").await;
    let policy = page.header("content-security-policy").expect("a policy");
    for part in [
        "default-src 'none'; script-src 'self'; style-src 'self';",
        &format!("connect-src 'self' http://{};", gateway.api),
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(page.header("cache-control"), Some("no-store"));

    let here = ask("GET", "/page/here.json").await.json();
    assert_eq!(here["api"], format!("http://{}", gateway.api));
    assert_eq!((&here["key"], &here["broker"]), (&json!("dev"), &json!("memory")));
    assert_eq!(here["program"], binary().to_str().expect("a plain path"), "as it was called");

    let head = ask("HEAD", "/").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(page.body.len().to_string().as_str()));
    let posted = ask("POST", "/page/app.js").await;
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(posted.json()["error"], "method_not_allowed");
    for path in ["/page/", "/page/none.js", "/page/../page/app.js", "/page.html"] {
        assert_eq!(ask("GET", path).await.status, 404, "{path}");
    }
}

/// Asks on behalf of a page, as browsers do before its request, and then with the request itself. Returns which pages
/// may read the answers.
async fn permitted(gateway: &Gateway, origin: &str) -> [Option<String>; 2] {
    let request = format!(
        "OPTIONS /v1/publish HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: {origin}\r\n\
         Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization,content-type\r\n\r\n"
    );
    let asked = http::raw(gateway.api, request.as_bytes()).await;
    let headers = [("Authorization", "Bearer dev"), ("Origin", origin)];
    let posted = http::post(gateway.api, "/v1/publish", &headers, r#"{"channel":"news","data":1}"#).await;
    let refused = http::post(gateway.api, "/v1/publish", &[("Origin", origin)], "{}").await;
    let allowed = |answer: &http::Answer| answer.header("access-control-allow-origin").map(str::to_owned);
    // A website whose name leads to this machine needs no permission to read: it is refused.
    let ours = allowed(&asked).is_some();
    assert_eq!((posted.status, refused.status), if ours { (200, 401) } else { (403, 403) });
    assert_eq!(allowed(&refused), allowed(&posted));
    assert_eq!(asked.status == 200, allowed(&asked).is_some());
    assert_eq!(asked.header("access-control-allow-headers").is_some(), allowed(&asked).is_some());
    for answer in [&asked, &posted, &refused] {
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    [allowed(&asked), allowed(&posted)]
}

#[tokio::test]
async fn only_the_page_may_publish_from_a_browser() {
    let gateway = Gateway::dev(&[]);
    let port = gateway.public.port();
    for ours in [format!("http://127.0.0.1:{port}"), format!("http://localhost:{port}")] {
        assert_eq!(permitted(&gateway, &ours).await, [Some(ours.clone()), Some(ours)]);
    }
    let api = gateway.api;
    for strange in [
        "http://example.com".to_owned(),
        "null".to_owned(),
        "*".to_owned(),
        format!("https://127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}0"),
        format!("http://127.0.0.1:{port}.example.com"),
        format!("http://{api}"),
    ] {
        assert_eq!(permitted(&gateway, &strange).await, [None, None], "{strange}");
    }
    let answer = http::get(gateway.api, "/openapi.yaml").await;
    assert_eq!(answer.header("vary"), Some("Origin"));
}

#[tokio::test]
async fn a_node_in_production_has_no_page_and_lets_none_publish() {
    let gateway = Gateway::serve("[[channels]]\nname = \"all\"\nmatch = \"*\"\nauth = \"public\"\n");
    for path in ["/", "/page/app.js", "/page/here.json"] {
        assert_eq!(http::get(gateway.public, path).await.status, 404, "{path}");
    }
    assert_eq!(handshake(&gateway, "https://example.com").await, 101);
    let request = format!(
        "OPTIONS /v1/publish HTTP/1.1\r\nHost: x\r\nConnection: close\r\nOrigin: http://{}\r\n\
         Access-Control-Request-Method: POST\r\n\r\n",
        gateway.public
    );
    let answer = http::raw(gateway.api, request.as_bytes()).await;
    assert_eq!(answer.status, 405);
    let of_cors = |(name, _): &&(String, String)| name.starts_with("access-control") || name == "vary";
    assert_eq!(answer.headers.iter().find(of_cors), None);
}
