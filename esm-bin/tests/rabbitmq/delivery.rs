//! Nothing is lost: counts, order, crashes on either side.

use std::{collections::HashSet, sync::LazyLock, time::Duration};

use esm_rabbitmq::testing::TestBroker;

use crate::common::{
    function::{Answer, Function},
    service::{Config, Service, wait_for},
};

/// How many messages a count takes; ten times as many when everything is to be tested.
static MANY: LazyLock<usize> =
    LazyLock::new(|| if std::env::var_os("ESM_TEST_ALL").is_some() { 200_000 } else { 20_000 });

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

async fn exactly_once_and_in_order(queue_type: &str) {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host(&format!("exactly once {queue_type}")).await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", queue_type).await;
    let function = Function::start().await;
    let service = Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "")).await;

    publisher.publish("queue", numbered(*MANY)).await;

    service.metric_becomes("esm_deleted_events_total", &[], *MANY as u64).await;
    assert_eq!(function.bodies(), numbered(*MANY), "each once, in order");
    assert!(publisher.take("queue").await.is_none(), "the queue is empty");
    let polled = service.metric("esm_polled_events_total", &[]).await;
    let invoked = service.metric("esm_invoked_events_total", &[]).await;
    assert_eq!(polled, invoked);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_of_a_classic_queue_arrive_once_and_in_order() {
    exactly_once_and_in_order("classic").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_of_a_quorum_queue_arrive_once_and_in_order() {
    exactly_once_and_in_order("quorum").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn several_batches_in_flight_lose_and_repeat_nothing() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("several in flight").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "quorum").await;
    let function = Function::start_with(|call| {
        let number: u64 = call.bodies[0].parse().expect("a number");
        Answer::After(Duration::from_millis(number % 7)) // they end out of order
    })
    .await;
    let concurrent = "batch_size = 50\nscaling_config = { maximum_concurrency = 8 }";
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", concurrent);
    let service = Service::start(&config).await;

    publisher.publish("queue", numbered(*MANY)).await;

    service.metric_becomes("esm_deleted_events_total", &[], *MANY as u64).await;
    let bodies = function.bodies();
    assert_eq!(bodies.len(), *MANY);
    assert_eq!(bodies.into_iter().collect::<HashSet<_>>(), numbered(*MANY).into_iter().collect());
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0, "no acknowledgement was refused");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn nothing_is_missing_when_the_broker_is_killed_three_times_on_the_way() {
    let broker = TestBroker::private("killed", &[]).await;
    let virtual_host = broker.virtual_host("killed").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "quorum").await;
    publisher.publish("queue", numbered(*MANY)).await;
    drop(publisher);
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(20))).await;
    let service = Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "")).await;

    for round in 1..=3 {
        let progress = round * *MANY / 5;
        wait_for("progress", || (function.bodies().len() > progress).then_some(())).await;
        broker.kill().await;
        service.metric_becomes("esm_source_connected", &[], 0).await;
        broker.start().await;
        service.connected("queue").await;
    }

    wait_for("every message", || {
        let seen: HashSet<_> = function.bodies().into_iter().collect();
        (seen.len() == *MANY).then_some(())
    })
    .await;
    assert!(service.metric("esm_reconnects_total", &[]).await >= 3);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn nothing_is_missing_when_the_service_is_killed_on_the_way() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("service killed").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "quorum").await;
    publisher.publish("queue", numbered(*MANY)).await;
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(10))).await;
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "");
    let mut service = Service::start(&config).await;

    for round in 1..=3 {
        wait_for("progress", || (function.bodies().len() > round * *MANY / 5).then_some(())).await;
        service.kill();
        service.start_again().await;
    }

    wait_for("every message", || {
        let seen: HashSet<_> = function.bodies().into_iter().collect();
        (seen.len() == *MANY).then_some(())
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_function_that_fails_three_times_gets_the_same_batch_four_times() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("fails three times").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let mut failures = 3;
    let function = Function::start_with(move |_| {
        if failures > 0 {
            failures -= 1;
            return Answer::FunctionError;
        }
        Answer::Success
    })
    .await;
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "batch_size = 3");
    let service = Service::start(&config).await;
    publisher.publish("queue", ["a", "b", "c", "d"]).await;

    service.shows("queue", "TestError").await;
    service.metric_becomes("esm_deleted_events_total", &[], 4).await;

    let calls = function.calls();
    let bodies: Vec<_> = calls.iter().map(|call| call.bodies.concat()).collect();
    assert_eq!(bodies, ["abc", "abc", "abc", "abc", "d"]);
    for (pair, least) in calls.windows(2).zip([900, 1_800, 3_600]) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(least));
    }
    let key = format!("queue::{virtual_host}");
    let redelivered = |index: usize| calls[index].event["rmqMessagesByQueue"][&key][0]["redelivered"].clone();
    assert_eq!((redelivered(0), redelivered(1)), (false.into(), true.into()));
    assert_eq!(service.metric("esm_errors_total", &[]).await, 3);
    service.shows("queue", "OK").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_throttled_batch_is_held_without_counting() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("throttled").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let mut throttles = 2;
    let function = Function::start_with(move |_| {
        if throttles > 0 {
            throttles -= 1;
            return Answer::Status(429);
        }
        Answer::Success
    })
    .await;
    let service = Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "")).await;
    publisher.publish("queue", ["a"]).await;

    service.metric_becomes("esm_deleted_events_total", &[], 1).await;

    let calls = function.calls();
    assert_eq!(calls.len(), 3);
    let key = format!("queue::{virtual_host}");
    assert_eq!(calls[2].event["rmqMessagesByQueue"][&key][0]["redelivered"], false, "it was never tried");
    assert_eq!(service.metric("esm_throttles_total", &[]).await, 2);
    assert_eq!(service.metric("esm_errors_total", &[]).await, 0);
}
