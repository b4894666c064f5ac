//! From where on a reader wants a channel, and what becomes of that.
//!
//! **Lives here:** the places in the past that can be named, how much of it is brought, and why it cannot be.
//! **Called by:** dialects read them, sessions and the node pass them on, brokers answer.
//! **Must not know:** how any of it is spelled on a wire, who keeps the past.

use crate::{Position, UnixMillis};

/// From where on a reader wants a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Since {
    /// From now on.
    Now,
    /// Everything after this position.
    After(Position),
    /// From the oldest publication that is kept.
    Oldest,
    /// The last so many that are kept.
    Last(u32),
    /// The first that was accepted at or after this time, and all that follow.
    Time(UnixMillis),
}

/// Why a reader's past cannot be brought. Nothing of it is sent then: never a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unrecovered {
    /// The position is not one of this stream as it is: the stream was recreated since, lost its end, or never
    /// got as far.
    Epoch,
    /// What followed is no longer kept, or it cannot be proven that all of it is.
    Expired,
    /// It is more than [`ReplayLimits`] allow.
    Limit,
    /// Those who keep it could not be asked in time.
    Unavailable,
}

/// Most of a channel's past that one reader is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLimits {
    /// Publications.
    pub messages: usize,
    /// Bytes of data.
    pub bytes: usize,
}

impl Default for ReplayLimits {
    fn default() -> Self {
        Self { messages: 1000, bytes: 4 << 20 }
    }
}
