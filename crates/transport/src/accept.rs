//! Accepting sockets and giving each to the worker with the fewest connections.
//!
//! **Lives here:** the accept loop, its rate, and what happens when descriptors run out.
//! **Called by:** `gateway`, one task for the public listener.
//! **Must not know:** what is spoken on the sockets.
//!
//! One acceptor, not a listener for each worker: connections last for half an hour, so that an even load is worth
//! more than the hop, which costs about a microsecond once.

use std::{
    io,
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_node::Node;
use carillon_tasks::{Phase, Stop, clock};
use carillon_telemetry::metric;
use tokio::{net::TcpListener, time::sleep};

/// How sockets are accepted.
#[derive(Clone, Copy, Debug)]
pub struct AcceptConfig {
    /// Sockets a second; more wait in the kernel's backlog. At least 1.
    pub rate: u32,
}

/// Connections that may wait in the kernel until they are accepted, where `net.core.somaxconn` allows as many. More
/// are dropped, and tried again by their peers a second later.
pub const BACKLOG: u32 = 4096;

/// Pause after an error, such as too few descriptors: what waits stays in the backlog.
const PAUSE: Duration = Duration::from_millis(100);

/// Pause while the rate is used up: a few sockets are then accepted together, which costs less than waking for each.
const PACE: Duration = Duration::from_millis(10);

/// Accepts from `listener` until the drain begins, then drops it, so that new clients go to other nodes. A failing
/// accept is tried again.
///
/// # Cancel safety
/// Safe: a socket is either in the backlog or with a worker.
pub async fn accept(listener: TcpListener, config: AcceptConfig, node: Arc<Node>, stop: Stop) {
    let mut budget = Budget::new(config.rate, clock::now());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.reached(Phase::Draining) => return last(listener, &node),
            accepted = listener.accept() => accepted.and_then(|(socket, _peer)| socket.into_std()),
        };
        match accepted {
            Ok(socket) => admit(socket, &node),
            Err(fault) => {
                tracing::warn!(%fault, "a socket could not be accepted; trying again");
                if !is_the_peers(&fault) {
                    sleep(PAUSE).await;
                }
            }
        }
        while !budget.spend(clock::now()) {
            tokio::select! {
                () = stop.reached(Phase::Draining) => return last(listener, &node),
                () = sleep(PACE) => {}
            }
        }
    }
}

/// Says whether the error is about one socket, not about this process.
fn is_the_peers(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Takes what waits in the backlog already: those peers count as connected, and would see a reset. All of it, and at
/// once: the runtime would take as many as fit into a task's turn.
fn last(listener: TcpListener, node: &Node) {
    let Ok(listener) = listener.into_std() else { return };
    // Whoever knocks on and on does not keep the process.
    for _ in 0..BACKLOG {
        match listener.accept() {
            Ok((socket, _peer)) => {
                if socket.set_nonblocking(true).is_ok() {
                    admit(socket, node);
                }
            }
            Err(fault) if is_the_peers(&fault) => {}
            Err(_none_left) => return,
        }
    }
}

fn admit(socket: TcpStream, node: &Node) {
    if socket.set_nodelay(true).is_err() {
        return; // The peer left already.
    }
    if node.accept(socket).is_err() {
        metric::CONNECTIONS_REJECTED.counter(&[("transport", "websocket"), ("reason", "limit")]).increment(1);
    }
}

/// Sockets that may be accepted now: a second's worth at most.
struct Budget {
    rate: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate.max(1));
        Self { rate, left: rate, at: now }
    }

    /// Spends one, if there is one.
    fn spend(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        self.at = now;
        self.left = (self.left + earned).min(self.rate);
        let some = self.left >= 1.0;
        if some {
            self.left -= 1.0;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_fault_of_the_process_pauses() {
        // ECONNABORTED, ECONNRESET; EMFILE, ENFILE.
        for (number, peers) in [(103, true), (104, true), (24, false), (23, false)] {
            assert_eq!(is_the_peers(&io::Error::from_raw_os_error(number)), peers, "{number}");
        }
    }

    #[test]
    fn a_second_s_worth_is_free_and_then_the_rate_holds() {
        let mut now = clock::now();
        let began = now;
        let mut budget = Budget::new(100, now);
        for _ in 0..300 {
            while !budget.spend(now) {
                now += PACE;
            }
        }
        let took = now - began;
        assert!((Duration::from_millis(1950)..Duration::from_millis(2050)).contains(&took), "{took:?}");
    }
}
