//! From the publish API to every subscriber, through real processes.

use carillon_tests::{client::Client, gateway::Gateway};
use serde_json::json;

#[tokio::test]
async fn what_is_published_reaches_every_subscriber_in_order() {
    let gateway = Gateway::dev(&[]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::subscribed(&gateway.ws(""), &["news", "other"]).await);
    }
    for number in 0..50 {
        let answer = gateway.publish(&json!({"channel": "news", "event": "tick", "data": number})).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.json()["results"][0]["stored"], true);
    }
    for client in &mut clients {
        let mut last = String::new();
        for number in 0..50 {
            let frame = client.frame().await;
            assert_eq!((&frame["type"], &frame["event"]), (&json!("message"), &json!("tick")));
            assert_eq!(frame["data"], number);
            assert_ne!(frame["id"], last.as_str());
            frame["id"].as_str().unwrap().clone_into(&mut last);
        }
    }
    assert!(
        (gateway.metric("carillon_connections{transport=\"websocket\",protocol=\"native\"}").await - 20.0)
            .abs()
            < 0.1
    );
}
