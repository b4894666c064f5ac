//! What operators see: the metrics as Prometheus' own tool judges them, the alerts, the dashboard.
//! `rolling.rs` asks a real Prometheus for the same.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    process::{Command, Output},
};

use carillon_telemetry::{label, metric};
use carillon_tests::{daemon::Folder, document::root, gateway::Gateway, http, prometheus::tool};
use serde_json::{Value, json};

const ALERTS: &str = "deploy/prometheus/alerts.yml";
const DASHBOARD: &str = "deploy/grafana/dashboard.json";

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|fault| panic!("{name}: {fault}"))
}

fn promtool(arguments: &[&str]) -> Command {
    let mut command = Command::new(tool("promtool"));
    command.args(arguments).current_dir(root());
    command
}

fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|fault| panic!("{command:?}: {fault}; run `make tools`"));
    let said = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(status.success(), "{command:?}: {status}\n{said}");
    said
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() {
    let gateway = Gateway::dev(&[]);
    let published = gateway.publish(&json!({"channel": "news", "data": 1})).await;
    assert_eq!(published.status, 200, "{}", published.body);
    let scrape = http::get(gateway.admin, "/metrics").await;
    assert_eq!(scrape.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let folder = Folder::new("scrape");
    let path = folder.write("metrics", &scrape.body);
    let said =
        succeeds(promtool(&["check", "metrics"]).stdin(File::open(path).expect("it was just written")));
    assert_eq!(said, "");
}

#[test]
fn promtool_reads_the_configuration_and_every_alert_fires_when_it_should() {
    succeeds(&mut promtool(&["check", "config", "deploy/prometheus/prometheus.yml"]));
    succeeds(&mut promtool(&["test", "rules", "deploy/prometheus/alerts_test.yml"]));
    let (alerts, tests) = (read(ALERTS), read("deploy/prometheus/alerts_test.yml"));
    for part in alerts.split("- alert: ").skip(1) {
        let name = part.lines().next().expect("a name");
        for member in ["expr:", "for:", "severity:", "summary:", "description:"] {
            assert!(part.contains(member), "{name} has no {member}");
        }
        assert!(tests.contains(&format!("alertname: {name}")), "{name} has no test");
    }
}

/// Returns the names of metrics in a text; those of a histogram's parts are the histogram's.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|word| word.starts_with("carillon_") || word.starts_with("process_"));
    words.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let process = metric::PROCESS.iter().map(|(name, ..)| *name);
    let known: BTreeSet<_> = metric::TABLE.iter().map(|entry| entry.name).chain(process).collect();
    for file in [ALERTS, DASHBOARD] {
        let text = read(file);
        let asked = metrics_in(&text);
        assert!(asked.len() >= 4, "{asked:?}");
        let unknown: Vec<_> = asked.iter().filter(|name| !known.contains(name.as_str())).collect();
        assert!(unknown.is_empty(), "{file}: there are no metrics {unknown:?}");
        for codes in text.split("code=~").chain(text.split("code!~")).skip(1) {
            let codes = codes.trim_start_matches(['\\', '"']).split(['\\', '"']).next().expect("a pattern");
            for code in codes.split('|').filter(|_| !codes.contains(' ')) {
                let values = [label::HTTP_CLASS.values, label::GRPC_CODE.values].concat();
                assert!(values.contains(&code), "{file}: there is no code `{code}`");
            }
        }
    }
}

#[test]
fn the_dashboard_can_be_imported_anywhere() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    // Grafana 11 wrote 39; newer ones read it.
    assert_eq!(dashboard["schemaVersion"], 39);
    let datasource = json!({"type": "prometheus", "uid": "${datasource}"});
    let variables = &dashboard["templating"]["list"];
    assert_eq!((&variables[0]["name"], &variables[0]["type"]), (&json!("datasource"), &json!("datasource")));
    assert_eq!((&variables[1]["name"], &variables[1]["datasource"]), (&json!("job"), &datasource));
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is another's");
        let place = &panel["gridPos"];
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| place[name].as_u64().expect("a number"));
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cell.0 < 24 && places.insert(cell), "{title} lies over another, or outside");
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"], datasource, "{title}");
        assert!(
            panel["description"].as_str().is_some_and(|text| text.ends_with('.')),
            "{title}: say what it shows"
        );
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        for target in panel["targets"].as_array().expect("targets") {
            assert_eq!(target["datasource"], datasource, "{title}");
            assert!(target["legendFormat"].as_str().is_some_and(|legend| !legend.is_empty()), "{title}");
            let expression = target["expr"].as_str().expect("an expression");
            let selectors = expression.matches("carillon_").count() + expression.matches("process_").count();
            assert_eq!(expression.matches("{job=\"$job\"").count(), selectors, "{title}: of this job only");
            assert_eq!(
                expression.matches("rate(").count(),
                expression.matches("[$__rate_interval]").count(),
                "{title}"
            );
        }
    }
}
