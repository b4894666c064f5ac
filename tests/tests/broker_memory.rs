//! The memory broker does what every broker does.

use std::sync::Arc;

use carillon_broker::{Broker, MemoryBroker};
use carillon_model::Epoch;
use carillon_tests::conformance::{Fixture, Inbox, classes};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_broker_conforms() {
    let inbox = Arc::new(Inbox::default());
    let deliver = Arc::clone(&inbox);
    let broker: Arc<dyn Broker> = Arc::new(MemoryBroker::new(Epoch::from_bits(1), &classes(), deliver));
    Fixture { publisher: Arc::clone(&broker), broker, inbox }.check_all().await;
}
