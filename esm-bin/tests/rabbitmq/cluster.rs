//! A cluster of three nodes that loses one.

use std::{collections::HashSet, time::Duration};

use esm_rabbitmq::testing::TestBroker;

use crate::common::{
    function::{Answer, Function},
    service::{Config, Service, wait_for},
};

const MESSAGES: usize = 5_000;
const BATCH: usize = 50;

#[tokio::test]
#[ignore = "needs a broker"]
async fn nothing_is_missing_when_the_node_that_is_read_from_is_killed() {
    let broker = TestBroker::cluster("cluster").await;
    let mut publisher = broker.publisher("/").await;
    publisher.declare("queue", "quorum").await;
    let sent: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    publisher.publish("queue", sent.clone()).await;
    publisher.close().await;
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(20))).await;
    let mut config = Config::new(&broker, &function.url).mapping_in("/", "queue", &format!("batch_size = {BATCH}"));
    config.endpoints.extend(broker.others.clone());
    let service = Service::start(&config).await;
    wait_for("a part of the messages", || (function.calls().len() >= 20).then_some(())).await;

    broker.kill().await;

    let all = || {
        let arrived: HashSet<_> = function.bodies().into_iter().collect();
        sent.iter().all(|body| arrived.contains(body)).then_some(())
    };
    wait_for("every message", all).await;
    let twice = function.bodies().len() - MESSAGES;
    assert!(twice <= 2 * BATCH, "only what was in flight may come twice, not {twice}");
    assert!(service.metric("esm_reconnects_total", &[]).await >= 1, "the node was in use");
    // Two of three go on, and the queue takes and gives as before.
    let mut publisher = broker.publisher_at(&broker.others[0], "/").await;
    publisher.publish("queue", ["after"]).await;
    wait_for("a message", || function.bodies().contains(&"after".to_owned()).then_some(())).await;
}
