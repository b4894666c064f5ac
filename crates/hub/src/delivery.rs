//! A publication on its way to the sessions of this node.
//!
//! **Lives here:** the cells that hold each form of its frame, made once for all workers.
//! **Called by:** `node` makes deliveries; workers take frames from them.
//! **Must not know:** how a frame is written: that is [`Render`]'s part.

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use carillon_model::Publication;

/// A dialect on a transport: everything that a publication's frame depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The native dialect in a WebSocket text frame.
    NativeWebSocket,
}

impl Form {
    /// How many forms there are.
    const COUNT: usize = 1;

    const fn index(self) -> usize {
        match self {
            Self::NativeWebSocket => 0,
        }
    }
}

/// Writes the frame of a publication.
pub trait Render: Send + Sync {
    /// Returns the bytes that every subscriber of this form is sent.
    fn frame(&self, form: Form, publication: &Publication) -> Bytes;
}

/// One publication, as it goes to every worker that has subscribers.
#[derive(Debug)]
pub struct Delivery {
    publication: Arc<Publication>,
    received: Instant,
    frames: [OnceLock<Bytes>; Form::COUNT],
}

impl Delivery {
    /// Begins a delivery that this node received at `received`.
    #[must_use]
    pub fn new(publication: Arc<Publication>, received: Instant) -> Self {
        Self { publication, received, frames: [const { OnceLock::new() }; Form::COUNT] }
    }

    /// Returns the publication.
    #[must_use]
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Returns when this node received it.
    #[must_use]
    pub const fn received(&self) -> Instant {
        self.received
    }

    /// Returns the frame of `form`; the first to ask makes it, for every worker.
    pub fn frame(&self, form: Form, render: &dyn Render) -> &Bytes {
        self.frames[form.index()].get_or_init(|| render.frame(form, &self.publication))
    }
}
