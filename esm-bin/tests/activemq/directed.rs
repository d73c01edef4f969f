//! A broker that tells its clients of its cluster, and asks them to spread over it.

use std::{collections::HashSet, time::Duration};

use esm_activemq::testing::{Messages, TestBroker};

use crate::common::{
    function::{Answer, Function},
    service::{Config, Service, wait_for},
};

/// Starts a broker anew, so that it forwards to another one and asks its clients to spread over both.
async fn join(broker: &TestBroker, other: &TestBroker) {
    let connectors = "<transportConnectors>\n      <transportConnector name=\"openwire\"";
    let directing = "updateClusterClients=\"true\" rebalanceClusterClients=\"true\"";
    let login = "userName=\"admin\" password=\"admin\"";
    let network = format!("<networkConnector uri=\"static:({})\" {login}/>", other.url);
    let network = format!("<networkConnectors>{network}</networkConnectors>");
    broker.reconfigure(connectors, &format!("{network}{connectors} {directing}")).await;
}

#[tokio::test]
#[ignore = "needs a broker"]
async fn a_broker_that_asks_to_go_elsewhere_is_followed_once_if_it_may_and_nothing_is_missing() {
    let queues = ["test.stays", "test.follows", "test.follows.too"];
    let options = ["connector=maximumConnections=100"];
    let first = TestBroker::private("directed-first", &options).await;
    let second = TestBroker::private("directed-second", &options).await;
    join(&first, &second).await;
    for queue in queues {
        first.produce(queue, Messages::text(&format!("{queue} first {{n}}")).count(400)).await;
    }
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(300))).await;
    let start = async |queue: &str, options: &str| {
        let mut config = Config::new(&first, &function.url).mapping(queue, "batch_size = 10");
        config.endpoints = vec![format!("failover:({}){options}", first.url)];
        let service = Service::start(&config).await;
        service.connected(queue).await;
        service
    };
    let stays = start(queues[0], "").await;
    // Every other client is told to go to the second broker.
    let may_follow =
        [start(queues[1], "?updateURIsSupported=true").await, start(queues[2], "?updateURIsSupported=true").await];

    let why = format!("it asks to spread connections over its cluster, so the next one goes to {}", second.url);
    let told = || may_follow.iter().zip(&queues[1..]).find(|(service, _)| service.log().contains(&why));
    let (follows, queue) = wait_for("the reason", told).await;
    let there = format!("test at {}\"", second.url);
    wait_for("the other broker", || follows.log().contains(&there).then_some(())).await;
    second.produce(queue, Messages::text("second {n}").count(100)).await;
    let from_first = queues.iter().flat_map(|queue| (0..400).map(move |number| format!("{queue} first {number}")));
    let sent: HashSet<String> = from_first.chain((0..100).map(|number| format!("second {number}"))).collect();
    let all = || (function.bodies().into_iter().collect::<HashSet<_>>() == sent).then_some(());
    wait_for("every message", all).await;
    let times = follows.log().matches(&why).count();
    assert_eq!(times, 1, "it is not asked again and again: {}", follows.log());
    assert!(follows.metric("esm_reconnects_total", &[]).await <= 1, "{}", follows.log());
    assert_eq!(stays.metric("esm_reconnects_total", &[]).await, 0, "{}", stays.log());
    assert!(!stays.log().contains(&second.url), "{}", stays.log());
}
