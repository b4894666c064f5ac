//! docs/clients.md: its programs and commands, as they stand there, against a real gateway over a line that breaks.

use std::process::Command;

use carillon_tests::{
    document::{Document, javascript, localised, output, root},
    faults::cable::Cable,
    gateway::Gateway,
};
use serde_json::{Value, json};

fn page() -> Document {
    Document::read("docs/clients.md")
}

/// Runs a program of the page behind a cable that is cut while two of four messages are published, and returns what it
/// printed: one line for each message that it saw.
async fn seen_over_a_broken_line(program: &str, listening: &str, prelude: &str) -> String {
    let gateway = Gateway::dev(&[]);
    let cable = Cable::to(gateway.public).await;
    let program = program.replace("127.0.0.1:8000", &format!("127.0.0.1:{}", cable.port()));
    // It says when it listens, and ends with the last message; a program that hangs ends as well.
    let script = format!(
        "{prelude}\n\
         setTimeout(() => process.exit(7), 60_000);\n\
         const print = console.log;\n\
         console.log = (...words) => {{ print(...words); if (words.at(-1) === 4) process.exit(0); }};\n\
         {program}\n{listening}"
    );
    let node = tokio::task::spawn_blocking(move || javascript(&script)).await.expect("it begins");
    let publish = async |data: u32| gateway.publish(&json!({"channel": "news", "data": data})).await;
    publish(1).await;
    cable.cut();
    publish(2).await;
    publish(3).await;
    cable.mend();
    publish(4).await;
    let ended = tokio::task::spawn_blocking(move || node.wait_with_output()).await.expect("it ends");
    let ended = ended.expect("it was started here");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

#[tokio::test]
async fn the_websocket_of_the_page_misses_nothing() {
    let program = page().block("js", "new WebSocket");
    let program = program.replace(
        "const frame = JSON.parse(text);",
        "const frame = JSON.parse(text); if (frame.type === 'subscribed') console.error('ready');",
    );
    let seen = seen_over_a_broken_line(&program, "", "").await;
    assert_eq!(seen, "news 1\nnews 2\nnews 3\nnews 4\n");
}

#[tokio::test]
async fn the_event_source_of_the_page_misses_nothing() {
    let program = page().block("js", "new EventSource");
    let undici = root().join("tests/js/node_modules/undici");
    // The library warns that its EventSource may change, where the test reads that it is ready.
    let prelude = format!(
        "process.removeAllListeners('warning'); globalThis.EventSource = require({undici:?}).EventSource;"
    );
    let listening = "source.addEventListener('control', ({ data }) => { if (data.includes('subscribed')) console.error('ready'); });";
    let seen = seen_over_a_broken_line(&program, listening, &prelude).await;
    assert_eq!(seen, "1\n2\n3\n4\n");
}

#[tokio::test]
async fn the_commands_of_the_page_show_what_it_says() {
    let gateway = Gateway::dev(&[("CARILLON__CLIENT__HEARTBEAT", "1s")]);
    for data in 1..=3 {
        gateway.publish(&json!({"channel": "news", "data": data})).await;
    }
    let stream = localised(&page().block("sh", "/v1/stream"), &gateway);
    // The next heartbeat finds that nobody reads on.
    let lines = output(Command::new("sh").args(["-c", &format!("{} -sS | head -4", stream.trim())]));
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let words: Vec<_> = lines.iter().map(|line| (line["type"].as_str(), line["data"].as_i64())).collect();
    let message = |data| (Some("message"), Some(data));
    assert_eq!(words, [(Some("welcome"), None), (Some("subscribed"), None), message(2), message(3)]);
    assert_eq!((&lines[1]["recovered"], &lines[1]["replayed"]), (&json!(true), &json!(2)));

    let poll = localised(&page().block("sh", "/v1/poll"), &gateway);
    let answer = output(Command::new("sh").args(["-c", &format!("{} -sS", poll.trim())]));
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let shown: Value = serde_json::from_str(&page().block("json", "cursor")).expect("JSON");
    let members = |value: &Value| value.as_object().map(|all| all.keys().cloned().collect::<Vec<_>>());
    assert_eq!(members(&answer), members(&shown));
    assert_eq!(members(&answer["messages"][0]), members(&shown["messages"][0]));
    assert_eq!((&answer["messages"][1]["data"], &answer["more"]), (&json!(3), &json!(false)));
    assert_eq!(answer["cursor"], answer["messages"][1]["id"], "one stream carries all of it");
    let next = poll.replace("since=-2", &format!("since={}", answer["cursor"].as_str().expect("a text")));
    let next = next.replace("timeout=25", "timeout=0");
    let answer = output(Command::new("sh").args(["-c", &format!("{} -sS", next.trim())]));
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["messages"], json!([]));
}

#[test]
fn the_page_has_every_error_and_every_way_to_end() {
    use carillon_model::{CloseReason, ErrorCode};
    let page = page();
    for code in ErrorCode::ALL {
        let row = format!("| `{}` | {} | {}", code.name(), code.number(), code.http_status());
        assert!(page.text.contains(&row), "{row}");
    }
    for reason in [
        CloseReason::Unauthorized,
        CloseReason::Forbidden,
        CloseReason::ProtocolError,
        CloseReason::OverCapacity,
        CloseReason::SlowConsumer,
        CloseReason::TokenExpired,
        CloseReason::GoingAway,
        CloseReason::Draining,
        CloseReason::IdleTimeout,
        CloseReason::MaxAge,
    ] {
        let words = format!("{} {}", reason.code(), reason.name());
        assert!(page.text.contains(&words), "{words}");
    }
}
