//! Which messages of which queues come.

use esm_activemq::testing::{Messages, TestBroker};
use esm_core::source::SourceError;

use crate::bench::{Mapping, ack, json, numbers, receive, stop, texts};

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_selector_leaves_the_others_in_the_queue() {
    let broker = TestBroker::shared();
    let queue = broker.queue("selector");
    let of_colour = |colour| Messages::text(colour).property("colour", "string", colour);
    for colour in ["red", "blue", "red"] {
        broker.produce(&queue, of_colour(colour)).await;
    }
    let mapping = Mapping::new(&broker, &format!("{queue}?consumer.selector=colour%20%3D%20%27red%27"));

    let mut session = mapping.open(10).await;
    let deliveries = receive(&mut session, 2).await;
    assert_eq!(texts(&session, &deliveries), ["red", "red"]);
    ack(&session, &deliveries).await;
    stop(session).await;

    let left = broker.consume(&queue, 1).await;
    assert_eq!(left[0].text(), "blue");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_bad_selector_is_a_mistake_in_the_mapping_and_hurts_no_other() {
    let broker = TestBroker::shared();
    let queue = broker.queue("bad-selector");
    let healthy = Mapping::new(&broker, &queue);
    let mut session = healthy.open(10).await;

    let error = healthy.beside(&format!("{queue}?consumer.selector=colour%20%3D")).refusal().await;

    assert!(matches!(&error, SourceError::QueueUnsuitable { words, .. } if words.contains("colour =")), "{error:?}");
    assert_eq!(error.code(), Some("ESM_CONFIG_NOT_VALID"));
    broker.produce(&queue, Messages::text("after")).await;
    let deliveries = receive(&mut session, 1).await;
    assert_eq!(texts(&session, &deliveries), ["after"]);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn an_exclusive_consumer_has_the_queue_until_it_stops() {
    let broker = TestBroker::shared();
    let queue = broker.queue("exclusive");
    let mapping = Mapping::new(&broker, &format!("{queue}?consumer.exclusive=true"));
    let mut first = mapping.open(10).await;
    let mut second = mapping.open(10).await;

    broker.produce(&queue, Messages::text("{n}").count(4)).await;
    let deliveries = receive(&mut first, 4).await;
    ack(&first, &deliveries[..2]).await;
    assert_eq!(second.deliveries.len(), 0);
    stop(first).await;

    let deliveries = receive(&mut second, 2).await;
    assert_eq!(texts(&second, &deliveries), numbers(2..4));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_consumer_of_higher_priority_is_served_first() {
    let broker = TestBroker::shared();
    let queue = broker.queue("priority");
    let mut low = Mapping::new(&broker, &queue).open(10).await;
    let mut high = Mapping::new(&broker, &format!("{queue}?consumer.priority=5")).open(3).await;

    broker.produce(&queue, Messages::text("{n}").count(5)).await;

    let (served_first, overflow) = (receive(&mut high, 3).await, receive(&mut low, 2).await);
    assert_eq!(texts(&high, &served_first), numbers(0..3));
    assert_eq!(texts(&low, &overflow), numbers(3..5));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_virtual_topics_queue_goes_by_its_own_name() {
    let broker = TestBroker::shared();
    let topic = broker.queue("topic").replace("test.", "VirtualTopic.");
    let queue = format!("Consumer.esm.{topic}");
    let mut session = Mapping::new(&broker, &queue).open(10).await;

    // A composite destination is how the Java tool, which sends to queues, reaches a topic.
    broker.produce(&format!("topic://{topic},{}", broker.queue("aside")), Messages::text("news")).await;

    let deliveries = receive(&mut session, 1).await;
    assert_eq!(json(&session, &deliveries[0])["destination"]["physicalName"], queue);
    ack(&session, &deliveries).await;
    broker.wait_until(&queue, |queue| queue.size == 0).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_wildcard_reads_several_queues_each_by_its_own_name() {
    let broker = TestBroker::shared();
    let parent = broker.queue("wildcard");
    let queues = ["a", "b.c"].map(|name| format!("{parent}.{name}"));
    for queue in &queues {
        broker.produce(queue, Messages::text("{n}").count(3)).await;
    }

    let mut session = Mapping::new(&broker, &format!("{parent}.>")).open(10).await;
    let deliveries = receive(&mut session, 6).await;

    for queue in &queues {
        let from_it =
            deliveries.iter().filter(|delivery| json(&session, delivery)["destination"]["physicalName"] == **queue);
        assert_eq!(from_it.count(), 3);
    }
    ack(&session, &deliveries).await;
    for queue in &queues {
        broker.wait_until(queue, |queue| queue.size == 0 && queue.dequeue_count == 3).await;
    }
}
