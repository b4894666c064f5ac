//! A past that is on its way to one client.
//!
//! **Lives here:** what a worker remembers of it between two steps.
//! **Called by:** `worker::catching_up`.
//! **Must not know:** the rules of the way: those are `broker`'s `CatchUp`.

use std::time::{Duration, Instant};

use carillon_broker::CatchUp;
use carillon_hub::{Line, Seat};
use carillon_model::{ChannelName, ClassName, Overflow};
use carillon_session::Reference;

/// Pasts that one client is brought at a time: each may pin as much memory as a replay may have. The others wait.
pub(crate) const READERS_MAX: usize = 4;

/// One past.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) channel: ChannelName,
    pub(crate) class: ClassName,
    pub(crate) seat: Seat,
    pub(crate) line: Line,
    pub(crate) overflow: Overflow,
    pub(crate) reference: Option<Reference>,
    pub(crate) catchup: CatchUp,
    /// Storage is being asked, under this number.
    pub(crate) asked: Option<u64>,
    /// Storage could not be asked: it is tried again from then on.
    pub(crate) again_at: Option<Instant>,
    pub(crate) began: Instant,
    /// When the client was told what follows.
    pub(crate) told_at: Option<Instant>,
}

/// For how long a client may take what it is brought: for as long as memory goes on where that ends.
const PATIENCE: Duration = Duration::from_mins(2);

impl Reader {
    /// Says whether the client takes what it is brought so slowly that it only keeps it from being forgotten.
    pub(crate) fn is_too_slow(&self, now: Instant) -> bool {
        self.told_at.is_some_and(|told| now.saturating_duration_since(told) > PATIENCE)
    }
}
