//! Each thing that goes wrong shows with its cause, heals without a restart, and leaves the other
//! mappings alone.

use std::time::Duration;

use amqprs::BasicProperties;
use esm_rabbitmq::testing::{Publisher, TestBroker};

use crate::common::{
    function::{Answer, Function},
    proxy::Proxy,
    service::{Config, Service, free_port, wait_for, while_away},
};

/// A virtual host in which a neighbour reads a queue of its own.
struct Bench {
    broker: TestBroker,
    virtual_host: String,
    publisher: Publisher,
    function: Function,
}

impl Bench {
    async fn new(test: &str) -> Self {
        Self::on(TestBroker::shared(), test).await
    }

    async fn on(broker: TestBroker, test: &str) -> Self {
        let virtual_host = broker.virtual_host(test).await;
        let publisher = broker.publisher(&virtual_host).await;
        publisher.declare("neighbour", "classic").await;
        Self { broker, virtual_host, publisher, function: Function::start().await }
    }

    fn config(&self) -> Config {
        Config::new(&self.broker, &self.function.url).mapping_in(&self.virtual_host, "neighbour", "")
    }

    /// The queue is read, and the neighbour never noticed that it was not.
    async fn healed(&mut self, service: &Service, queue: &str) {
        service.connected(queue).await;
        let mapping = service.mapping(queue).await;
        assert_eq!(mapping["StateTransitionReason"], "USER_INITIATED");
        assert_eq!(mapping["State"], "Enabled");
        self.publisher.publish("neighbour", ["neighbour"]).await;
        let neighbour = service.uuid("neighbour").await;
        service.metric_becomes("esm_deleted_events_total", &[&neighbour], 1).await;
        let reconnects = service.metric("esm_reconnects_total", &[&neighbour]).await;
        assert_eq!(reconnects, 0, "the neighbour noticed: {}", service.log());
    }

