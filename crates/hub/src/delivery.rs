//! A publication on its way to the sessions of this node.
//!
//! **Lives here:** a publication and when it came; its frames are made once for all workers.
//! **Called by:** `node` makes deliveries; workers take frames from them.
//! **Must not know:** how a frame is written: that is [`Render`]'s part.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use carillon_model::{Form, Publication};

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
}

impl Delivery {
    /// Begins a delivery that this node received at `received`.
    #[must_use]
    pub const fn new(publication: Arc<Publication>, received: Instant) -> Self {
        Self { publication, received }
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
        self.publication.frames.get_or_make(form, || render.frame(form, &self.publication))
    }
}
