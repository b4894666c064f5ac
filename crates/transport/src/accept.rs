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
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_node::Node;
use carillon_tasks::{Phase, Stop, clock};
use carillon_telemetry::metric;
use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// How sockets are accepted.
#[derive(Clone, Copy, Debug)]
pub struct AcceptConfig {
    /// Sockets a second; more wait in the kernel's backlog. At least 1.
    pub rate: u32,
}

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
            () = stop.reached(Phase::Draining) => return last(&listener, &node),
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _peer)) => admit(socket, &node),
            Err(fault) => {
                tracing::warn!(%fault, "a socket could not be accepted; trying again");
                if !is_the_peers(&fault) {
                    sleep(PAUSE).await;
                }
            }
        }
        while !budget.spend(clock::now()) {
            sleep(PACE).await;
        }
    }
}

/// Says whether the error is about one socket, not about this process.
fn is_the_peers(fault: &io::Error) -> bool {
    matches!(fault.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

/// Takes what waits in the backlog already: those peers count as connected, and would see a reset.
fn last(listener: &TcpListener, node: &Node) {
    while let Some(Ok((socket, _peer))) = listener.accept().now_or_never() {
        admit(socket, node);
    }
}

fn admit(socket: TcpStream, node: &Node) {
    let prepared = socket.set_nodelay(true).and_then(|()| socket.into_std());
    let Ok(socket) = prepared else { return }; // The peer left already.
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
