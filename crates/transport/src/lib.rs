//! The public door: HTTP, and WebSocket on top of it.
//!
//! **Lives here:** accepting sockets, handshakes, what a first request may say, framing, the files of a page.
//! **Called by:** `gateway` starts it; `node`'s workers drive the links that it makes.
//! **Must not know:** channels' rules, brokers, sessions' state.

mod accept;
mod door;
mod edge;
mod frame;
mod page;
mod render;
mod request;
mod websocket;

pub use accept::{AcceptConfig, BACKLOG, accept};
pub use door::{DoorConfig, door};
pub use page::{Asset, Here, Page};
pub use render::Renderer;
