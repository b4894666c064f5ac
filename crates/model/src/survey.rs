//! What can be asked of all nodes at once, and what they answer together.
//!
//! **Lives here:** the questions and the findings.
//! **Called by:** the API, which asks; the node, which asks the others and adds up.
//! **Must not know:** how nodes hear of each other, how long they are waited for.

use std::collections::BTreeMap;

use crate::{AppSpace, ChannelName, UserId};

/// What every node is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// How many subscriptions channels have whose names begin so.
    Counts {
        /// Of which application.
        app: AppSpace,
        /// The beginning of the names.
        prefix: String,
    },
    /// How many subscriptions one channel has.
    Count(ChannelName),
    /// How many each of these has, all of one application.
    Each(AppSpace, Vec<ChannelName>),
    /// How many connections an application has.
    Connections(AppSpace),
    /// End the connections that are signed in as a user; answered with how many there were.
    Terminate(AppSpace, UserId),
}

/// What the nodes know that have answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Subscriptions by channel, for [`Question::Counts`] and [`Question::Each`]; none of them is 0.
    pub channels: BTreeMap<String, u64>,
    /// Everything together.
    pub total: u64,
    /// Nodes that have answered.
    pub answered: usize,
    /// Nodes that there are.
    pub of: usize,
}
