//! Publications as frames: each dialect on each transport.
//!
//! **Lives here:** which text goes into which framing.
//! **Called by:** the first worker that needs a frame; see `hub`'s `Delivery`.
//! **Must not know:** who receives it.

use bytes::Bytes;
use carillon_dialect_native::Native;
use carillon_dialect_pusher::{Protocol, Pusher, line};
use carillon_hub::Render;
use carillon_model::{Form, Publication};
use carillon_session::Dialect as _;

use crate::{event, frame};

/// Writes the frames of all forms.
#[derive(Clone, Copy, Debug)]
pub struct Renderer;

impl Render for Renderer {
    fn frame(&self, form: Form, publication: &Publication) -> Bytes {
        let text = if form.is_pusher() {
            Pusher::of(Protocol::Present, true).publication(publication)
        } else {
            Native.publication(publication)
        };
        match form {
            Form::NativeWebSocket => frame::text(&text),
            Form::NativeSse => {
                let id = publication.position.map(|position| format!("id: {position}\n")).unwrap_or_default();
                Bytes::from(format!("{id}data: {text}\n\n"))
            }
            Form::NativeSseBare => Bytes::from(format!("data: {text}\n\n")),
            Form::NativeSseRaw => Bytes::from(event::raw(publication)),
            Form::NativeLine => Bytes::from(text + "\n"),
            Form::NativePoll => Bytes::from(text + ","),
            Form::PusherWebSocket => frame::text(&text),
            Form::PusherLine => Bytes::from(line(&text)),
        }
    }
}
