//! A sample function behind a Lambda-compatible invoke URL: it prints each event in a few readable lines.
//!
//! ```text
//! cargo run -p esm-bin --example function -- --listen 127.0.0.1:8080
//! ```
//!
//! `GET /summary` tells what has arrived so far. `cargo xtask demo` shows it at work, and `cargo xtask bench`
//! uses it, quiet, as the end of the line.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{get, post};
use clap::Parser;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;

/// A sample function: prints the events it is invoked with.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 takes any free port
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Print nothing of the events; only count their messages
    #[arg(long)]
    quiet: bool,
    /// Take each body for the time of sending, in nanoseconds since 1970, and measure how long it took
    #[arg(long)]
    latency: bool,
    /// Fail this many invocations before the first success
    #[arg(long, default_value_t = 0)]
    fail_first: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("function listening on {}", listener.local_addr()?);
    let function = Arc::new(Function { arguments, tally: Mutex::default() });
    let app = Router::new()
        .route("/2015-03-31/functions/function/invocations", post(invoke))
        .route("/summary", get(summary))
        // An event may have 6 MiB.
        .layer(DefaultBodyLimit::disable())
        .with_state(function);
    axum::serve(listener, app).await?;
    Ok(())
}

struct Function {
    arguments: Arguments,
    tally: Mutex<Tally>,
}

/// What has happened so far.
#[derive(Default)]
struct Tally {
    invocations: u64,
    messages: u64,
    nanoseconds: Vec<u64>,
}

impl Function {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn invoke(State(function): State<Arc<Function>>, event: Bytes) -> Response {
    let arguments = &function.arguments;
    let mut tally = function.tally();
    tally.invocations += 1;
    let number = tally.invocations;
    if number <= arguments.fail_first {
        println!("invocation {number}: fails on purpose");
        return failure("this function fails on purpose");
    }
    if arguments.quiet {
        tally.messages += count_messages(&event);
        return Json(Value::Null).into_response();
    }
    let Ok(event) = serde_json::from_slice::<Value>(&event) else { return failure("the event is no JSON") };
    for (queue, records) in batches(&event) {
        tally.messages += records.len() as u64;
        if arguments.latency {
            tally.nanoseconds.extend(records.iter().filter_map(nanoseconds_on_the_way));
        } else {
            print_batch(number, queue, records);
        }
    }
    Json(Value::Null).into_response()
}

/// How Lambda says that a function has failed.
fn failure(message: &str) -> Response {
    let body = json!({"errorType": "SampleError", "errorMessage": message});
    (StatusCode::OK, [("X-Amz-Function-Error", "Unhandled")], Json(body)).into_response()
}

async fn summary(State(function): State<Arc<Function>>) -> Json<Value> {
    let mut tally = function.tally();
    tally.nanoseconds.sort_unstable();
    let microseconds = |quantile: usize| {
        let place = tally.nanoseconds.len().saturating_sub(1) * quantile / 1_000;
        tally.nanoseconds.get(place).map(|nanoseconds| nanoseconds / 1_000)
    };
    Json(json!({
        "invocations": tally.invocations,
        "messages": tally.messages,
        "latency_us": {"p50": microseconds(500), "p99": microseconds(990), "max": microseconds(1_000)},
    }))
}

/// Without reading the JSON, which would cost more than all that is measured with it.
fn count_messages(event: &[u8]) -> u64 {
    let is_activemq = event.starts_with(br#"{"eventSource":"aws:mq""#);
    let stands_once_in_each: &[u8] = if is_activemq { b"\"messageID\":" } else { b"\"basicProperties\":" };
    memchr::memmem::find_iter(event, stands_once_in_each).count() as u64
}

/// The records of each queue. An event of ActiveMQ is about one queue, which every record names.
fn batches(event: &Value) -> Vec<(&str, &Vec<Value>)> {
    match &event["messages"] {
        Value::Array(records) => vec![(destination(records), records)],
        _ => {
            let queues = event["rmqMessagesByQueue"].as_object().into_iter().flatten();
            queues.filter_map(|(queue, records)| Some((queue.as_str(), records.as_array()?))).collect()
        }
    }
}

fn destination(records: &[Value]) -> &str {
    records.first().and_then(|record| record["destination"]["physicalName"].as_str()).unwrap_or_default()
}

fn nanoseconds_on_the_way(record: &Value) -> Option<u64> {
    let sent: u64 = text(record).parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    u64::try_from(now).ok()?.checked_sub(sent)
}

fn print_batch(number: u64, queue: &str, records: &[Value]) {
    let messages = if records.len() == 1 { "message" } else { "messages" };
    println!("invocation {number}: {} {messages} from {queue}", records.len());
    for record in records {
        let again = if record["redelivered"] == true { " (again)" } else { "" };
        let id = [&record["messageID"], &record["basicProperties"]["messageId"]].into_iter().find(|id| !id.is_null());
        println!("  {}{again}: {}", word(id.unwrap_or(&Value::Null)), shorten(&text(record)));
        match &record["basicProperties"] {
            Value::Object(properties) => print_rabbitmq(properties),
            _ => print_activemq(record),
        }
    }
}

fn print_rabbitmq(properties: &Map<String, Value>) {
    let set =
        properties.iter().filter(|(name, value)| !value.is_null() && !matches!(&***name, "headers" | "messageId"));
    println!("    properties: {}", list(set.map(|(name, value)| format!("{name} {}", word(value)))));
    let headers = properties.get("headers").and_then(Value::as_object).into_iter().flatten();
    println!("    headers: {}", list(headers.map(|(name, value)| format!("{name} {}", header(value)))));
}

fn print_activemq(record: &Value) {
    const SHOWN: [&str; 6] = ["messageType", "deliveryMode", "priority", "correlationID", "replyTo", "type"];
    let set = SHOWN.iter().map(|name| (name, &record[*name])).filter(|(_, value)| !value.is_null());
    println!("    headers: {}", list(set.map(|(name, value)| format!("{name} {}", word(value)))));
    let properties = record["properties"].as_object().into_iter().flatten();
    println!("    properties: {}", list(properties.map(|(name, value)| format!("{name} {}", word(value)))));
}

/// The body, which arrives in base64.
fn text(record: &Value) -> String {
    let data = record["data"].as_str().unwrap_or_default();
    let body = base64_simd::STANDARD.decode_to_vec(data).unwrap_or_default();
    String::from_utf8_lossy(&body).into_owned()
}

/// A header's value, with long strings unpacked.
fn header(value: &Value) -> String {
    match value {
        Value::Object(table) => match long_string(table) {
            Some(text) => format!("\"{text}\""),
            None => format!("{{{}}}", list(table.iter().map(|(name, value)| format!("{name} {}", header(value))))),
        },
        Value::Array(values) => format!("[{}]", list(values.iter().map(header))),
        other => word(other),
    }
}

/// A long string arrives as its bytes, which are signed, as they are in Java.
fn long_string(table: &Map<String, Value>) -> Option<String> {
    let signed = table.get("bytes")?.as_array().filter(|_| table.len() == 1)?;
    let bytes: Option<Vec<u8>> = signed.iter().map(|byte| Some(byte.as_i64()?.to_le_bytes()[0])).collect();
    Some(String::from_utf8_lossy(&bytes?).into_owned())
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}

fn shorten(text: &str) -> String {
    const ENOUGH: usize = 100;
    match text.char_indices().nth(ENOUGH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
