//! What a lost session leaves to the next one.

use std::time::Duration;

use esm_activemq::testing::{Messages, Relay, TestBroker};
use esm_core::source::{Arrival, DeadLettered, Disposition, SourceError};
use tokio::time::timeout;

use crate::bench::{Mapping, ack, loss, numbers, receipts, receive, redelivered, stop, text, texts};

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

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_a_dropped_session_was_lent_comes_again_at_once() {
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let queue = broker.queue("dropped");
    broker.produce(&queue, Messages::text("{n}").count(3)).await;
    let mapping = Mapping::at(&relay.url, &queue);
    let mut beside = mapping.beside(&broker.queue("beside")).open(10).await;
    let mut session = mapping.open(10).await;
    let deliveries = receive(&mut session, 3).await;
    ack(&session, &deliveries[..1]).await;

    drop(session);

    let mut session = mapping.open(10).await;
    let again = receive(&mut session, 2).await;
    assert_eq!(texts(&session, &again), numbers(1..3));
    assert_eq!(redelivered(&again), [true; 2], "who knows what was done with them");
    assert!(beside.lost.try_recv().is_err());
    assert_eq!(relay.connections(), 1);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn sessions_that_come_and_go_leave_nothing_behind() {
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let queue = broker.queue("coming-and-going");
    broker.produce(&queue, Messages::text("{n}").count(5)).await;
    let mapping = Mapping::at(&relay.url, &queue);
    let beside = mapping.beside(&broker.queue("beside")).open(10).await;

    for round in 0..100 {
        let mut session = mapping.open(10).await;
        let deliveries = receive(&mut session, 5).await;
        assert_eq!(texts(&session, &deliveries), numbers(0..5), "round {round}");
        assert_eq!(redelivered(&deliveries), [false; 5], "nobody said that they were tried");
        stop(session).await;
        assert_eq!(relay.connections(), 1);
    }

    broker.wait_until(&queue, |queue| queue.consumer_count == 0 && queue.inflight_count == 0).await;
    stop(beside).await;
    while relay.connections() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn dead_letters_find_the_way_to_a_broker_that_was_away() {
    let broker = TestBroker::private("away", &[]).await;
    let mapping = Mapping::new(&broker, "test.away");

    for letters in 1..=2 {
        broker.produce("test.away", Messages::text("kept").not_persistent()).await;
        let mut session = mapping.open(10).await;
        let deliveries = receive(&mut session, 1).await;
        let dead_lettered = session.consumer.dead_letter(deliveries[0].receipt, "cause").await;
        assert_eq!(dead_lettered, Ok(DeadLettered::Taken));
        assert_eq!(broker.dead_letters("test.away").await.len(), letters);

        broker.kill().await;
        loss(&mut session).await;
        broker.start().await;
    }
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
    let deliveries = receive(&mut session, 2).await;

    let lost = loss(&mut session).await;
    assert!(matches!(&lost, SourceError::ConsumerCancelled { .. }), "{lost:?}");
    let settled = session.consumer.settle(&receipts(&deliveries), Disposition::Ack).await;
    settled.expect_err("a lost session settles nothing");
    session.consumer.close().await;

    let mut session = slow.open(10).await;
    let again = receive(&mut session, 10).await;
    ack(&session, &again).await;
    assert_eq!(texts(&session, &again), numbers(0..10));
    assert_eq!(redelivered(&again[..2]), [true, true]);
    assert!(healthy.lost.try_recv().is_err(), "others on the transport go on");
    stop(healthy).await;
}

/// Batches are acknowledged while connections break again and again.
#[tokio::test]
#[ignore = "needs a broker"]
async fn connections_that_break_again_and_again_lose_nothing() {
    const MESSAGES: usize = 3_000;
    let broker = TestBroker::shared();
    let relay = Relay::to(&broker.url).await;
    let queue = broker.queue("breaking");
    broker.produce(&queue, Messages::text("{n}").count(MESSAGES)).await;
    let mapping = Mapping::at(&relay.url, &queue);
    let mut acknowledged = vec![false; MESSAGES];
    let mut cuts = 0;

    while !acknowledged.iter().all(|acknowledged| *acknowledged) {
        let Ok(mut session) = mapping.connect(200).await else { continue };
        let mut batches = fastrand::usize(1..30);
        loop {
            let mut batch = Vec::new();
            while batch.len() < 20
                && let Ok(Some(Arrival::Delivery(delivery))) =
                    timeout(Duration::from_millis(200), session.deliveries.recv()).await
            {
                batch.push(delivery);
            }
            if batch.is_empty() || batches == 0 {
                break;
            }
            batches -= 1;
            if batches == 0 {
                // The acknowledgement is on its way, or is not.
                relay.cut();
                cuts += 1;
            }
            let numbers: Vec<usize> =
                batch.iter().map(|delivery| text(&session, delivery).parse().expect("a number")).collect();
            for number in &numbers {
                assert!(!acknowledged[*number], "{number} was acknowledged and came again after {cuts} cuts");
            }
            if session.consumer.settle(&receipts(&batch), Disposition::Ack).await.is_ok() {
                for number in numbers {
                    acknowledged[number] = true;
                }
            }
        }
        if broker.statistics(&queue).await.size == 0 {
            break;
        }
    }

    assert!(cuts > 3, "only {cuts} cuts");
    let queue = broker.wait_until(&queue, |queue| queue.size == 0).await;
    assert_eq!(queue.dequeue_count, MESSAGES as u64);
}
