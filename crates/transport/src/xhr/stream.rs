//! A request that receives until the client has enough of it.
//!
//! **Lives here:** lines on a bare socket, and when the client is about to open another stream.
//! **Called by:** `visit` starts one for each request, on the worker that has its socket.
//! **Must not know:** where the session is.

use std::time::Duration;

use carillon_node::Place;
use carillon_tasks::clock;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::timeout,
};

use super::{
    LOST, SILENCE, Source,
    session::{Taken, length},
    word::Then,
};
use crate::stream::USER_TIMEOUT;

/// Past so many characters pusher-js opens another stream as soon as it has a whole line, and reads no more of this
/// one (src/core/http/http_request.ts).
const ENOUGH: u64 = 256 * 1024;

/// For how long a client may take to read what it was sent last.
const PATIENCE: Duration = Duration::from_secs(60);

/// For how long a socket stays that nothing more is written to.
const LINGER: Duration = Duration::from_secs(10);

/// Most that a client may send after its request. It has nothing to say; a proxy may.
const HEARD_MAX_BYTES: usize = 16 * 1024;

/// Why nothing more is written.
enum Ended {
    /// The client has as much as it reads of one stream.
    Enough,
    /// It was told the last.
    Told,
    /// It has gone.
    Gone,
}

/// Writes lines until the session or the client ends it.
pub(crate) async fn stream(mut socket: TcpStream, head: String, mut source: Source, _place: Place) {
    // Where it cannot be set, the peer is found gone by the system's own patience.
    let _unset = SockRef::from(&socket).set_tcp_user_timeout(Some(USER_TIMEOUT)).is_err();
    let (mut reads, mut writes) = socket.split();
    let ended = tokio::select! {
        ended = write_all(&mut writes, head, &mut source) => ended,
        () = deaf(&mut reads) => Ended::Gone,
    };
    source.leave(match ended {
        Ended::Enough | Ended::Told => Then::Leave,
        // A stream that ends ends the session for pusher-js, too.
        Ended::Gone => Then::End,
    });
    drop(source);
    let _gone_already = match ended {
        Ended::Enough => timeout(LINGER, deaf(&mut reads)).await.is_err(),
        Ended::Told => writes.shutdown().await.is_err(),
        Ended::Gone => true,
    };
}

async fn write_all(socket: &mut WriteHalf<'_>, head: String, source: &mut Source) -> Ended {
    let mut written = 0_u64;
    if !write(socket, head.as_bytes()).await {
        return Ended::Gone;
    }
    loop {
        let now = clock::now();
        let until = now.checked_add(SILENCE).unwrap_or(now);
        let (bytes, last) = match source.take(ENOUGH.saturating_sub(written), until).await {
            Taken::Lines { bytes, last } => (bytes, last),
            Taken::Nothing => ("h\n".into(), false),
            Taken::Over => (LOST.into(), true),
        };
        if !write(socket, &bytes).await {
            return Ended::Gone;
        }
        written = written.saturating_add(length(&bytes));
        if last {
            return Ended::Told;
        }
        if written > ENOUGH {
            return Ended::Enough;
        }
    }
}

async fn write(socket: &mut WriteHalf<'_>, bytes: &[u8]) -> bool {
    timeout(PATIENCE, socket.write_all(bytes)).await.is_ok_and(|written| written.is_ok())
}

/// Waits until the client has closed its side, or says more than it should.
async fn deaf(socket: &mut ReadHalf<'_>) {
    let (mut scratch, mut heard) = ([0; 256], 0_usize);
    while heard <= HEARD_MAX_BYTES {
        match socket.read(&mut scratch).await {
            Ok(count) if count > 0 => heard = heard.saturating_add(count),
            Ok(_) | Err(_) => return,
        }
    }
}
