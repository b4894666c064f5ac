//! One HTTP request, for commands that talk to a node.
//!
//! **Lives here:** a plain client; nodes are asked on the machine or inside the cluster, where there is no TLS.
//! **Called by:** `publish`, `healthcheck`.
//! **Must not know:** what is asked.

use std::{future::Future, pin::pin, process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest answer that is read.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// Runs a command that waits for a node.
pub(crate) fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Asks `uri` and returns the answer. With a body it is a POST of JSON under `key`.
pub(crate) async fn ask(uri: &Uri, body: Option<(&str, String)>) -> anyhow::Result<(StatusCode, String)> {
    let authority = uri.authority().ok_or_else(|| anyhow!("`{uri}` has no host"))?;
    if uri.scheme_str() != Some("http") {
        bail!("`{uri}` must begin with http:// — this command speaks no TLS");
    }
    let address = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
    let exchange = async {
        let socket =
            TcpStream::connect(&address).await.with_context(|| format!("nobody answers at {address}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let request = Request::builder().uri(uri.path()).header(HOST, authority.as_str());
        let request = match body {
            Some((key, json)) => request
                .method("POST")
                .header(AUTHORIZATION, format!("Bearer {key}"))
                .header(CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(json)))?,
            None => request.body(Full::default())?,
        };
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX_BYTES);
            let bytes = body.collect().await.map_err(|fault| anyhow!(fault))?.to_bytes();
            anyhow::Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
        };
        let mut answer = pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // A node may close as soon as it has answered: what it said is then still to be read.
            _ended = connection => answer.await.context("the connection ended without an answer"),
        }
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .with_context(|| format!("no answer from {address} in 5 s"))?
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Asks a server that says `text` and closes, so often.
    fn ask_one_that_closes(text: &'static str, times: usize) -> Vec<anyhow::Result<(StatusCode, String)>> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let uri: Uri = format!("http://{}/", listener.local_addr().expect("bound")).parse().expect("a URL");
        let server = thread::spawn(move || {
            for _ in 0..times {
                let (mut socket, _peer) = listener.accept().expect("a client");
                let _request = socket.read(&mut [0; 4096]).expect("a request");
                socket.write_all(text.as_bytes()).expect("the client reads");
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let answers = runtime.block_on(async {
            let mut answers = Vec::new();
            for _ in 0..times {
                answers.push(ask(&uri, None).await);
            }
            answers
        });
        server.join().expect("the server ends");
        answers
    }

    #[test]
    fn an_answer_before_the_end_is_read() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood";
        for answer in ask_one_that_closes(text, 200) {
            assert_eq!(answer.expect("an answer"), (StatusCode::OK, "good".to_owned()));
        }
    }

    #[test]
    fn no_answer_is_a_fault() {
        for answer in ask_one_that_closes("", 3) {
            assert!(answer.is_err());
        }
    }
}
