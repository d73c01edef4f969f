//! How much is in hand, and that nothing goes back for that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use esm_rabbitmq::testing::TestBroker;

use crate::common::{
    function::{Answer, Function, redelivered},
    service::{Config, Service},
};

const MEGABYTE: usize = 1_000_000;
const LARGE_BATCHES: &str = "batch_size = 10000\nmaximum_batching_window_in_seconds = 1";

/// A body that begins with its number.
fn body(number: usize, size: usize) -> Vec<u8> {
    format!("{number:06}{}", "x".repeat(size)).into_bytes()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{number:06}")).collect()
}

/// A function that keeps the numbers only, and counts what comes for another time.
async fn counting() -> (Function, Arc<AtomicUsize>) {
    let again = Arc::new(AtomicUsize::new(0));
    let counter = again.clone();
    let function = Function::start_keeping(6, move |call| {
        counter.fetch_add(redelivered(call), Ordering::Relaxed);
        Answer::Success
    });
    (function.await, again)
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_queue_of_large_messages_takes_little_memory_and_each_comes_once() {
    const COUNT: usize = 150;
    let broker = TestBroker::shared();
    for queue_type in ["classic", "quorum"] {
        let virtual_host = broker.virtual_host(&format!("large messages {queue_type}")).await;
        let mut publisher = broker.publisher(&virtual_host).await;
        publisher.declare("queue", queue_type).await;
        publisher.publish("queue", (0..COUNT).map(|number| body(number, MEGABYTE))).await;
        let (function, again) = counting().await;
        let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", LARGE_BATCHES);
        let service = Service::start(&config).await;

        service.metric_becomes("esm_deleted_events_total", &[], COUNT as u64).await;

        assert_eq!(function.bodies(), numbers(COUNT), "each once, in order");
        assert_eq!(again.load(Ordering::Relaxed), 0, "nothing went back");
        let peak = service.peak_memory() / 1024 / 1024;
        println!("{queue_type}: a peak of {peak} MiB");
        // As records all have 190 MiB; the first 64, before their size is known, have 81.
        assert!(peak < 185, "{peak} MiB");
        assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
        broker.delete_virtual_host(&virtual_host).await;
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_that_are_suddenly_large_stay_within_the_memory_and_none_is_lost() {
    const SMALL: usize = 12_000;
    const LARGE: usize = 100;
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("suddenly large").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    publisher.publish("queue", (0..SMALL).map(|number| body(number, 10))).await;
    publisher.publish("queue", (SMALL..SMALL + LARGE).map(|number| body(number, MEGABYTE))).await;
    let (function, _) = counting().await;
    let mut config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", LARGE_BATCHES);
    config.server = "memory_limit_in_mebibytes = 16".into();
    let service = Service::start(&config).await;

    service.metric_becomes("esm_deleted_events_total", &[], (SMALL + LARGE) as u64).await;

    assert_eq!(function.bodies(), numbers(SMALL + LARGE), "each was invoked once, in order");
    let (peak, surplus) = (service.peak_memory() / 1024 / 1024, service.metric("esm_surplus_events_total", &[]).await);
    println!("a peak of {peak} MiB, {surplus} messages went back for lack of memory");
    assert!(surplus > 0, "so many were lent");
    assert!(peak < 150, "{peak} MiB");
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
    broker.delete_virtual_host(&virtual_host).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_queue_with_a_single_active_consumer_is_read_in_order_while_the_prefetch_grows() {
    const COUNT: usize = 5_000;
    let broker = TestBroker::shared();
    for queue_type in ["classic", "quorum"] {
        let virtual_host = broker.virtual_host(&format!("single active {queue_type}")).await;
        let mut publisher = broker.publisher(&virtual_host).await;
        publisher.declare_with_single_active_consumer("queue", queue_type).await;
        publisher.publish("queue", (0..COUNT).map(|number| body(number, 100))).await;
        let (function, again) = counting().await;
        let lines = "batch_size = 500";
        let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", lines);
        let service = Service::start(&config).await;

        service.metric_becomes("esm_deleted_events_total", &[], COUNT as u64).await;

        assert_eq!(function.bodies(), numbers(COUNT), "each once, in order");
        assert_eq!(again.load(Ordering::Relaxed), 0, "nothing went back");
        assert!(service.log().contains("changed the prefetch"), "{}", service.log());
        assert_eq!(service.log().matches("reading the queue").count(), 1, "in one session");
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn after_an_unclean_end_one_batch_is_borrowed_until_one_has_succeeded() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("unclean end").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "quorum").await;
    publisher.publish("queue", (0..100).map(|number| body(number, 10))).await;
    let function = Function::start_with(|_| Answer::After(Duration::from_secs(600))).await;
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "batch_size = 10");
    let mut service = Service::start(&config).await;
    prefetch_becomes(&broker, &virtual_host, 20).await;

    service.kill();
    function.behave(|_| Answer::FunctionError);
    service.start_again().await;
    prefetch_becomes(&broker, &virtual_host, 10).await;
    assert!(service.log().contains("has not ended in good order"));
    function.behave(|_| Answer::Success);
    service.metric_becomes("esm_deleted_events_total", &[], 100).await;
    prefetch_becomes(&broker, &virtual_host, 20).await;

    service.terminate();
    assert!(service.ended().await.success());
    service.start_again().await;
    service.connected("queue").await;
    assert_eq!(service.log().matches("has not ended in good order").count(), 1, "the second end was a good one");
}

/// Waits until the broker shows one consumer with this prefetch.
async fn prefetch_becomes(broker: &TestBroker, virtual_host: &str, expected: u16) {
    let becomes = async {
        loop {
            let consumers = broker.consumers(virtual_host).await;
            if consumers.len() == 1 && consumers[0]["prefetch_count"] == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(crate::common::service::PATIENCE, becomes).await.expect("the broker shows the prefetch");
}
