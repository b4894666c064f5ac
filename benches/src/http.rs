//! HTTP/1.1 heads, as far as benchmarks need them.
//!
//! **Lives here:** cutting one request or answer out of bytes; writing a publish request and its answer.
//! **Called by:** `dialect` (asks), `raw` (answers), `subscribers` (reads the 101).
//! **Must not know:** sockets.

use std::io::Write;

use anyhow::{Context, Result, ensure};

/// Longest head accepted.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// A request or an answer at the front of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `POST /v1/publish HTTP/1.1`, or `HTTP/1.1 200 OK`.
    pub first_line: &'a str,
    head: &'a str,
    /// What `Content-Length` announced.
    pub body: &'a [u8],
    /// How many bytes it takes, head included.
    pub length_bytes: usize,
}

impl<'a> Message<'a> {
    /// Returns a header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        header(self.head, name)
    }

    /// Returns the status of an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.first_line.split(' ').nth(1)?.parse().ok()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _value)| key.eq_ignore_ascii_case(name))
        .map(|(_key, value)| value.trim())
}

/// Returns the message at the front of `bytes`, or `None` while it is incomplete. No `Content-Length`: no body.
///
/// # Errors
///
/// When the bytes are not a message, or one in chunks.
pub fn first(bytes: &[u8]) -> Result<Option<Message<'_>>> {
    let Some(head_bytes) = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4) else {
        ensure!(bytes.len() <= HEAD_MAX_BYTES, "HTTP head is longer than {HEAD_MAX_BYTES} bytes");
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..head_bytes]).context("HTTP head is not text")?;
    ensure!(
        header(head, "transfer-encoding").is_none(),
        "HTTP message comes in chunks, a length was expected"
    );
    let body_bytes: usize = match header(head, "content-length") {
        Some(text) => text.parse().context("content-length is not a number")?,
        None => 0,
    };
    let length_bytes = head_bytes.checked_add(body_bytes).context("content-length overflows")?;
    Ok(bytes.get(head_bytes..length_bytes).map(|body| Message {
        first_line: head.lines().next().unwrap_or_default(),
        head,
        body,
        length_bytes,
    }))
}

/// Appends a POST of JSON, with an API key unless the path is signed.
pub fn write_post(path: &str, key: Option<&str>, body: &[u8], out: &mut Vec<u8>) {
    let authorization = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    write!(
        out,
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{authorization}content-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .expect("a Vec takes every byte");
    out.extend_from_slice(body);
}

/// Appends an answer of JSON.
pub fn write_answer(status: &str, body: &[u8], out: &mut Vec<u8>) {
    write!(
        out,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .expect("a Vec takes every byte");
    out.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_next_message_is_left() {
        let mut bytes = Vec::new();
        write_post("/v1/publish", Some("dev"), b"{}", &mut bytes);
        let one = bytes.len();
        write_answer("200 OK", b"[1]", &mut bytes);
        for cut in 0..one {
            assert!(first(&bytes[..cut]).unwrap().is_none());
        }
        let request = first(&bytes).unwrap().unwrap();
        assert_eq!((request.first_line, request.body), ("POST /v1/publish HTTP/1.1", &b"{}"[..]));
        assert_eq!(request.header("Authorization"), Some("Bearer dev"));
        let answer = first(&bytes[request.length_bytes..]).unwrap().unwrap();
        assert_eq!((answer.status(), answer.body), (Some(200), &b"[1]"[..]));
    }

    #[test]
    fn chunks_are_refused() {
        first(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err();
    }
}
