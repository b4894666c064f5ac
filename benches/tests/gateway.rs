//! The gateway itself under a tiny load: nothing lost, duplicated or reordered.
//!
//! **Lives here:** the load generator and the comparison against `carillon dev`, the churn against three nodes.
//! **Called by:** `cargo test`; the binary `carillon` must have been built, or `CARILLON_BIN` name one.
//! **Must not know:** what is fast: `compare` tells that.

use std::process::Command;

use carillon_benches::server::{Kind, Server, gateway_binary};
use serde_json::Value;

#[test]
fn the_gateway_delivers_everything_once_and_in_order() {
    let server = Server::start(Kind::Gateway, &gateway_binary().unwrap(), &[]);
    let server = server.unwrap_or_else(|error| panic!("{error:#}"));
    for line in [
        "fanout --subscribers 100 --messages 50",
        "fanout --subscribers 100 --messages 50 --window 8 --size 1024",
        "fanout --subscribers 100 --messages 50 --burst 10",
        "fanout --subscribe-as pusher --subscribers 100 --messages 50",
        "fanout --publish-as pusher --subscribers 100 --messages 50 --burst 10",
        "fanout --subscribe-as pusher --publish-as pusher --subscribers 100 --messages 50",
        "rate --subscribers 100 --messages 50 --rate 200",
        "idle --subscribers 100 --fanouts 5",
        "publish --connections 2 --seconds 0.2",
        "publish --publish-as pusher --connections 2 --seconds 0.2",
        "connect --subscribers 100 --rounds 1",
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_load"))
            .args(line.split(' '))
            .args(["--public", &server.public.to_string(), "--api", &server.api.to_string()])
            .args(["--pid", &server.pid().to_string()])
            .output()
            .unwrap();
        let said = || format!("{line}: {}{}", String::from_utf8_lossy(&output.stderr), server.said());
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said()));
        assert!(output.status.success(), "{report} {}", said());
        for fault in ["lost", "duplicated", "reordered"] {
            assert_eq!(report[fault], 0, "{line}: {report}");
        }
    }
}

#[test]
fn the_comparison_puts_both_dialects_on_one_gateway() {
    let line = "--rounds 1 --seconds 0.1 --subscribers 20 --cores free";
    let output = Command::new(env!("CARGO_BIN_EXE_compare")).args(line.split(' ')).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for column in ["trigger", "trigger/publish", "Pusher/native 20 x 1", "Pusher/native 20 x 10"] {
        assert!(json["columns"][column].is_object(), "{column}: {text}");
    }
}

#[test]
fn rosters_agree_after_users_came_and_went_on_three_nodes() {
    let line = "--members 10 --rate 200 --seconds 1.5";
    let output = Command::new(env!("CARGO_BIN_EXE_churn")).args(line.split(' ')).output().unwrap();
    let said = || String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said()));
    assert!(output.status.success(), "{report} {}", said());
    assert_eq!((&report["nodes"], &report["faults"]), (&3.into(), &0.into()), "{report}");
    let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap();
    assert!(number("/words/heard") > 0, "{report}");
    // A question to each other node would be two words for a join, and their answers two more.
    assert!(
        number("/words/to_one") < number("/changes") / 2,
        "nobody is asked when somebody joins: {report}"
    );
}
