//! The program itself: what it prints, and how it exits.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio},
    thread,
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

const TEN_MISTAKES: &str = r#"
[server]
listen = "localhost"
region = ""
[brokers.pizza]
engine = "rabbitmq"
endpoints = ["amqp://user:hunter2@localhost", "http://localhost"]
[secrets.login]
username = "guest"
password = "hunter2"
[functions.f]
http = { url = "http://localhost/", header = {} }
timeout_in_seconds = "long"
[[event_source_mappings]]
function_name = "f"
event_source = "pizza"
queues = []
secret = "login"
batch_size = -1
colour = "red"
"#;

/// Nothing listens at port 1, so the mapping keeps trying.
const ONE_MAPPING: &str = r#"
[server]
listen = "127.0.0.1:0"
[brokers.pizza]
engine = "rabbitmq"
endpoints = ["amqp://127.0.0.1:1"]
[secrets.login]
username = "guest"
password = { env = "PIZZA_PASSWORD" }
[functions.f]
http = { url = "http://127.0.0.1:1/" }
[[event_source_mappings]]
function_name = "f"
event_source = "pizza"
queues = ["pizzaQueue"]
secret = "login"
"#;

fn esm(arguments: &[&str], configuration: &str) -> (Command, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("esm.toml"), configuration).expect("is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_esm"));
    command.args(arguments).current_dir(folder.path()).env_clear().env("PIZZA_PASSWORD", "hunter2");
    (command, folder)
}

