//! The end in good order, and the end at once.

use std::time::Duration;

use esm_rabbitmq::testing::TestBroker;
use tokio::time::Instant;

use crate::common::{
    function::{Answer, Function},
    service::{Config, Service, wait_for},
};

#[tokio::test]
#[ignore = "needs a broker"]
async fn on_sigterm_running_invocations_end_and_the_rest_goes_back() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("sigterm").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let function = Function::start_with(|_| Answer::After(Duration::from_secs(3))).await;
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "batch_size = 2");
    let mut service = Service::start(&config).await;
    publisher.publish("queue", ["a", "b", "c", "d", "e"]).await;
    wait_for("an invocation", || (!function.calls().is_empty()).then_some(())).await;

    service.terminate();

    let status = service.ended().await;
    assert_eq!(status.code(), Some(0), "{}", service.log());
    assert_eq!(function.bodies(), ["a", "b"], "nothing more was invoked");
    let mut left = Vec::new();
    while let Some((_, body)) = publisher.take("queue").await {
        left.push(String::from_utf8(body).expect("text"));
    }
    assert_eq!(left, ["c", "d", "e"], "the running batch was acknowledged, the rest is there");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_second_signal_ends_at_once_and_loses_nothing() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("second signal").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let function = Function::start_with(|_| Answer::After(Duration::from_secs(50))).await;
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "");
    let mut service = Service::start(&config).await;
    publisher.publish("queue", ["a"]).await;
    wait_for("an invocation", || (!function.calls().is_empty()).then_some(())).await;

    let asked = Instant::now();
    service.terminate();
    wait_for("the first signal to be heeded", || service.log().contains("drain").then_some(())).await;
    service.terminate();

    let status = service.ended().await;
    assert_ne!(status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(40), "it did not wait for the function");
    let body = loop {
        if let Some((_, body)) = publisher.take("queue").await {
            break body;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(body, b"a");
}
