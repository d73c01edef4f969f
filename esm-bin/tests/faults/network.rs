//! Connections that break, die unnoticed, or carry nothing in one direction, while messages flow.

use std::time::Duration;

use crate::{
    bench::{Bench, Ledger, numbered},
    common::{
        function::{Answer, Function},
        proxy::Proxy,
        service::{Service, wait_for},
    },
};

on_both_brokers! {
    connections_that_break_again_and_again,
    packets_that_vanish,
    a_broker_that_hears_nothing,
}

const MANY: usize = 3_000;
const SMALL_BATCHES: &str = "batch_size = 10\nmaximum_batching_window_in_seconds = 0";

/// A mapping through a proxy, with work before it.
async fn start<B: Bench>(bench: &B, more: &str) -> (Function, Proxy, Service) {
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(10))).await;
    let proxy = Proxy::start(0, &bench.address()).await;
    let mut config = bench.config(&function, SMALL_BATCHES);
    let (scheme, _) = config.endpoints[0].split_once("://").expect("a URL");
    config.endpoints = vec![format!("{scheme}://127.0.0.1:{}{more}", proxy.port)];
    bench.publish_numbered(MANY).await;
    let service = Service::start(&config).await;
    (function, proxy, service)
}

/// Each message came, and no more of them again than were in flight when something happened.
async fn complete<B: Bench>(bench: &B, function: &Function, service: &mut Service, happened: usize) {
    let ledger = Ledger::complete(function, &numbered(MANY)).await;
    let repeated = ledger.repeated();
    assert!(repeated <= happened * B::IN_FLIGHT, "{repeated} were repeated, more than were in flight");
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}

async fn connections_that_break_again_and_again<B: Bench>() {
    let bench = B::shared("broken").await;
    let (function, proxy, mut service) = start(&bench, "").await;

    for round in 1..=5 {
        wait_for("progress", || (Ledger::of(&function).0.len() > round * MANY / 8).then_some(())).await;
        proxy.cut();
        service.metric_reaches("esm_reconnects_total", &[], round as u64).await;
        service.connected(bench.queue()).await;
    }

    complete(&bench, &function, &mut service, 5).await;
}

async fn packets_that_vanish<B: Bench>() {
    let bench = B::shared("vanishing").await;
    let (function, proxy, mut service) = start(&bench, B::TWO_SECONDS).await;

    for round in 1..=2 {
        wait_for("progress", || (Ledger::of(&function).0.len() > round * MANY / 4).then_some(())).await;
        proxy.swallow_everything();
        service.metric_reaches("esm_reconnects_total", &[], round as u64).await;
        service.connected(bench.queue()).await;
    }

    assert!(service.log().contains("fell silent"), "{}", service.log());
    complete(&bench, &function, &mut service, 2).await;
}

async fn a_broker_that_hears_nothing<B: Bench>() {
    let bench = B::shared("unheard").await;
    let (function, proxy, mut service) = start(&bench, B::TWO_SECONDS).await;
    wait_for("progress", || (Ledger::of(&function).0.len() > MANY / 4).then_some(())).await;

    proxy.hold_requests(true);
    service.metric_becomes("esm_source_connected", &[], 0).await; // the broker has hung up
    proxy.cut();

    service.connected(bench.queue()).await;
    complete(&bench, &function, &mut service, 1).await;
}
