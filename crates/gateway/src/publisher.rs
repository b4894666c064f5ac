//! The node as the API sees it.
//!
//! **Lives here:** one kind of receipt turned into the other.
//! **Called by:** `wiring`.
//! **Must not know:** HTTP.

use std::{sync::Arc, time::Instant};

use carillon_api::{Publisher, Receipt};
use carillon_model::{NewMessage, Refusal};
use carillon_node::Node;
use futures_util::future::{BoxFuture, FutureExt as _};

/// Publishes through a node.
#[derive(Debug)]
pub(crate) struct NodePublisher(pub(crate) Arc<Node>);

impl Publisher for NodePublisher {
    fn publish(&self, message: NewMessage, deadline: Instant) -> BoxFuture<'_, Result<Receipt, Refusal>> {
        let published = self.0.publish(message, deadline);
        published
            .map(|outcome| outcome.map(|got| Receipt { position: got.position, duplicate: got.duplicate }))
            .boxed()
    }

    fn check(&self, message: &NewMessage) -> Result<(), Refusal> {
        self.0.check(message)
    }
}
