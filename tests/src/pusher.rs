//! The Pusher protocol from the outside: what its clients and its backends send, byte by byte.
//!
//! **Lives here:** the applications of the tests and the gateways that serve them.
//! **Called by:** tests of the Pusher dialect.
//! **Must not know:** the gateway's insides. What is signed here is signed by code of its own.

mod fallback;
mod member;
mod place;
mod rest;
mod servers;
mod sign;
mod socket;

pub use fallback::{Line, Xhr, lines, socket_id};
pub use member::Member;
pub use place::Place;
pub use rest::{Request, Rest, refusal};
pub use servers::{
    COUNTED, Cluster, DEV, FIRST, NARROW, OFF, PLAIN, SECOND_KEY, SHORT_OF_TIME, SMALL, Shared, WATCHED,
    alone, cluster, configuration,
};
pub use sign::{App, hmac_sha256, md5_hex};
pub use socket::{Frame, Socket, path};
