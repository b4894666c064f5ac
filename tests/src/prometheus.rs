//! A real Prometheus.
//!
//! **Lives here:** finding it and promtool, starting it on a configuration, asking it.
//! **Called by:** tests of metrics, alerts and the dashboard.
//! **Must not know:** any metric.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    daemon::{Daemon, Folder},
    document::root,
    gateway::PATIENCE,
    http,
};

/// Pause between two questions whose answer will change.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Returns `prometheus` or `promtool`, as `make tools` unpacked it.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    root().join(".test-tools/prometheus").join(name)
}

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    at: SocketAddr,
    _server: Daemon,
}

/// What a query gave: the labels and the value of each series.
pub type Vector = Vec<(Value, f64)>;

/// The points of one series: seconds since 1970, and the value.
pub type Points = Vec<(f64, f64)>;

impl Prometheus {
    /// Starts it, and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub async fn start(at: SocketAddr, config: &Path, folder: &Folder) -> Self {
        let mut command = Command::new(tool("prometheus"));
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("tsdb").display()))
            .arg(format!("--web.listen-address={at}"))
            .arg("--log.level=warn");
        let server = Daemon::start("prometheus", &mut command, folder);
        let ready = async {
            while TcpStream::connect(at).await.is_err() || http::get(at, "/-/ready").await.status != 200 {
                sleep(ASK_AGAIN).await;
            }
        };
        timeout(PATIENCE, ready)
            .await
            .unwrap_or_else(|_late| panic!("Prometheus is not ready: {}", server.log()));
        Self { at, _server: server }
    }

    /// Waits until an expression that has at most one series has a good value.
    ///
    /// # Panics
    /// When it has none within that time.
    pub async fn until(&self, within: Duration, expression: &str, holds: impl Fn(f64) -> bool) {
        let asking = async {
            while !self.value(expression).await.is_some_and(&holds) {
                sleep(ASK_AGAIN).await;
            }
        };
        if timeout(within, asking).await.is_err() {
            panic!("{expression} is {:?} after {within:?}", self.value(expression).await);
        }
    }

    /// Asks for the present value of an expression.
    ///
    /// # Panics
    /// When it is no expression, or no vector.
    pub async fn query(&self, expression: &str) -> Vector {
        let data = self.ask(&format!("/api/v1/query?query={}", escaped(expression))).await;
        let value = |series: &Value| (series["metric"].clone(), number(&series["value"][1]));
        series(&data).iter().map(value).collect()
    }

    /// Returns the present value of an expression that has at most one series.
    ///
    /// # Panics
    /// When it is no expression, or has more series.
    pub async fn value(&self, expression: &str) -> Option<f64> {
        let vector = self.query(expression).await;
        assert!(vector.len() <= 1, "{expression}: {vector:?}");
        vector.first().map(|(_, value)| *value)
    }

    /// Asks for an expression second by second, and returns the points of each series.
    ///
    /// # Panics
    /// When it is no expression.
    pub async fn curve(&self, expression: &str, from: f64, to: f64) -> Vec<(Value, Points)> {
        let path = format!("/api/v1/query_range?query={}&start={from}&end={to}&step=1", escaped(expression));
        let data = self.ask(&path).await;
        let point = |point: &Value| (point[0].as_f64().expect("a time"), number(&point[1]));
        let points =
            |series: &Value| series["values"].as_array().expect("points").iter().map(point).collect();
        series(&data).iter().map(|series| (series["metric"].clone(), points(series))).collect()
    }

    /// Returns the alerts that it was given, each with its state and health.
    ///
    /// # Panics
    /// When it does not say.
    pub async fn alerts(&self) -> Vec<Value> {
        let data = self.ask("/api/v1/rules?type=alert").await;
        let groups = data["groups"].as_array().expect("groups").iter();
        groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
    }

    async fn ask(&self, path: &str) -> Value {
        // In HTTP/1.1 a long answer comes in chunks.
        let answer = http::raw(self.at, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()["data"].take()
    }
}

fn series(data: &Value) -> &[Value] {
    data["result"].as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> f64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("Prometheus writes numbers as texts")
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}
