//! Messages that cannot be processed: each lies where dead letters lie, with the reason, and the queue goes on.

use std::{collections::BTreeSet, time::Duration};

use esm_activemq::testing::{JavaMessage, Messages, TestBroker};

use crate::{
    broker::{ONE_BY_ONE, redelivered},
    common::{
        function::{Answer, Function},
        service::{Config, Service, wait_for},
    },
};

/// Where the broker says what was wrong.
const CAUSE: &str = "dlqDeliveryFailureCause";

/// Where ActiveMQ puts dead letters if nobody tells it otherwise.
const DEFAULT_QUEUE: &str = "ActiveMQ.DLQ";

/// A broker of one's own without any policy for dead letters.
async fn with_default_policies(name: &str) -> TestBroker {
    TestBroker::private(name, &["policy=<policyEntry queue=\">\"/>"]).await
}

/// On a shared broker, where each queue has dead letters of its own.
fn on_shared(broker: &TestBroker, function: &Function, queue: &str, more: &str) -> Config {
    let mut config = Config::new(broker, &function.url).mapping(queue, more);
    config.broker = format!("dead_letter_queue = \"DLQ.{queue}\"");
    config
}

/// Fails whenever this body is among those of a batch.
async fn fails_on(poison: &'static str) -> Function {
    Function::start_with(move |call| {
        if call.bodies.iter().any(|body| body == poison) { Answer::FunctionError } else { Answer::Success }
    })
    .await
}

