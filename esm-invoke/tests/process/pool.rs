//! What does not depend on the client: commands that are none, strangers, limits, and ends.

use std::{path::PathBuf, time::Duration};

use esm_core::invoker::Outcome;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{
    bench::{Client, Function, Log, lives, until},
    common::{LONG, settings},
};
use esm_invoke::process::{FileAccess, ProcessInvoker, ProcessSettings};

fn shell(script: &str) -> ProcessSettings {
    settings(vec!["sh".into(), "-c".into(), script.into()])
}

fn start(settings: ProcessSettings) -> Function {
    Function(ProcessInvoker::new(settings))
}

#[tokio::test]
async fn a_command_that_ends_at_once_is_told_with_what_it_printed() {
    let (reason, body) = start(shell("echo one; echo two >&2; exit 7")).refusal().await;
    assert!(reason.starts_with("`sh -c echo one; echo two >&2; exit 7` does not start: "), "{reason}");
    assert!(reason.ends_with("(exit status: 7) before it asked for an event; it printed last: one | two"), "{reason}");
    assert!(body["errorMessage"].as_str().unwrap().ends_with("Runtime exited with error: exit status 7"), "{body}");
}

#[tokio::test]
async fn a_command_that_is_no_client_is_given_up_after_a_while_and_ended() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("process");
    let mut settings = shell(&format!("echo $$ >{}; sleep 600", file.display()));
    settings.start_timeout = Duration::from_millis(500);
    let (reason, _) = start(settings).refusal().await;
    assert!(reason.contains("is it a client of Lambda's Runtime API?"), "{reason}");
    let process = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    assert!(!lives(process));
}

#[tokio::test]
async fn a_folder_that_is_not_there_makes_the_function_unusable() {
    let mut settings = shell("true");
    settings.folder = "/nonexistent".into();
    let reply = start(settings).call(json!({})).await;
    let Outcome::NotUsable { reason } = reply.outcome else { panic!("{reply:?}") };
    assert!(reason.starts_with("cannot start a process in `/nonexistent`: "), "{reason}");
}

#[tokio::test]
async fn the_limits_reach_the_process() {
    let mut settings = shell("ulimit -d; ulimit -n; ulimit -c; grep NoNewPrivs /proc/self/status; exit 1");
    (settings.memory_in_mebibytes, settings.open_files) = (Some(64), Some(50));
    let (reason, _) = start(settings).refusal().await;
    assert!(reason.ends_with("it printed last: 65536 | 50 | 0 | NoNewPrivs: 1"), "{reason}");
}

#[tokio::test]
async fn a_process_leads_a_session_whose_groups_no_other_function_can_join() {
    let script = "read -r process _ _ _ group session _ </proc/self/stat; [ $process = $$ ]; echo $? $((group - $$)) $((session - $$)); exit 1";
    let (reason, _) = start(shell(script)).refusal().await;
    assert!(reason.ends_with("it printed last: 0 0 0"), "{reason}");
}

#[tokio::test]
async fn a_process_uses_the_files_that_it_may_use_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["read", "write", "other"] {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("file"), name).unwrap();
    }
    std::fs::write(path("alone"), "alone").unwrap();
    let script = "for name in read/file write/file other/file alone; do cat $name 2>&1; echo; done;
        for name in read/new write/new other/new alone; do (echo new >$name) 2>/dev/null && echo written $name; done; exit 1";
    let mut settings = shell(script);
    settings.folder = folder.path().into();
    let system = ["/usr", "/lib", "/lib64", "/bin"].map(PathBuf::from).into_iter().filter(|path| path.exists());
    let read = system.chain([path("read"), path("alone")]).collect();
    settings.file_access = Some(FileAccess { read, write: vec![path("write"), "/dev/null".into()] });

    let (reason, _) = start(settings).refusal().await;

    let printed = reason.split_once("printed last: ").unwrap().1;
    assert_eq!(printed, "read | write | cat: other/file: Permission denied | alone | written write/new");
    assert_eq!(std::fs::read_to_string(path("alone")).unwrap(), "alone");
}

#[tokio::test]
async fn a_client_runs_with_the_files_that_it_needs() {
    let mut client = Client::rust();
    let system = ["/usr", "/lib", "/lib64", "/etc"].map(PathBuf::from).into_iter().filter(|path| path.exists());
    let program = PathBuf::from(client.settings.command[0].clone());
    client.settings.file_access = Some(FileAccess { read: system.chain([program]).collect(), write: Vec::new() });
    assert_eq!(client.start().result(json!({ "do": "echo", "value": 1 })).await, 1);
}

#[tokio::test]
async fn a_path_that_is_not_there_is_told_with_the_limit_that_names_it() {
    let mut settings = shell("true");
    settings.file_access = Some(FileAccess { read: vec!["/nonexistent".into()], write: Vec::new() });
    let (reason, _) = start(settings).refusal().await;
    assert!(reason.contains("file_access: `/nonexistent`: "), "{reason}");
}

#[tokio::test]
async fn what_a_function_started_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("process");
    let (reason, _) = start(shell(&format!("sleep 600 & echo $! >{}; exit 1", file.display()))).refusal().await;
    assert!(reason.contains("exit status: 1"), "{reason}");
    let process = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    until("the process's child to end", || !lives(process)).await;
}

