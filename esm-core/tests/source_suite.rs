//! The contract of every source, kept by the in-memory one.

use std::sync::Arc;

use async_trait::async_trait;
use esm_core::{
    source::{Connect, SourceError},
    testing::{MemoryQueue, QueueUnderTest},
};

struct InMemory(MemoryQueue);

#[async_trait]
impl QueueUnderTest for InMemory {
    fn source(&self) -> Arc<dyn Connect> {
        Arc::new(self.0.clone())
    }

    async fn publish(&self, ids: &[&str]) {
        self.0.publish(ids);
    }

    async fn break_connections(&self) {
        self.0.lose(SourceError::ConnectionLost { broker: "memory".into(), words: "cut".into() });
    }
}

macro_rules! suite {
    ($($test:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $test() {
            esm_core::testing::$test(&InMemory(MemoryQueue::new())).await;
        }
    )*};
}

suite!(
    settled_deliveries_never_come_again,
    unsettled_deliveries_come_again_after_a_loss,
    deliveries_keep_the_queues_order,
    drained_deliveries_come_again,
    no_more_than_the_prefetch_is_lent,
    another_prefetch_hands_nothing_back_and_keeps_the_order,
    dead_lettered_deliveries_never_come_again,
);
