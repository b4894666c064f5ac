//! What a publication's frame depends on, and the cells that hold each frame once made.
//!
//! **Lives here:** the forms: a dialect on a transport. Every subscriber of a form is sent the same bytes.
//! **Called by:** workers take frames for a fan-out and for a replay; `transport` writes them.
//! **Must not know:** how a frame is written.

use std::sync::OnceLock;

use bytes::Bytes;

/// A dialect on a transport: everything that a publication's frame depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The native dialect in a WebSocket text frame.
    NativeWebSocket,
    /// A server-sent event with the publication's own id: enough where one stream carries all channels.
    NativeSse,
    /// A server-sent event without an id; each client's cursor goes before it.
    NativeSseBare,
    /// A server-sent event of the event's name and the data itself, without an id.
    NativeSseRaw,
    /// A line of NDJSON.
    NativeLine,
    /// An element of a poll's array, with the comma that follows it.
    NativePoll,
    /// The Pusher protocol in a WebSocket text frame.
    PusherWebSocket,
    /// The Pusher protocol in a line of its HTTP fallback.
    PusherLine,
}

impl Form {
    /// How many forms there are.
    pub const COUNT: usize = 8;

    const fn index(self) -> usize {
        match self {
            Self::NativeWebSocket => 0,
            Self::NativeSse => 1,
            Self::NativeSseBare => 2,
            Self::NativeSseRaw => 3,
            Self::NativeLine => 4,
            Self::NativePoll => 5,
            Self::PusherWebSocket => 6,
            Self::PusherLine => 7,
        }
    }

    /// Says whether it is of the Pusher protocol.
    #[must_use]
    pub const fn is_pusher(self) -> bool {
        match self {
            Self::PusherWebSocket | Self::PusherLine => true,
            Self::NativeWebSocket
            | Self::NativeSse
            | Self::NativeSseBare
            | Self::NativeSseRaw
            | Self::NativeLine
            | Self::NativePoll => false,
        }
    }

    /// Says whether a client of this form has something of its own before each frame, or counts them.
    #[must_use]
    pub const fn is_led(self) -> bool {
        match self {
            Self::NativeWebSocket
            | Self::NativeSse
            | Self::NativeLine
            | Self::PusherWebSocket
            | Self::PusherLine => false,
            Self::NativeSseBare | Self::NativeSseRaw | Self::NativePoll => true,
        }
    }
}

/// The frames of one publication, each made by whoever asks first.
#[derive(Clone, Debug, Default)]
pub struct Frames([OnceLock<Bytes>; Form::COUNT]);

impl Frames {
    /// Returns the frame of `form`, made by `make` if nobody did before.
    pub fn get_or_make(&self, form: Form, make: impl FnOnce() -> Bytes) -> &Bytes {
        self.0[form.index()].get_or_init(make)
    }
}