#[tokio::test]
async fn a_stranger_is_turned_away_from_the_runtime_api() {
    let function = Client::rust().start();
    let told = function.result(json!({ "do": "tell" })).await;
    let address = told["environment"]["AWS_LAMBDA_RUNTIME_API"].as_str().unwrap();
    let mut stranger = TcpStream::connect(address).await.unwrap();
    let request = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut answer = Vec::new();
    // The connection may be closed before the request is written.
    let _ = stream_all(&mut stranger, request, &mut answer).await;
    assert_eq!(answer, b"");
    assert_eq!(function.result(json!({ "do": "echo", "value": 1 })).await, 1, "the event went to the function");
}

#[tokio::test]
async fn strangers_are_told_of_once_however_many_come() {
    let log = Log::capture();
    let mut client = Client::rust();
    client.settings.name = "visited".into();
    let function = client.start();
    let told = function.result(json!({ "do": "tell" })).await;
    let address = told["environment"]["AWS_LAMBDA_RUNTIME_API"].as_str().unwrap();
    for _ in 0..20 {
        let mut stranger = TcpStream::connect(address).await.unwrap();
        let mut answer = Vec::new();
        timeout(LONG, stranger.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer, b"");
    }
    let told_of = log.of_function("visited").into_iter().filter(|event| event["peer"].is_string());
    assert_eq!(told_of.count(), 1);
}

/// Takes one event and streams a result for it, as clients do, with what is left to say at its end.
fn streams(trailers: &str) -> ProcessSettings {
    let script = r#"
        exec 3<>"/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}"
        printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: x\r\n\r\n' >&3
        while read -r line <&3 && line=${line%$'\r'} && [ -n "$line" ]; do
            case $line in lambda-runtime-aws-request-id:*) id=${line#*: } ;; esac
        done
        printf 'POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nhost: x\r\n' "$id" >&3
        printf 'lambda-runtime-function-response-mode: streaming\r\ntransfer-encoding: chunked\r\n' >&3
        printf 'trailer: lambda-runtime-function-error-type, lambda-runtime-function-error-body\r\n\r\n' >&3
        printf '5\r\n[1,2,\r\n' >&3
        printf '2\r\n3]\r\n0\r\n%b\r\n' "$0" >&3
        sleep 600"#;
    settings(vec!["bash".into(), "-c".into(), script.into(), trailers.into()])
}

#[tokio::test]
async fn a_result_that_is_streamed_is_one_result() {
    assert_eq!(start(streams("")).result(json!({})).await, json!([1, 2, 3]));
}

#[tokio::test]
async fn a_stream_that_ends_in_an_error_is_that_error() {
    // {"errorMessage":"no pizza","errorType":"ValueError"}, and the words `no pizza` alone.
    let object = "eyJlcnJvck1lc3NhZ2UiOiJubyBwaXp6YSIsImVycm9yVHlwZSI6IlZhbHVlRXJyb3IifQ==";
    for (error, error_type) in [(object, "ValueError"), ("bm8gcGl6emE=", "Runtime.StreamError")] {
        let trailers = format!(
            r"Lambda-Runtime-Function-Error-Type: Runtime.StreamError\r\nLambda-Runtime-Function-Error-Body: {error}\r\n"
        );
        let reply = start(streams(&trailers)).call(json!({})).await;
        let expected = Outcome::FunctionError { error_type: error_type.into(), message: "no pizza".into() };
        assert_eq!(reply.outcome, expected);
    }
}

async fn stream_all(stream: &mut TcpStream, request: &[u8], answer: &mut Vec<u8>) -> std::io::Result<()> {
    stream.write_all(request).await?;
    timeout(Duration::from_secs(60), stream.read_to_end(answer)).await??;
    Ok(())
}

#[tokio::test]
async fn an_invocation_that_is_given_up_ends_its_process() {
    let function = Client::rust().start();
    let process = function.process().await;
    let sleeping = function.call(json!({ "do": "sleep", "milliseconds": 600_000 }));
    assert!(timeout(Duration::from_millis(300), sleeping).await.is_err());
    until("the process to end", || !lives(process)).await;
    assert_eq!(function.result(json!({ "do": "echo", "value": 1 })).await, 1);
}

#[tokio::test]
async fn a_process_that_dies_idle_costs_no_invocation() {
    let function = Client::rust().start();
    let process = function.process().await;
    let status = std::process::Command::new("kill").args(["-9", &process.to_string()]).status().unwrap();
    assert!(status.success());
    // Until then it may still have taken an event.
    until("the process to end", || !lives(process)).await;
    assert_eq!(function.result(json!({ "do": "echo", "value": 1 })).await, 1);
}

#[tokio::test]
async fn processes_end_when_nobody_invokes_any_more() {
    let function = Client::rust().start();
    let process = function.process().await;
    drop(function);
    until("the process to end", || !lives(process)).await;
}

#[tokio::test]
async fn a_process_that_ignores_the_request_to_end_is_killed() {
    let mut settings = shell("trap '' TERM; while :; do sleep 1; done");
    (settings.start_timeout, settings.stop_timeout) = (Duration::from_secs(600), Duration::from_millis(300));
    let function = start(settings);
    let invoking = function.call(json!({}));
    assert!(timeout(Duration::from_millis(300), invoking).await.is_err());
    let started = Instant::now();
    esm_invoke::backend::Backend::close(&function.0).await;
    assert!(started.elapsed() < Duration::from_secs(30));
}
