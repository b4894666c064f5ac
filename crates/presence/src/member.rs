//! One member of a presence channel.
//!
//! **Lives here:** how much may be known of a member.
//! **Called by:** every part of this crate.
//! **Must not know:** connections, nodes.

pub use carillon_model::{IdKind, Member};

/// Longest [`Member::info`] in bytes. Applications are held to less by their limits.
pub const INFO_MAX_BYTES: usize = 64 * 1024;
