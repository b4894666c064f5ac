//! The nodes' channels as the API sees them.
//!
//! **Lives here:** what the API asks, put to the node, and how long a cached event is kept.
//! **Called by:** `wiring`.
//! **Must not know:** HTTP.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use carillon_api::{Cached, Channels};
use carillon_model::{
    ChannelName, ChannelRules, ErrorCode, Findings, Keeping, Member, Question, Refusal, RetentionClass,
    UnixMillis,
};
use carillon_node::Node;
use carillon_tasks::clock;
use futures_util::future::{BoxFuture, FutureExt as _};

/// Knows what a node knows.
#[derive(Debug)]
pub(crate) struct NodeChannels {
    pub(crate) node: Arc<Node>,
    pub(crate) rules: ChannelRules,
    pub(crate) classes: Vec<RetentionClass>,
}

impl NodeChannels {
    fn max_age(&self, channel: &ChannelName) -> Duration {
        let class = match self.rules.keeping(channel) {
            Some(Keeping::Durable(name)) => self.classes.iter().find(|class| class.name == *name),
            Some(Keeping::Live) | None => None,
        };
        class.map_or(Duration::ZERO, |class| class.max_age)
    }
}

impl Channels for NodeChannels {
    fn ask(&self, question: Question, deadline: Instant) -> BoxFuture<'_, Arc<Findings>> {
        self.node.survey(question, deadline).boxed()
    }

    fn members(&self, channel: &ChannelName) -> Vec<Member> {
        self.node.members(channel)
    }

    fn cached<'a>(
        &'a self,
        channel: &'a ChannelName,
        deadline: Instant,
    ) -> BoxFuture<'a, Result<Option<Cached>, Refusal>> {
        async move {
            let read = tokio::time::timeout_at(deadline.into(), self.node.newest(channel)).await;
            let late =
                |_late| Refusal::new(ErrorCode::Unavailable, "what the channel keeps cannot be read in time");
            let Some(newest) = read.map_err(late)?? else { return Ok(None) };
            let now = UnixMillis::new(u64::try_from(clock::since_1970().as_millis()).unwrap_or(u64::MAX));
            let expires_in = self.max_age(channel).saturating_sub(now.since(newest.message.time));
            Ok(Some(Cached { data: newest.message.data.clone(), expires_in }))
        }
        .boxed()
    }
}
