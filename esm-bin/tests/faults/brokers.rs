//! Brokers that stop, have no room, or know somebody no more, while messages flow.

use std::{fs, path::Path, time::Duration};

use crate::{
    bench::{Bench, Ledger, PASSWORD, numbered},
    common::{
        function::{Answer, Function},
        service::{Service, wait_for},
    },
};

on_both_brokers! {
    a_restart_in_good_order,
    a_disk_without_room,
    a_permission_that_is_taken_and_given_back,
    a_password_that_is_changed,
}

const MANY: usize = 3_000;
const SMALL_BATCHES: &str =
    "batch_size = 10\nmaximum_batching_window_in_seconds = 0\ntags = { \"esm:maximum-concurrency\" = \"1\" }";

/// Something to do for twelve seconds: longer than a broker takes to stop, or to show its connections.
async fn work<B: Bench>(bench: &B) -> Function {
    bench.publish_numbered(MANY).await;
    Function::start_with(|_| Answer::After(Duration::from_millis(40))).await
}

async fn progress(function: &Function) {
    wait_for("progress", || (Ledger::of(function).0.len() > MANY / 4).then_some(())).await;
}

/// Each message came, and no more of them again than were in flight when something happened once.
async fn complete<B: Bench>(bench: &B, function: &Function, service: &mut Service) {
    let ledger = Ledger::complete(function, &numbered(MANY)).await;
    assert!(ledger.repeated() <= B::IN_FLIGHT, "{} were repeated, more than were in flight", ledger.repeated());
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}

async fn a_restart_in_good_order<B: Bench>() {
    let bench = B::private("restarted").await;
    let function = work(&bench).await;
    let mut service = Service::start(&bench.config(&function, SMALL_BATCHES)).await;
    progress(&function).await;

    bench.stop().await;
    service.metric_becomes("esm_source_connected", &[], 0).await;
    assert!(Ledger::of(&function).0.len() < MANY, "it was stopped on the way");
    bench.start().await;

    complete(&bench, &function, &mut service).await;
}

async fn a_disk_without_room<B: Bench>() {
    const FEW: usize = 200;
    let bench = B::private("no-room").await;
    bench.publish_numbered(FEW).await;
    bench.publish("poison").await;
    let function = Function::start_with(|call| {
        if call.bodies.contains(&"poison".to_owned()) { Answer::FunctionError } else { Answer::Success }
    })
    .await;
    let more = format!(
        "{SMALL_BATCHES}\nbisect_batch_on_function_error = true\nmaximum_retry_attempts = 0\n\
         destination_config = {{ on_failure = {{ destination = {:?} }} }}",
        bench.letters_arn("test")
    );
    bench.fill_the_disk().await;
    let mut service = Service::start(&bench.config(&function, &more)).await;

    service.metric_becomes("esm_deleted_events_total", &[], FEW as u64).await;
    wait_for("the poison", || function.bodies().contains(&"poison".to_owned()).then_some(())).await;
    assert_eq!(service.metric("esm_dropped_events_total", &[]).await, 0, "nowhere to put it, so it stays");
    bench.make_room().await;

    bench.letter("poison", 1).await;
    service.metric_becomes("esm_dropped_events_total", &[], 1).await;
    let ledger = Ledger::of(&function).0;
    assert!(numbered(FEW).iter().all(|body| ledger.contains_key(body)), "{ledger:?}");
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}

fn write(file: &Path, username: &str, password: &str) {
    fs::write(file, format!(r#"{{"username":"{username}","password":"{password}"}}"#)).expect("writes");
}

/// A service that logs in as the reader, whose password is in this file.
async fn read_by_reader<B: Bench>(bench: &B, function: &Function, file: &Path) -> Service {
    let mut config = bench.config(function, SMALL_BATCHES).by_visitor();
    config.visitor_file = Some(file.to_owned());
    let service = Service::start(&config).await;
    progress(function).await;
    service
}

/// What the mapping shows.
async fn in_trouble<B: Bench>(bench: &B, service: &Service, code: &str) {
    let shown = service.shows(bench.queue(), code).await;
    assert_eq!(shown["State"], "Enabled", "it keeps trying");
    assert!(shown["LastProcessingResult"].as_str().is_some_and(|said| said.starts_with("PROBLEM: ")), "{shown}");
}

async fn a_permission_that_is_taken_and_given_back<B: Bench>() {
    let bench = B::private("permission").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret.json");
    write(&file, B::READER, PASSWORD);
    let function = work(&bench).await;
    let mut service = read_by_reader(&bench, &function, &file).await;

    bench.forbid().await;
    in_trouble(&bench, &service, "EVENT_SOURCE_AUTHZ_ERROR").await;
    bench.permit().await;

    complete(&bench, &function, &mut service).await;
}

async fn a_password_that_is_changed<B: Bench>() {
    let bench = B::private("password").await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret.json");
    write(&file, B::READER, PASSWORD);
    let function = work(&bench).await;
    let mut service = read_by_reader(&bench, &function, &file).await;

    bench.change_password("another-password").await;
    in_trouble(&bench, &service, "EVENT_SOURCE_AUTHN_ERROR").await;
    write(&file, B::READER, "another-password");

    complete(&bench, &function, &mut service).await;
    assert!(!service.log().contains("another-password"), "a secret in the log");
}
