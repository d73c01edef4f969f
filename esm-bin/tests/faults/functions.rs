//! Functions that crash, answer nonsense, or say that an event is too large for them.

use std::{env, fs};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    bench::{Bench, Ledger},
    common::{
        function::{Answer, Function},
        service::{Config, Service},
    },
};

on_both_brokers! {
    a_process_that_crashes_in_the_middle_of_a_batch,
    answers_that_are_nonsense,
    events_that_are_too_large_for_the_function,
}

async fn a_process_that_crashes_in_the_middle_of_a_batch<B: Bench>() {
    let bench = B::shared("crashing").await;
    let folder = tempfile::tempdir().expect("a folder");
    let tests = env::current_exe().expect("has a path");
    let program = tests.ancestors().nth(2).expect("is in a folder").join("examples/recording_function");
    let (program, record) = (program.display(), folder.path().display());
    let backend = format!("process = {{ command = ['{program}'], environment = {{ RECORD_IN = '{record}' }} }}");
    let more = "batch_size = 3\nmaximum_batching_window_in_seconds = 5\ntags = { \"esm:maximum-concurrency\" = \"1\" }";
    for body in ["before", "panic", "after"] {
        bench.publish(body).await;
    }
    let mut service = Service::start(&bench.with_mapping(Config::with_backend(&bench, backend), more)).await;

    service.metric_becomes("esm_deleted_events_total", &[], 3).await;
    assert_eq!(service.metric("esm_errors_total", &[]).await, 1);
    let record = fs::read_to_string(folder.path().join("record")).expect("reads");
    let starts: Vec<_> = record.lines().filter(|line| line.starts_with("start ")).collect();
    assert_eq!(starts.len(), 2, "{record}");
    assert!(starts.iter().all(|line| line.ends_with("before,panic,after")), "the whole batch again: {record}");
    assert_eq!(record.lines().filter(|line| line.starts_with("end ")).count(), 1, "{record}");
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}

async fn answers_that_are_nonsense<B: Bench>() {
    /// Bodies, and how many bytes of them never come.
    const ANSWERS: [(&str, usize); 5] = [
        ("all is well", 0),
        ("null", 1_000),
        (r#"{"batchItemFailures":7}"#, 0),
        (r#"{"batchItemFailures":[{"itemIdentifier":"nobody's"}]}"#, 0),
        ("null", 0),
    ];
    let bench = B::shared("nonsense").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let port = listener.local_addr().expect("has an address").port();
    let function = tokio::spawn(async move {
        for (body, missing) in ANSWERS {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut request = Vec::new();
            while !request.ends_with(b"}") || !request.windows(4).any(|four| four == b"\r\n\r\n") {
                let count = stream.read_buf(&mut request).await.expect("reads");
                assert!(count > 0, "the whole request comes");
            }
            let length = body.len() + missing;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.expect("writes");
        }
    });
    let url = format!("http://127.0.0.1:{port}/2015-03-31/functions/function/invocations");
    let more = "maximum_batching_window_in_seconds = 0\nfunction_response_types = [\"ReportBatchItemFailures\"]";
    let mut service = Service::start(&bench.with_mapping(Config::new(&bench, &url), more)).await;
    bench.publish("a").await;

    service.metric_becomes("esm_deleted_events_total", &[], 1).await;
    function.await.expect("every answer was asked for");
    assert_eq!(service.metric("esm_invocations_total", &[]).await, ANSWERS.len() as u64);
    assert_eq!(service.metric("esm_dropped_events_total", &[]).await, 0);
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}

async fn events_that_are_too_large_for_the_function<B: Bench>() {
    let bench = B::shared("413").await;
    let function = Function::start_with(|call| match call.bodies.as_slice() {
        [body] if body != "large" => Answer::Success,
        _ => Answer::Status(413),
    })
    .await;
    let more = format!(
        "batch_size = 4\nmaximum_batching_window_in_seconds = 5\ntags = {{ \"esm:maximum-concurrency\" = \"1\" }}\n\
         destination_config = {{ on_failure = {{ destination = {:?} }} }}",
        bench.letters_arn("test")
    );
    for body in ["a", "b", "large", "c"] {
        bench.publish(body).await;
    }
    let mut service = Service::start(&bench.config(&function, &more)).await;

    bench.letter("large", 1).await;
    service.metric_becomes("esm_deleted_events_total", &[], 3).await;
    service.metric_becomes("esm_dropped_events_total", &["too_large"], 1).await;
    let ledger = Ledger::of(&function).0;
    assert_eq!(function.calls().len(), 7, "the batch is halved until each message stands alone: {ledger:?}");
    assert_eq!(bench.letters().await.len(), 1);
    service.terminate();
    assert!(service.ended().await.success(), "{}", service.log());
    assert_eq!(bench.left().await, 0, "the queue is empty");
}
