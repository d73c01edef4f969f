//! What a mapping of one kind of broker gives up lies on a broker of the other kind, with body, properties and reasons.

use amqprs::{BasicProperties, FieldTable, FieldValue};
use esm_activemq::testing::{GUEST, Messages, TestBroker as ActiveMqBroker};
use esm_rabbitmq::testing::TestBroker as RabbitMqBroker;

use crate::{
    bench::{ActiveMq, Bench, RabbitMq},
    common::{
        function::{Answer, Function},
        service::Service,
    },
};

/// A mapping whose function never succeeds, and whose letters go to another broker. The login is the guest's, whom both
/// brokers know.
async fn start<B: Bench>(bench: &B, engine: &str, endpoint: &str, arn: &str) -> (Function, Service) {
    let function = Function::start_with(|_| Answer::FunctionError).await;
    let more = format!(
        "batch_size = 1\nmaximum_retry_attempts = 0\ndestination_config = {{ on_failure = {{ destination = {arn:?} }} }}"
    );
    let mut config = bench.config(&function, &more).by_visitor();
    config.visitor = GUEST.0.into();
    config.tables = format!("[brokers.letters]\nengine = {engine:?}\nendpoints = [{endpoint:?}]\n");
    let service = Service::start(&config).await;
    (function, service)
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_activemq_had_lies_on_rabbitmq() {
    let target = RabbitMq::shared("letters of others").await;
    let source = ActiveMqBroker::shared();
    let bench = ActiveMq::shared("to-rabbitmq").await;
    let text = Messages::text("grüße").property("count", "int", "7").property("colour", "string", "rot");
    let text = text.correlation_id("c").jms_type("order").reply_to("answers").priority(6);
    let ids = source.produce(bench.queue(), text).await;
    source.produce(bench.queue(), Messages::bytes("bytes")).await;
    source.produce(bench.queue(), Messages::of_type("map")).await;
    let (_function, mut service) = start(&bench, "rabbitmq", &target.address(), &target.letters_arn("letters")).await;

    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 3).await;
    let mut letters = target.take_letters().await;
    letters.sort_by_key(|(_, body)| body.len());
    let [(bytes_properties, bytes), (properties, body), (map_properties, map)] = &letters[..] else {
        panic!("{letters:?}")
    };
    assert_eq!((body.as_slice(), bytes.as_slice()), ("grüße".as_bytes(), &b"bytes"[..]));
    assert!(map.len() > body.len(), "as it stood in the message: {map:?}");
    assert_eq!(properties.content_type().map(String::as_str), Some("text/plain"));
    assert_eq!(bytes_properties.content_type().map(String::as_str), Some("application/octet-stream"));
    assert_eq!(properties.message_id().map(String::as_str), Some(ids[0].as_str()));
    assert_eq!(properties.correlation_id().map(String::as_str), Some("c"));
    assert_eq!((properties.message_type().map(String::as_str), properties.priority()), (Some("order"), Some(6)));
    assert_eq!(properties.delivery_mode(), Some(2), "it is persistent");
    let header = |properties: &BasicProperties, name: &str| {
        let headers = properties.headers().expect("has headers");
        headers.get(&name.try_into().expect("short")).unwrap_or_else(|| panic!("no {name}: {properties}")).clone()
    };
    assert_eq!(header(properties, "count"), FieldValue::I(7));
    for (name, expected) in [
        ("colour", "rot"),
        ("esm_original_reply_to", "answers"),
        ("esm_reason", "attempts"),
        ("esm_queue", bench.queue()),
        ("esm_event_source", "test"),
    ] {
        assert_eq!(header(properties, name), FieldValue::from(expected.to_owned()), "{name}");
    }
    assert!(header(properties, "esm_cause").to_string().contains("TestError: told to fail"));
    assert_eq!(header(map_properties, "esm_original_body"), FieldValue::from("jms/map-message".to_owned()));
    assert!(header(map_properties, "esm_cause").to_string().contains("only text and bytes messages"));
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_rabbitmq_had_lies_on_activemq() {
    let bench = RabbitMq::shared("to activemq").await;
    let target = ActiveMqBroker::shared();
    let letters = target.queue("letters-of-others");
    // The guest may write to it and not create it.
    target.produce(&letters, Messages::text("creates it")).await;
    target.consume(&letters, 1).await;
    let mut headers = FieldTable::new();
    headers.insert("count".try_into().expect("short"), FieldValue::I(7));
    headers.insert("colour".try_into().expect("short"), FieldValue::from("rot".to_owned()));
    let list = vec![FieldValue::t(true)];
    headers.insert("list".try_into().expect("short"), FieldValue::A(list.try_into().expect("an array")));
    let mut text = BasicProperties::default();
    text.with_message_id("m-1").with_correlation_id("c").with_message_type("order").with_reply_to("answers");
    text.with_priority(200).with_timestamp(1_700_000_000).with_content_type("application/json").with_headers(headers);
    let messages = [(text.finish(), br#"{"a":1}"#.to_vec()), (BasicProperties::default(), vec![0, 255, 7])];
    bench.publish_messages(messages).await;
    let arn = format!("arn:aws:mq:us-east-1:000000000000:queue:letters::{letters}");
    let (_function, mut service) = start(&bench, "activemq", &target.url, &arn).await;

    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 2).await;
    let lying = target.browse(&letters).await;
    let [first, second] = &lying[..] else { panic!("{lying:?}") };
    assert_eq!((first.message_type.as_str(), first.text()), ("jms/text-message", r#"{"a":1}"#.into()));
    assert_eq!((second.message_type.as_str(), second.body.as_deref()), ("jms/bytes-message", Some("AP8H")));
    assert_eq!((first.correlation_id.as_deref(), first.jms_type.as_deref()), (Some("c"), Some("order")));
    assert_eq!((first.priority, first.delivery_mode, first.timestamp), (9, 2, 1_700_000_000_000));
    for (name, expected) in [
        ("count", "7"),
        ("colour", "rot"),
        ("list", "[true]"),
        ("esm_original_message_id", "m-1"),
        ("esm_original_reply_to", "answers"),
        ("esm_original_content_type", "application/json"),
        ("esm_reason", "attempts"),
        ("esm_queue", "queue"),
    ] {
        assert_eq!(first.property(name), Some(expected), "{name}: {:?}", first.properties);
    }
    assert!(first.property("esm_cause").is_some_and(|cause| cause.contains("TestError: told to fail")));
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_cannot_be_published_on_the_other_broker_stays() {
    let broker = RabbitMqBroker::shared();
    let bench = ActiveMq::shared("to-nowhere").await;
    let virtual_host = broker.virtual_host("letters not yet there").await;
    let arn = format!("arn:aws:mq:us-east-1:000000000000:queue:letters:{}:letters", virtual_host.replace(' ', "%20"));
    bench.publish("poison").await;
    let (function, service) = start(&bench, "rabbitmq", &broker.url, &arn).await;

    service.shows(bench.queue(), "a message that is given up cannot be published to its destination").await;
    assert_eq!(service.metric("esm_dropped_events_total", &[]).await, 0);
    let publisher = broker.publisher(&virtual_host).await;
    publisher.declare("letters", "quorum").await;
    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 1).await;
    assert_eq!(publisher.take("letters").await.expect("a letter").1, b"poison");
    assert_eq!(function.calls().len(), 1, "the function is not asked again");
}
