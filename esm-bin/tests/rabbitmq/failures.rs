//! A message that fails is told from its neighbours, and lies with its reasons where the mapping wants it.

use std::time::Duration;

use amqprs::{BasicProperties, FieldTable, FieldValue};
use esm_rabbitmq::testing::{Publisher, TestBroker};

use crate::common::{
    function::{Answer, Function},
    service::{Config, Service},
};

/// `count` messages, the third of which is poison with headers and properties of its own.
async fn publish_with_poison(publisher: &mut Publisher, count: usize) {
    let mut headers = FieldTable::new();
    headers.insert("colour".try_into().expect("short"), FieldValue::from("red".to_owned()));
    headers.insert("CC".try_into().expect("short"), copies());
    let messages = (0..count).map(|number| {
        if number == 2 {
            let mut properties = BasicProperties::default();
            properties.with_message_id("m-1").with_expiration("3600000").with_headers(headers.clone());
            (properties.finish(), b"poison".to_vec())
        } else {
            (BasicProperties::default(), number.to_string().into_bytes())
        }
    });
    let messages: Vec<_> = messages.collect();
    publisher.publish_messages("queue", messages).await;
}

/// Makes the broker send a copy to a further queue.
fn copies() -> FieldValue {
    let names = vec![FieldValue::from("elsewhere".to_owned())];
    FieldValue::A(names.try_into().expect("an array"))
}

fn to_letters(virtual_host: &str) -> String {
    format!(
        "destination_config = {{ on_failure = {{ destination = \
         \"arn:aws:mq:us-east-1:000000000000:queue:test:{virtual_host}:letters\" }} }}\n"
    )
}

fn header(properties: &BasicProperties, name: &str) -> Option<String> {
    let headers = properties.headers()?;
    let value = headers.get(&name.try_into().expect("short"))?;
    Some(value.to_string())
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_that_the_function_names_is_retried_alone_and_then_published_with_its_reasons() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("named").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "quorum").await;
    publisher.declare("letters", "classic").await;
    let function = Function::start_with(|_| Answer::NamesPoison).await;
    let mapping = "batch_size = 10\nmaximum_batching_window_in_seconds = 5\nmaximum_retry_attempts = 1\n\
                   function_response_types = [\"ReportBatchItemFailures\"]\n"
        .to_owned()
        + &to_letters(&virtual_host);
    publish_with_poison(&mut publisher, 10).await;
    let service =
        Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", &mapping)).await;

    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 1).await;
    assert_eq!(service.metric("esm_deleted_events_total", &[]).await, 9);
    assert_eq!(service.metric("esm_dropped_events_total", &["attempts"]).await, 1);
    let calls = function.calls();
    assert_eq!(calls.iter().map(|call| call.bodies.len()).collect::<Vec<_>>(), [10, 1]);
    assert_eq!(calls[1].bodies, ["poison"]);

    let (properties, body) = publisher.take("letters").await.expect("a letter");
    assert_eq!(body, b"poison");
    assert_eq!(properties.message_id().map(String::as_str), Some("m-1"));
    assert_eq!((properties.expiration(), properties.delivery_mode()), (None, Some(2)));
    assert_eq!(header(&properties, "CC"), None);
    for (name, part) in [
        ("colour", "red"),
        ("esm_reason", "attempts"),
        ("esm_attempts", "2"),
        ("esm_queue", "queue"),
        ("esm_function", "function"),
        ("esm_original_expiration", "3600000"),
        ("esm_cause", "the function failed with it 2 times, at last by naming it"),
    ] {
        let found = header(&properties, name).unwrap_or_else(|| panic!("has no {name}: {properties}"));
        assert!(found.contains(part), "{name} is {found}");
    }
    assert!(publisher.take("letters").await.is_none(), "once");
    assert!(publisher.take("queue").await.is_none(), "the queue is empty");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn one_poison_message_in_a_hundred_costs_14_invocations_more_and_stays_alone() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("bisected").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let function = Function::start_with(|call| {
        if call.bodies.contains(&"poison".to_owned()) { Answer::FunctionError } else { Answer::Success }
    })
    .await;
    publish_with_poison(&mut publisher, 100).await;
    let mapping = "maximum_batching_window_in_seconds = 5\nbisect_batch_on_function_error = true";
    let service =
        Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", mapping)).await;

    service.metric_becomes("esm_deleted_events_total", &[], 99).await;
    let calls = function.calls();
    let alone = calls.iter().filter(|call| call.bodies == ["poison"]).count();
    assert_eq!(calls[0].bodies.len(), 100);
    assert!(calls.len() - alone <= 14, "{} invocations, of which {alone} of the poison alone", calls.len());
    service.shows("queue", "PROBLEM: Function call failed").await;

    // It has not expired nor been given up: once the function is mended it is done.
    function.behave(|_| Answer::Success);
    service.metric_becomes("esm_deleted_events_total", &[], 100).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_stays_until_its_destination_is_there() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("no letters").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let function = Function::start_with(|_| Answer::FunctionError).await;
    let mapping =
        "maximum_batching_window_in_seconds = 0\nmaximum_retry_attempts = 0\n".to_owned() + &to_letters("no%20letters");
    let service =
        Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", &mapping)).await;
    publisher.publish("queue", ["poison"]).await;

    service.shows("queue", "a message that is given up cannot be published to its destination").await;
    assert_eq!(service.metric("esm_dropped_events_total", &[]).await, 0);
    publisher.declare("letters", "quorum").await;
    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 1).await;
    let (properties, body) = publisher.take("letters").await.expect("a letter");
    assert_eq!(body, b"poison");
    assert!(header(&properties, "esm_cause").is_some_and(|cause| cause.contains("TestError: told to fail")));
    assert_eq!(function.calls().len(), 1, "the function is not asked again");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_that_expires_in_hand_goes_the_way_of_the_broker() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("expires in hand").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("expired", "classic").await;
    let to_expired = [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", "expired")];
    publisher.declare_with("queue", &to_expired).await;
    let function = Function::start_with(|_| Answer::FunctionError).await;
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "batch_size = 1");
    let service = Service::start(&config).await;
    service.connected("queue").await;

    let expires = BasicProperties::default().with_expiration("2500").finish();
    publisher.publish_messages("queue", [(expires, b"a".to_vec())]).await;

    let (properties, body) = loop {
        if let Some(letter) = publisher.take("expired").await {
            break letter;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(body, b"a");
    assert!(header(&properties, "x-first-death-reason").is_some_and(|reason| reason.contains("expired")));
    let calls = function.calls();
    assert!(calls.iter().all(|call| call.at - calls[0].at < Duration::from_millis(2_500)), "not after it expired");
    assert!(calls.len() > 1, "it was retried before that");
    assert_eq!(service.metric("esm_deleted_events_total", &[]).await, 0, "it was never acknowledged");
}
