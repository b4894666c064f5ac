//! A TCP connection that a test can cut.
//!
//! **Lives here:** passing bytes between a client and a server, until told otherwise.
//! **Called by:** fault tests.
//! **Must not know:** what the bytes say.
#![expect(clippy::disallowed_methods, reason = "tests start tasks of their own")]

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Passes connections on to one server.
#[derive(Debug)]
pub struct Cable {
    port: u16,
    whole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Cable {
    /// Starts to pass connections on to `server`.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("there is a free port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let whole = watch::Sender::new(true);
        let task = tokio::spawn(pass(listener, server, whole.subscribe()));
        Self { port, whole, task }
    }

    /// Returns where clients connect to.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Ends every connection, and every new one at once.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Passes connections on again.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(listener: TcpListener, server: SocketAddr, whole: watch::Receiver<bool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut whole = whole.clone();
        tokio::spawn(async move {
            if !*whole.borrow_and_update() {
                return;
            }
            let Ok(mut server) = TcpStream::connect(server).await else { return };
            tokio::select! {
                _ended = copy_bidirectional(&mut client, &mut server) => {}
                _cut = whole.changed() => {}
            }
        });
    }
}
