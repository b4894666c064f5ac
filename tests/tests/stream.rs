//! Lines of JSON at `/v1/stream`: the WebSocket's server frames for whoever can read a response as it comes.

use carillon_tests::{
    client::{Client, Got},
    gateway::Gateway,
    http,
    listener::Listener,
};
use serde_json::{Value, json};

async fn publish(gateway: &Gateway, channel: &str, data: u64) -> String {
    let answer = gateway.publish(&json!({"channel": channel, "data": data})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["results"][0]["id"].as_str().expect("it is stored").to_owned()
}

async fn post(gateway: &Gateway, body: &Value) -> Listener {
    let body = body.to_string();
    let mut listener = Listener::connect(gateway.public).await;
    let length = body.len();
    let head = "Host: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close";
    listener
        .send(format!("POST /v1/stream HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"))
        .await;
    let head = listener.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/x-ndjson")), "{head:?}");
    listener
}

#[tokio::test]
async fn every_frame_of_a_websocket_is_a_line() {
    let gateway = Gateway::dev(&[]);
    publish(&gateway, "a", 1).await;
    let mut lines = Listener::open(gateway.public, "/v1/stream?channel=a&since=0", &[]).await;
    let mut frames = Client::connect(&gateway.ws("channel=a&since=0")).await;
    for kind in ["welcome", "subscribed", "message", "message"] {
        let Got::Text(frame) = frames.next().await else { panic!("a frame comes") };
        let mut frame: Value = serde_json::from_str(&frame).expect("JSON");
        let mut line = lines.line().await;
        assert_eq!(line["type"], kind);
        if kind == "welcome" {
            // Each connection has its own.
            (frame["connection"], line["connection"]) = (Value::Null, Value::Null);
        }
        assert_eq!(line, frame);
        if line["data"] == 1 {
            // Both have joined.
            publish(&gateway, "a", 2).await;
        }
    }
}

#[tokio::test]
async fn a_body_resumes_many_channels_each_where_it_was() {
    let gateway = Gateway::dev(&[]);
    let mut ids = Vec::new();
    for number in 0..300 {
        ids.push(publish(&gateway, &format!("c{}", number % 30), number).await);
    }
    // The channel of number n stands at the message n + 30 k, another k for each.
    let places: Vec<_> = (0..30_usize)
        .map(|channel| json!({"channel": format!("c{channel}"), "since": ids[channel + 30 * (channel % 10)]}))
        .collect();
    let mut listener = post(&gateway, &json!({"channels": places})).await;
    let mut expected = 0;
    let mut next: Vec<u64> = (0..30).map(|channel| channel + 30 * (channel % 10) + 30).collect();
    let (mut told, mut read) = (0, 0);
    while told < 30 || read < expected {
        let line = listener.line().await;
        match line["type"].as_str() {
            Some("subscribed") => {
                assert_eq!(line["recovered"], true, "{line}");
                told += 1;
                expected += line["replayed"].as_u64().expect("a number");
            }
            Some("message") => {
                let channel: usize =
                    line["channel"].as_str().expect("a name")[1..].parse().expect("a number");
                assert_eq!(line["data"], next[channel], "{line}");
                next[channel] += 30;
                read += 1;
            }
            _ => assert_eq!(line["type"], "welcome"),
        }
    }
    assert_eq!((expected, next), (135, (300..330).collect()));
}

#[tokio::test]
async fn a_list_longer_than_a_cursor_can_stand_for_is_no_matter_here() {
    let gateway = Gateway::dev(&[]);
    let channels: Vec<_> = (0..400).map(|number| format!("c{number}")).collect();
    let mut listener = post(&gateway, &json!({"channels": channels})).await;
    assert_eq!(listener.line().await["type"], "welcome");
    for channel in &channels {
        let line = listener.line().await;
        assert_eq!((&line["type"], &line["channel"]), (&json!("subscribed"), &json!(channel)));
    }
    for (path, status) in [("/v1/stream", 400), ("/v1/stream?channel=a&token=x", 401)] {
        assert_eq!(http::get(gateway.public, path).await.status, status, "{path}");
    }
}
