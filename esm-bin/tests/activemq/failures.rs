//! A message that fails is told from its neighbours, and lies with its reasons where the mapping wants it.

use esm_activemq::testing::{Messages, TestBroker};

use crate::{
    broker::ONE_BY_ONE,
    common::{
        function::{Answer, Function},
        service::{Config, Service},
    },
};

async fn produce_with_poison(broker: &TestBroker, queue: &str, others: usize) {
    broker.produce(queue, Messages::text("before {n}").count(others / 2)).await;
    let poison = Messages::text("poison").property("kept", "int", "7").correlation_id("c").not_persistent();
    broker.produce(queue, poison).await;
    broker.produce(queue, Messages::text("after {n}").count(others - others / 2)).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_that_the_function_names_is_retried_alone_and_then_published_with_its_reasons() {
    let broker = TestBroker::shared();
    let queue = broker.queue("named");
    let letters = broker.queue("letters");
    produce_with_poison(&broker, &queue, 9).await;
    let function = Function::start_with(|_| Answer::NamesPoison).await;
    let mapping = format!(
        "batch_size = 10\nmaximum_batching_window_in_seconds = 5\nmaximum_retry_attempts = 1\n{ONE_BY_ONE}\n\
         function_response_types = [\"ReportBatchItemFailures\"]\ndestination_config = {{ on_failure = {{ destination = \
         \"arn:aws:mq:us-east-1:000000000000:queue:test::{letters}\" }} }}"
    );
    let service = Service::start(&Config::new(&broker, &function.url).mapping(&queue, &mapping)).await;

    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 1).await;
    assert_eq!(service.metric("esm_deleted_events_total", &[]).await, 9);
    let calls = function.calls();
    assert_eq!(calls.iter().map(|call| call.bodies.len()).collect::<Vec<_>>(), [10, 1]);

    let [letter] = &broker.browse(&letters).await[..] else { panic!("not one letter") };
    assert_eq!((letter.text(), letter.correlation_id.as_deref()), ("poison".into(), Some("c")));
    assert_eq!((letter.property("kept"), letter.delivery_mode), (Some("7"), 2));
    for (name, expected) in [
        ("esm_reason", "attempts"),
        ("esm_attempts", "2"),
        ("esm_queue", &queue),
        ("esm_cause", "the function failed with it 2 times, at last by naming it"),
    ] {
        assert_eq!(letter.property(name), Some(expected), "{name}");
    }
    broker.wait_until(&queue, |statistics| statistics.size == 0).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn one_poison_message_in_a_hundred_costs_14_invocations_more_and_stays_alone() {
    let broker = TestBroker::shared();
    let queue = broker.queue("bisected");
    produce_with_poison(&broker, &queue, 99).await;
    let function = Function::start_with(|call| {
        if call.bodies.contains(&"poison".to_owned()) { Answer::FunctionError } else { Answer::Success }
    })
    .await;
    let mapping = format!(
        "maximum_batching_window_in_seconds = 5\nmaximum_retry_attempts = 2\nbisect_batch_on_function_error = true\n\
         {ONE_BY_ONE}"
    );
    let mut config = Config::new(&broker, &function.url).mapping(&queue, &mapping);
    config.broker = format!("dead_letter_queue = \"DLQ.{queue}\"");
    let service = Service::start(&config).await;

    service.metric_becomes("esm_deleted_events_total", &[], 99).await;
    service.metric_becomes("esm_dropped_events_total", &["attempts"], 1).await;
    let calls = function.calls();
    let alone = calls.iter().filter(|call| call.bodies == ["poison"]).count();
    assert_eq!((calls[0].bodies.len(), alone), (100, 3));
    assert!(calls.len() <= 1 + 14 + 2, "{}", calls.len());
    broker.wait_until(&queue, |statistics| statistics.size == 0).await;
}
