//! Large messages and large headers.

use amqprs::{BasicProperties, FieldTable};
use esm_rabbitmq::testing::TestBroker;

use crate::common::{
    function::Function,
    service::{Config, Service, wait_for},
};

/// A body of this size makes a record larger than an event may be.
const TOO_LARGE: usize = 5 * 1024 * 1024;

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_too_large_for_an_event_is_parked_and_the_queue_goes_on() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("too large parked").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let function = Function::start().await;
    let mut service = Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "")).await;

    let named = BasicProperties::default().with_message_id("the large one").finish();
    publisher.publish_messages("queue", [(named, vec![b'x'; TOO_LARGE])]).await;
    publisher.publish("queue", ["after"]).await;

    wait_for("the next message", || (function.bodies() == ["after"]).then_some(())).await;
    service.metric_becomes("esm_parked_messages", &[], 1).await;
    service.shows("queue", "no dead-letter target").await;
    let log = service.log();
    assert!(log.contains("too_large") && log.contains("the large one"), "{log}");

    service.terminate();
    assert!(service.ended().await.success());
    let (properties, body) = publisher.take("queue").await.expect("it is still there");
    assert_eq!(properties.message_id().map(String::as_str), Some("the large one"));
    assert_eq!(body.len(), TOO_LARGE);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_too_large_for_an_event_goes_to_the_dead_letter_exchange_if_the_operator_says_so() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("too large rejected").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("dead", "classic").await;
    let to_dead = [("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", "dead")];
    publisher.declare_with("queue", &to_dead).await;
    let function = Function::start().await;
    let tagged = r#"tags = { "esm:dead-letter" = "broker" }"#;
    let service = Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", tagged)).await;

    publisher.publish("queue", [vec![b'x'; TOO_LARGE], b"after".to_vec()]).await;

    wait_for("the next message", || (function.bodies() == ["after"]).then_some(())).await;
    service.metric_becomes("esm_dropped_events_total", &["too_large"], 1).await;
    let (_, body) = publisher.take("dead").await.expect("it was dead-lettered");
    assert_eq!(body.len(), TOO_LARGE);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_batch_closes_on_bytes_and_every_event_stays_below_the_limit() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("closes on bytes").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let function = Function::start().await;
    let waits = "maximum_batching_window_in_seconds = 300";
    let service = Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", waits)).await;

    // Four fit below 6 MiB as base64, a fifth does not.
    publisher.publish("queue", vec![vec![b'x'; 1_100 * 1024]; 5]).await;

    wait_for("a batch", || (!function.calls().is_empty()).then_some(())).await;
    assert_eq!(function.calls()[0].bodies.len(), 4);
    service.metric_becomes("esm_batches_total", &["bytes"], 1).await;
    service.metric_becomes("esm_deleted_events_total", &[], 4).await;
    wait_for("a smaller prefetch", || service.log().contains("changed the prefetch").then_some(())).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_with_100_kb_of_headers_arrives_and_disturbs_nobody() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("large headers").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    publisher.declare("neighbour", "classic").await;
    let function = Function::start().await;
    let config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "").mapping_in(
        &virtual_host,
        "neighbour",
        "",
    );
    let service = Service::start(&config).await;

    let mut headers = FieldTable::new();
    headers.insert("large".try_into().expect("short"), "h".repeat(100_000).into());
    let properties = BasicProperties::default().with_headers(headers).finish();
    publisher.publish_messages("queue", [(properties, b"body".to_vec())]).await;
    publisher.publish("neighbour", ["neighbour"]).await;

    service.metric_becomes("esm_deleted_events_total", &[], 2).await;
    let key = format!("queue::{virtual_host}");
    let calls = function.calls();
    let record = calls.iter().find_map(|call| call.event["rmqMessagesByQueue"].get(&key)).expect("it arrived");
    let header = &record[0]["basicProperties"]["headers"]["large"]["bytes"];
    assert_eq!(header.as_array().map(Vec::len), Some(100_000));
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
}
