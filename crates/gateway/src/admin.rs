//! The admin listener: probes and metrics.
//!
//! **Lives here:** `/metrics`, `/livez`, `/readyz`.
//! **Called by:** Kubernetes, Prometheus, `carillon healthcheck`.
//! **Must not know:** what the numbers mean.

use std::{future::IntoFuture as _, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use carillon_broker::Health;
use carillon_node::Node;
use carillon_tasks::{Phase, Stop, Tasks, clock};
use carillon_telemetry::Metrics;
use tokio::{net::TcpListener, sync::watch};

/// What the admin listener looks at.
pub(crate) struct Admin {
    pub(crate) node: Arc<Node>,
    pub(crate) metrics: Metrics,
    pub(crate) broker: watch::Receiver<Health>,
    pub(crate) stop: Stop,
}

/// Serves until the process is cut.
pub(crate) fn serve(listener: TcpListener, admin: Admin, tasks: &Tasks) {
    let stop = tasks.stop();
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(|| async { (StatusCode::NOT_FOUND, "here are /metrics, /livez and /readyz\n") })
        .with_state(Arc::new(admin));
    tasks.spawn("admin", async move {
        tokio::select! {
            Err(fault) = axum::serve(listener, router).into_future() => {
                tracing::error!(%fault, "the admin listener ended");
            }
            // A request that is still on its way holds nobody.
            () = stop.reached(Phase::Cut) => {}
        }
    });
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    admin.node.show();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.metrics.render())
}

/// Alive means that every worker turns. It never depends on the broker: one hiccup would restart every node.
async fn livez(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    match admin.node.stalled_worker(clock::now()) {
        None => (StatusCode::OK, "alive\n".to_owned()),
        Some(worker) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("worker {worker} has not turned for 10 s\n"))
        }
    }
}

/// Ready means that clients may come: the broker was reached once, and the process is not stopping. A broker that
/// goes away later is shown here and changes nothing: if all nodes failed at once, there would be none to connect to.
async fn readyz(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let (reached, broker) = match *admin.broker.borrow() {
        Health::Connecting { .. } => (false, "connecting".to_owned()),
        Health::Connected => (true, "connected".to_owned()),
        Health::Degraded { since } => {
            let seconds = clock::now().saturating_duration_since(since).as_secs();
            (true, format!("degraded for {seconds} s"))
        }
    };
    let draining = admin.stop.phase() > Phase::Running;
    let status = if reached && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("broker: {broker}\ndraining: {draining}\n"))
}
