//! `carillon healthcheck`.
//!
//! **Lives here:** an exit code for container runtimes: the image has no shell and no curl.
//! **Called by:** `main`.
//! **Must not know:** what makes a node healthy.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use hyper::Uri;

use crate::{ask, complain, say};

/// How long a node may take to answer: less than the runtime waits for this command, which then says why.
const PATIENCE: Duration = Duration::from_secs(2);

/// Arguments of `carillon healthcheck`.
#[derive(Debug, clap::Args)]
pub(crate) struct Healthcheck {
    /// The admin listener of the node.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000")]
    admin: String,
    /// Ask whether it is ready for clients, not only alive.
    #[arg(long)]
    ready: bool,
}

impl Healthcheck {
    /// Asks, prints the answer, and says by the exit code whether it was good.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let path = if self.ready { "readyz" } else { "livez" };
        let uri: Uri = format!("{}/{path}", self.admin.trim_end_matches('/'))
            .parse()
            .with_context(|| format!("`{}` is not a URL such as http://127.0.0.1:9000", self.admin))?;
        let (status, answer) = ask::ask(&uri, None, PATIENCE).await?;
        if status.is_success() {
            say(answer.trim_end());
            Ok(ExitCode::SUCCESS)
        } else {
            complain(answer.trim_end());
            Ok(ExitCode::FAILURE)
        }
    }
}
