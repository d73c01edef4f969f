//! What the broker lends, and when.

use std::time::Duration;

use esm_activemq::testing::{Messages, TestBroker};
use esm_core::source::Arrival;
use tokio::time::Instant;

use crate::bench::{Mapping, ack, arrival, numbers, receive, stop, texts};

/// A queue that nobody acknowledges anything of would take half a minute for each 200 messages.
async fn fills(backlog: usize, batch: usize) {
    let broker = TestBroker::shared();
    let queue = broker.queue("backlog");
    broker.produce(&queue, Messages::text("{n}").count(backlog)).await;
    let mut session = Mapping::new(&broker, &queue).open(u32::try_from(batch).expect("small")).await;

    let began = Instant::now();
    let deliveries = receive(&mut session, batch).await;

    assert!(began.elapsed() < Duration::from_secs(20), "{:?} for {batch} of {backlog} messages", began.elapsed());
    assert_eq!(texts(&session, &deliveries), numbers(0..batch));
    ack(&session, &deliveries).await;
    broker.wait_until(&queue, |queue| queue.dequeue_count == batch as u64).await;
    stop(session).await;
    broker.purge(&queue).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_batch_fills_from_a_backlog_without_acknowledgements() {
    fills(5_000, 1_000).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_largest_batch_fills_from_a_backlog_of_its_size() {
    fills(10_000, 10_000).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn no_more_than_the_prefetch_is_ever_in_hand() {
    let broker = TestBroker::shared();
    let queue = broker.queue("prefetch");
    broker.produce(&queue, Messages::text("{n}").count(600)).await;
    let mut session = Mapping::new(&broker, &queue).open(25).await;

    let mut in_hand = Vec::new();
    let mut taken = 0;
    while taken < 600 {
        while in_hand.len() < 25.min(600 - taken) {
            in_hand.extend(receive(&mut session, 1).await);
            assert!(in_hand.len() + session.deliveries.len() <= 25);
        }
        // Older ones stay lent.
        let some = in_hand.split_off(in_hand.len() / 2);
        ack(&session, &some).await;
        taken += some.len();
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_prefetch_of_a_running_consumer_can_be_changed() {
    let broker = TestBroker::shared();
    let queue = broker.queue("set-prefetch");
    broker.produce(&queue, Messages::text("{n}").count(100)).await;
    let mut session = Mapping::new(&broker, &queue).open(10).await;
    let mut in_hand = receive(&mut session, 10).await;

    assert_eq!(session.consumer.set_prefetch(30).await, Ok(()));
    in_hand.extend(receive(&mut session, 20).await);
    assert_eq!(session.consumer.set_prefetch(5).await, Ok(()));
    ack(&session, &in_hand.split_off(5)).await;

    // All that comes is in the channel before the broker answers, and nothing does.
    assert_eq!(session.consumer.set_prefetch(5).await, Ok(()));
    assert_eq!(session.deliveries.len(), 0);
    ack(&session, &in_hand.split_off(4)).await;
    let next = receive(&mut session, 1).await;
    assert_eq!(texts(&session, &next), ["30"]);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn after_a_cancel_nothing_more_arrives() {
    let broker = TestBroker::shared();
    let queue = broker.queue("cancel");
    broker.produce(&queue, Messages::text("{n}").count(300)).await;
    let mut session = Mapping::new(&broker, &queue).open(10).await;
    let first = receive(&mut session, 1).await;

    session.consumer.cancel().await.expect("is cancelled");
    let mut untried = 0;
    while let Some(Arrival::Delivery(_)) = session.deliveries.recv().await {
        untried += 1;
    }
    ack(&session, &first).await;
    session.consumer.close().await;

    assert!(untried <= 9, "{untried} more than the prefetch");
    broker
        .wait_until(&queue, |queue| queue.size == 299 && queue.inflight_count == 0 && queue.consumer_count == 0)
        .await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_prefetch_of_one_thousand_is_not_taken_for_the_default_of_the_brokers_policy() {
    // 0 is what would make us ask for each message.
    let policy = r#"policy=<policyEntry queue=">" queuePrefetch="0"/>"#;
    let broker = TestBroker::private("queue-prefetch", &[policy]).await;
    broker.produce("test.policy", Messages::text("{n}").count(50)).await;

    let mut session = Mapping::new(&broker, "test.policy").open(1_000).await;

    assert_eq!(session.prefetch, 1_001);
    assert_eq!(receive(&mut session, 50).await.len(), 50);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_comes_into_an_empty_queue_arrives_in_its_order() {
    let broker = TestBroker::shared();
    let queue = broker.queue("empty");
    let mut session = Mapping::new(&broker, &queue).open(100).await;

    broker.produce(&queue, Messages::text("{n}").count(60)).await;
    broker.produce(&queue, Messages::text("last")).await;

    let deliveries = receive(&mut session, 60).await;
    assert_eq!(texts(&session, &deliveries), numbers(0..60));
    assert!(matches!(arrival(&mut session).await, Arrival::Delivery(_)));
}
