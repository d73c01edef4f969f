//! What a mapping may say of its queue, and how much it may take at once.

use std::collections::BTreeSet;

use esm_activemq::testing::{Messages, TestBroker};

use crate::{
    common::{
        function::Function,
        service::{Config, Service},
    },
    delivery::MANY,
};

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_selector_leaves_the_other_messages_where_they_are() {
    let broker = TestBroker::shared();
    let queue = broker.queue("selector");
    for colour in ["red", "blue", "red"] {
        broker.produce(&queue, Messages::text(colour).count(50).property("colour", "string", colour)).await;
    }
    let function = Function::start().await;
    let selective = format!("{queue}?consumer.selector=colour%20%3D%20%27red%27");
    let service = Service::start(&Config::new(&broker, &function.url).mapping(&selective, "")).await;

    service.metric_becomes("esm_deleted_events_total", &[], 100).await;

    let left = broker.statistics(&queue).await;
    assert_eq!((left.size, left.dequeue_count), (50, 100));
    assert!(function.bodies().iter().all(|body| body == "red"));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn while_one_reads_exclusively_the_other_waits_and_takes_over() {
    let broker = TestBroker::shared();
    let queue = broker.queue("exclusive");
    let exclusive = format!("{queue}?consumer.exclusive=true");
    let (first, second) = (Function::start().await, Function::start().await);
    let mut active = Service::start(&Config::new(&broker, &first.url).mapping(&exclusive, "")).await;
    active.connected(&exclusive).await;
    let waiting = Service::start(&Config::new(&broker, &second.url).mapping(&exclusive, "")).await;
    waiting.connected(&exclusive).await;

    broker.produce(&queue, Messages::text("{n}").count(300)).await;
    active.metric_becomes("esm_deleted_events_total", &[], 300).await;
    active.terminate();
    assert!(active.ended().await.success());
    broker.produce(&queue, Messages::text("{n}").count(300)).await;
    waiting.metric_becomes("esm_deleted_events_total", &[], 300).await;

    assert_eq!((first.bodies().len(), second.bodies().len()), (300, 300));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn batches_of_ten_thousand_lose_and_repeat_nothing() {
    let broker = TestBroker::shared();
    let queue = broker.queue("large-batches");
    broker.produce(&queue, Messages::text("{n}").count(*MANY)).await;
    let function = Function::start().await;
    let large = "batch_size = 10000\nmaximum_batching_window_in_seconds = 2";
    let service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, large)).await;

    service.metric_becomes("esm_deleted_events_total", &[], *MANY as u64).await;

    let bodies = function.bodies();
    assert_eq!(bodies.len(), *MANY, "none twice");
    assert_eq!(bodies.into_iter().collect::<BTreeSet<_>>().len(), *MANY);
    let largest = function.calls().iter().map(|call| call.bodies.len()).max();
    assert!(largest > Some(2_000), "batches grow far beyond what the broker finds at a time: {largest:?}");
    broker.wait_until(&queue, |statistics| statistics.size == 0).await;
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
}
