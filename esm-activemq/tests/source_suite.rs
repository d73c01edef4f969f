//! The contract of every source, kept by ActiveMQ.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use esm_activemq::{
    ActiveMqSource, Connections, EventProfile, Settings,
    testing::{ADMINISTRATOR, Messages, Relay, TestBroker},
};
use esm_core::{credentials::Login, source::Connect, testing::QueueUnderTest};

struct ActiveMqQueue {
    broker: TestBroker,
    relay: Relay,
    queue: String,
    source: Arc<ActiveMqSource>,
    /// The broker makes the message ids: by them, the ids that the suite asked for.
    published: Mutex<HashMap<String, String>>,
}

impl ActiveMqQueue {
    async fn new(test: &str) -> Self {
        let broker = TestBroker::shared();
        let queue = broker.queue(test);
        let relay = Relay::to(&broker.url).await;
        let addresses = vec![relay.url.parse().expect("an address")];
        let connections = Connections::new("test".into(), addresses, None).expect("no TLS");
        let settings = Settings {
            queue: queue.parse().expect("a queue"),
            credentials: Arc::new(Login { username: ADMINISTRATOR.0.into(), password: ADMINISTRATOR.1.into() }),
            client_id: "suite".into(),
            event_source_arn: "arn".into(),
            profile: EventProfile::Wire,
            item_identifiers: false,
            destination: None,
            dead_letter_queue: format!("DLQ.{queue}"),
        };
        let source = Arc::new(ActiveMqSource::new(connections, settings));
        Self { broker, relay, queue, source, published: Mutex::default() }
    }
}

#[async_trait]
impl QueueUnderTest for ActiveMqQueue {
    fn source(&self) -> Arc<dyn Connect> {
        self.source.clone()
    }

    async fn publish(&self, ids: &[&str]) {
        let message_ids = self.broker.produce(&self.queue, Messages::text("body").count(ids.len())).await;
        let asked_for = ids.iter().copied().map(str::to_owned);
        self.published.lock().expect("nobody panicked").extend(message_ids.into_iter().zip(asked_for));
    }

    fn published_as(&self, message_id: &str) -> String {
        self.published.lock().expect("nobody panicked")[message_id].clone()
    }

    async fn break_connections(&self) {
        self.relay.cut();
    }
}

macro_rules! suite {
    ($($test:ident),* $(,)?) => {$(
        #[tokio::test]
        #[ignore = "needs a broker"]
        async fn $test() {
            esm_core::testing::$test(&ActiveMqQueue::new(stringify!($test)).await).await;
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