fn cause(letter: &JavaMessage) -> &str {
    letter.property(CAUSE).unwrap_or_else(|| panic!("has no cause: {letter:?}"))
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn one_poison_message_in_a_batch_of_100_lies_alone_in_the_dead_letter_queue_after_6_deliveries() {
    let broker = with_default_policies("poison").await;
    let queue = "test.poison";
    broker.produce(queue, Messages::text("before {n}").count(60)).await;
    let poison = broker.produce(queue, Messages::text("poison").property("kept", "string", "yes")).await;
    broker.produce(queue, Messages::text("after {n}").count(39)).await;
    let function = fails_on("poison").await;
    let one_batch = format!("maximum_batching_window_in_seconds = 30\n{ONE_BY_ONE}");
    let service = Service::start(&Config::new(&broker, &function.url).mapping(queue, &one_batch)).await;

    service.metric_becomes("esm_dropped_events_total", &["attempts"], 1).await;
    service.metric_becomes("esm_deleted_events_total", &[], 99).await;

    let calls = function.calls();
    let of_all: Vec<_> = calls.iter().take_while(|call| call.bodies.len() == 100).collect();
    assert_eq!(of_all.len(), 6, "five redeliveries of the whole batch, since nobody knows who is to blame");
    for pair in of_all.windows(2) {
        let delay = pair[1].at - pair[0].at;
        assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&delay), "{delay:?}");
    }
    let others: BTreeSet<_> =
        (0..60).map(|n| format!("before {n}")).chain((0..39).map(|n| format!("after {n}"))).collect();
    let succeeded = calls.iter().filter(|call| !call.bodies.contains(&"poison".to_owned()));
    let succeeded: Vec<_> = succeeded.flat_map(|call| call.bodies.clone()).collect();
    assert_eq!(succeeded.len(), 99, "no neighbour succeeded twice");
    assert_eq!(succeeded.into_iter().collect::<BTreeSet<_>>(), others);

    let [letter] = &broker.browse(DEFAULT_QUEUE).await[..] else { panic!("not one dead letter") };
    assert_eq!(
        (letter.text(), &letter.message_id, letter.property("kept")),
        ("poison".into(), &poison[0], Some("yes"))
    );
    assert!(cause(letter).contains("TestError: told to fail"), "{}", cause(letter));

    broker.produce(queue, Messages::text("next")).await;
    // A batch that is not full waits for its window.
    wait_for("the next message", || function.bodies().contains(&"next".into()).then_some(())).await;
    broker.wait_until(queue, |statistics| statistics.size == 0).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_poison_message_that_is_not_persistent_is_not_lost_silently() {
    let broker = with_default_policies("not-persistent").await;
    let queue = "test.poison";
    let function = fails_on("poison").await;
    let service =
        Service::start(&Config::new(&broker, &function.url).mapping(queue, "maximum_retry_attempts = 1")).await;
    let sent = broker
        .produce(queue, Messages::text("poison").not_persistent().correlation_id("c").property("kept", "int", "7"))
        .await;

    service.metric_becomes("esm_dropped_events_total", &["attempts"], 1).await;

    let [letter] = &broker.browse(DEFAULT_QUEUE).await[..] else { panic!("not one dead letter") };
    assert_eq!((letter.text(), letter.correlation_id.as_deref()), ("poison".into(), Some("c")));
    assert_eq!((letter.property("kept"), letter.delivery_mode), (Some("7"), 2));
    assert_eq!(letter.property("originalMessageId"), Some(&*sent[0]));
    assert!(cause(letter).contains("TestError: told to fail"), "{}", cause(letter));
    broker.wait_until(queue, |statistics| statistics.size == 0).await;
    assert_eq!(function.calls().len(), 2);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_that_was_dead_lettered_before_is_not_lost_silently() {
    let broker = TestBroker::shared();
    let queue = broker.queue("twice-dead");
    let function = fails_on("poison").await;
    let service = Service::start(&on_shared(&broker, &function, &queue, "maximum_retry_attempts = 0")).await;
    // As somebody sends it who moves dead letters back with all their properties.
    broker.produce(&queue, Messages::text("poison").property(CAUSE, "string", "java.lang.Throwable: the first")).await;

    service.metric_becomes("esm_dropped_events_total", &["attempts"], 1).await;

    let [letter] = &broker.dead_letters(&queue).await[..] else { panic!("not one dead letter") };
    assert!(cause(letter).contains("TestError: told to fail"), "the newest cause: {}", cause(letter));
    broker.wait_until(&queue, |statistics| statistics.size == 0).await;
}

async fn is_given_up_after(maximum_retry_attempts: u32) {
    let broker = TestBroker::shared();
    let queue = broker.queue("attempts");
    broker.produce(&queue, Messages::text("poison")).await;
    let function = fails_on("poison").await;
    let attempts = format!("maximum_retry_attempts = {maximum_retry_attempts}");
    let service = Service::start(&on_shared(&broker, &function, &queue, &attempts)).await;

    service.metric_becomes("esm_dropped_events_total", &["attempts"], 1).await;

    assert_eq!(function.calls().len(), maximum_retry_attempts as usize + 1);
    assert_eq!(broker.dead_letters(&queue).await.len(), 1);
    assert_eq!(service.metric("esm_deleted_events_total", &[]).await, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn no_retry_attempts_are_one_delivery() {
    is_given_up_after(0).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn six_retry_attempts_are_seven_deliveries() {
    is_given_up_after(6).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn retry_attempts_without_end_go_on_until_success() {
    let broker = TestBroker::shared();
    let queue = broker.queue("endless");
    broker.produce(&queue, Messages::text("a")).await;
    let mut failures = 8;
    let function = Function::start_with(move |_| {
        if failures > 0 {
            failures -= 1;
            return Answer::FunctionError;
        }
        Answer::Success
    })
    .await;
    let service = Service::start(&on_shared(&broker, &function, &queue, "maximum_retry_attempts = -1")).await;

    service.metric_becomes("esm_deleted_events_total", &[], 1).await;

    assert_eq!(function.calls().len(), 9);
    assert!(broker.dead_letters(&queue).await.is_empty());
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_of_other_types_are_dead_lettered_with_the_reason_and_their_neighbours_are_unhurt() {
    const OTHERS: [(&str, &str); 4] = [
        ("map", "jms/map-message"),
        ("stream", "jms/stream-message"),
        ("object", "jms/object-message"),
        ("plain", "jms/message"),
    ];
    let broker = TestBroker::shared();
    let queue = broker.queue("types");
    for (kind, name) in OTHERS {
        broker.produce(&queue, Messages::text(&format!("before {name}"))).await;
        broker.produce(&queue, Messages::of_type(kind)).await;
    }
    broker.produce(&queue, Messages::of_type("map").not_persistent()).await;
    broker.produce(&queue, Messages::bytes("after")).await;
    let function = Function::start().await;
    let service = Service::start(&on_shared(&broker, &function, &queue, ONE_BY_ONE)).await;

    service.metric_becomes("esm_dropped_events_total", &["message_type"], 5).await;
    service.metric_becomes("esm_deleted_events_total", &[], 5).await;

    let neighbours = OTHERS.map(|(_, name)| format!("before {name}"));
    assert_eq!(function.bodies(), [&neighbours[..], &["after".to_owned()]].concat());
    assert!(function.calls().iter().flat_map(redelivered).all(|again| !again), "once each");
    let letters = broker.dead_letters(&queue).await;
    assert_eq!(letters.len(), 5);
    for (_, name) in OTHERS {
        let of_type: Vec<_> = letters.iter().filter(|letter| letter.message_type == name).collect();
        assert_eq!(of_type.len(), if name == "jms/map-message" { 2 } else { 1 }, "{name}");
        for letter in of_type {
            assert!(cause(letter).contains(&format!("it is a {name}")), "{}", cause(letter));
        }
    }
    broker.wait_until(&queue, |statistics| statistics.size == 0).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_larger_than_an_event_are_dead_lettered_and_the_queue_goes_on() {
    let broker = TestBroker::shared();
    let queue = broker.queue("large");
    let function = Function::start().await;
    let service = Service::start(&on_shared(&broker, &function, &queue, "")).await;
    // The first is too large only as base64; the second is not even read.
    let sizes = [5 * 1024 * 1024, 12 * 1024 * 1024];

    for size in sizes {
        broker.produce(&queue, Messages::bytes("x").size(size)).await;
    }
    broker.produce(&queue, Messages::text("after")).await;

    wait_for("the next message", || (function.bodies() == ["after"]).then_some(())).await;
    service.metric_becomes("esm_dropped_events_total", &["too_large"], 2).await;
    let letters = broker.dead_letters(&queue).await;
    assert_eq!(letters.iter().map(|letter| letter.text().len()).collect::<Vec<_>>(), sizes);
    for letter in &letters {
        assert!(cause(letter).contains("than an event can hold") || cause(letter).contains("too large"), "{letter:?}");
    }
    let log = service.log();
    assert!(log.contains("too_large") && log.contains(&letters[0].message_id), "{log}");
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_batch_closes_on_bytes_and_every_event_stays_below_the_limit() {
    let broker = TestBroker::shared();
    let queue = broker.queue("closes-on-bytes");
    let function = Function::start().await;
    let waits = format!("maximum_batching_window_in_seconds = 300\n{ONE_BY_ONE}");
    let service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, &waits)).await;

    // Four fit below 6 MiB as base64, a fifth does not.
    broker.produce(&queue, Messages::bytes("x").size(1_100 * 1024).count(5)).await;

    wait_for("a batch", || (!function.calls().is_empty()).then_some(())).await;
    assert_eq!(function.calls()[0].bodies.len(), 4);
    service.metric_becomes("esm_batches_total", &["bytes"], 1).await;
    service.metric_becomes("esm_deleted_events_total", &[], 4).await;
}
