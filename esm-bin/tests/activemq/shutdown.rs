//! The end in good order, and the end at once.

use std::time::Duration;

use esm_activemq::testing::{Messages, TestBroker};
use tokio::time::Instant;

use crate::{
    broker::{ONE_BY_ONE, redelivered},
    common::{
        function::{Answer, Function},
        service::{Config, Service, wait_for},
    },
};

#[tokio::test]
#[ignore = "needs a broker"]
async fn on_sigterm_running_invocations_end_and_the_rest_comes_again_as_if_never_delivered() {
    let broker = TestBroker::shared();
    let queue = broker.queue("sigterm");
    broker.produce(&queue, Messages::text("{n}").count(5)).await;
    let function = Function::start_with(|_| Answer::After(Duration::from_secs(3))).await;
    let config = Config::new(&broker, &function.url).mapping(&queue, &format!("batch_size = 2\n{ONE_BY_ONE}"));
    let mut service = Service::start(&config).await;
    wait_for("an invocation", || (!function.calls().is_empty()).then_some(())).await;

    service.terminate();

    let status = service.ended().await;
    assert_eq!(status.code(), Some(0), "{}", service.log());
    assert_eq!(function.bodies(), ["0", "1"], "nothing more was invoked");
    let left = broker.wait_until(&queue, |statistics| statistics.consumer_count == 0).await;
    assert_eq!((left.size, left.dequeue_count), (3, 2), "the running batch was acknowledged, the rest is there");
    service.start_again().await;
    service.metric_becomes("esm_deleted_events_total", &[], 3).await;
    let calls = function.calls();
    assert_eq!(calls[1..].iter().map(|call| call.bodies.concat()).collect::<Vec<_>>(), ["23", "4"]);
    assert!(calls.iter().flat_map(redelivered).all(|again| !again), "nobody had tried them");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn on_sigterm_what_a_function_failed_with_goes_back_and_says_so_when_it_comes_again() {
    let broker = TestBroker::shared();
    let queue = broker.queue("sigterm-tried");
    broker.produce(&queue, Messages::text("{n}").count(4)).await;
    let function = Function::start_with(|_| Answer::FunctionError).await;
    let config = Config::new(&broker, &function.url).mapping(&queue, &format!("batch_size = 2\n{ONE_BY_ONE}"));
    let mut service = Service::start(&config).await;
    wait_for("an invocation", || (!function.calls().is_empty()).then_some(())).await;

    service.terminate();

    let status = service.ended().await;
    assert_eq!(status.code(), Some(0), "{}", service.log());
    let before = function.calls().len();
    function.behave(|_| Answer::Success);
    service.start_again().await;
    service.metric_becomes("esm_deleted_events_total", &[], 4).await;
    let calls = &function.calls()[before..];
    assert_eq!(calls.iter().map(|call| call.bodies.concat()).collect::<Vec<_>>(), ["01", "23"]);
    assert_eq!(calls.iter().flat_map(redelivered).collect::<Vec<_>>(), [true, true, false, false]);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn nothing_is_lost_or_repeated_when_the_service_is_stopped_and_started_on_the_way() {
    const MESSAGES: usize = 5_000;
    let broker = TestBroker::shared();
    let queue = broker.queue("stopped");
    broker.produce(&queue, Messages::text("{n}").count(MESSAGES)).await;
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(100))).await;
    let mut service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, "")).await;

    for round in 1..=3 {
        wait_for("progress", || (function.bodies().len() > round * MESSAGES / 5).then_some(())).await;
        service.terminate();
        assert_eq!(service.ended().await.code(), Some(0), "{}", service.log());
        service.start_again().await;
    }

    broker.wait_until(&queue, |statistics| statistics.size == 0).await;
    let mut bodies = function.bodies();
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!((bodies.len(), function.bodies().len()), (MESSAGES, MESSAGES), "each once");
    assert!(function.calls().iter().flat_map(redelivered).all(|again| !again));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let broker = TestBroker::shared();
    let queue = broker.queue("second-signal");
    broker.produce(&queue, Messages::text("a")).await;
    let function = Function::start_with(|_| Answer::After(Duration::from_secs(50))).await;
    let mut service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, "")).await;
    wait_for("an invocation", || (!function.calls().is_empty()).then_some(())).await;

    let asked = Instant::now();
    service.terminate();
    wait_for("the first signal to be heeded", || service.log().contains("drain").then_some(())).await;
    service.terminate();

    let status = service.ended().await;
    assert_ne!(status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(40), "it did not wait for the function");
    let [message] = &broker.consume(&queue, 1).await[..] else { panic!("not one message") };
    assert_eq!(message.text(), "a");
}
