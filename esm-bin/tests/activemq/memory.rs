//! How much is in hand, and that nothing goes back for that.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use esm_activemq::testing::{Messages, TestBroker};

use crate::{
    broker::ONE_BY_ONE,
    common::{
        function::{Answer, Function, redelivered},
        service::{Config, Service},
    },
};

const LARGE_BATCHES: &str = "batch_size = 10000\nmaximum_batching_window_in_seconds = 1";

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_queue_of_large_messages_takes_little_memory_and_each_comes_once() {
    const COUNT: usize = 150;
    let broker = TestBroker::shared();
    let queue = broker.queue("large-messages");
    broker.produce(&queue, Messages::text("{n} ").size(1_000_000).count(COUNT)).await;
    let again = Arc::new(AtomicUsize::new(0));
    let counter = again.clone();
    let function = Function::start_keeping(6, move |call| {
        counter.fetch_add(redelivered(call), Ordering::Relaxed);
        Answer::Success
    })
    .await;
    let lines = format!("{LARGE_BATCHES}\n{ONE_BY_ONE}");
    let service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, &lines)).await;

    service.metric_becomes("esm_deleted_events_total", &[], COUNT as u64).await;

    assert_eq!(function.bodies().len(), COUNT, "each once");
    assert_eq!(again.load(Ordering::Relaxed), 0, "nothing went back");
    let peak = service.peak_memory() / 1024 / 1024;
    println!("a peak of {peak} MiB");
    // As records all have 190 MiB; the first 64, before their size is known, have 81.
    assert!(peak < 185, "{peak} MiB");
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
    broker.purge(&queue).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_that_are_suddenly_large_stay_within_the_memory_and_none_is_lost() {
    const SMALL: usize = 5_000;
    const LARGE: usize = 100;
    let broker = TestBroker::shared();
    let queue = broker.queue("suddenly-large");
    broker.produce(&queue, Messages::text("{n}").count(SMALL)).await;
    broker.produce(&queue, Messages::text("{n} ").size(1_000_000).count(LARGE)).await;
    let function = Function::start_keeping(6, |_| Answer::Success).await;
    let lines = format!("{LARGE_BATCHES}\n{ONE_BY_ONE}");
    let mut config = Config::new(&broker, &function.url).mapping(&queue, &lines);
    config.server = "memory_limit_in_mebibytes = 16".into();
    let service = Service::start(&config).await;

    service.metric_becomes("esm_deleted_events_total", &[], (SMALL + LARGE) as u64).await;

    assert_eq!(function.bodies().len(), SMALL + LARGE, "each was invoked once");
    let peak = service.peak_memory() / 1024 / 1024;
    println!("a peak of {peak} MiB");
    assert!(peak < 150, "{peak} MiB");
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
}
