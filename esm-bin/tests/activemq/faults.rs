//! Each thing that goes wrong shows with its cause, heals without a restart, and leaves the other
//! mappings alone.

use std::time::Duration;

use esm_activemq::testing::{GUEST, Messages, TestBroker};

use crate::common::{
    function::{Answer, Function},
    proxy::Proxy,
    service::{Config, Service, free_port, wait_for, while_away},
};

/// A broker on which a neighbour reads a queue of its own.
struct Bench {
    broker: TestBroker,
    function: Function,
    queue: String,
    neighbour: String,
}

impl Bench {
    async fn new(test: &str) -> Self {
        Self::on(TestBroker::shared(), test).await
    }

    async fn on(broker: TestBroker, test: &str) -> Self {
        let (queue, neighbour) = (broker.queue(test), broker.queue("neighbour"));
        Self { broker, function: Function::start().await, queue, neighbour }
    }

    fn config(&self) -> Config {
        Config::new(&self.broker, &self.function.url).mapping(&self.neighbour, "")
    }

    /// A proxy before the broker, which only `queue` is read through.
    fn config_through(&self, endpoints: Vec<String>) -> Config {
        let mut config = Config::new(&self.broker, &self.function.url).mapping(&self.queue, "");
        config.endpoints = endpoints;
        config
    }

    /// The neighbour never noticed that something is wrong.
    async fn neighbour_is_well(&self, service: &Service) {
        let neighbour = service.uuid(&self.neighbour).await;
        let before = service.metric("esm_deleted_events_total", &[&neighbour]).await;
        self.broker.produce(&self.neighbour, Messages::text("neighbour")).await;
        service.metric_becomes("esm_deleted_events_total", &[&neighbour], before + 1).await;
        let reconnects = service.metric("esm_reconnects_total", &[&neighbour]).await;
        assert_eq!(reconnects, 0, "the neighbour noticed: {}", service.log());
    }

    /// The queue is read.
    async fn healed(&self, service: &Service) {
        service.connected(&self.queue).await;
        let mapping = service.mapping(&self.queue).await;
        assert_eq!(mapping["StateTransitionReason"], "USER_INITIATED");
        assert_eq!(mapping["State"], "Enabled");
        self.broker.produce(&self.queue, Messages::text("after")).await;
        wait_for("a message", || self.function.bodies().contains(&"after".to_owned()).then_some(())).await;
        service.shows(&self.queue, "OK").await;
    }

