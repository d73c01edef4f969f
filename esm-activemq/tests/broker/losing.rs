//! What a lost session leaves to the next one.

use esm_activemq::testing::{Messages, Relay, TestBroker};
use esm_core::source::{Disposition, SourceError};

use crate::bench::{Mapping, ack, loss, numbers, receipts, receive, redelivered, stop, texts};

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_was_tried_comes_again_as_redelivered_and_what_was_not_comes_as_new() {
    let broker = TestBroker::shared();
    let queue = broker.queue("tried");
    broker.produce(&queue, Messages::text("{n}").count(8)).await;
    let mapping = Mapping::new(&broker, &queue);
    let mut session = mapping.open(6).await;
    let deliveries = receive(&mut session, 6).await;
    assert_eq!(redelivered(&deliveries), [false; 6]);

    session.consumer.cancel().await.expect("is cancelled");
    let (tried, untried) = deliveries.split_at(3);
    let settle = async |some, tried| session.consumer.settle(&receipts(some), Disposition::Return { tried }).await;
    assert_eq!(settle(tried, true).await, Ok(()));
    assert_eq!(settle(untried, false).await, Ok(()));
    session.consumer.close().await;

    let mut session = mapping.open(10).await;
    let again = receive(&mut session, 8).await;
    assert_eq!(texts(&session, &again), numbers(0..8));
    assert_eq!(redelivered(&again), [true, true, true, false, false, false, false, false]);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn of_a_lost_connection_everything_comes_again_and_nothing_is_settled_any_more() {
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let queue = broker.queue("lost");
    broker.produce(&queue, Messages::text("{n}").count(6)).await;
    let mapping = Mapping::at(&relay.url, &queue);
    let mut old = mapping.open(10).await;
    let deliveries = receive(&mut old, 6).await;
    ack(&old, &deliveries[..2]).await;

    relay.cut();
    let lost = loss(&mut old).await;
    assert!(matches!(&lost, SourceError::ConnectionLost { .. }), "{lost:?}");
    let mut new = mapping.open(10).await;
    let error = old.consumer.settle(&receipts(&deliveries[2..]), Disposition::Ack).await;
    error.expect_err("a lost session settles nothing");

    let again = receive(&mut new, 4).await;
    assert_eq!(texts(&new, &again), numbers(2..6));
    assert_eq!(redelivered(&again), [true; 4]);
    ack(&new, &again).await;
    broker.wait_until(&queue, |queue| queue.size == 0).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_killed_broker_has_kept_what_was_not_acknowledged_and_nothing_else() {
    let broker = TestBroker::private("killed", &[]).await;
    broker.produce("test.killed", Messages::text("{n}").count(200)).await;
    let mapping = Mapping::new(&broker, "test.killed");
    let mut session = mapping.open(100).await;
    let deliveries = receive(&mut session, 100).await;
    ack(&session, &deliveries[..50]).await;

    broker.kill().await;
    loss(&mut session).await;
    broker.start().await;

    let mut session = mapping.open(200).await;
    let again = receive(&mut session, 150).await;
    assert_eq!(texts(&session, &again), numbers(50..200));
    ack(&session, &again).await;
    broker.wait_until("test.killed", |queue| queue.size == 0).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_standby_takes_over_with_what_was_not_acknowledged() {
    let (active, standby) = TestBroker::pair("takes-over").await;
    active.produce("test.pair", Messages::text("{n}").count(20)).await;
    let mapping = Mapping::at(&format!("failover:({},{})", active.url, standby.url), "test.pair");
    let mut session = mapping.open(20).await;
    let deliveries = receive(&mut session, 20).await;
    ack(&session, &deliveries[..5]).await;

    active.kill().await;
    loss(&mut session).await;
    let mut session = loop {
        match mapping.connect(20).await {
            Ok(session) => break session,
            Err(SourceError::Unreachable { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    };

    let again = receive(&mut session, 15).await;
    assert_eq!(texts(&session, &again), numbers(5..20));
}

/// Slow is who acknowledges nothing for some seconds.
const SLOW_CONSUMERS: &str = r#"policy=<policyEntry queue="test.slow">
  <slowConsumerStrategy><abortSlowAckConsumerStrategy checkPeriod="500" maxTimeSinceLastAck="4000" maxSlowDuration="1000"
    ignoreIdleConsumers="true"/></slowConsumerStrategy></policyEntry>"#;

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_consumer_that_the_broker_closes_for_slowness_is_told_and_can_be_opened_again() {
    let broker = TestBroker::private("slow", &[SLOW_CONSUMERS]).await;
    broker.produce("test.slow", Messages::text("{n}").count(10)).await;
    let slow = Mapping::new(&broker, "test.slow");
    let mut healthy = slow.beside("test.healthy").open(10).await;
    let mut session = slow.open(2).await;
    receive(&mut session, 2).await;

    let lost = loss(&mut session).await;
    assert!(matches!(&lost, SourceError::ConsumerCancelled { .. }), "{lost:?}");
    session.consumer.close().await;

    let mut session = slow.open(10).await;
    let again = receive(&mut session, 10).await;
    ack(&session, &again).await;
    assert_eq!(texts(&session, &again), numbers(0..10));
    assert_eq!(redelivered(&again[..2]), [true, true]);
    assert!(healthy.lost.try_recv().is_err(), "others on the transport go on");
    stop(healthy).await;
}
