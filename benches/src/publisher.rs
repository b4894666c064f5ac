//! The side that publishes: one keep-alive connection to the API.
//!
//! **Lives here:** building publish and batch requests, reading and judging their answers.
//! **Called by:** `load`.
//! **Must not know:** subscribers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{dialect::Dialect, http};

/// The API answers within a second or refuses; what takes longer than this is a fault of the benchmark's set-up.
const DEADLINE: Duration = Duration::from_secs(30);
/// Answers are short; several fit.
const READ_BYTES: usize = 16 * 1024;

/// What to publish, and how.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Whose publish API it is.
    pub dialect: Dialect,
    /// API key of the native one.
    pub key: String,
    /// Channel everything is published to.
    pub channel: String,
    /// Bytes of each publication's `data`.
    pub size_bytes: usize,
}

/// A connection to the publish API. Answers come in the order of the requests.
#[derive(Debug)]
pub struct Publisher {
    stream: TcpStream,
    recipe: Recipe,
    unanswered: usize,
    request: Vec<u8>,
    body: Vec<u8>,
    answers: Vec<u8>,
}

impl Publisher {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nobody listens.
    pub fn connect(api: SocketAddr, recipe: Recipe) -> Result<Self> {
        let stream =
            TcpStream::connect(api).with_context(|| format!("could not connect to the API at {api}"))?;
        stream.set_nodelay(true)?;
        // Reads happen only when epoll says so and writes are small: blocking with a deadline is simplest.
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, recipe, unanswered: 0, request: Vec::new(), body: Vec::new(), answers: Vec::new() })
    }

    /// Publishes one message for each counter: a plain publish for one, a batch for several.
    ///
    /// # Errors
    ///
    /// When the server does not take the request.
    pub fn publish(&mut self, counters: Range<u64>) -> Result<()> {
        let single = counters.end == counters.start + 1;
        let Recipe { dialect, key, channel, size_bytes } = &self.recipe;
        let [before, after] = if single { [&b""[..]; 2] } else { dialect.around_batch() };
        self.body.clear();
        self.body.extend_from_slice(before);
        for counter in counters {
            if self.body.len() > before.len() {
                self.body.push(b',');
            }
            dialect.write_item(channel, counter, *size_bytes, &mut self.body);
        }
        self.body.extend_from_slice(after);
        self.request.clear();
        dialect.write_request(single, key, &self.body, &mut self.request);
        self.stream.write_all(&self.request).context("server did not take the publish request")?;
        self.unanswered += 1;
        Ok(())
    }

    /// Returns how many requests have no answer yet.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Reads once from the socket, which must be readable, and returns how many answers are now complete.
    ///
    /// # Errors
    ///
    /// When the server closed, or refused a publication.
    pub fn read_answers(&mut self) -> Result<usize> {
        let start = self.answers.len();
        self.answers.resize(start + READ_BYTES, 0);
        let read = self.stream.read(&mut self.answers[start..]).context("no answer to a publish request")?;
        self.answers.truncate(start + read);
        ensure!(read > 0, "server closed the publish connection");
        let (mut count, mut used) = (0, 0);
        while let Some(answer) = http::first(&self.answers[used..])? {
            let body = String::from_utf8_lossy(answer.body);
            // A batch is answered 200 even when single items failed; those say `error`.
            if answer.status() != Some(200) || body.contains("\"error\"") {
                bail!("publish refused: {} {body}", answer.first_line);
            }
            used += answer.length_bytes;
            count += 1;
        }
        self.answers.drain(..used);
        self.unanswered = self.unanswered.checked_sub(count).context("more answers than requests")?;
        Ok(count)
    }
}

impl AsFd for Publisher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
