//! What transports of several nodes say to each other.
//!
//! **Lives here:** the seam to a transport whose clients come to any node.
//! **Called by:** `neighbours` brings words; implemented by `transport`.
//! **Must not know:** what the words mean.

use std::fmt;

use carillon_model::NodeId;

/// Takes the words of transports on other nodes.
pub trait Relay: Send + Sync + fmt::Debug {
    /// Takes a word. Must return without waiting.
    fn hear(&self, from: NodeId, word: &[u8]);

    /// Learns that words come and go from now on: at first, and after every interruption.
    fn link_up(&self);
}
