//! nginx in front of gateways: each request goes to the next one.
//!
//! **Lives here:** its configuration, starting it on an address of its own, its end with the test.
//! **Called by:** tests of clients that must not care which node they meet.
//! **Must not know:** who connects.

use std::{
    net::SocketAddr,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

use tokio::net::TcpStream;

use crate::{
    daemon::{Daemon, Folder, Net},
    gateway::Gateway,
    raw::eventually,
};

/// A running nginx.
#[derive(Debug)]
pub struct Front {
    /// Where it listens.
    pub at: SocketAddr,
    _nginx: Daemon,
    _folder: Folder,
}

impl Front {
    /// Starts it and waits until it listens.
    pub async fn start<'a>(nodes: impl IntoIterator<Item = &'a Gateway>) -> Self {
        // Tests that run beside each other each have an address.
        static LAST: AtomicU8 = AtomicU8::new(30);
        let last = LAST.fetch_add(1, Ordering::Relaxed);
        let at = Net::free(&[(last, 8000)]).at(last, 8000);
        let folder = Folder::new("front");
        let here = folder.path().display();
        let servers: String = nodes.into_iter().map(|node| format!("server {};", node.public)).collect();
        let config = format!(
            "daemon off; worker_processes 1; pid {here}/nginx.pid; error_log stderr warn; events {{ }}
             http {{
                 access_log off; client_body_temp_path {here}/body; proxy_temp_path {here}/proxy;
                 fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi; scgi_temp_path {here}/scgi;
                 upstream gateways {{ {servers} }}
                 map $http_upgrade $upgraded {{ default upgrade; '' close; }}
                 server {{
                     listen {at};
                     location / {{
                         proxy_pass http://gateways;
                         proxy_http_version 1.1;
                         proxy_set_header Upgrade $http_upgrade;
                         proxy_set_header Connection $upgraded;
                     }}
                 }}
             }}"
        );
        let config = folder.write("nginx.conf", &config);
        let mut nginx = Command::new("/usr/sbin/nginx");
        let nginx = Daemon::start("nginx", nginx.arg("-p").arg(folder.path()).arg("-c").arg(config), &folder);
        eventually("nginx listens", || async { TcpStream::connect(at).await.ok() }).await;
        Self { at, _nginx: nginx, _folder: folder }
    }
}
