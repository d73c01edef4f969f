//! What is expected of every function, whatever it is written in.

use std::{collections::BTreeSet, time::Duration};

use esm_core::invoker::{Invoke as _, Outcome};
use esm_invoke::backend::Backend as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    bench::{Client, Log, lives, read, until},
    common::ARN,
};

pub(crate) async fn a_result_is_handed_over(client: Client) {
    let function = client.start();
    let value = json!({ "pizza": ["margherita", "ü"], "price": 9.5 });
    assert_eq!(function.result(json!({ "do": "echo", "value": value })).await, value);
}

pub(crate) async fn nothing_returned_is_null(client: Client) {
    let function = client.start();
    assert_eq!(function.result(json!({ "do": "echo", "value": null })).await, Value::Null);
}

pub(crate) async fn an_error_has_its_type_and_message(client: Client) {
    let stack_trace = client.stack_trace;
    let function = client.start();
    let process = function.process().await;

    let (error_type, message, body) = function.error(json!({ "do": "fail" })).await;

    assert_eq!((error_type.as_str(), message.as_str()), ("ValueError", "no pizza"));
    assert_eq!((&body["errorType"], &body["errorMessage"]), (&json!("ValueError"), &json!("no pizza")));
    if let Some(member) = stack_trace {
        assert!(body[member].as_array().is_some_and(|trace| !trace.is_empty()), "{body}");
    }
    assert_eq!(function.process().await, process, "the process goes on");
}

pub(crate) async fn a_crash_is_an_exit_error(client: Client) {
    let function = client.start();
    let (error_type, message, body) = function.error(json!({ "do": "kill" })).await;
    assert_eq!(error_type, "Runtime.ExitError");
    assert!(message.starts_with("RequestId: "), "{message}");
    assert!(message.ends_with(" Error: Runtime exited with error: signal: killed"), "{message}");
    assert_eq!(body, json!({ "errorType": error_type, "errorMessage": message }));
    assert_eq!(function.result(json!({ "do": "echo", "value": 1 })).await, 1, "another process takes over");
}

pub(crate) async fn an_exit_without_an_answer_is_an_exit_error(client: Client) {
    let function = client.start();
    let (error_type, message, _) = function.error(json!({ "do": "exit" })).await;
    assert_eq!(error_type, "Runtime.ExitError");
    assert!(message.ends_with(" Error: Runtime exited without providing a reason"), "{message}");
}

pub(crate) async fn an_exit_with_a_status_tells_it(client: Client) {
    let function = client.start();
    let (_, message, _) = function.error(json!({ "do": "exit", "status": 3 })).await;
    assert!(message.ends_with(" Error: Runtime exited with error: exit status 3"), "{message}");
}

pub(crate) async fn a_failing_start_makes_the_function_unusable(client: Client) {
    let posts = client.posts_init_errors;
    let (reason, body) = client.with_variable("FAIL_INIT", "1").start().refusal().await;
    assert!(reason.contains("does not start: ") && reason.contains("no database"), "{reason}");
    if posts {
        assert!(reason.contains("RuntimeError: no database"), "{reason}");
        assert_eq!((&body["errorType"], &body["errorMessage"]), (&json!("RuntimeError"), &json!("no database")));
    } else {
        assert_eq!(body["errorType"], "Runtime.ExitError");
        assert!(body["errorMessage"].as_str().unwrap().ends_with("exit status 1"), "{body}");
    }
}

pub(crate) async fn a_missing_handler_makes_the_function_unusable(mut client: Client) {
    client.settings.command = client.missing.clone();
    let (reason, _) = client.start().refusal().await;
    assert!(reason.contains("does not start: ") && reason.contains("absent"), "{reason}");
}

pub(crate) async fn a_slow_function_is_killed_at_its_timeout(mut client: Client) {
    client.settings.timeout = Duration::from_secs(1);
    let function = client.start();
    let process = function.process().await;
    let started = Instant::now();

    let (error_type, message, body) = function.error(json!({ "do": "sleep", "milliseconds": 600_000 })).await;

    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(error_type, "Sandbox.Timedout");
    assert!(message.ends_with(" Error: Task timed out after 1.00 seconds"), "{message}");
    assert_eq!(body, json!({ "errorType": error_type, "errorMessage": message }));
    assert!(!lives(process), "it must not go on beside the next one");
}

pub(crate) async fn an_event_of_six_megabytes_arrives(client: Client) {
    let function = client.start();
    let size = 6 * 1024 * 1024 - 100;
    assert_eq!(function.result(json!({ "do": "measure", "value": "x".repeat(size) })).await, size);
}

