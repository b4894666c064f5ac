//! Reading a request's body within its limits.
//!
//! **Lives here:** size, time, and how much all requests together may hold.
//! **Called by:** `http` and `pusher`.
//! **Must not know:** what the body says.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use carillon_model::{ErrorCode, Refusal};
use http_body_util::BodyExt as _;
use hyper::body::Body;
use tokio::time::timeout;

/// How much of a refused body is read and thrown away. A client that is still sending would otherwise be reset
/// before it has read the answer.
const DISCARD_MAX_BYTES: usize = 8 << 20;
const DISCARD_MAX_TIME: Duration = Duration::from_secs(2);

/// How many bytes of bodies are held, of how many.
#[derive(Debug)]
pub(crate) struct Budget {
    held: AtomicUsize,
    max: usize,
}

/// A share of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl Budget {
    pub(crate) const fn new(max: usize) -> Self {
        Self { held: AtomicUsize::new(0), max }
    }

    const fn share(&self) -> Share<'_> {
        Share { budget: self, bytes: 0 }
    }
}

impl Share<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.bytes = self.bytes.saturating_add(bytes);
        if before.saturating_add(bytes) > self.budget.max {
            return Err(Refusal::new(ErrorCode::Unavailable, "too many large requests at once; try again")
                .retry_after(Duration::from_secs(1)));
        }
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads all of `body`, at most `limit` bytes, within `patience`.
///
/// # Cancel safety
/// What was read is lost with the future, and the share is given back.
pub(crate) async fn read<'b, B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
    limit: usize,
    patience: Duration,
    budget: &'b Budget,
) -> Result<(Bytes, Share<'b>), Refusal> {
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > limit {
        return Err(too_large(limit));
    }
    match timeout(patience, collect(body, limit, budget)).await {
        Ok(read) => read,
        Err(_elapsed) => Err(Refusal::new(
            ErrorCode::BadRequest,
            format!("the body did not arrive within {} s", patience.as_secs()),
        )),
    }
}

async fn collect<'b, B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
    limit: usize,
    budget: &'b Budget,
) -> Result<(Bytes, Share<'b>), Refusal> {
    let mut share = budget.share();
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_e| Refusal::new(ErrorCode::BadRequest, "the body broke off"))?;
        let Ok(part) = frame.into_data() else { continue };
        share.grow(part.len())?;
        if share.bytes > limit {
            return Err(too_large(limit));
        }
        // Nearly every publish arrives in one piece, which is not copied.
        if whole.is_empty() && body.is_end_stream() {
            return Ok((part, share));
        }
        whole.extend_from_slice(&part);
    }
    Ok((whole.freeze(), share))
}

/// Reads the rest of a refused body and throws it away, up to a limit and within `patience`.
///
/// # Cancel safety
/// Safe.
pub(crate) async fn discard(body: &mut (impl Body<Data = Bytes> + Unpin), patience: Duration) {
    let all = async {
        let mut read = 0_usize;
        while let Some(Ok(frame)) = body.frame().await {
            read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if read > DISCARD_MAX_BYTES {
                return;
            }
        }
    };
    // Too slow or too large ends the same way: hyper closes the connection after the answer.
    let _in_time = timeout(patience.min(DISCARD_MAX_TIME), all).await.is_ok();
}

fn too_large(limit: usize) -> Refusal {
    Refusal::new(ErrorCode::TooLarge, format!("the body is larger than {limit} bytes; nothing was published"))
}