    /// What the mapping shows while something is wrong.
    async fn shows(&self, service: &Service, code: Option<&str>, words: &str) {
        let mapping = service.shows(&self.queue, words).await;
        let reason = mapping["StateTransitionReason"].as_str().expect("a text");
        assert!(reason.starts_with(code.unwrap_or("USER_INITIATED")), "{reason}");
        let result = mapping["LastProcessingResult"].as_str().expect("a text");
        assert!(result.starts_with("PROBLEM: "), "{result}");
        assert_eq!(mapping["State"], "Enabled", "it keeps trying");
        let uuid = service.uuid(&self.queue).await;
        service.metric_becomes("esm_source_connected", &[&uuid], 0).await;
        assert!(service.log().contains(words), "the log says it too: {}", service.log());
    }
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn wrong_login() {
    let bench = Bench::on(TestBroker::private("wrong-login", &[]).await, "wrong-login").await;
    bench.broker.produce(&bench.queue, Messages::text("before")).await;
    let config = bench.config().mapping(&bench.queue, "").by_visitor();
    let service = Service::start(&config).await;

    bench.shows(&service, Some("EVENT_SOURCE_AUTHN_ERROR"), "User name [visitor] or password is invalid").await;
    bench.neighbour_is_well(&service).await;

    let (username, password) = GUEST;
    let guest = format!("username=\"{username}\" password=\"{password}\"");
    bench.broker.reconfigure(&guest, "username=\"visitor\" password=\"visitor\"").await;
    bench.healed(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn no_permission() {
    let (to_read, not_to_read) = ("queue=\"test.&gt;\" read=\"guests\"", "queue=\"test.&gt;\" read=\"admins\"");
    let bench = Bench::on(TestBroker::private("no-permission", &[]).await, "no-permission").await;
    bench.broker.reconfigure(to_read, not_to_read).await;
    bench.broker.produce(&bench.queue, Messages::text("before")).await;
    let mut config = bench.config().mapping(&bench.queue, "").by_visitor();
    config.visitor = GUEST.0.into();
    let service = Service::start(&config).await;

    bench.shows(&service, Some("EVENT_SOURCE_AUTHZ_ERROR"), "User guest is not authorized to read from").await;
    bench.neighbour_is_well(&service).await;

    bench.broker.reconfigure(not_to_read, to_read).await;
    bench.healed(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_queue_that_does_not_exist_and_may_not_be_created() {
    let bench = Bench::new("missing").await;
    let mut config = bench.config().mapping(&bench.queue, "").by_visitor();
    config.visitor = GUEST.0.into();
    let service = Service::start(&config).await;

    bench.shows(&service, Some("ESM_CONFIG_NOT_VALID"), "User guest is not authorized to create").await;
    bench.neighbour_is_well(&service).await;

    bench.broker.produce(&bench.queue, Messages::text("creates it")).await;
    bench.healed(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_queue_that_is_deleted() {
    let bench = Bench::new("deleted").await;
    let mut service = Service::start(&bench.config().mapping(&bench.queue, "")).await;
    service.connected(&bench.queue).await;

    let refused = bench.broker.delete(&bench.queue).await.expect_err("somebody reads it");
    assert!(refused.contains("still has an active subscription"), "{refused}");
    bench.healed(&service).await;
    bench.neighbour_is_well(&service).await;

    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    bench.broker.produce(&bench.queue, Messages::text("deleted with it")).await;
    bench.broker.delete(&bench.queue).await.expect("nobody reads it");
    service.start_again().await;
    bench.broker.produce(&bench.queue, Messages::text("again")).await;
    wait_for("a message", || bench.function.bodies().contains(&"again".to_owned()).then_some(())).await;
    assert!(!bench.function.bodies().contains(&"deleted with it".to_owned()), "the queue is another one");
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_selector_that_the_broker_cannot_read() {
    let mut bench = Bench::new("selector").await;
    bench.queue = format!("{}?consumer.selector=colour%20is", bench.queue);
    let config = bench.config().mapping(&bench.queue, "");
    let service = Service::start(&config).await;

    bench.shows(&service, Some("ESM_CONFIG_NOT_VALID"), "colour is").await;
    bench.neighbour_is_well(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_stops_in_good_order_and_one_that_is_killed() {
    let bench = Bench::on(TestBroker::private("away", &[]).await, "away").await;
    let service = Service::start(&bench.config_through(vec![bench.broker.url.clone()])).await;
    service.connected(&bench.queue).await;

    bench.broker.stop().await;
    bench.shows(&service, None, "refused").await;
    bench.broker.start().await;
    bench.healed(&service).await;

    bench.broker.kill().await;
    bench.shows(&service, None, "refused").await;
    bench.broker.start().await;
    bench.healed(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_falls_silent() {
    let bench = Bench::new("silent").await;
    let proxy = Proxy::start(0, &bench.broker.url).await;
    let endpoint = format!("tcp://127.0.0.1:{}?wireFormat.maxInactivityDuration=2000", proxy.port);
    let service = Service::start(&bench.config_through(vec![endpoint])).await;
    service.connected(&bench.queue).await;

    proxy.be_silent(true);
    bench.shows(&service, None, "fell silent").await;

    proxy.be_silent(false);
    bench.healed(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_refuses_connections_and_a_second_endpoint() {
    let bench = Bench::new("refused").await;
    let (closed, later) = (free_port(), free_port());
    let endpoints = [closed, later].map(|port| format!("tcp://127.0.0.1:{port}")).to_vec();
    let service = Service::start(&bench.config_through(endpoints)).await;

    bench.shows(&service, None, "refused").await;
    let said = service.mapping(&bench.queue).await["LastProcessingResult"].to_string();
    assert!(said.contains(&closed.to_string()) && said.contains(&later.to_string()), "both endpoints: {said}");

    let _proxy = Proxy::start(later, &bench.broker.url).await;
    bench.healed(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn tls_that_fails() {
    let bench = Bench::new("tls-fails").await;
    let proxy = Proxy::start(0, &bench.broker.url).await;
    let mut config = bench.config_through(vec![format!("ssl://localhost:{}", proxy.port)]);
    config.broker = format!("tls = {{ ca_file = {:?} }}", bench.broker.ca_file);
    let service = Service::start(&config).await;

    bench.shows(&service, None, "TLS with broker").await;

    proxy.lead_to(&bench.broker.tls_url);
    bench.healed(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn tls_with_an_own_authority_and_a_client_certificate() {
    let broker = TestBroker::private("needs-certificate", &["tls=needClientAuth=true"]).await;
    let bench = Bench::on(broker, "certificate").await;
    let mut config = bench.config_through(vec![bench.broker.tls_url.clone()]);
    config.broker = format!(
        "tls = {{ ca_file = {:?}, cert_file = {:?}, key_file = {:?} }}",
        bench.broker.ca_file, bench.broker.client_cert_file, bench.broker.client_key_file
    );
    let service = Service::start(&config).await;

    bench.healed(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_function_that_hangs_stops_neither_keep_alives_nor_other_mappings() {
    let bench = Bench::new("function-hangs").await;
    bench.function.behave(|call| match call.bodies[0].as_str() {
        "hangs" => Answer::After(Duration::from_secs(15)),
        _ => Answer::Success,
    });
    let mut config = bench.config().mapping(&bench.queue, "batch_size = 1");
    // Either side would hang up after two seconds of silence.
    config.endpoints = vec![format!("{}?wireFormat.maxInactivityDuration=2000", bench.broker.url)];
    let service = Service::start(&config).await;
    bench.broker.produce(&bench.queue, Messages::text("hangs")).await;
    wait_for("the invocation", || (!bench.function.calls().is_empty()).then_some(())).await;

    bench.neighbour_is_well(&service).await;
    assert_eq!(service.metric("esm_concurrent_executions", &[]).await, 1);
    let uuid = service.uuid(&bench.queue).await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 1).await;
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_has_too_little_memory_lends_what_it_has() {
    let policy = r#"policy=<policyEntry queue="&gt;" memoryLimit="256kb" producerFlowControl="false"/>"#;
    let bench = Bench::on(TestBroker::private("too-little-memory", &[policy]).await, "memory").await;
    bench.broker.produce(&bench.queue, Messages::text("{n}").size(1_024).count(3_000)).await;
    let config = bench.config().mapping(&bench.queue, "batch_size = 1000");
    let service = Service::start(&config).await;

    let uuid = service.uuid(&bench.queue).await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 3_000).await;
    assert_eq!(bench.function.bodies().len(), 3_000, "once each");
    bench.neighbour_is_well(&service).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_slow_network_loses_and_repeats_nothing() {
    let bench = Bench::new("slow-network").await;
    let proxy = Proxy::start(0, &bench.broker.url).await;
    proxy.be_slow(Duration::from_millis(50));
    let address = format!("tcp://127.0.0.1:{}?wireFormat.maxInactivityDuration=2000", proxy.port);
    let service = Service::start(&bench.config_through(vec![address])).await;
    bench.broker.produce(&bench.queue, Messages::bytes("{n}").size(8_192).count(500)).await;

    let uuid = service.uuid(&bench.queue).await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 500).await;
    assert_eq!(bench.function.bodies().len(), 500, "once each");
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_function_that_is_away_for_a_while_costs_no_attempt() {
    let bench = Bench::new("function-away").await;
    let away = free_port();
    let path = "2015-03-31/functions/function/invocations";
    let config = Config::new(&bench.broker, &format!("http://127.0.0.1:{away}/{path}"));
    let service = Service::start(&config.mapping(&bench.queue, "maximum_retry_attempts = 1")).await;
    bench.broker.produce(&bench.queue, Messages::text("{n}").count(2)).await;
    let uuid = service.uuid(&bench.queue).await;
    service.shows(&bench.queue, "cannot be reached").await;
    service.metric_reaches("esm_failed_invoke_events_total", &[&uuid], 3 * 2).await;
    while_away().await;
    assert_eq!(service.metric("esm_reconnects_total", &[]).await, 0);

    let _back = Proxy::start(away, &bench.function.url).await;
    service.metric_becomes("esm_deleted_events_total", &[&uuid], 2).await;
    assert_eq!(bench.function.bodies().len(), 2, "no attempt was the last one");
    assert_eq!(service.metric("esm_dropped_events_total", &[]).await, 0);
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_clock_that_is_wrong_by_an_hour_expires_nothing_that_lives_and_revives_nothing_that_is_dead() {
    for clock in ["+3600s", "-3600s"] {
        let broker = TestBroker::shared();
        let queue = broker.queue("wrong-clock");
        let function =
            Function::start_with(|call| if call.bodies == ["dead"] { Answer::FunctionError } else { Answer::Success })
                .await;
        let settings = "batch_size = 1\nmaximum_retry_attempts = -1\nmaximum_record_age_in_seconds = 1800";
        let mut config = Config::new(&broker, &function.url).mapping(&queue, settings);
        config.clock = Some(clock);
        let service = Service::start(&config).await;
        service.connected(&queue).await;

        broker.produce(&queue, Messages::text("live").time_to_live(Duration::from_secs(1_800))).await;
        service.metric_becomes("esm_deleted_events_total", &[], 1).await;
        broker.produce(&queue, Messages::text("dead").time_to_live(Duration::from_secs(4))).await;
        service.metric_becomes("esm_dropped_events_total", &["expired"], 1).await;

        let counted = broker.wait_until(&queue, |statistics| statistics.size == 0).await;
        assert_eq!(counted.expired_count, 1, "with {clock}");
        assert_eq!(service.metric("esm_deleted_events_total", &[]).await, 1, "with {clock}");
        assert_eq!(service.metric("esm_dropped_events_total", &[]).await, 1, "with {clock}");
        let bodies = function.bodies();
        assert!(bodies[0] == "live" && bodies[1..].iter().all(|body| body == "dead"), "with {clock}: {bodies:?}");
        assert!(!log_is_of_this_hour(&service.log()), "the clock was not wrong: {}", service.log());
    }
}

/// Whether the first line was written by a clock that is right, give or take half an hour.
fn log_is_of_this_hour(log: &str) -> bool {
    let (_, rest) = log.split_once("\"timestamp\":\"").expect("has a time");
    let written: jiff::Timestamp = rest.split('"').next().and_then(|time| time.parse().ok()).expect("a time");
    written.duration_since(jiff::Timestamp::now()).abs() < jiff::SignedDuration::from_mins(30)
}
