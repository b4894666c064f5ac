//! The gateway itself under a tiny load: nothing lost, duplicated or reordered.
//!
//! **Lives here:** the load generator against `carillon dev`.
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
        "rate --subscribers 100 --messages 50 --rate 200",
        "idle --subscribers 100 --fanouts 5",
        "publish --connections 2 --seconds 0.2",
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
