//! What every source promises, as tests that every implementation passes.
//!
//! Each function is one test; it is given a queue of its own that is empty.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::{Duration, timeout};

use crate::memory::Memory;
use crate::source::{Arrival, Connect, DeadLettered, Delivery, Disposition, Receipt, Session, Terms};

/// Long enough for a real broker on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// An empty queue, and what the suite needs to do with it apart from consuming.
#[async_trait]
pub trait QueueUnderTest: Send + Sync {
    /// The source that reads it.
    fn source(&self) -> Arc<dyn Connect>;

    /// Publishes messages with these message ids, and returns when the broker has them.
    async fn publish(&self, ids: &[&str]);

    /// Which of the published ids belongs to the message with this one; another where the broker gives them out.
    fn published_as(&self, message_id: &str) -> String {
        message_id.to_owned()
    }

    /// Breaks the connections that are open.
    async fn break_connections(&self);
}

/// What was acknowledged is gone; the rest comes again.
pub async fn settled_deliveries_never_come_again(queue: &dyn QueueUnderTest) {
    queue.publish(&["1", "2", "3", "4"]).await;
    let mut session = connect(queue, 10).await;
    let deliveries = receive(&mut session, 4).await;
    let receipts: Vec<_> = deliveries.iter().map(|delivery| delivery.receipt).collect();
    settle(&session, &[receipts[0], receipts[2]], Disposition::Ack).await;
    session.consumer.close().await;
    drop(session);

    let mut session = connect(queue, 10).await;
    let again = receive(&mut session, 2).await;
    assert_eq!(ids(queue, &again), ["2", "4"]);
    queue.publish(&["5"]).await;
    assert_eq!(ids(queue, &receive(&mut session, 1).await), ["5"], "nothing comes twice");
}

/// What a lost session did not settle comes again, marked as redelivered, and the loss is said.
pub async fn unsettled_deliveries_come_again_after_a_loss(queue: &dyn QueueUnderTest) {
    queue.publish(&["1", "2"]).await;
    let mut session = connect(queue, 10).await;
    let deliveries = receive(&mut session, 2).await;
    assert!(deliveries.iter().all(|delivery| !delivery.record.is_redelivered()));

    queue.break_connections().await;
    timeout(PATIENCE, &mut session.lost).await.expect("the loss is noticed").expect("the loss has a cause");
    let receipts: Vec<_> = deliveries.iter().map(|delivery| delivery.receipt).collect();
    session.consumer.settle(&receipts, Disposition::Ack).await.expect_err("a lost session settles nothing");

    let mut session = connect(queue, 10).await;
    let again = receive(&mut session, 2).await;
    assert_eq!(ids(queue, &again), ["1", "2"]);
    assert!(again.iter().all(|delivery| delivery.record.is_redelivered()));
}

