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
    /// Fail with every message whose body is `message N …` and whose number this divides
    #[arg(long)]
    fail_one_in: Option<u64>,
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
    if arguments.fail_one_in.is_some_and(|one_in| has_multiple_of(one_in, &event)) {
        return failure("one of these messages fails for ever");
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

/// Without reading the JSON, which would cost more than all that is measured with it. Each record has one of
/// these members, depending on the broker.
fn count_messages(event: &[u8]) -> u64 {
    let member: &[u8] = if event.starts_with(FROM_ACTIVEMQ) { b",\"brokerInTime\":" } else { b"\"basicProperties\":" };
    memchr::memmem::find_iter(event, member).count() as u64
}

/// Whether a message has a number that this divides. Only the first bytes of each body are decoded.
fn has_multiple_of(one_in: u64, event: &[u8]) -> bool {
    const BEFORE: &[u8] = b"\"data\":\"";
    const ENOUGH: usize = 32;
    memchr::memmem::find_iter(event, BEFORE).any(|place| {
        let start = place + BEFORE.len();
        let Some(data) = event.get(start..start + ENOUGH) else { return false };
        let body = base64_simd::STANDARD.decode_to_vec(data).unwrap_or_default();
        let number = String::from_utf8_lossy(&body);
        let number = number.split(' ').nth(1).and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| number % one_in == 0)
    })
}

/// How ActiveMQ's events begin.
const FROM_ACTIVEMQ: &[u8] = br#"{"eventSource":"aws:mq","#;

/// The records of each queue: RabbitMQ's event names the queue, and ActiveMQ's has it in every record.
fn batches(event: &Value) -> impl Iterator<Item = (&str, &Vec<Value>)> {
    let from_rabbitmq = event["rmqMessagesByQueue"].as_object().into_iter().flatten();
    let from_rabbitmq = from_rabbitmq.filter_map(|(queue, records)| Some((queue.as_str(), records.as_array()?)));
    let from_activemq = event["messages"].as_array().map(|records| {
        let queue = records.first().and_then(|record| record["destination"]["physicalName"].as_str());
        (queue.unwrap_or_default(), records)
    });
    from_rabbitmq.chain(from_activemq)
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
        // What JMS calls a header is a property in AMQP, and the other way round.
        let (message_id, fixed, (first, second)) = match &record["basicProperties"] {
            Value::Null => (&record["messageID"], record, ("headers", "properties")),
            properties => (&properties["messageId"], properties, ("properties", "headers")),
        };
        println!("  {}{again}: {}", word(message_id), shorten(&text(record)));
        let set = fixed.as_object().into_iter().flatten().filter(|(name, value)| is_plain(name, value));
        println!("    {first}: {}", list(set.map(|(name, value)| format!("{name} {}", word(value)))));
        let own = fixed[second].as_object().into_iter().flatten();
        println!("    {second}: {}", list(own.map(|(name, value)| format!("{name} {}", header(value)))));
    }
}

/// Whether it is one of the members that are not shown otherwise.
fn is_plain(name: &str, value: &Value) -> bool {
    let is_shown = ["messageId", "messageID", "headers", "properties", "data", "redelivered", "destination"];
    !value.is_null() && !is_shown.contains(&name)
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
