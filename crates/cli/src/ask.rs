//! One HTTP request, for commands that talk to a node.
//!
//! **Lives here:** a plain client; nodes are asked on the machine or inside the cluster, where there is no TLS.
//! **Called by:** `publish`, `healthcheck`; `tail` for the address.
//! **Must not know:** what is asked.

use std::{future::Future, pin::pin, process::ExitCode, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode, Uri,
    body::Bytes,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Largest answer that is read.
const ANSWER_MAX_BYTES: usize = 1 << 20;

/// Runs a command that waits for a node.
pub(crate) fn block_on(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Returns the host and port of a URL, which must have this scheme.
pub(crate) fn address(uri: &Uri, scheme: &str) -> anyhow::Result<String> {
    let authority = uri.authority().ok_or_else(|| anyhow!("`{uri}` has no host"))?;
    if uri.scheme_str() != Some(scheme) {
        bail!("`{uri}` must begin with {scheme}:// — this command speaks no TLS");
    }
    let host = authority.host();
    let place = authority.as_str().rsplit('@').next().unwrap_or_default();
    // Not `port_u16`: it answers the same of a port that is too large and of none.
    let port = match place.strip_prefix(host) {
        None | Some("") => Some(80),
        Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()),
    };
    let port = port.ok_or_else(|| anyhow!("the port of `{uri}` is not a number from 0 to 65535"))?;
    Ok(format!("{host}:{port}"))
}

/// Asks `uri` and returns the answer, as far as it can be printed. With a body it is a POST of JSON under `key`.
pub(crate) async fn ask(
    uri: &Uri,
    body: Option<(&str, String)>,
    patience: Duration,
) -> anyhow::Result<(StatusCode, String)> {
    let address = address(uri, "http")?;
    let authority = uri.authority().map_or("", Authority::as_str);
    let exchange = async {
        let socket =
            TcpStream::connect(&address).await.with_context(|| format!("nobody answers at {address}"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        let request = Request::builder().uri(uri.path()).header(HOST, authority);
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
            anyhow::Ok((status, printable(&String::from_utf8_lossy(&bytes))))
        };
        let mut answer = pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // A node may close as soon as it has answered: what it said is then still to be read.
            _ended = connection => answer.await.context("the connection ended without an answer"),
        }
    };
    tokio::time::timeout(patience, exchange)
        .await
        .with_context(|| format!("no answer from {address} in {patience:?}"))?
}

/// Marks what could move the cursor of a terminal or colour it: whoever answers may not be a node.
fn printable(text: &str) -> String {
    let plain =
        |character: char| if character == '\n' || !character.is_control() { character } else { '\u{fffd}' };
    text.chars().map(plain).collect()
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
                answers.push(ask(&uri, None, Duration::from_secs(30)).await);
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
    #[test]
    fn an_address_has_a_port_that_exists() {
        let of = |uri: &str| address(&uri.parse().expect("a URL"), "http").map_err(|fault| fault.to_string());
        for (uri, found) in [
            ("http://1:81/v1/publish", "1:81"),
            ("http://node", "node:80"),
            ("http://[::1]:8001/", "[::1]:8001"),
            ("http://[::1]/", "[::1]:80"),
            ("http://ana:8001@node/", "node:80"),
        ] {
            assert_eq!(of(uri).as_deref(), Ok(found), "{uri}");
        }
        for uri in ["http://1:80010/", "http://1:65536/", "http://[::1]:99999/", "http://ana:1@node:80010/"] {
            assert!(of(uri).is_err_and(|fault| fault.contains("is not a number from 0 to 65535")), "{uri}");
        }
        assert!(of("https://node/").is_err_and(|fault| fault.contains("must begin with http://")));
    }

    #[test]
    fn an_answer_cannot_steer_the_terminal() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na\u{1b}[2Jb\r\nc";
        let answer = ask_one_that_closes(text, 1).remove(0).expect("an answer");
        assert_eq!(answer.1, "a\u{fffd}[2Jb\u{fffd}\nc");
    }
}
