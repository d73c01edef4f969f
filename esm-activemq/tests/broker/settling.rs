//! Acknowledgements and dead letters, and what the broker makes of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use esm_activemq::testing::{ADMINISTRATOR, GUEST, JavaMessage, Messages, TestBroker};
use esm_core::{
    credentials::{Credentials, Login},
    source::{DeadLettered, Delivery, Disposition, Session, SourceError},
};
use tokio::task::JoinSet;

use crate::bench::{Mapping, ack, login, numbers, receipts, receive, receive_unusable, redelivered, stop, text, texts};

const CAUSE: &str = "dlqDeliveryFailureCause";

async fn dead_letter(session: &Session, delivery: &Delivery, cause: &str) -> DeadLettered {
    session.consumer.dead_letter(delivery.receipt, cause).await.expect("the broker answers")
}

/// Batches are settled at the same time and in any order, each but for some of its messages.
async fn exactly_what_succeeded_leaves(seed: u64) {
    const MESSAGES: usize = 400;
    let mut random = fastrand::Rng::with_seed(seed);
    let broker = TestBroker::shared();
    let queue = broker.queue("ledger");
    broker.produce(&queue, Messages::text("{n}").count(MESSAGES)).await;
    let mapping = Mapping::new(&broker, &queue);
    // Room for the batches in hand and for what is kept.
    let mut session = mapping.open(300).await;

    let mut in_hand = Vec::new();
    let mut kept = Vec::new();
    let mut taken = 0;
    let mut settling = JoinSet::new();
    let consumer = Arc::clone(&session.consumer);
    while taken < MESSAGES {
        let size = random.usize(1..=30).min(MESSAGES - taken);
        let batch = receive(&mut session, size).await;
        taken += size;
        in_hand.push(batch);
        while in_hand.len() > 3 || (taken == MESSAGES && !in_hand.is_empty()) {
            let mut batch = in_hand.swap_remove(random.usize(..in_hand.len()));
            let limit = if kept.len() < 100 { 0.2 } else { 0.0 };
            kept.extend(batch.extract_if(.., |_| random.f64() < limit).map(|delivery| text(&session, &delivery)));
            let (consumer, receipts) = (consumer.clone(), receipts(&batch));
            settling.spawn(async move { consumer.settle(&receipts, Disposition::Ack).await });
        }
    }
    while let Some(settled) = settling.join_next().await {
        assert_eq!(settled.expect("does not panic"), Ok(()), "seed {seed}");
    }
    // An answered command: whatever the broker had to complain about has arrived.
    assert_eq!(session.consumer.set_prefetch(200).await, Ok(()), "seed {seed}");
    assert!(session.lost.try_recv().is_err(), "seed {seed}");
    stop(session).await;

    kept.sort_by_key(|text| text.parse::<usize>().expect("a number"));
    let queued = broker.wait_until(&queue, |queue| queue.inflight_count == 0).await;
    assert_eq!(queued.size, kept.len() as u64, "seed {seed}");
    let mut session = mapping.open(200).await;
    let left = receive(&mut session, kept.len()).await;
    assert_eq!(texts(&session, &left), kept, "seed {seed}");
    ack(&session, &left).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn whatever_succeeds_in_whatever_order_exactly_that_leaves_the_queue() {
    for _ in 0..5 {
        exactly_what_succeeded_leaves(fastrand::u64(..)).await;
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_whole_batch_leaves_the_queue() {
    let broker = TestBroker::shared();
    let queue = broker.queue("batch");
    broker.produce(&queue, Messages::text("{n}").count(500)).await;
    let mut session = Mapping::new(&broker, &queue).open(500).await;
    let deliveries = receive(&mut session, 500).await;
    ack(&session, &deliveries).await;
    broker.wait_until(&queue, |queue| queue.size == 0 && queue.dequeue_count == 500).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_broker_puts_a_dead_letter_aside_with_its_cause() {
    let broker = TestBroker::private("dead-letters", &[r#"policy=<policyEntry queue=">"/>"#]).await;
    broker.produce("test.letters", Messages::text("{n}").count(3).correlation_id("order {n}")).await;
    let mut mapping = Mapping::new(&broker, "test.letters");
    mapping.settings.dead_letter_queue = "ActiveMQ.DLQ".into();
    let mut session = mapping.open(10).await;
    let deliveries = receive(&mut session, 3).await;

    assert_eq!(dead_letter(&session, &deliveries[1], "the function said: nö").await, DeadLettered::Taken);
    ack(&session, &deliveries[..1]).await;
    ack(&session, &deliveries[2..]).await;

    let letters = broker.browse("ActiveMQ.DLQ").await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!((letter.text().as_str(), letter.correlation_id.as_deref()), ("1", Some("order 1")));
    assert_eq!(letter.property(CAUSE), Some("java.lang.Throwable: the function said: nö"));
    assert_eq!(Some(&*letter.message_id), deliveries[1].record.message_id());
    broker.wait_until("test.letters", |queue| queue.size == 0).await;

    // There is no further place for it: the broker would drop it.
    let mut at_rest = mapping.beside("ActiveMQ.DLQ").open(10).await;
    let deliveries = receive(&mut at_rest, 1).await;
    let DeadLettered::NoTarget { why } = dead_letter(&at_rest, &deliveries[0], "again").await else { panic!("taken") };
    assert!(why.contains("dead-letter queue already"), "{why}");
    stop(at_rest).await;
    broker.wait_until("ActiveMQ.DLQ", |queue| queue.size == 1 && queue.inflight_count == 0).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_long_cause_is_cut_and_costs_nothing_else() {
    let broker = TestBroker::shared();
    let queue = broker.queue("long-cause");
    broker.produce(&queue, Messages::text("one")).await;
    let mut session = Mapping::new(&broker, &queue).open(10).await;
    let deliveries = receive(&mut session, 1).await;
    assert_eq!(dead_letter(&session, &deliveries[0], &"ü".repeat(50_000)).await, DeadLettered::Taken);
    let letters = broker.dead_letters(&queue).await;
    assert!(letters[0].property(CAUSE).expect("a cause").contains("üüü"));
}

/// Puts a message aside that the broker itself would drop, and returns what lies there then.
async fn ours(messages: Messages) -> JavaMessage {
    let broker = TestBroker::shared();
    let queue = broker.queue("dropped");
    let sent = broker.produce(&queue, messages).await;
    let mut session = Mapping::new(&broker, &queue).open(10).await;
    let deliveries = receive(&mut session, 1).await;

    assert_eq!(dead_letter(&session, &deliveries[0], "it never works").await, DeadLettered::Taken);

    broker.wait_until(&queue, |queue| queue.size == 0).await;
    let mut letters = broker.dead_letters(&queue).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = letters.remove(0);
    assert_eq!(letter.property("originalMessageId"), Some(&*sent[0]));
    assert_eq!(letter.property(CAUSE), Some("java.lang.Throwable: it never works"));
    assert_eq!((letter.delivery_mode, letter.expiration), (2, 0));
    letter
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_that_is_not_persistent_is_put_aside_by_us() {
    let messages = Messages::text("kept").not_persistent().priority(7).property("n", "long", "5").reply_to("replies");
    let letter = ours(messages).await;
    assert_eq!((letter.text().as_str(), letter.priority, letter.property("n")), ("kept", 7, Some("5")));
    assert_eq!(letter.reply_to.as_deref(), Some("queue://replies"));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_is_put_aside_by_us_keeps_its_properties_and_headers() {
    let properties = [
        ("boolean", "true"),
        ("byte", "-128"),
        ("short", "32767"),
        ("int", "-2147483648"),
        ("long", "9223372036854775807"),
        ("float", "1.5E-5"),
        ("double", "1.0E21"),
        ("string", "zwölf €"),
    ];
    let messages = Messages::text("kept").not_persistent().correlation_id("order").jms_type("placed").group("g");
    let messages = properties
        .iter()
        .fold(messages, |messages, (java_type, value)| messages.property(&format!("a_{java_type}"), java_type, value));
    let letter = ours(messages.property("nothing", "null", "")).await;
    for (java_type, value) in properties {
        assert_eq!(letter.property(&format!("a_{java_type}")), Some(value));
    }
    assert_eq!(letter.properties.get("nothing"), Some(&None));
    assert_eq!(letter.property("JMSXGroupID"), Some("g"));
    assert_eq!((letter.correlation_id.as_deref(), letter.jms_type.as_deref()), (Some("order"), Some("placed")));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_of_another_type_that_is_not_persistent_is_put_aside_as_it_is() {
    let broker = TestBroker::shared();
    let queue = broker.queue("dropped-map");
    broker.produce(&queue, Messages::of_type("map").not_persistent()).await;
    let mut session = Mapping::new(&broker, &queue).open(10).await;
    let unusable = receive_unusable(&mut session).await;

    let dead_lettered = session.consumer.dead_letter(unusable.receipt, &unusable.cause).await;

    assert_eq!(dead_lettered, Ok(DeadLettered::Taken));
    broker.wait_until(&queue, |queue| queue.size == 0).await;
    let letters = broker.dead_letters(&queue).await;
    assert_eq!((letters.len(), letters[0].message_type.as_str()), (1, "jms/map-message"));
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_that_expires_and_is_not_persistent_is_put_aside_for_good() {
    let letter = ours(Messages::bytes("kept").not_persistent().time_to_live(Duration::from_secs(600))).await;
    assert!(letter.property("originalExpiration").is_some_and(|time| time.parse::<i64>().is_ok()), "{letter:?}");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_compressed_message_that_is_not_persistent_is_put_aside_whole() {
    let letter = ours(Messages::text("kept").size(20_000).not_persistent().compressed()).await;
    assert_eq!(letter.text().len(), 20_000);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_message_that_was_a_dead_letter_before_is_put_aside_by_us() {
    let letter = ours(Messages::text("kept").property(CAUSE, "string", "an earlier cause")).await;
    assert_eq!(letter.text(), "kept");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_dead_letter_that_cannot_be_published_stays_where_it_is() {
    let broker = TestBroker::shared();
    let queue = broker.queue("unpublished");
    broker.produce(&queue, Messages::text("kept").not_persistent()).await;
    let mapping = Mapping::new(&broker, &queue).with_login(GUEST);
    let mut session = mapping.open(10).await;
    let deliveries = receive(&mut session, 1).await;

    let DeadLettered::NoTarget { why } = dead_letter(&session, &deliveries[0], "why").await else { panic!("taken") };

    assert!(why.contains("guest is not authorized"), "{why}");
    stop(session).await;
    let mut session = mapping.open(10).await;
    let again = receive(&mut session, 1).await;
    ack(&session, &again).await;
}

/// Has no login when it is asked for the second time.
#[derive(Debug, Default)]
struct AwayOnce {
    asked: AtomicUsize,
}

#[async_trait]
impl Credentials for AwayOnce {
    async fn login(&self) -> Result<Login, String> {
        if self.asked.fetch_add(1, Ordering::Relaxed) == 1 { Err("away".into()) } else { Ok(login(ADMINISTRATOR)) }
    }

    fn refused(&self, _: &Login) {}

    async fn superseded(&self, _: &Login) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_dead_letter_that_cannot_be_published_yet_is_still_lent_and_the_session_goes_on() {
    let broker = TestBroker::shared();
    let queue = broker.queue("later");
    broker.produce(&queue, Messages::text("kept").not_persistent()).await;
    let mut mapping = Mapping::new(&broker, &queue);
    mapping.settings.credentials = Arc::new(AwayOnce::default());
    let mut session = mapping.open(10).await;
    let deliveries = receive(&mut session, 1).await;

    let first = dead_letter(&session, &deliveries[0], "why").await;
    assert!(matches!(first, DeadLettered::NotYet { error: SourceError::NoLogin { .. } }), "{first:?}");
    assert_eq!(dead_letter(&session, &deliveries[0], "why").await, DeadLettered::Taken);
    broker.wait_until(&queue, |queue| queue.size == 0).await;
    assert_eq!(broker.dead_letters(&queue).await.len(), 1);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_expires_in_hand_by_the_brokers_clock_is_put_aside_as_expired() {
    let broker = TestBroker::shared();
    let queue = broker.queue("expires");
    broker.produce(&queue, Messages::text("{n}").count(2).time_to_live(Duration::from_secs(3))).await;
    broker.produce(&queue, Messages::text("2")).await;
    let mut session = Mapping::new(&broker, &queue).open(10).await;
    let deliveries = receive(&mut session, 3).await;

    let expires_at = deliveries[0].expires_at.expect("has a time to live");
    assert_eq!(deliveries[2].expires_at, None);
    tokio::time::sleep_until(expires_at).await;
    let settled = session.consumer.settle(&receipts(&deliveries[..1]), Disposition::Expire).await;
    assert_eq!(settled, Ok(()));
    // In time or late: what was processed may be acknowledged.
    ack(&session, &deliveries[1..]).await;

    broker.wait_until(&queue, |queue| queue.size == 0).await;
    let letters = broker.dead_letters(&queue).await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter.text(), "0");
    assert!(letter.property("originalExpiration").is_some(), "{letter:?}");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_is_settled_twice_is_settled_once() {
    let broker = TestBroker::shared();
    let queue = broker.queue("twice");
    broker.produce(&queue, Messages::text("{n}").count(5)).await;
    let mapping = Mapping::new(&broker, &queue);
    let mut session = mapping.open(10).await;
    let deliveries = receive(&mut session, 5).await;

    ack(&session, &deliveries[..2]).await;
    ack(&session, &deliveries[..3]).await;
    assert_eq!(dead_letter(&session, &deliveries[0], "too late").await, DeadLettered::Taken);
    stop(session).await;

    let mut session = mapping.open(10).await;
    let again = receive(&mut session, 2).await;
    assert_eq!(texts(&session, &again), numbers(3..5));
    assert_eq!(redelivered(&again), [false, false], "nobody said that they were tried");
    assert_eq!(broker.dead_letters(&queue).await.len(), 0);
}
