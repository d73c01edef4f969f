//! What quorum queues count, version by version, and that nothing is lost by it.

use std::{sync::Arc, time::Duration};

use amqprs::BasicProperties;
use esm_core::{
    credentials::Login,
    invoker::Outcome,
    mapping::Mapping,
    memory::Memory,
    metrics::Metrics,
    source::{Arrival, Connect, Delivery, Disposition, Session, SourceError, Terms},
    supervisor::{Conditions, Supervisor},
    testing::{ScriptedFunction, mapping},
};
use esm_rabbitmq::{
    Connections, DeliveryLimit, RabbitSource, Settings,
    testing::{Publisher, TestBroker},
};
use prometheus::Registry;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);
const TERMS: Terms = Terms { prefetch: 10, alone: false, memory: Memory::DEFAULT };

struct Bench {
    broker: TestBroker,
    virtual_host: String,
    publisher: Publisher,
    /// How the broker counts, by its version.
    version: (u32, u32),
}

impl Bench {
    async fn new(test: &str) -> Self {
        Self::on(TestBroker::shared(), test).await
    }

    async fn on(broker: TestBroker, test: &str) -> Self {
        let virtual_host = broker.virtual_host(test).await;
        let publisher = broker.publisher(&virtual_host).await;
        let version = broker.version().await;
        Self { broker, virtual_host, publisher, version }
    }

    /// Why the session ends. RabbitMQ 4.3 arms the timer of a queue by what happens there, and one that has gone off a
    /// moment too early is not armed again before something else does.
    async fn until_lost(&mut self, session: &mut Session) -> SourceError {
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            let pause = Duration::from_secs(5);
            if let Ok(lost) = timeout(pause, &mut session.lost).await {
                return lost.expect("has a cause");
            }
            self.publisher.publish("queue", ["another"]).await;
            waited += pause;
        }
        panic!("the session is not lost");
    }

    fn source(&self, delivery_limit: DeliveryLimit) -> Arc<RabbitSource> {
        let endpoints = vec![self.broker.url.parse().expect("an endpoint")];
        let connections = Connections::new("test".into(), endpoints, None).expect("no TLS");
        let settings = Settings {
            virtual_host: self.virtual_host.clone(),
            queue: "queue".into(),
            credentials: Arc::new(Login { username: "guest".into(), password: "guest".into() }),
            consumer_tag: "returns".into(),
            event_source_arn: "arn".into(),
            strict_consumers: false,
            item_identifiers: false,
            destination: None,
            unsigned_header_bytes: false,
            consumer_timeout: Some(Duration::from_secs(1_800)),
            delivery_limit,
        };
        Arc::new(RabbitSource::new(connections, settings))
    }
}

/// The next one of this id, whatever else is lent.
async fn next_of(session: &mut Session, id: &str) -> Delivery {
    loop {
        let delivery = next(session).await;
        if delivery.record.message_id() == Some(id) {
            return delivery;
        }
    }
}

