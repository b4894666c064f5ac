//! What a publish costs when nothing is published: hyper alone.
//!
//! **Lives here:** a handler that collects the body and answers as long as the gateway does.
//! **Called by:** the binary `barehyper`.
//! **Must not know:** what the body says.

use std::{convert::Infallible, net::SocketAddr};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

/// The answer of a publish, as `raw` and the gateway give it.
const ANSWER: &[u8] =
    br#"{"results":[{"channel":"bench","id":"k3f9-1042","stored":true,"duplicate":false}]}"#;

/// Answers every request on `api` until the process ends.
///
/// # Errors
///
/// When the address cannot be listened on.
pub async fn serve(api: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(api).await.with_context(|| format!("could not listen on {api}"))?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _address) = listener.accept().await?;
        stream.set_nodelay(true)?;
        connections.spawn(async move {
            // A connection that breaks is the load generator's to report.
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await.ok();
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    std::hint::black_box(&body);
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    let json = hyper::header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, json);
    Ok(response)
}
