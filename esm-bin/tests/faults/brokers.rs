//! Brokers that stop and come back while messages flow.

use std::time::Duration;

use crate::{
    bench::{Bench, Ledger, numbered},
    common::{
        function::{Answer, Function},
        service::{Service, wait_for},
    },
};

on_both_brokers! {
    a_restart_in_good_order,
}

async fn a_restart_in_good_order<B: Bench>() {
    const MANY: usize = 3_000;
    let bench = B::private("restarted").await;
    bench.publish_numbered(MANY).await;
    let function = Function::start_with(|_| Answer::After(Duration::from_millis(10))).await;
    let more = "batch_size = 10\nmaximum_batching_window_in_seconds = 0";
    let mut service = Service::start(&bench.config(&function, more)).await;
    wait_for("progress", || (Ledger::of(&function).0.len() > MANY / 4).then_some(())).await;

    bench.stop().await;
    service.metric_becomes("esm_source_connected", &[], 0).await;
    assert!(Ledger::of(&function).0.len() < MANY, "it was stopped on the way");
    bench.start().await;

    let ledger = Ledger::complete(&function, &numbered(MANY)).await;
    assert!(ledger.repeated() <= B::IN_FLIGHT, "{} were repeated, more than were in flight", ledger.repeated());
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}
