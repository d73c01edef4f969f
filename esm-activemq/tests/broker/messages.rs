//! Kinds of messages that other clients send.

use esm_activemq::testing::{Messages, TestBroker};
use esm_core::{metrics::DropReason, source::DeadLettered};

use crate::bench::{Mapping, ack, json, receive, receive_unusable, redelivered, text, texts};

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_of_other_types_are_given_up_by_name_and_the_queue_goes_on() {
    let broker = TestBroker::shared();
    let queue = broker.queue("types");
    let mut session = Mapping::new(&broker, &queue).open(1).await;

    for kind in ["map", "object", "stream", "plain"] {
        broker.produce(&queue, Messages::of_type(kind)).await;
        let unusable = receive_unusable(&mut session).await;
        assert_eq!(unusable.reason, DropReason::MessageType);
        let name = if kind == "plain" { "jms/message".to_owned() } else { format!("jms/{kind}-message") };
        assert!(unusable.cause.contains(&name), "{}", unusable.cause);
        let dead_lettered = session.consumer.dead_letter(unusable.receipt, &unusable.cause).await;
        assert_eq!(dead_lettered, Ok(DeadLettered::Taken));
    }
    broker.produce(&queue, Messages::text("text")).await;

    let deliveries = receive(&mut session, 1).await;
    assert_eq!(texts(&session, &deliveries), ["text"]);
    let dead_letters = broker.dead_letters(&queue).await;
    assert_eq!(dead_letters.len(), 4);
    assert!(dead_letters[0].property("dlqDeliveryFailureCause").expect("a cause").contains("jms/map-message"));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_that_is_too_large_is_given_up_by_its_head_and_the_queue_goes_on() {
    let broker = TestBroker::shared();
    let queue = broker.queue("large");
    let mut session = Mapping::new(&broker, &queue).open(10).await;
    // More than a frame may have, more than an event may have, and small.
    let sizes = [9 << 20, 5 << 20, 10];

    for size in sizes {
        broker.produce(&queue, Messages::bytes("").size(size)).await;
    }

    for size in &sizes[..2] {
        let unusable = receive_unusable(&mut session).await;
        assert_eq!(unusable.reason, DropReason::TooLarge);
        assert!(unusable.size >= *size, "{}", unusable.size);
        let dead_lettered = session.consumer.dead_letter(unusable.receipt, &unusable.cause).await;
        assert_eq!(dead_lettered, Ok(DeadLettered::Taken));
    }
    let deliveries = receive(&mut session, 1).await;
    assert_eq!(text(&session, &deliveries[0]), "..........");
    ack(&session, &deliveries).await;
    broker.wait_until(&queue, |queue| queue.size == 0).await;
    broker.wait_until(&format!("DLQ.{queue}"), |queue| queue.size == 2).await;
    broker.purge(&format!("DLQ.{queue}")).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_largest_body_that_fits_into_an_event_passes() {
    let broker = TestBroker::shared();
    let queue = broker.queue("almost-large");
    let size = (6 << 20) / 4 * 3 - 3_000;
    broker.produce(&queue, Messages::bytes("").size(size)).await;

    let mut session = Mapping::new(&broker, &queue).open(10).await;
    let deliveries = receive(&mut session, 1).await;
    assert_eq!(text(&session, &deliveries[0]).len(), size);
    ack(&session, &deliveries).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn texts_that_came_over_stomp_are_whole() {
    let broker = TestBroker::shared();
    let queue = broker.stomp_queue("texts");
    let sent = ["plain", "zwölf € 😀 𝄞", "{\"json\": [true]}"];
    broker.send_by_stomp(&queue, &sent).await;

    let mut session = Mapping::new(&broker, &queue).open(10).await;
    let deliveries = receive(&mut session, 3).await;
    assert_eq!(texts(&session, &deliveries), sent);
    assert_eq!(redelivered(&deliveries), [false; 3]);
    assert_eq!(json(&session, &deliveries[1])["messageType"], "jms/text-message");
    ack(&session, &deliveries).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn messages_of_a_group_say_so() {
    let broker = TestBroker::shared();
    let queue = broker.queue("groups");
    broker.produce(&queue, Messages::text("{n}").count(4).group("group-{n}").groups(2)).await;

    let mut session = Mapping::new(&broker, &queue).open(10).await;
    let deliveries = receive(&mut session, 4).await;
    let groups: Vec<_> = deliveries.iter().map(|delivery| delivery.group.as_ref().map(|group| &*group.0)).collect();
    assert_eq!(groups, [Some("group-0"), Some("group-1"), Some("group-0"), Some("group-1")]);
    assert_eq!(json(&session, &deliveries[1])["properties"]["JMSXGroupID"], "group-1");
}