fn run(arguments: &[&str], configuration: &str) -> Output {
    let (mut command, _folder) = esm(arguments, configuration);
    command.output().expect("runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("is text")
}

#[test]
fn check_prints_every_problem_with_its_key_and_exits_with_2() {
    let output = run(&["check"], TEN_MISTAKES);
    let printed = text(&output.stdout);
    let keys: Vec<_> = printed.lines().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        keys,
        [
            "server.listen",
            "server.region",
            "brokers.pizza.endpoints[0]",
            "brokers.pizza.endpoints[1]",
            "secrets.login.password",
            "functions.f.timeout_in_seconds",
            "functions.f.http.header",
            "event_source_mappings[0].queues",
            "event_source_mappings[0].batch_size",
            "event_source_mappings[0].colour",
        ],
        "{printed}"
    );
    assert!(!printed.contains("hunter2"), "{printed}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn check_prints_the_plan_and_exits_with_0() {
    let output = run(&["check", "--config", "esm.toml"], ONE_MAPPING);
    let printed = text(&output.stdout);
    for part in ["\"pizzaQueue\"", "amqp://127.0.0.1:1", "prefetch     200", "500ms", "holds its queue"] {
        assert!(printed.contains(part), "{part} is not in {printed}");
    }
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_configuration_that_is_not_there_is_a_problem() {
    let output = run(&["check", "--config", "absent.toml"], "");
    assert!(text(&output.stdout).starts_with("absent.toml: cannot be read"));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_version_names_the_features_built_in() {
    let output = run(&["--version"], "");
    let features = esm::adapters::FEATURES.join(", ");
    assert_eq!(text(&output.stdout), format!("esm {} (features: {features})\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn filter_test_says_which_part_of_a_pattern_refuses_a_message() {
    let pattern = r#"{"data":{"kind":["order"],"total":[{"numeric":[">",10]}]}}"#;
    let try_out =
        |pattern: &str, message: &str| run(&["filter", "test", "--pattern", pattern, "--message", message], pattern);
    let refused = try_out(pattern, r#"{"kind":"order","total":5}"#);
    assert_eq!(
        text(&refused.stdout),
        r#"refused: the body is JSON
filter 0 refuses
  data.kind ["order"]: met
  data.total [{"numeric":[">",10]}]: not met by any value there
"#
    );
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(try_out(pattern, r#"{"kind":"order","total":50}"#).status.code(), Some(0));
    let wrong = try_out(r#"{"data":{"kind":"order"}}"#, "");
    assert!(text(&wrong.stdout).starts_with("filter 0: data.kind must be a list"));
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn filter_test_reads_files_and_knows_the_record_around_a_body() {
    let record = r#"{"basicProperties":{"appId":"shop"}}"#;
    let arguments = ["filter", "test", "--pattern", "file://esm.toml", "--message", "x", "--record", record];
    let output = run(&arguments, r#"{"basicProperties":{"appId":["shop"]}}"#);
    assert!(text(&output.stdout).starts_with("accepted: the body is a plain text"));
    assert_eq!(output.status.code(), Some(0));
    let missing = run(&["filter", "test", "--pattern", "{}", "--message", "file://absent"], "");
    assert!(text(&missing.stdout).starts_with("--message: cannot read `absent`"));
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn serve_logs_every_problem_and_exits_with_2() {
    let output = run(&["serve"], TEN_MISTAKES);
    let events: Vec<Value> = text(&output.stderr).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 10);
    assert_eq!(events[0]["key"], "server.listen");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_port_that_is_taken_is_told_by_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut command, _folder) = esm(&["serve", "--log-format", "human"], ONE_MAPPING);
    let output = command.env("ESM__SERVER__LISTEN", taken.local_addr().unwrap().to_string()).output().unwrap();
    let printed = text(&output.stderr);
    assert!(printed.contains("server.listen: cannot listen on 127.0.0.1:"), "{printed}");
    assert_eq!(output.status.code(), Some(1));
}

/// A service that is killed with its test.
struct Serving {
    process: Child,
    log: BufReader<ChildStderr>,
    _folder: TempDir,
}

impl Serving {
    fn start() -> Self {
        let (mut command, folder) = esm(&["serve"], ONE_MAPPING);
        let mut process = command.stderr(Stdio::piped()).spawn().expect("starts");
        let log = BufReader::new(process.stderr.take().expect("is piped"));
        Self { process, log, _folder: folder }
    }

    /// The next event that says so.
    fn wait_for(&mut self, message: &str) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.log.read_line(&mut line).expect("is text"), 0, "ended without `{message}`");
            let event: Value = serde_json::from_str(&line).expect("is JSON");
            if event["message"].as_str().is_some_and(|text| text.starts_with(message)) {
                return event;
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.process.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    fn exit(mut self) -> ExitStatus {
        self.process.wait().expect("ends")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill(); // it has ended already, unless the test failed
    }
}

#[test]
fn a_signal_drains_and_exits_with_0() {
    for signal in ["-TERM", "-INT"] {
        let mut serving = Serving::start();
        let event = serving.wait_for("cannot read the queue");
        assert_eq!(event["span"]["queue"], "pizzaQueue");
        serving.signal(signal);
        serving.wait_for("draining");
        assert_eq!(serving.exit().code(), Some(0));
    }
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let free = TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("has an address");
    let (mut command, _folder) = esm(&["serve"], ONE_MAPPING);
    let full = File::options().write(true).open("/dev/full").expect("opens");
    let mut process = command.env("ESM__SERVER__LISTEN", free.to_string()).stderr(full).spawn().expect("starts");
    let is_answered = || {
        let mut socket = TcpStream::connect(free)?;
        let body = "{}";
        let size = body.len();
        write!(
            socket,
            "POST /2015-03-31/event-source-mappings HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {size}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        std::io::Result::Ok(answer.starts_with("HTTP/1.1 400"))
    };
    until("the service to start", || TcpStream::connect(free).is_ok());

    assert!(is_answered().expect("a change is audited and answered"));
    let signal = |name: &str| {
        let id = process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("kill runs").success());
    };
    signal("-HUP");
    assert!(is_answered().expect("a change is audited and answered"));
    signal("-TERM");

    assert_eq!(process.wait().expect("ends").code(), Some(0));
}

/// A function without a library: a client of the Runtime API in a few lines. It answers with a
/// variable of its environment, and prints a line.
const BOOTSTRAP: &str = r#"#!/bin/bash
exec 3<>"/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}"
echo "printed by $AWS_LAMBDA_FUNCTION_NAME"
while printf 'GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nhost: esm\r\n\r\n' >&3; do
    while IFS= read -r line <&3; line="${line%$'\r'}"; [ -n "$line" ]; do
        case "${line,,}" in
            lambda-runtime-aws-request-id:*) id="${line#*: }" ;;
            content-length:*) length="${line#*: }" ;;
        esac
    done
    read -r -N "$length" event <&3
    answer="{\"got\":$event,\"token\":\"$TOKEN\"}"
    printf 'POST /2018-06-01/runtime/invocation/%s/%s HTTP/1.1\r\nhost: esm\r\ncontent-length: %s\r\n\r\n%s' \
        "$id" "${1:-response}" "${#answer}" "$answer" >&3
    while IFS= read -r line <&3; line="${line%$'\r'}"; [ -n "$line" ]; do :; done
    read -r -N 15 status <&3
done
"#;

/// A function in a process that is started so, with the service's own secret in one variable.
fn function(command: &str) -> String {
    format!(
        "[functions.f]\nprocess = {{ command = {command}, environment = {{ TOKEN = {{ env = \"PIZZA_PASSWORD\" }} }} }}\n"
    )
}

fn invoke(configuration: &str, event: &str) -> Output {
    let (mut command, folder) = esm(&["invoke", "f", "--event", "event.json"], configuration);
    std::fs::write(folder.path().join("event.json"), event).expect("is written");
    std::fs::write(folder.path().join("bootstrap"), BOOTSTRAP).expect("is written");
    command.output().expect("runs")
}

#[test]
fn invoke_prints_what_a_function_in_a_process_answers_and_logs_what_it_prints() {
    let output = invoke(&function(r#"["bash", "bootstrap"]"#), r#"{"a":1}"#);
    let (printed, logged) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(printed, "{\"got\":{\"a\":1},\"token\":\"hunter2\"}\n", "{logged}");
    assert!(logged.contains("printed by f"), "{logged}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn invoke_exits_with_1_when_the_function_fails() {
    let output = invoke(&function(r#"["bash", "bootstrap", "error"]"#), "1");
    let (printed, logged) = (text(&output.stdout), text(&output.stderr));
    assert!(printed.starts_with(r#"{"got":1,"#), "{printed}");
    assert!(logged.contains("esm: the function failed: Function.Unknown: "), "{logged}");
    assert_eq!(output.status.code(), Some(1));

    let output = invoke(&function(r#"["./absent"]"#), "1");
    let logged = text(&output.stderr);
    assert!(logged.contains("esm: the function cannot be used: `./absent` does not start: "), "{logged}");
    assert!(logged.contains("it printed last: cannot run `./absent`: No such file or directory"), "{logged}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn invoke_refuses_what_is_no_event_or_no_function() {
    let output = invoke(&function(r#"["true"]"#), "pizza");
    assert!(text(&output.stderr).starts_with("esm: an event must be JSON: "));
    assert_eq!(output.status.code(), Some(2));
    let output = invoke("[functions.g]\nprocess = { command = [\"true\"] }\n", "1");
    assert_eq!(text(&output.stderr), "esm: there is no function \"f\"; there are: g\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn sample_events_are_those_of_each_broker() {
    for (engine, source) in [("rabbitmq", "aws:rmq"), ("activemq", "aws:mq")] {
        let output = run(&["event", engine], "");
        let event: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(event["eventSource"], source);
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn what_serves_or_invokes_functions_shows_its_environment_to_no_process_of_the_same_user() {
    use std::os::unix::{fs::MetadataExt as _, process::CommandExt as _};

    let function = function(r#"["sleep", "600"]"#);
    let configuration = format!("[server]\nlisten = \"127.0.0.1:0\"\n{function}");
    for arguments in [&["invoke", "f", "--event", "event.json"][..], &["serve"]] {
        let (mut command, folder) = esm(arguments, &configuration);
        std::fs::write(folder.path().join("event.json"), "1").unwrap();
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            // Root sees everything, but whom the system lets see it can be told by the group.
            command.gid(1);
        }
        let mut service = command.stderr(Stdio::null()).spawn().unwrap();
        let environment = format!("/proc/{}/environ", service.id());

        until("the environment to be root's", || {
            let owner = fs::metadata(&environment).unwrap();
            (owner.uid(), owner.gid()) == (0, 0)
        });

        service.kill().unwrap();
        service.wait().unwrap();
    }
}

#[test]
fn no_function_outlives_the_service_that_started_it() {
    // Nor does what it has started itself.
    let script = "sleep 600 & echo $$ $! >process.new; mv process.new process; wait";
    let configuration = function(&format!("[\"bash\", \"-c\", \"{script}\"]"));
    let (mut command, folder) = esm(&["invoke", "f", "--event", "event.json"], &configuration);
    std::fs::write(folder.path().join("event.json"), "1").unwrap();
    let mut service = command.stderr(Stdio::null()).spawn().unwrap();
    let file = folder.path().join("process");
    until("the function to start", || file.exists());
    let processes = std::fs::read_to_string(file).unwrap();
    assert_eq!(processes.split_whitespace().count(), 2);

    service.kill().unwrap();
    service.wait().unwrap();

    // A zombie has ended, too; whether somebody waits for it is not up to us.
    for process in processes.split_whitespace() {
        let status = format!("/proc/{process}/status");
        let has_ended = || std::fs::read_to_string(&status).map_or(true, |text| text.contains("State:\tZ"));
        until("the function and what it started to end", has_ended);
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::SystemTime::now() < deadline, "waited for {what} in vain");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Answers as the control API does, in two pages.
async fn control_api() -> String {
    use axum::{
        Json, Router,
        http::{StatusCode, Uri},
        routing::get,
    };
    let mapping = |number: u8| {
        serde_json::json!({
            "UUID": format!("00000000-0000-0000-0000-00000000000{number}"), "State": "Enabled", "KMSKeyArn": null,
            "FunctionArn": "arn:aws:lambda:us-east-1:000000000000:function:f", "Queues": [format!("queue {number}")],
            "EventSourceArn": "arn:aws:mq:us-east-1:000000000000:broker:pizza:b-1", "LastProcessingResult": "OK",
        })
    };
    let list = async move |uri: Uri| {
        let (number, next) = if uri.query() == Some("Marker=m+1") { (2, None) } else { (1, Some("m 1")) };
        Json(serde_json::json!({ "EventSourceMappings": [mapping(number)], "NextMarker": next }))
    };
    let one = async move |axum::extract::Path(uuid): axum::extract::Path<String>| {
        if uuid.ends_with('1') {
            return (StatusCode::OK, Json(mapping(1)));
        }
        (StatusCode::NOT_FOUND, Json(serde_json::json!({ "Message": "The resource you requested does not exist." })))
    };
    let router = Router::new()
        .route("/2015-03-31/event-source-mappings", get(list))
        .route("/2015-03-31/event-source-mappings/{uuid}", get(one));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("has an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mappings_of_a_running_service_are_shown_as_a_table_or_as_they_are() {
    let endpoint = control_api().await;
    let esm = |arguments: &[&str]| {
        let arguments = [&["mappings"], arguments, &["--endpoint", &endpoint]].concat();
        let output = Command::new(env!("CARGO_BIN_EXE_esm")).args(arguments).output().expect("runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("is text");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, table, _) = esm(&[]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 3), "{table}");
    assert!(
        lines[0].starts_with("UUID  ") && lines[2].ends_with("Enabled  f         pizza         queue 2  OK"),
        "{table}"
    );
    let (_, json, _) = esm(&["--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["EventSourceMappings"][1]["Queues"][0], "queue 2");
    let (_, members, _) = esm(&["get", "00000000-0000-0000-0000-000000000001"]);
    assert!(members.contains("LastProcessingResult             OK\n") && !members.contains("KMSKeyArn"), "{members}");
    let (code, _, error) = esm(&["get", "00000000-0000-0000-0000-000000000009"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("answered 404 Not Found: The resource you requested does not exist."), "{error}");

    let output =
        Command::new(env!("CARGO_BIN_EXE_esm")).args(["mappings", "--endpoint", "http://127.0.0.1:1"]).output();
    let output = output.expect("runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("cannot ask http://127.0.0.1:1; is esm serve running?"), "{error}");
}

/// Waits until `esm` has said so.
fn wait_for_log(log: &Path, words: &str, times: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        if text.matches(words).count() >= times {
            return;
        }
        assert!(Instant::now() < deadline, "{words:?} is not in {text}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_hang_up_has_the_file_read_again_and_one_with_a_mistake_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, log) = (folder.path().join("esm.toml"), folder.path().join("log"));
    let write = |listen: &str, queue: &str| {
        let text = format!(
            "[server]\nlisten = \"{listen}\"\n[brokers.b]\nengine = \"activemq\"\nendpoints = [\"tcp://127.0.0.1:1\"]\n\
             [secrets.s]\nusername = \"u\"\npassword = {{ env = \"ESM_TEST_PASSWORD\" }}\n\
             [functions.f]\nprocess = {{ command = [\"absent\"] }}\n[[event_source_mappings]]\nfunction_name = \"f\"\n\
             event_source = \"b\"\nqueues = {queue}\nsecret = \"s\"\n"
        );
        fs::write(&file, text).expect("writes");
    };
    write("127.0.0.1:0", "[\"one\"]");
    let mut child = Command::new(env!("CARGO_BIN_EXE_esm"))
        .args(["serve", "--log-format", "json", "--config"])
        .arg(&file)
        .env("ESM_TEST_PASSWORD", "hunter2")
        .stdout(File::create(&log).expect("a file"))
        .stderr(File::options().append(true).open(&log).expect("opens"))
        .spawn()
        .expect("runs");
    let signal = |name: &str| {
        let id = child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().expect("runs").success());
    };
    wait_for_log(&log, "\"queue\":\"one\"", 1);

    write("127.0.0.1:0", "[]");
    signal("-HUP");
    wait_for_log(&log, "the configuration cannot be used; that of before stays", 1);
    wait_for_log(&log, "event_source_mappings[0].queues", 1);
    write("127.0.0.2:0", "[\"two\"]");
    signal("-HUP");
    wait_for_log(&log, "has changed, which takes a restart", 1);
    wait_for_log(&log, "\"key\":\"server.listen\"", 1);
    write("127.0.0.1:0", "[\"two\"]");
    signal("-HUP");
    wait_for_log(&log, "\"queue\":\"two\"", 1);
    wait_for_log(&log, "stopped", 1);

    signal("-TERM");
    assert!(child.wait().expect("ends").success());
    let text = fs::read_to_string(&log).expect("is there");
    assert_eq!(text.matches("the configuration was read again").count(), 1);
    assert!(!text.contains("hunter2"));
}
