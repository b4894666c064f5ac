//! The benchmarks against the bare server, tiny: they run, and the checker sees planted faults.
//!
//! **Lives here:** every mode of `load` once, `compare` once.
//! **Called by:** `cargo test`.
//! **Must not know:** the gateway; see `gateway.rs`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{path::Path, process::Command};

use carillon_benches::server::{Kind, Server};
use serde_json::Value;

/// Runs the load generator with a line of arguments; returns whether it was content, and its report.
fn load(server: &Server, line: &str) -> (bool, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(line.split(' '))
        .args(["--public", &server.public.to_string(), "--api", &server.api.to_string()])
        .args(["--pid", &server.pid().to_string()])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    (output.status.success(), serde_json::from_str(&text).unwrap())
}

fn raw(extra: &[&str]) -> Server {
    Server::start(Kind::Raw, Path::new(env!("CARGO_BIN_EXE_rawsend")), extra).unwrap()
}

fn faults(report: &Value) -> [u64; 3] {
    ["lost", "duplicated", "reordered"].map(|fault| report[fault].as_u64().unwrap())
}

#[test]
fn every_subscriber_gets_every_message_once_and_in_order() {
    let server = raw(&[]);
    for line in [
        "fanout --subscribers 50 --messages 40",
        "fanout --subscribers 50 --messages 40 --window 8 --size 1024",
        "fanout --subscribers 50 --messages 40 --burst 10",
        "fanout --subscribers 3 --messages 40 --size 60000 --burst 10 --window 2",
        "rate --subscribers 50 --messages 40 --rate 200",
    ] {
        let (content, report) = load(&server, line);
        assert!(content, "{line}: {report}");
        let subscribers = report["subscribers"].as_u64().unwrap();
        assert_eq!(
            (&report["published"], &report["deliveries"]),
            (&40.into(), &(40 * subscribers).into()),
            "{line}"
        );
        assert_eq!(faults(&report), [0, 0, 0], "{line}");
        assert!(report["latency_us"]["p50"].as_u64() <= report["latency_us"]["max"].as_u64(), "{report}");
    }
}

#[test]
fn the_checker_sees_planted_faults() {
    for (plant, line, expected) in [
        ("lose", "fanout --subscribers 5 --messages 20 --patience 3", [1, 0, 0]),
        ("lose", "fanout --subscribers 5 --messages 20 --burst 10 --patience 3", [1, 0, 0]),
        ("duplicate", "fanout --subscribers 5 --messages 20", [0, 1, 0]),
        ("reorder", "fanout --subscribers 5 --messages 20 --window 2", [0, 0, 1]),
        ("reorder", "fanout --subscribers 5 --messages 20 --burst 10", [0, 0, 1]),
    ] {
        let server = raw(&["--plant", plant]);
        let (content, report) = load(&server, line);
        assert!(!content, "{plant} escaped: {report}");
        assert_eq!(faults(&report), expected, "{plant}: {line}: {report}");
    }
}

#[test]
fn the_other_modes_report_what_they_measure() {
    let server = raw(&[]);
    let (content, report) = load(&server, "idle --subscribers 100 --fanouts 5");
    assert!(content && report["bytes_per_connection_after"].as_f64().is_some(), "{report}");
    assert_eq!(report["deliveries"], 500);
    // So much work that a slow machine, too, counts some of its clock's ticks.
    let (content, report) = load(&server, "publish --connections 2 --messages 5000 --seconds 60");
    assert!(content && report["cpu_us_per_publish"]["total"].as_f64() > Some(0.0), "{report}");
    let (content, report) = load(&server, "connect --subscribers 100 --rounds 1");
    assert!(content && report["connects_per_s"].as_f64() > Some(0.0), "{report}");
}

#[test]
fn a_refused_upgrade_is_an_error_and_not_a_report() {
    let server = raw(&[]);
    let api = server.api; // answers 400 to an upgrade
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(["fanout", "--subscribers", "1", "--public", &api.to_string(), "--api", &api.to_string()])
        .args(["--pid", &server.pid().to_string()])
        .output()
        .unwrap();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("upgrade refused: HTTP/1.1 400"));
}

#[test]
fn the_comparison_runs_both_sides() {
    let line = "--candidate limit --rounds 1 --seconds 0.1 --subscribers 20 --cores free";
    let output = Command::new(env!("CARGO_BIN_EXE_compare")).args(line.split(' ')).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&json["rounds"], &json["lost"]), (&1.into(), &0.into()));
    assert_eq!(json["columns"].as_object().unwrap().len(), 8, "{text}");
}
