//! The accept loop survives a process without file descriptors. In a process of its own: the limit is the process's.

use std::{process::Command, sync::Arc, time::Duration};

use carillon_api::{Cached, Channels, Config, Parts, Publisher, Receipt};
use carillon_auth::KeyRing;
use carillon_model::{Apps, ChannelName, Findings, Member, NewMessage, Question, Refusal};
use carillon_tasks::Tasks;
use futures_util::{FutureExt as _, future::BoxFuture, future::ready};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// Takes everything; what becomes of messages is not the subject here.
struct Anything;

impl Publisher for Anything {
    fn publish(&self, _: NewMessage, _: std::time::Instant) -> BoxFuture<'_, Result<Receipt, Refusal>> {
        ready(Ok(Receipt { position: None, duplicate: false })).boxed()
    }

    fn check(&self, _: &NewMessage) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Channels for Anything {
    fn ask(&self, _: Question, _: std::time::Instant) -> BoxFuture<'_, Arc<Findings>> {
        ready(Arc::default()).boxed()
    }

    fn members(&self, _: &ChannelName) -> Vec<Member> {
        Vec::new()
    }

    fn cached<'a>(
        &'a self,
        _: &'a ChannelName,
        _: std::time::Instant,
    ) -> BoxFuture<'a, Result<Option<Cached>, Refusal>> {
        ready(Ok(None)).boxed()
    }
}

const REQUEST: &[u8] =
    b"POST /v1/publish/a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer dev\r\nContent-Length: 1\r\n\r\n1";

#[tokio::test]
async fn no_file_descriptor_is_left_and_then_there_are_again() {
    let tasks = Tasks::new(tokio::runtime::Handle::current());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let parts = Parts {
        keys: Arc::new(KeyRing::dev()),
        apps: Apps::default(),
        publisher: Arc::new(Anything),
        channels: Arc::new(Anything),
    };
    carillon_api::serve(listener, Config::default(), parts, &tasks).await;

    let limit = Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), "--nofile=64:64"])
        .status()
        .unwrap();
    assert!(limit.success());
    // Each connection needs two descriptors in this process. The last ones connect in the kernel's queue only.
    let mut sockets = Vec::new();
    while let Ok(socket) = TcpStream::connect(address).await {
        sockets.push(socket);
    }
    assert!(sockets.len() > 10, "{}", sockets.len());
    // Every one of them is served as others leave.
    let mut answered = 0;
    for mut socket in sockets {
        socket.write_all(REQUEST).await.unwrap();
        let mut start = [0; 15];
        timeout(Duration::from_secs(20), socket.read_exact(&mut start)).await.unwrap().unwrap();
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        answered += 1;
    }
    assert!(answered > 10);
}
