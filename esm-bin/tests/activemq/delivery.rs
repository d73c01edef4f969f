//! Nothing is lost, and the event is as it should be.

use std::{
    collections::HashSet,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use aws_lambda_events::event::activemq::ActiveMqEvent;
use esm_activemq::testing::{Messages, TestBroker};

use crate::{
    broker::{ONE_BY_ONE, redelivered},
    common::{
        function::{Answer, Function},
        service::{Config, Service, wait_for},
    },
};

/// How many messages a count takes; ten times as many when everything is to be tested.
pub(crate) static MANY: LazyLock<usize> =
    LazyLock::new(|| if std::env::var_os("ESM_TEST_ALL").is_some() { 200_000 } else { 20_000 });

/// The bodies of numbered messages.
pub(crate) fn numbered(count: usize) -> HashSet<String> {
    (0..count).map(|number| number.to_string()).collect()
}

async fn every_message_arrives_once(function: Function, more: &str) {
    let broker = TestBroker::shared();
    let queue = broker.queue("exactly-once");
    let service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, more)).await;

    broker.produce(&queue, Messages::text("{n}").count(*MANY)).await;

    service.metric_becomes("esm_deleted_events_total", &[], *MANY as u64).await;
    let bodies = function.bodies();
    assert_eq!(bodies.len(), *MANY, "none twice");
    assert_eq!(bodies.into_iter().collect::<HashSet<_>>(), numbered(*MANY));
    let statistics = broker.statistics(&queue).await;
    assert_eq!((statistics.size, statistics.dequeue_count), (0, *MANY as u64), "the queue is empty");
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0, "no acknowledgement was refused");
    assert_eq!(service.metric("esm_invoked_events_total", &[]).await, *MANY as u64);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_arrive_once_and_the_queue_is_empty() {
    every_message_arrives_once(Function::start().await, "").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn batches_in_flight_that_end_out_of_order_lose_and_repeat_nothing() {
    let function = Function::start_with(|call| {
        let number: u64 = call.bodies[0].parse().expect("a number");
        Answer::After(Duration::from_millis(number % 97))
    })
    .await;
    every_message_arrives_once(function, "batch_size = 50").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_arrive_in_order_one_batch_at_a_time() {
    let broker = TestBroker::shared();
    let queue = broker.queue("in-order");
    let function = Function::start().await;
    let service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, ONE_BY_ONE)).await;

    broker.produce(&queue, Messages::text("{n}").count(2_000)).await;

    service.metric_becomes("esm_deleted_events_total", &[], 2_000).await;
    assert_eq!(function.bodies(), (0..2_000).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_function_that_fails_three_times_gets_the_same_batch_four_times() {
    let broker = TestBroker::shared();
    let queue = broker.queue("fails-three-times");
    broker.produce(&queue, Messages::text("{n}").count(4)).await;
    let mut failures = 3;
    let function = Function::start_with(move |_| {
        if failures > 0 {
            failures -= 1;
            return Answer::FunctionError;
        }
        Answer::Success
    })
    .await;
    let config = Config::new(&broker, &function.url).mapping(&queue, &format!("batch_size = 3\n{ONE_BY_ONE}"));
    let service = Service::start(&config).await;

    service.shows(&queue, "TestError").await;
    service.metric_becomes("esm_deleted_events_total", &[], 4).await;

    let calls = function.calls();
    let bodies: Vec<_> = calls.iter().map(|call| call.bodies.concat()).collect();
    assert_eq!(bodies, ["012", "012", "012", "012", "3"]);
    for pair in calls[..4].windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_secs(1));
    }
    let marks: Vec<_> = calls.iter().map(redelivered).collect();
    assert_eq!(marks, [vec![false; 3], vec![true; 3], vec![true; 3], vec![true; 3], vec![false]]);
    assert_eq!(service.metric("esm_errors_total", &[]).await, 3);
    service.shows(&queue, "OK").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_throttled_batch_is_held_without_counting() {
    let broker = TestBroker::shared();
    let queue = broker.queue("throttled");
    broker.produce(&queue, Messages::text("a")).await;
    let mut throttles = 2;
    let function = Function::start_with(move |_| {
        if throttles > 0 {
            throttles -= 1;
            return Answer::Status(429);
        }
        Answer::Success
    })
    .await;
    // The first error would be one too many.
    let config = Config::new(&broker, &function.url).mapping(&queue, "maximum_retry_attempts = 0");
    let service = Service::start(&config).await;

    service.metric_becomes("esm_deleted_events_total", &[], 1).await;

    let calls = function.calls();
    assert_eq!(calls.iter().map(redelivered).collect::<Vec<_>>(), [[false], [false], [false]], "it was never tried");
    assert_eq!(service.metric("esm_throttles_total", &[]).await, 2);
    assert_eq!(service.metric("esm_errors_total", &[]).await, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn an_event_as_it_is_on_the_wire_is_read_by_typed_functions() {
    let broker = TestBroker::shared();
    let queue = broker.queue("wire");
    let messages = Messages::text("{\"order\": 1}")
        .priority(7)
        .correlation_id("correlation")
        .jms_type("order.placed")
        .reply_to("replies")
        .time_to_live(Duration::from_secs(3_600))
        .property("number", "int", "7");
    let sent = broker.produce(&queue, messages).await;
    broker.produce(&queue, Messages::bytes("bytes")).await;
    let function = Function::start().await;
    let arn = "arn:aws:mq:us-east-1:111122223333:broker:test:b-1";
    let mut config = Config::new(&broker, &function.url).mapping(&queue, r#"tags = { "esm:event-profile" = "wire" }"#);
    config.broker = format!("arn = {arn:?}");
    let service = Service::start(&config).await;

    service.metric_becomes("esm_deleted_events_total", &[], 2).await;

    let events: Vec<ActiveMqEvent> = function
        .calls()
        .into_iter()
        .map(|call| serde_json::from_value(call.event).expect("the typed function reads it"))
        .collect();
    assert_eq!(events[0].event_source.as_deref(), Some("aws:mq"));
    assert_eq!(events[0].event_source_arn.as_deref(), Some(arn));
    let [text, bytes] = &events.into_iter().flat_map(|event| event.messages).collect::<Vec<_>>()[..] else {
        panic!("not two messages");
    };
    assert_eq!(text.message_id.as_deref(), Some(&*sent[0]));
    assert_eq!(text.message_type.as_deref(), Some("jms/text-message"));
    assert_eq!(text.correlation_id.as_deref(), Some("correlation"));
    assert_eq!(text.reply_to.as_deref(), Some("queue://replies"));
    assert_eq!(text.type_.as_deref(), Some("order.placed"));
    assert_eq!(text.destination.physical_name.as_deref(), Some(&*queue));
    assert_eq!((text.priority, text.delivery_mode, text.redelivered), (7, 2, false));
    assert_eq!(text.expiration - text.timestamp, 3_600_000);
    assert_eq!(text.data.as_deref(), Some("eyJvcmRlciI6IDF9"));
    assert_eq!(text.properties["number"], "7");
    assert_eq!(bytes.message_type.as_deref(), Some("jms/bytes-message"));
    assert_eq!(bytes.data.as_deref(), Some("Ynl0ZXM="));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_millis();
    for time in [text.timestamp, text.broker_in_time, text.broker_out_time] {
        let age = now - u128::try_from(time).expect("after 1970");
        assert!(age < 600_000, "{time} is no time of today");
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_that_expires_while_it_waits_for_a_retry_is_not_invoked_again() {
    let broker = TestBroker::shared();
    let queue = broker.queue("expires");
    let function = Function::start_with(|_| Answer::FunctionError).await;
    let endless = "maximum_retry_attempts = -1";
    let service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, endless)).await;
    service.connected(&queue).await;

    broker.produce(&queue, Messages::text("a").time_to_live(Duration::from_secs(4))).await;

    wait_for("an invocation", || (!function.calls().is_empty()).then_some(())).await;
    service.metric_becomes("esm_dropped_events_total", &["expired"], 1).await;
    let counted = broker.wait_until(&queue, |statistics| statistics.size == 0).await;
    assert_eq!(counted.expired_count, 1, "the broker knows that it expired, and did not become dead by its errors");
}
