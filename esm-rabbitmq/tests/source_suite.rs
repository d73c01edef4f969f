//! The contract of every source, kept by RabbitMQ's classic and quorum queues.

use std::{sync::Arc, time::Duration};

use amqprs::BasicProperties;
use async_trait::async_trait;
use esm_core::{credentials::Login, source::Connect, testing::QueueUnderTest};
use esm_rabbitmq::{
    Connections, DeliveryLimit, RabbitSource, Settings,
    testing::{Publisher, TestBroker},
};
use tokio::sync::Mutex;

struct RabbitQueue {
    broker: TestBroker,
    virtual_host: String,
    publisher: Mutex<Publisher>,
    source: Arc<RabbitSource>,
}

impl RabbitQueue {
    async fn new(test: &str, queue_type: &str) -> Self {
        let broker = TestBroker::shared();
        let virtual_host = broker.virtual_host(&format!("{test} {queue_type}")).await;
        let publisher = broker.publisher(&virtual_host).await;
        publisher.declare("queue", queue_type).await;
        Self::declared(broker, virtual_host, publisher)
    }

    /// A queue that sends to one of its consumers at a time.
    async fn with_single_active_consumer(test: &str, queue_type: &str) -> Self {
        let broker = TestBroker::shared();
        let virtual_host = broker.virtual_host(&format!("{test} {queue_type} single active")).await;
        let publisher = broker.publisher(&virtual_host).await;
        publisher.declare_with_single_active_consumer("queue", queue_type).await;
        Self::declared(broker, virtual_host, publisher)
    }

    fn declared(broker: TestBroker, virtual_host: String, publisher: Publisher) -> Self {
        let endpoints = vec![broker.url.parse().expect("an endpoint")];
        let connections = Connections::new("test".into(), endpoints, None).expect("no TLS");
        let settings = Settings {
            virtual_host: virtual_host.clone(),
            queue: "queue".into(),
            credentials: Arc::new(Login { username: "guest".into(), password: "guest".into() }),
            consumer_tag: "suite".into(),
            event_source_arn: "arn".into(),
            strict_consumers: false,
            item_identifiers: false,
            destination: None,
            unsigned_header_bytes: false,
            delivery_limit: DeliveryLimit::ByVersion,
            consumer_timeout: Some(Duration::from_secs(1_800)),
        };
        let source = Arc::new(RabbitSource::new(connections, settings));
        Self { broker, virtual_host, publisher: Mutex::new(publisher), source }
    }
}

#[async_trait]
impl QueueUnderTest for RabbitQueue {
    fn source(&self) -> Arc<dyn Connect> {
        self.source.clone()
    }

    async fn publish(&self, ids: &[&str]) {
        let messages: Vec<_> = ids.iter().copied().map(message).collect();
        self.publisher.lock().await.publish_messages("queue", messages).await;
    }

    async fn break_connections(&self) {
        self.broker.close_connections(&self.virtual_host).await;
        *self.publisher.lock().await = self.broker.publisher(&self.virtual_host).await;
    }
}

fn message(id: &str) -> (BasicProperties, Vec<u8>) {
    (BasicProperties::default().with_message_id(id).with_delivery_mode(2).finish(), b"body".to_vec())
}

macro_rules! suite {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            #[tokio::test]
            #[ignore = "needs a broker"]
            async fn classic() {
                esm_core::testing::$test(&super::RabbitQueue::new(stringify!($test), "classic").await).await;
            }

            #[tokio::test]
            #[ignore = "needs a broker"]
            async fn quorum() {
                esm_core::testing::$test(&super::RabbitQueue::new(stringify!($test), "quorum").await).await;
            }
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

mod another_prefetch_where_one_consumer_is_active {
    use super::RabbitQueue;

    const TEST: &str = "another prefetch";

    #[tokio::test]
    #[ignore = "needs a broker"]
    async fn classic() {
        let queue = RabbitQueue::with_single_active_consumer(TEST, "classic").await;
        esm_core::testing::another_prefetch_hands_nothing_back_and_keeps_the_order(&queue).await;
    }

    #[tokio::test]
    #[ignore = "needs a broker"]
    async fn quorum() {
        let queue = RabbitQueue::with_single_active_consumer(TEST, "quorum").await;
        esm_core::testing::another_prefetch_hands_nothing_back_and_keeps_the_order(&queue).await;
    }
}
