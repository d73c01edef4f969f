//! Quorum queues count how often a message comes back, and drop it beyond a limit.

use std::collections::BTreeSet;

use esm_rabbitmq::testing::TestBroker;

use crate::common::{
    function::Function,
    service::{Config, Service},
};

/// A queue without a dead-letter exchange, and a service that is stopped before its batch is full, again and again.
#[tokio::test]
#[ignore = "needs a broker"]
async fn restarts_with_a_prefetched_backlog_lose_nothing() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("restarts").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    let function = Function::start().await;
    let waiting = "batch_size = 100\nmaximum_batching_window_in_seconds = 60";
    let mut config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", waiting);
    let restarts = if broker.version().await < (4, 0) {
        config.broker = "delivery_limit = 5".into();
        publisher.declare_quorum_with_delivery_limit("queue", 5).await;
        8
    } else {
        // Whose limit is 20 by default, which nobody has to say.
        publisher.declare("queue", "quorum").await;
        25
    };
    let mut sent = BTreeSet::new();
    for restart in 0..restarts {
        let bodies: Vec<_> = (0..10).map(|number| format!("{restart} {number}")).collect();
        publisher.publish("queue", bodies.clone()).await;
        sent.extend(bodies);
        let mut service = Service::start(&config).await;
        service.metric_reaches("esm_polled_events_total", &[], 10).await;

        service.terminate();

        let status = service.ended().await;
        assert_eq!(status.code(), Some(0), "{}", service.log());
    }
    let at_once = "maximum_batching_window_in_seconds = 0";
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", at_once);
    let service = Service::start(&config).await;
    publisher.publish("queue", ["last"]).await;
    sent.insert("last".into());
    service.shows_all(&function, &sent).await;
}

impl Service {
    async fn shows_all(&self, function: &Function, sent: &BTreeSet<String>) {
        let last = || function.bodies().contains(&"last".to_owned()).then_some(());
        crate::common::service::wait_for("the last message", last).await;
        let arrived: BTreeSet<_> = function.bodies().into_iter().collect();
        let missing: Vec<_> = sent.difference(&arrived).collect();
        assert!(missing.is_empty(), "{} of {} are missing: {missing:?}", missing.len(), sent.len());
    }
}
