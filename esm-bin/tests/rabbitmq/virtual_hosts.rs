//! Virtual hosts of every spelling, and TLS.

use esm_rabbitmq::testing::TestBroker;

use crate::common::{
    function::Function,
    service::{Config, Service},
};

async fn reads_from(virtual_host: &str) {
    let broker = TestBroker::shared();
    if virtual_host != "/" {
        broker.create_virtual_host(virtual_host).await;
    }
    let mut publisher = broker.publisher(virtual_host).await;
    publisher.declare("spelling", "classic").await;
    let function = Function::start().await;
    let service = Service::start(&Config::new(&broker, &function.url).mapping_in(virtual_host, "spelling", "")).await;
    publisher.publish("spelling", ["a"]).await;
    service.metric_becomes("esm_deleted_events_total", &[], 1).await;
    let calls = function.calls();
    let queues = calls[0].event["rmqMessagesByQueue"].as_object().expect("has queues");
    assert_eq!(queues.keys().collect::<Vec<_>>(), [&format!("spelling::{virtual_host}")]);
}

macro_rules! virtual_hosts {
    ($($test:ident: $name:literal),* $(,)?) => {$(
        #[tokio::test]
        #[ignore = "needs a broker"]
        async fn $test() {
            reads_from($name).await;
        }
    )*};
}

virtual_hosts!(
    the_default_virtual_host: "/",
    a_virtual_host_with_a_space: "my vhost",
    a_virtual_host_with_a_slash: "team/one",
    a_virtual_host_with_a_percent: "100%2F",
    a_virtual_host_in_unicode: "häuser 日本",
);

#[tokio::test]
#[ignore = "needs a broker"]
async fn tls_with_an_own_authority_and_a_client_certificate() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("tls").await;
    let mut publisher = broker.publisher(&virtual_host).await;
    publisher.declare("queue", "classic").await;
    let function = Function::start().await;
    let mut config = Config::new(&broker, &function.url).mapping_in(&virtual_host, "queue", "");
    config.endpoints = vec![broker.tls_url.clone()];
    config.broker = format!(
        "tls = {{ ca_file = {:?}, cert_file = {:?}, key_file = {:?} }}",
        broker.ca_file, broker.client_cert_file, broker.client_key_file
    );
    let service = Service::start(&config).await;
    publisher.publish("queue", ["a"]).await;
    service.metric_becomes("esm_deleted_events_total", &[], 1).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn mappings_share_a_connection_and_are_told_apart_by_their_uuid() {
    let broker = TestBroker::shared();
    let virtual_host = broker.virtual_host("shared connection").await;
    let publisher = broker.publisher(&virtual_host).await;
    let function = Function::start().await;
    let mut config = Config::new(&broker, &function.url);
    for number in 0..10 {
        let queue = format!("queue-{number}");
        publisher.declare(&queue, "classic").await;
        config = config.mapping_in(&virtual_host, &queue, "");
    }
    publisher.close().await;
    let service = Service::start(&config).await;
    service.metric_becomes("esm_source_connected", &[], 10).await;

    let consumers = loop {
        let consumers = broker.consumers(&virtual_host).await;
        let named = consumers.iter().filter(|consumer| consumer["channel_details"]["name"].is_string());
        if named.count() == 10 {
            break consumers;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    };
    let connections: std::collections::HashSet<_> =
        consumers.iter().map(|consumer| consumer["channel_details"]["connection_name"].to_string()).collect();
    assert_eq!(connections.len(), 1, "{connections:?}");
    for consumer in &consumers {
        let queue = consumer["queue"]["name"].as_str().expect("a name");
        let tag = consumer["consumer_tag"].as_str().expect("a tag");
        assert!(tag.starts_with(&service.uuid(queue).await), "{tag}");
        let prefetch = consumer["prefetch_count"].as_u64().expect("a number");
        assert!((25..=64).contains(&prefetch), "by the share of one to ten mappings, of no known size: {prefetch}");
    }
    let shown = broker.connections(&virtual_host).await;
    let name = shown[0]["client_properties"]["connection_name"].as_str().expect("has a name");
    assert!(name.starts_with("esm on "), "{name}");
}
