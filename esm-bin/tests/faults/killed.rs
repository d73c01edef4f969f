//! `esm` is killed at each step of a message's way. A proxy keeps back what would be the next step, so that it is
//! certain which one that was.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    bench::{Bench, Ledger},
    common::{
        function::{Answer, Function},
        proxy::Proxy,
        service::{Config, Service, wait_for},
    },
};

on_both_brokers! {
    while_the_function_works,
    before_the_acknowledgement,
    before_a_letter_is_published,
    before_a_letter_is_confirmed,
    before_what_was_confirmed_is_acknowledged,
}

const AT_ONCE: &str = "maximum_batching_window_in_seconds = 0\nbatch_size = 10\n";

/// Two ways to one broker: the queue is read through one, and letters are published through the other.
struct Ways {
    to_the_queue: Arc<Proxy>,
    to_the_letters: Proxy,
    config: Config,
}

impl Ways {
    async fn of<B: Bench>(bench: &B, function: &Function) -> Self {
        let to_the_queue = Arc::new(Proxy::start(0, &bench.address()).await);
        let to_the_letters = Proxy::start(0, &bench.address()).await;
        let (scheme, _) =
            bench.address().split_once("://").map(|(scheme, rest)| (scheme.to_owned(), rest.len())).expect("a URL");
        let at = |proxy: &Proxy| format!("{scheme}://127.0.0.1:{}", proxy.port);
        let to_letters =
            format!("destination_config = {{ on_failure = {{ destination = {:?} }} }}", bench.letters_arn("letters"));
        let mut config = bench.config(function, &format!("{AT_ONCE}maximum_retry_attempts = 0\n{to_letters}"));
        config.endpoints = vec![at(&to_the_queue)];
        config.tables =
            format!("[brokers.letters]\nengine = {:?}\nendpoints = [{:?}]\n", B::ENGINE, at(&to_the_letters));
        Self { to_the_queue, to_the_letters, config }
    }

    /// Kills it: what was kept back never arrives.
    async fn kill_and_start(&self, service: &mut Service) {
        service.kill();
        self.to_the_queue.cut();
        self.to_the_letters.cut();
        service.start_again().await;
    }
}

async fn nothing_is_left<B: Bench>(bench: &B, service: &mut Service) {
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}

fn times(ledger: &[(&str, usize)]) -> BTreeMap<String, usize> {
    ledger.iter().map(|(body, times)| ((*body).to_owned(), *times)).collect()
}

async fn while_the_function_works<B: Bench>() {
    let bench = B::shared("killed-while-working").await;
    let function = Function::start_with(|_| Answer::After(Duration::from_secs(3))).await;
    let mut service = Service::start(&bench.config(&function, AT_ONCE)).await;
    bench.publish("a").await;
    wait_for("the invocation", || (!function.calls().is_empty()).then_some(())).await;

    service.kill();
    function.behave(|_| Answer::Success);
    service.start_again().await;

    service.metric_becomes("esm_deleted_events_total", &[], 1).await;
    assert_eq!(Ledger::of(&function).0, times(&[("a", 2)]), "once before the kill and once after it");
    nothing_is_left(&bench, &mut service).await;
}

async fn before_the_acknowledgement<B: Bench>() {
    let bench = B::shared("killed-before-ack").await;
    let function = Function::start().await;
    let ways = Ways::of(&bench, &function).await;
    let proxy = ways.to_the_queue.clone();
    function.behave(move |_| {
        proxy.hold_requests(true);
        Answer::Success
    });
    let mut service = Service::start(&ways.config).await;
    service.connected(bench.queue()).await;
    bench.publish("a").await;
    service.metric_becomes("esm_duration_seconds_count", &[], 1).await;
    wait_for("the acknowledgement to be on its way", || ways.to_the_queue.holds_a_request().then_some(())).await;

    function.behave(|_| Answer::Success);
    ways.kill_and_start(&mut service).await;

    service.metric_becomes("esm_deleted_events_total", &[], 1).await;
    assert_eq!(Ledger::of(&function).0, times(&[("a", 2)]), "the broker was never told of the first success");
    nothing_is_left(&bench, &mut service).await;
}

async fn before_a_letter_is_published<B: Bench>() {
    let bench = B::shared("killed-before-letter").await;
    let function = Function::start_with(|_| Answer::FunctionError).await;
    let ways = Ways::of(&bench, &function).await;
    let mut service = Service::start(&ways.config).await;
    bench.publish("first").await; // so that there is a connection for letters
    bench.letter("first", 1).await;
    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 1).await;
    ways.to_the_letters.hold_requests(true);
    bench.publish("poison").await;
    wait_for("the letter to be on its way", || ways.to_the_letters.holds_a_request().then_some(())).await;

    ways.kill_and_start(&mut service).await;

    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 1).await;
    assert_eq!(bench.letters().await, times(&[("first", 1), ("poison", 1)]));
    nothing_is_left(&bench, &mut service).await;
}

async fn before_a_letter_is_confirmed<B: Bench>() {
    let bench = B::shared("killed-before-confirm").await;
    let function = Function::start_with(|_| Answer::FunctionError).await;
    let ways = Ways::of(&bench, &function).await;
    ways.to_the_letters.hold_answers_after(b"poison");
    let mut service = Service::start(&ways.config).await;
    bench.publish("poison").await;
    bench.letter("poison", 1).await;
    assert_eq!(service.metric("esm_on_failure_destination_delivered_events_total", &[]).await, 0, "not confirmed");

    ways.kill_and_start(&mut service).await;

    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 1).await;
    assert_eq!(bench.letters().await, times(&[("poison", 2)]), "once more, since nobody knew that it was there");
    nothing_is_left(&bench, &mut service).await;
}

async fn before_what_was_confirmed_is_acknowledged<B: Bench>() {
    let bench = B::shared("killed-after-confirm").await;
    let function = Function::start().await;
    let ways = Ways::of(&bench, &function).await;
    let proxy = ways.to_the_queue.clone();
    function.behave(move |_| {
        proxy.hold_requests(true);
        Answer::FunctionError
    });
    let mut service = Service::start(&ways.config).await;
    service.connected(bench.queue()).await;
    bench.publish("poison").await;
    bench.letter("poison", 1).await;
    wait_for("the acknowledgement to be on its way", || ways.to_the_queue.holds_a_request().then_some(())).await;

    function.behave(|_| Answer::FunctionError);
    ways.kill_and_start(&mut service).await;

    service.metric_becomes("esm_on_failure_destination_delivered_events_total", &[], 1).await;
    assert_eq!(bench.letters().await, times(&[("poison", 2)]), "once more, since it was lent again");
    nothing_is_left(&bench, &mut service).await;
}
