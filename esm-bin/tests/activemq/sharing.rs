//! Many mappings on one broker.

use std::fs;

use esm_activemq::testing::{Messages, TestBroker};

use crate::common::{
    function::Function,
    proxy::Proxy,
    service::{Config, Service},
};

const MAPPINGS: u64 = 100;
/// As Linux's table of connections has it.
const ESTABLISHED: &str = "01";

/// How many connections lead to a port of this machine.
fn connections_to(port: u16) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("reads");
    let leads_there = |line: &&str| {
        let mut columns = line.split_whitespace().skip(2);
        let (target, state) = (columns.next().unwrap_or_default(), columns.next().unwrap_or_default());
        target.ends_with(&format!(":{port:04X}")) && state == ESTABLISHED
    };
    table.lines().filter(leads_there).count()
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_hundred_idle_mappings_share_one_connection() {
    let broker = TestBroker::shared();
    let queues: Vec<_> = (0..MAPPINGS).map(|_| broker.queue("shared")).collect();
    let function = Function::start().await;
    let proxy = Proxy::start(0, &broker.url).await;
    let mut config = Config::new(&broker, &function.url);
    config.endpoints = vec![format!("tcp://127.0.0.1:{}", proxy.port)];
    for queue in &queues {
        config = config.mapping(queue, "");
    }
    let service = Service::start(&config).await;

    service.metric_becomes("esm_source_connected", &[], MAPPINGS).await;

    assert_eq!(connections_to(proxy.port), 1);
    for queue in [&queues[0], &queues[99]] {
        assert_eq!(broker.statistics(queue).await.consumer_count, 1);
        broker.produce(queue, Messages::text(queue)).await;
        let uuid = service.uuid(queue).await;
        service.metric_becomes("esm_deleted_events_total", &[&uuid], 1).await;
    }
    assert_eq!(function.bodies(), [queues[0].as_str(), &queues[99]]);
    assert_eq!(connections_to(proxy.port), 1);
}
