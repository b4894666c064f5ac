//! `carillon publish`.
//!
//! **Lives here:** one message from the command line.
//! **Called by:** `main`.
//! **Must not know:** HTTP.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Context as _;
use carillon_config::environment;
use hyper::{StatusCode, Uri};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use crate::{ask, complain, say};

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `carillon publish`.
#[derive(Debug, clap::Args)]
pub(crate) struct Publish {
    /// Where to.
    channel: String,
    /// The data: JSON, or a text that is not.
    data: String,
    /// The event's name.
    #[arg(long)]
    event: Option<String>,
    /// The idempotency key.
    #[arg(long)]
    id: Option<String>,
    /// The publish API of a node.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8001")]
    api: String,
    /// The API key. Without this option it is read from the variable CARILLON_KEY, which the list of processes does
    /// not show to everybody; without that it is `dev`.
    #[arg(long)]
    key: Option<String>,
}

impl Publish {
    /// Publishes and prints the answer.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let uri: Uri = format!("{}/v1/publish", self.api.trim_end_matches('/'))
            .parse()
            .with_context(|| format!("`{}` is not a URL such as http://127.0.0.1:8001", self.api))?;
        let key = self.key.clone().or_else(environment::api_key).unwrap_or_else(|| "dev".to_owned());
        let (status, answer) = ask::ask(&uri, Some((&key, self.message()?)), PATIENCE).await?;
        if status.is_success() {
            say(&answer);
            Ok(ExitCode::SUCCESS)
        } else {
            complain(&complaint(status, &answer));
            Ok(ExitCode::FAILURE)
        }
    }

    /// Returns the body of the request. JSON is passed on as it was written: read as a number, one of 20 digits would
    /// lose some.
    fn message(&self) -> anyhow::Result<String> {
        let data = match serde_json::from_str::<Box<RawValue>>(&self.data) {
            Ok(json) => json,
            Err(_a_text) => to_raw_value(&self.data)?,
        };
        let mut message = BTreeMap::from([("channel", to_raw_value(&self.channel)?), ("data", data)]);
        if let Some(event) = &self.event {
            message.insert("event", to_raw_value(event)?);
        }
        if let Some(id) = &self.id {
            message.insert("id", to_raw_value(id)?);
        }
        Ok(serde_json::to_string(&message)?)
    }
}

/// Returns what a refusal says to people; the whole answer where it is not the gateway's.
fn complaint(status: StatusCode, answer: &str) -> String {
    let problem: Value = serde_json::from_str(answer).unwrap_or_default();
    match problem.get("detail").and_then(Value::as_str) {
        Some(detail) => {
            let name = problem.get("error").and_then(Value::as_str).unwrap_or("refused");
            format!("{name}: {detail} (HTTP {})", status.as_u16())
        }
        None => format!("the answer is not the gateway's (HTTP {}): {answer}", status.as_u16()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(data: &str) -> Publish {
        Publish {
            channel: "news".to_owned(),
            data: data.to_owned(),
            event: None,
            id: Some("k1".to_owned()),
            api: String::new(),
            key: None,
        }
    }

    #[test]
    fn json_is_passed_on_as_it_is_written() {
        for (data, sent) in [
            ("12345678901234567890123", "12345678901234567890123"),
            ("{\"b\": 1.0, \"a\":[]}", "{\"b\": 1.0, \"a\":[]}"),
            ("hello \"world\"", "\"hello \\\"world\\\"\""),
        ] {
            let message = publish(data).message().expect("it can be written");
            assert_eq!(message, format!("{{\"channel\":\"news\",\"data\":{sent},\"id\":\"k1\"}}"));
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_detail() {
        let told = complaint(StatusCode::FORBIDDEN, r#"{"error":"forbidden","detail":"the key may not"}"#);
        assert_eq!(told, "forbidden: the key may not (HTTP 403)");
        let told = complaint(StatusCode::BAD_GATEWAY, "<html>");
        assert_eq!(told, "the answer is not the gateway's (HTTP 502): <html>");
    }
}
