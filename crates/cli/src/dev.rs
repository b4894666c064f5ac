//! `carillon dev`: the first minute.
//!
//! **Lives here:** what is printed when it runs: where things are, what stays, and lines to copy.
//! **Called by:** `main`.
//! **Must not know:** parts.

use std::{net::SocketAddr, process::ExitCode};

use carillon_config::{Broker, Config, environment};
use carillon_gateway::Addresses;

use crate::{complain, page::PAGE, say, serve};

/// Serves on this machine only, with the embedded broker where the environment names no other.
pub(crate) fn dev(public: SocketAddr, api: SocketAddr, admin: SocketAddr) -> anyhow::Result<ExitCode> {
    let mut config = match Config::dev(environment::variables()) {
        Ok(config) => config,
        Err(faults) => {
            complain(&faults.to_string());
            return Ok(ExitCode::from(2));
        }
    };
    config.public.listen = public;
    config.api.listen = api;
    config.admin.listen = admin;
    serve::run(&config, Some(PAGE), |at| say(&welcome(at, &config.broker)))
}

fn welcome(Addresses { public, api, admin }: Addresses, broker: &Broker) -> String {
    let kept = match broker {
        Broker::Memory => "nothing outlives the process",
        Broker::Nats(_) => "NATS keeps the messages",
    };
    format!(
        r#"Carillon {version}, development mode: this machine only, every channel public, {kept}.

  Try it         http://{public}/
  Clients        ws://{public}/v1/ws?channel=news
  Publish API    http://{api}/v1/publish      key: dev
  Pusher         {public}      app: 1, key: dev-key, secret: dev-secret
  Metrics        http://{admin}/metrics

Publish with curl:
  curl -H 'Authorization: Bearer dev' -H 'Content-Type: application/json' -d '{{"channel":"news","data":{{"hello":"world"}}}}' http://{api}/v1/publish

with PHP (clients/php/src/Client.php):
  $carillon = new Carillon\Client('http://{api}', 'dev');
  $carillon->publish('news', ['hello' => 'world']);

and listen in a browser:
  const socket = new WebSocket('ws://{public}/v1/ws?channel=news');
  socket.onmessage = event => console.log(JSON.parse(event.data));
"#,
        version = env!("CARGO_PKG_VERSION"),
    )
}