    /// What the mapping shows while something is wrong.
    async fn shows(&self, service: &Service, queue: &str, code: Option<&str>, words: &str) {
        let mapping = service.shows(queue, words).await;
        let reason = mapping["StateTransitionReason"].as_str().expect("a text");
        assert!(reason.starts_with(code.unwrap_or("USER_INITIATED")), "{reason}");
        let result = mapping["LastProcessingResult"].as_str().expect("a text");
        assert!(result.starts_with("PROBLEM: "), "{result}");
        assert_eq!(mapping["State"], "Enabled", "it keeps trying");
        let uuid = service.uuid(queue).await;
        service.metric_becomes("esm_source_connected", &[&uuid], 0).await;
        assert!(service.log().contains(words), "the log says it too");
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn wrong_login() {
    let mut bench = Bench::new("wrong login").await;
    // Users are the broker's, not the virtual host's: no other test changes this one's password.
    bench.broker.put_user("visitor", "another").await;
    bench.broker.permit(&bench.virtual_host, "visitor", ".*").await;
    bench.publisher.declare("queue", "classic").await;
    let config = bench.config().mapping_in(&bench.virtual_host, "queue", "").by_visitor();
    let service = Service::start(&config).await;

    bench.shows(&service, "queue", Some("EVENT_SOURCE_AUTHN_ERROR"), "ACCESS_REFUSED").await;
    assert!(!service.log().contains("password"), "no secret in the log");

    bench.broker.put_user("visitor", "visitor").await;
    bench.healed(&service, "queue").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn missing_virtual_host() {
    let mut bench = Bench::new("missing virtual host").await;
    bench.broker.delete_virtual_host("not yet there").await;
    let config = bench.config().mapping_in("not yet there", "queue", "");
    let service = Service::start(&config).await;

    bench.shows(&service, "queue", Some("ESM_CONFIG_NOT_VALID"), "vhost not yet there not found").await;

    bench.broker.create_virtual_host("not yet there").await;
    bench.broker.publisher("not yet there").await.declare("queue", "classic").await;
    bench.healed(&service, "queue").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn missing_queue() {
    let mut bench = Bench::new("missing queue").await;
    let config = bench.config().mapping_in(&bench.virtual_host, "queue", "");
    let service = Service::start(&config).await;

    bench.shows(&service, "queue", Some("ESM_CONFIG_NOT_VALID"), "NOT_FOUND - no queue 'queue'").await;

    bench.publisher.declare("queue", "quorum").await;
    bench.healed(&service, "queue").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn no_permission() {
    let mut bench = Bench::new("no permission").await;
    let user = "no-permission";
    bench.broker.put_user(user, user).await;
    bench.broker.permit(&bench.virtual_host, user, "").await;
    bench.publisher.declare("queue", "classic").await;
    let mut config = bench.config().mapping_in(&bench.virtual_host, "queue", "").by_visitor();
    config.visitor = user.into();
    let service = Service::start(&config).await;

    bench.shows(&service, "queue", Some("EVENT_SOURCE_AUTHZ_ERROR"), "ACCESS_REFUSED").await;

    bench.broker.permit(&bench.virtual_host, user, "queue").await;
    bench.healed(&service, "queue").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn queue_deleted_and_declared_again() {
    let mut bench = Bench::new("queue deleted").await;
    bench.publisher.declare("queue", "classic").await;
    let config = bench.config().mapping_in(&bench.virtual_host, "queue", "");
    let service = Service::start(&config).await;
    service.connected("queue").await;

    bench.publisher.delete("queue").await;
    wait_for("the cause", || service.log().contains("cancelled the consumer of queue").then_some(())).await;
    bench.shows(&service, "queue", Some("ESM_CONFIG_NOT_VALID"), "no queue 'queue'").await;

    bench.publisher.declare("queue", "classic").await;
    bench.healed(&service, "queue").await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn stream_queue() {
    let mut bench = Bench::new("stream queue").await;
    bench.publisher.declare("queue", "stream").await;
    let config = bench.config().mapping_in(&bench.virtual_host, "queue", "");
    let service = Service::start(&config).await;
    service.connected("queue").await;
    bench.publisher.publish("queue", ["a"]).await;

    bench.shows(&service, "queue", Some("ESM_CONFIG_NOT_VALID"), "is a stream").await;
    assert!(bench.function.calls().is_empty(), "nothing of it was invoked");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn connection_closed_by_force() {
    let bench = Bench::new("closed by force").await;
    bench.publisher.declare("queue", "classic").await;
    let config = bench.config().mapping_in(&bench.virtual_host, "queue", "");
    bench.publisher.close().await;
    let service = Service::start(&config).await;
    service.connected("queue").await;
    // The management API may still show the publisher's connection first.
    let uuid = service.uuid("queue").await;
    while service.metric("esm_reconnects_total", &[&uuid]).await < 1 {
        bench.broker.close_connections(&bench.virtual_host).await;
    }
    wait_for("the cause", || service.log().contains("CONNECTION_FORCED").then_some(())).await;

    service.connected("queue").await;
    let mut publisher = bench.broker.publisher(&bench.virtual_host).await;
    publisher.publish("queue", ["after"]).await;
    wait_for("a message", || bench.function.bodies().contains(&"after".to_owned()).then_some(())).await;
}

/// How long the broker lets a delivery be held.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(3);

/// Two batches in flight, the first of which the function holds for much longer than that.
async fn bench_that_holds_a_delivery(queue_type: &str) -> (Bench, Service) {
    let conf = format!("consumer_timeout = {}", CONSUMER_TIMEOUT.as_millis());
    let broker = TestBroker::private(&format!("{queue_type}-timeout"), &[&conf]).await;
    let mut bench = Bench::on(broker, "consumer timeout").await;
    bench.publisher.declare("queue", queue_type).await;
    let mut hang = true;
    bench.function.behave(move |call| {
        if call.bodies == ["hangs"] && std::mem::take(&mut hang) {
            return Answer::After(5 * CONSUMER_TIMEOUT);
        }
        Answer::Success
    });
    let two = "batch_size = 1\nscaling_config = { maximum_concurrency = 2 }";
    let service = Service::start(&bench.config().mapping_in(&bench.virtual_host, "queue", two)).await;
    bench.publisher.publish("queue", ["hangs", "waits"]).await;
    (bench, service)
}

/// The broker takes a message back that was held too long, and it comes again.
async fn held_too_long(queue_type: &str) {
    let (mut bench, mut service) = bench_that_holds_a_delivery(queue_type).await;

    wait_for("the cause", || service.log().contains("because a delivery was held too long").then_some(())).await;
    // From 4.3 on the broker has no words for it.
    let is_told = bench.broker.version().await < (4, 3);
    let words = if is_told { "PRECONDITION_FAILED" } else { "consumer_timeout_in_seconds" };
    assert!(service.log().contains(words), "{}", service.log());

    let uuid = service.uuid("queue").await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 2).await;
    // The first invocation ends, which settles nothing more.
    service.metric_becomes("esm_concurrent_executions", &[], 0).await;
    bench.healed(&service, "queue").await;
    let times = |body: &str| bench.function.bodies().iter().filter(|other| *other == body).count();
    assert_eq!((times("hangs"), times("waits")), (2, 1), "{}", service.log());
    assert_eq!(service.metric("esm_deleted_events_total", &[&uuid]).await, 2);
    assert_eq!(service.metric("esm_reconnects_total", &[&uuid]).await, 1, "{}", service.log());
    service.terminate();
    service.ended().await;
    assert!(bench.publisher.take("queue").await.is_none(), "nothing is left");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_delivery_of_a_quorum_queue_held_longer_than_the_broker_allows() {
    held_too_long("quorum").await;
}

/// From 4.3 on RabbitMQ has no such limit at classic queues, and what is held for long is processed once.
#[tokio::test]
#[ignore = "needs a broker"]
async fn a_delivery_of_a_classic_queue_held_longer_than_the_broker_allows_if_it_has_a_limit() {
    if TestBroker::shared().version().await < (4, 3) {
        return held_too_long("classic").await;
    }
    let (bench, service) = bench_that_holds_a_delivery("classic").await;

    let uuid = service.uuid("queue").await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 2).await;

    let calls = bench.function.calls();
    let held = calls.iter().find(|call| call.bodies == ["hangs"]).expect("it was invoked").at.elapsed();
    assert!(held >= 5 * CONSUMER_TIMEOUT, "only {held:?}");
    assert_eq!(calls.len(), 2, "once each");
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0, "{}", service.log());
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_falls_silent() {
    let mut bench = Bench::new("silent").await;
    let proxy = Proxy::start(0, &bench.broker.url).await;
    bench.publisher.declare("queue", "classic").await;
    let mut config = Config::new(&bench.broker, &bench.function.url).mapping_in(&bench.virtual_host, "queue", "");
    config.endpoints = vec![format!("amqp://127.0.0.1:{}?heartbeat=2", proxy.port)];
    let service = Service::start(&config).await;
    service.connected("queue").await;

    proxy.be_silent(true);
    bench.shows(&service, "queue", None, "fell silent").await;

    proxy.be_silent(false);
    service.connected("queue").await;
    bench.publisher.publish("queue", ["after"]).await;
    wait_for("a message", || (bench.function.bodies() == ["after"]).then_some(())).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_refuses_connections_and_a_second_endpoint() {
    let mut bench = Bench::new("refused").await;
    bench.publisher.declare("queue", "classic").await;
    let (closed, later) = (free_port(), free_port());
    let mut config = Config::new(&bench.broker, &bench.function.url).mapping_in(&bench.virtual_host, "queue", "");
    config.endpoints = vec![format!("amqp://127.0.0.1:{closed}"), format!("amqp://127.0.0.1:{later}")];
    let service = Service::start(&config).await;

    bench.shows(&service, "queue", None, "refused").await;
    let said = service.mapping("queue").await["LastProcessingResult"].to_string();
    assert!(said.contains(&closed.to_string()) && said.contains(&later.to_string()), "both endpoints: {said}");

    let _proxy = Proxy::start(later, &bench.broker.url).await;
    service.connected("queue").await;
    bench.publisher.publish("queue", ["after"]).await;
    wait_for("a message", || (bench.function.bodies() == ["after"]).then_some(())).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn tls_that_fails() {
    let mut bench = Bench::new("tls fails").await;
    let proxy = Proxy::start(0, &bench.broker.url).await;
    bench.publisher.declare("queue", "classic").await;
    let mut config = Config::new(&bench.broker, &bench.function.url).mapping_in(&bench.virtual_host, "queue", "");
    config.endpoints = vec![format!("amqps://localhost:{}", proxy.port)];
    config.broker = format!("tls = {{ ca_file = {:?} }}", bench.broker.ca_file);
    let service = Service::start(&config).await;

    bench.shows(&service, "queue", None, "TLS with broker").await;

    proxy.lead_to(&bench.broker.tls_url);
    service.connected("queue").await;
    bench.publisher.publish("queue", ["after"]).await;
    wait_for("a message", || (bench.function.bodies() == ["after"]).then_some(())).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_function_that_hangs_stops_neither_heartbeats_nor_other_mappings() {
    let mut bench = Bench::new("function hangs").await;
    bench.publisher.declare("queue", "classic").await;
    bench.function.behave(|call| match call.bodies[0].as_str() {
        "hangs" => Answer::After(Duration::from_secs(20)),
        _ => Answer::Success,
    });
    let mut config = bench.config().mapping_in(&bench.virtual_host, "queue", "batch_size = 1");
    // The broker would give up after two missed heartbeats.
    config.endpoints = vec![format!("{}?heartbeat=2", bench.broker.url)];
    let service = Service::start(&config).await;
    bench.publisher.publish("queue", ["hangs", "waits"]).await;
    wait_for("the invocation", || (!bench.function.calls().is_empty()).then_some(())).await;

    bench.healed(&service, "neighbour").await;
    assert_eq!(service.metric("esm_concurrent_executions", &[]).await, 1);
    let uuid = service.uuid("queue").await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 2).await;
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_has_too_little_memory_after_a_restart_lends_what_it_has() {
    let broker = TestBroker::private("alarm", &[]).await;
    let virtual_host = broker.virtual_host("alarm").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "quorum").await;
    publisher.publish("queue", (0..500).map(|number| number.to_string())).await;
    let function = Function::start().await;

    broker.restart_with("vm_memory_high_watermark.absolute = 1MB").await;
    broker.memory_alarm().await;
    let service = Service::start(&Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "")).await;

    let uuid = service.uuid("queue").await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 500).await;
    let expected: Vec<_> = (0..500).map(|number| number.to_string()).collect();
    assert_eq!(function.bodies(), expected, "once each, in order");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_slow_network_loses_and_repeats_nothing() {
    let mut bench = Bench::new("slow network").await;
    let proxy = Proxy::start(0, &bench.broker.url).await;
    proxy.be_slow(Duration::from_millis(50));
    bench.publisher.declare("queue", "classic").await;
    let mut config = Config::new(&bench.broker, &bench.function.url).mapping_in(&bench.virtual_host, "queue", "");
    config.endpoints = vec![format!("amqp://127.0.0.1:{}?heartbeat=2", proxy.port)];
    let service = Service::start(&config).await;
    let expected: Vec<_> = (0..500).map(|number| format!("{number:0>8192}")).collect();
    bench.publisher.publish("queue", expected.clone()).await;

    let uuid = service.uuid("queue").await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 500).await;
    assert_eq!(bench.function.bodies(), expected);
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_function_that_is_away_for_a_while_costs_no_attempt() {
    let mut bench = Bench::new("function away").await;
    bench.publisher.declare("queue", "classic").await;
    let away = free_port();
    let path = "2015-03-31/functions/function/invocations";
    let more = "maximum_retry_attempts = 1\ntags = { \"esm:dead-letter\" = \"broker\" }";
    let config = Config::new(&bench.broker, &format!("http://127.0.0.1:{away}/{path}"));
    let service = Service::start(&config.mapping_in(&bench.virtual_host, "queue", more)).await;
    bench.publisher.publish("queue", ["a", "b"]).await;
    let uuid = service.uuid("queue").await;
    service.shows("queue", "cannot be reached").await;
    service.metric_reaches("esm_failed_invoke_events_total", &[&uuid], 3 * 2).await;
    while_away().await;
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);

    let _back = Proxy::start(away, &bench.function.url).await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 2).await;
    assert_eq!(bench.function.bodies(), ["a", "b"], "no attempt was the last one");
    assert_eq!(service.metric("esm_dropped_events_total", &[]).await, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_clock_that_is_wrong_by_an_hour_expires_nothing_that_lives_and_revives_nothing_that_is_dead() {
    for clock in ["+3600s", "-3600s"] {
        let broker = TestBroker::shared();
        let virtual_host = broker.virtual_host("wrong clock").await;
        let mut publisher = broker.publisher(&virtual_host).await;
        publisher.declare("queue", "classic").await;
        let function =
            Function::start_with(|call| if call.bodies == ["dead"] { Answer::FunctionError } else { Answer::Success })
                .await;
        let settings = "batch_size = 1\nmaximum_retry_attempts = -1";
        let mut config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", settings);
        config.clock = Some(clock);
        let service = Service::start(&config).await;
        service.connected("queue").await;

        let message = |body: &str, expiration: &str| {
            let mut properties = BasicProperties::default();
            (properties.with_expiration(expiration).finish(), body.into())
        };
        publisher.publish_messages("queue", [message("live", "1800000")]).await;
        service.metric_becomes("esm_deleted_events_total", &[], 1).await;
        publisher.publish_messages("queue", [message("dead", "4000")]).await;
        service.metric_becomes("esm_dropped_events_total", &["expired"], 1).await;

        assert_eq!(service.metric("esm_deleted_events_total", &[]).await, 1, "with {clock}");
        assert_eq!(service.metric("esm_dropped_events_total", &[]).await, 1, "with {clock}");
        assert!(publisher.take("queue").await.is_none(), "with {clock}: the broker has it no more");
        let bodies = function.bodies();
        assert!(bodies[0] == "live" && bodies[1..].iter().all(|body| body == "dead"), "with {clock}: {bodies:?}");
    }
}
