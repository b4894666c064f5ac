//! pusher-js without WebSockets, as behind proxies that know none: streams and polls. nginx sends every request to the
//! next of two nodes, so that no request finds the node of the one before.

use std::{
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use carillon_tests::{
    daemon::{Daemon, Folder, Net},
    pusher::cluster,
    raw::eventually,
    scenario::{node, run, world},
};
use serde_json::Value;
use tokio::net::TcpStream;

const TRANSPORTS: [&str; 2] = ["xhr_streaming", "xhr_polling"];

async fn fallback(scenario: &str) {
    // Tests of one file run beside each other.
    static NEXT: AtomicU8 = AtomicU8::new(30);
    let cluster = cluster().await;
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    let (folder, net) = (Folder::new("fallback"), Net::free(&[(last, 8000)]));
    let (front, here) = (net.at(last, 8000), folder.path().display());
    let servers: String = cluster.nodes.iter().map(|node| format!("server {};", node.public)).collect();
    let config = format!(
        "daemon off; worker_processes 1; pid {here}/nginx.pid; error_log stderr warn; events {{ }}
         http {{
             access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;
             fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
             upstream gateways {{ {servers} }}
             server {{ listen {front}; location / {{ proxy_pass http://gateways; }} }}
         }}"
    );
    let config = folder.write("nginx.conf", &config);
    let mut nginx = Command::new("/usr/sbin/nginx");
    let _nginx = Daemon::start("nginx", nginx.arg("-p").arg(folder.path()).arg("-c").arg(config), &folder);
    eventually("nginx listens", || async { TcpStream::connect(front).await.ok() }).await;
    // Pages meet the proxy, backends and those with WebSockets the nodes.
    let mut world: Value = serde_json::from_str(&world(&cluster.nodes)).expect("it is JSON");
    world["nodes"][0]["public"] = front.to_string().into();
    for transport in TRANSPORTS {
        let mut command = node("fallback", scenario);
        command.env("TRANSPORT", transport);
        run(command, world.to_string()).await;
    }
}

#[tokio::test]
async fn every_kind_of_channel_is_heard() {
    fallback("everyKindOfChannelIsHeard").await;
}

#[tokio::test]
async fn nothing_is_lost_between_two_requests() {
    fallback("nothingIsLostBetweenTwoRequests").await;
}

#[tokio::test]
async fn clients_talk_to_each_other() {
    fallback("clientsTalkToEachOther").await;
}

#[tokio::test]
async fn a_user_signs_in_and_is_terminated() {
    fallback("aUserSignsInAndIsTerminated").await;
}

#[tokio::test]
async fn an_unknown_key_is_refused() {
    fallback("anUnknownKeyIsRefused").await;
}