/// Deliveries arrive in the order in which the queue has them.
pub async fn deliveries_keep_the_queues_order(queue: &dyn QueueUnderTest) {
    let published: Vec<_> = (0..500).map(|number| number.to_string()).collect();
    queue.publish(&published.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut session = connect(queue, 50).await;

    let mut received = Vec::new();
    while received.len() < published.len() {
        let deliveries = receive(&mut session, 25).await;
        received.extend(ids(queue, &deliveries));
        let receipts: Vec<_> = deliveries.iter().map(|delivery| delivery.receipt).collect();
        settle(&session, &receipts, Disposition::Ack).await;
    }

    assert_eq!(received, published);
}

/// After a cancel the channel ends; what is returned comes again to the next session. In which
/// order is the broker's choice: RabbitMQ's quorum queues put it behind what they never lent.
pub async fn drained_deliveries_come_again(queue: &dyn QueueUnderTest) {
    queue.publish(&["1", "2", "3"]).await;
    let mut session = connect(queue, 2).await;
    let first = receive(&mut session, 1).await;

    session.consumer.cancel().await.expect("the consumer is cancelled");
    let mut untried = Vec::new();
    while let Some(arrival) = timeout(PATIENCE, session.deliveries.recv()).await.expect("the channel ends") {
        untried.push(delivery(arrival).receipt);
    }
    settle(&session, &untried, Disposition::Return { tried: false }).await;
    settle(&session, &[first[0].receipt], Disposition::Ack).await;
    session.consumer.close().await;
    drop(session);

    let mut session = connect(queue, 10).await;
    let mut again = ids(queue, &receive(&mut session, 2).await);
    again.sort_unstable();
    assert_eq!(again, ["2", "3"]);
}

/// The broker lends no more than the prefetch, and goes on when something is settled.
pub async fn no_more_than_the_prefetch_is_lent(queue: &dyn QueueUnderTest) {
    queue.publish(&["1", "2", "3"]).await;
    let mut session = connect(queue, 2).await;
    let lent = receive(&mut session, 2).await;
    let more = timeout(Duration::from_millis(300), session.deliveries.recv()).await;
    assert!(more.is_err(), "a third delivery came before anything was settled");

    settle(&session, &[lent[0].receipt], Disposition::Ack).await;
    assert_eq!(ids(queue, &receive(&mut session, 1).await), ["3"]);
}

/// Another prefetch, also while something is settled, hands nothing back, and the order stays as it is.
pub async fn another_prefetch_hands_nothing_back_and_keeps_the_order(queue: &dyn QueueUnderTest) {
    let published: Vec<_> = (0..600).map(|number| number.to_string()).collect();
    queue.publish(&published.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut session = connect(queue, 8).await;

    let mut received = Vec::new();
    let mut prefetches = [16, 64, 300, 20, 2, 150, 1, 40].into_iter().cycle();
    while received.len() < published.len() {
        let deliveries = receive(&mut session, 1).await;
        assert!(deliveries.iter().all(|delivery| !delivery.record.is_redelivered()));
        received.extend(ids(queue, &deliveries));
        let receipts: Vec<_> = deliveries.iter().map(|delivery| delivery.receipt).collect();
        if received.len() % 10 == 0 {
            let prefetch = prefetches.next().expect("is endless");
            let (changed, ()) =
                tokio::join!(session.consumer.set_prefetch(prefetch), settle(&session, &receipts, Disposition::Ack));
            changed.expect("the prefetch is changed");
        } else {
            settle(&session, &receipts, Disposition::Ack).await;
        }
    }

    assert_eq!(received, published);
    let more = timeout(Duration::from_millis(300), session.deliveries.recv()).await;
    assert!(more.is_err(), "nothing comes twice");
}

/// What was dead-lettered does not come again.
pub async fn dead_lettered_deliveries_never_come_again(queue: &dyn QueueUnderTest) {
    queue.publish(&["1", "2"]).await;
    let mut session = connect(queue, 10).await;
    let deliveries = receive(&mut session, 2).await;
    let dead_lettered = session.consumer.dead_letter(deliveries[0].receipt, "the suite asks for it").await;
    assert_eq!(dead_lettered, Ok(DeadLettered::Taken));
    session.consumer.close().await;
    drop(session);

    let mut session = connect(queue, 10).await;
    assert_eq!(ids(queue, &receive(&mut session, 1).await), ["2"]);
}

async fn connect(queue: &dyn QueueUnderTest, prefetch: u32) -> Session {
    timeout(PATIENCE, queue.source().connect(Terms { prefetch, alone: false, memory: Memory::DEFAULT }))
        .await
        .expect("connects in time")
        .expect("connects")
}

async fn receive(session: &mut Session, count: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    while deliveries.len() < count {
        let arrival = timeout(PATIENCE, session.deliveries.recv()).await;
        deliveries.push(delivery(arrival.expect("a delivery arrives in time").expect("the session is open")));
    }
    deliveries
}

fn delivery(arrival: Arrival) -> Delivery {
    match arrival {
        Arrival::Delivery(delivery) => delivery,
        Arrival::Unusable(unusable) => panic!("no record could be made: {}", unusable.cause),
        Arrival::Surplus(_) => panic!("there was no memory for it"),
    }
}

async fn settle(session: &Session, receipts: &[Receipt], how: Disposition) {
    session.consumer.settle(receipts, how).await.expect("is settled");
}

fn ids(queue: &dyn QueueUnderTest, deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| queue.published_as(delivery.record.message_id().expect("has an id"))).collect()
}