async fn next(session: &mut Session) -> Delivery {
    match timeout(PATIENCE, session.deliveries.recv()).await.expect("in time").expect("is lent") {
        Arrival::Delivery(delivery) => delivery,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn the_limit_is_that_of_the_brokers_version_unless_it_is_configured() {
    let bench = Bench::new("limit by version").await;
    bench.publisher.declare("queue", "quorum").await;
    let limit = async |limit| bench.source(limit).connect(TERMS).await.expect("connects").delivery_limit;

    let by_version = ((4, 0)..(4, 3)).contains(&bench.version).then_some(20);
    assert_eq!(limit(DeliveryLimit::ByVersion).await, by_version, "{:?}", bench.version);
    assert_eq!(limit(DeliveryLimit::Times(7)).await, Some(7));
    assert_eq!(limit(DeliveryLimit::Never).await, None);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_return_is_seen_where_the_version_counts_it_and_a_loss_everywhere() {
    let mut bench = Bench::new("returns seen").await;
    bench.publisher.declare("queue", "quorum").await;
    bench.publisher.publish("queue", ["a"]).await;
    let source = bench.source(DeliveryLimit::ByVersion);
    let mut session = source.connect(TERMS).await.expect("connects");
    let first = next(&mut session).await;
    assert_eq!(first.returns, 0);

    session.consumer.settle(&[first.receipt], Disposition::Return { tried: false }).await.expect("returns");

    let counted = u32::from(bench.version < (4, 3));
    assert_eq!(next(&mut session).await.returns, counted, "{:?}", bench.version);

    bench.broker.close_connections(&bench.virtual_host).await;
    timeout(PATIENCE, session.lost).await.expect("in time").expect("is lost");
    let mut session = source.connect(TERMS).await.expect("connects");
    assert_eq!(next(&mut session).await.returns, counted + 1, "{:?}", bench.version);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_is_held_too_long_ends_the_session_by_that_cause_and_counts_where_the_channel_was_closed() {
    let broker = TestBroker::private("held-too-long", &["consumer_timeout = 2000"]).await;
    let mut bench = Bench::on(broker, "held too long").await;
    bench.publisher.declare("queue", "quorum").await;
    let message = |id: &str| (BasicProperties::default().with_message_id(id).finish(), Vec::new());
    bench.publisher.publish_messages("queue", ["a", "b"].map(message)).await;
    let mut counted = 0;
    for changes_prefetch in [false, true, false] {
        let mut session = bench.source(DeliveryLimit::Never).connect(TERMS).await.expect("connects");
        for id in ["a", "b"] {
            assert_eq!(next_of(&mut session, id).await.returns, counted, "{:?}", bench.version);
        }
        if changes_prefetch {
            session.consumer.set_prefetch(20).await.expect("changes");
        }

        let cause = bench.until_lost(&mut session).await;
        assert!(matches!(cause, SourceError::HeldTooLong { .. }), "{cause}");
        session.consumer.close().await;
        // From 4.3 on the broker cancels the consumer, unless another one has taken its place.
        counted += u32::from(bench.version < (4, 3) || changes_prefetch);
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn what_is_returned_comes_again_in_order_and_what_is_rejected_does_not() {
    let mut bench = Bench::new("settle verbs").await;
    bench.publisher.declare("dead letters", "classic").await;
    let target =
        [("x-queue-type", "quorum"), ("x-dead-letter-exchange", ""), ("x-dead-letter-routing-key", "dead letters")];
    bench.publisher.declare_with("queue", &target).await;
    bench.publisher.publish("queue", ["a", "b", "c"]).await;
    let mut session = bench.source(DeliveryLimit::ByVersion).connect(TERMS).await.expect("connects");
    let lent = [next(&mut session).await, next(&mut session).await, next(&mut session).await];

    let receipts: Vec<_> = lent.iter().map(|delivery| delivery.receipt).collect();
    session.consumer.settle(&receipts, Disposition::Return { tried: true }).await.expect("returns");
    let again = [next(&mut session).await, next(&mut session).await, next(&mut session).await];
    session.consumer.dead_letter(again[1].receipt, "it is bad").await.expect("rejects");
    session.consumer.settle(&[again[0].receipt, again[2].receipt], Disposition::Ack).await.expect("acknowledges");
    session.consumer.close().await;

    let dead = timeout(PATIENCE, async {
        loop {
            if let Some((_, body)) = bench.publisher.take("dead letters").await {
                return body;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(dead.await.expect("in time"), b"b", "the second one, since they came again in order");
    let mut session = bench.source(DeliveryLimit::ByVersion).connect(TERMS).await.expect("connects");
    bench.publisher.publish("queue", ["d"]).await;
    assert!(!next(&mut session).await.record.is_redelivered(), "the next one is new");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn twenty_five_hand_backs_with_a_prefetched_backlog_lose_nothing() {
    let mut bench = Bench::new("hand-backs").await;
    let limit = if bench.version < (4, 0) {
        bench.publisher.declare_quorum_with_delivery_limit("queue", 20).await;
        DeliveryLimit::Times(20)
    } else {
        bench.publisher.declare("queue", "quorum").await;
        DeliveryLimit::ByVersion
    };
    let source = bench.source(limit);
    let registry = Registry::new();
    let metrics = Metrics::register(&registry).expect("registers");
    let (function, mut invocations) = ScriptedFunction::new([(Duration::ZERO, Outcome::Success)]);
    let function = function.into_function(&metrics);
    let mut supervisor = Supervisor::new(metrics, Conditions::default());
    // A batch that is never full and never late: what is lent waits in it until the end.
    let waiting = Mapping { window: 300.try_into().expect("in range"), ..mapping() };
    for round in 0..25 {
        bench.publisher.publish("queue", (0..4).map(|number| format!("{round} {number}"))).await;
        let polled = polled(&registry);
        supervisor.start(waiting.clone(), source.clone(), function.clone());
        timeout(PATIENCE, async {
            while self::polled(&registry) < 4.0 {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the backlog is lent");
        assert!(polled < f64::EPSILON, "the series of the round before are gone");
        supervisor.stop(waiting.uuid);
        supervisor.ended().await;
    }
    let at_once = Mapping { window: 0.try_into().expect("in range"), ..waiting };
    supervisor.start(at_once, source, function);
    bench.publisher.publish("queue", ["last"]).await;

    let mut arrived = 0;
    timeout(PATIENCE, async {
        while arrived < 101 {
            arrived += invocations.recv().await.expect("runs").event.matches("\"data\":").count();
        }
    })
    .await
    .unwrap_or_else(|_| panic!("only {arrived} of 101 messages arrived"));
}

fn polled(registry: &Registry) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == "esm_polled_events_total");
    family.map_or(0.0, |family| family.get_metric().iter().map(|metric| metric.get_counter().get_value()).sum())
}
