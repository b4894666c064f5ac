//! The public door: HTTP, and on top of it WebSocket, server-sent events, lines of JSON and long polls.
//!
//! **Lives here:** accepting sockets, handshakes, what a first request may say, framing, the files of a page.
//! **Called by:** `gateway` starts it; `node`'s workers drive the links that it makes.
//! **Must not know:** channels' rules, brokers, sessions' state.

mod accept;
mod cors;
mod door;
mod edge;
mod event;
mod frame;
mod page;
mod poll;
mod problem;
mod pusher;
mod render;
mod request;
mod standing;
mod stream;
mod visit;
mod websocket;
mod xhr;

pub use accept::{AcceptConfig, BACKLOG, accept};
pub use door::{Answerer, DoorConfig, Rest, door};
pub use page::{Asset, Here, Page};
pub use problem::Answer;
pub use render::Renderer;
pub use xhr::Fallback;