pub(crate) async fn a_result_that_is_too_large_is_an_error(client: Client) {
    let function = client.start();
    let largest = 6_291_556 - 2; // without the quotes
    assert_eq!(function.result(json!({ "do": "grow", "size": largest })).await.as_str().unwrap().len(), largest);
    let (error_type, message, body) = function.error(json!({ "do": "grow", "size": largest + 1 })).await;
    assert_eq!(error_type, "Function.ResponseSizeTooLarge");
    assert_eq!(message, "Response payload size exceeded maximum allowed payload size (6291556 bytes).");
    assert_eq!(body["errorMessage"], message);
    assert_eq!(function.result(json!({ "do": "echo", "value": 1 })).await, 1, "and the function goes on");
}

pub(crate) async fn a_slow_start_is_waited_for(mut client: Client) {
    client.settings.timeout = Duration::from_secs(30);
    let started = Instant::now();
    let function = client.with_variable("SLOW_START", "1500").start();
    assert_eq!(function.result(json!({ "do": "echo", "value": 1 })).await, 1);
    assert!(started.elapsed() >= Duration::from_millis(1500));
}

pub(crate) async fn a_process_is_told_to_end_and_may_say_goodbye(client: Client) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("goodbye");
    let function = client.with_variable("SAY_GOODBYE_IN", file.to_str().unwrap()).start();
    let process = function.process().await;

    function.0.close().await;

    assert_eq!(read(&file).as_deref(), Some("goodbye"));
    assert!(!lives(process));
}

pub(crate) async fn the_deadline_is_the_timeout_away(mut client: Client) {
    client.settings.timeout = Duration::from_secs(100);
    let function = client.start();
    let remaining = function.result(json!({ "do": "tell" })).await["remaining"].as_u64().unwrap();
    assert!((50_000..=100_000).contains(&remaining), "{remaining}");
}

pub(crate) async fn requests_and_traces_have_ids(client: Client) {
    let function = client.start();
    let one = function.result(json!({ "do": "tell" })).await;
    let other = function.result(json!({ "do": "tell" })).await;
    for told in [&one, &other] {
        let request_id = told["request_id"].as_str().unwrap();
        assert_eq!(request_id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
        let trace_id = told["trace_id"].as_str().unwrap();
        let parts: Vec<_> = trace_id.split([';', '=', '-']).map(str::len).collect();
        assert_eq!(parts, [4, 1, 8, 24, 6, 16, 7, 1], "{trace_id}");
        assert!(trace_id.starts_with("Root=1-"), "{trace_id}");
    }
    assert_ne!(one["request_id"], other["request_id"]);
    assert_ne!(one["trace_id"], other["trace_id"]);
}

pub(crate) async fn the_function_knows_its_name_arn_and_memory(mut client: Client) {
    client.settings.memory_in_mebibytes = Some(2_048);
    let function = client.with_variable("KEY", "value").start();
    let told = function.result(json!({ "do": "tell" })).await;
    assert_eq!((&told["arn"], &told["name"], &told["memory"]), (&json!(ARN), &json!("pizza"), &json!(2_048)));
    assert_eq!(told["environment"]["KEY"], "value");
    assert_eq!(told["environment"].get("CARGO_MANIFEST_DIR"), None, "nothing of our own environment");
}

pub(crate) async fn a_log_line_that_is_no_text_is_logged(client: Client) {
    let log = Log::capture();
    let function = client.start();
    let process = function.process().await;
    function.result(json!({ "do": "print" })).await;
    let line = || log.of_process(process).into_iter().find(|event| event["message"] == "caf\u{fffd} in the log");
    until("the line in the log", || line().is_some()).await;
    let line = line().unwrap();
    assert_eq!(line["function"], "pizza");
    assert_eq!(line["request_id"].as_str().unwrap().len(), 36);
}

pub(crate) async fn a_thousand_invocations_in_a_row_need_one_process(client: Client) {
    let function = client.start();
    let process = function.process().await;
    for _ in 0..1_000 {
        let event = bytes::Bytes::from_static(br#"{"do":"echo","value":1}"#);
        assert_eq!(function.0.invoke(event.into()).await.outcome, Outcome::Success);
    }
    assert_eq!(function.process().await, process);
}

pub(crate) async fn four_invocations_run_at_once_in_four_processes(mut client: Client) {
    client.settings.instances = 4.try_into().unwrap();
    let function = client.start();
    let sleep = |milliseconds| function.result(json!({ "do": "sleep", "milliseconds": milliseconds }));
    let all = join_all((0..8).map(|_| sleep(1_000))).await;
    let processes: BTreeSet<_> = all.iter().map(|process| process.as_i64().unwrap()).collect();
    assert_eq!(processes.len(), 4, "{all:?}");
    let started = Instant::now();
    join_all((0..4).map(|_| sleep(1_000))).await;
    assert!(started.elapsed() < Duration::from_secs(3), "one after the other takes four seconds");
}

pub(crate) async fn an_idle_process_is_ended_and_another_one_started(mut client: Client) {
    client.settings.idle_timeout = Duration::from_millis(300);
    let function = client.start();
    let first = function.process().await;
    until("the idle process to end", || !lives(first)).await;
    assert_ne!(function.process().await, first);
}
