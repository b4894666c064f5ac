//! Publications as frames: each dialect on each transport.
//!
//! **Lives here:** which text goes into which framing.
//! **Called by:** the first worker that needs a frame; see `hub`'s `Delivery`.
//! **Must not know:** who receives it.

use bytes::Bytes;
use carillon_dialect_native::Native;
use carillon_hub::{Form, Render};
use carillon_model::Publication;
use carillon_session::Dialect as _;

use crate::frame;

/// Writes the frames of all forms.
#[derive(Clone, Copy, Debug)]
pub struct Renderer;

impl Render for Renderer {
    fn frame(&self, form: Form, publication: &Publication) -> Bytes {
        match form {
            Form::NativeWebSocket => frame::text(&Native.publication(publication)),
        }
    }
}
