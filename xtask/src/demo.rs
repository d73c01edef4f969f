//! The main job on a real broker, from nothing, told to whoever watches.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use crate::brokers::{Kind, Node, PrivateNode, Settings};
use crate::http;
use crate::interrupt::Interrupt;
use crate::packages;
use crate::services::{self, Esm, Function, Programs};
use crate::wait;

const QUEUE: &str = "orders";
const MESSAGES: u64 = 8;

/// Retries included, everything here is over within seconds on a quiet machine.
const LIMIT: Duration = Duration::from_mins(2);

/// What is worth showing of the metrics page.
const METRICS: [&str; 7] = [
    "esm_source_connected",
    "esm_polled_events_total",
    "esm_batches_total",
    "esm_invocations_total",
    "esm_errors_total",
    "esm_deleted_events_total",
    "esm_duration_seconds_count",
];

#[derive(Args)]
pub(crate) struct Arguments {
    /// End by itself, with success only if every message arrived
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(&packages::BUILD)?;
    packages::ensure(&packages::RABBITMQ)?;
    say("Building esm, a sample function and a publisher.");
    let programs = Programs::build("debug", &[])?;
    let interrupt = Interrupt::hold()?;
    let folder = tempfile::Builder::new().prefix("esm-demo-").tempdir()?;
    say("Starting a RabbitMQ of our own, on free ports and in a temporary folder. This takes some seconds.");
    let node = PrivateNode::up(&folder.path().join("rabbitmq"), Settings::of(Kind::Rabbitmq))?;
    show(&programs, &node, folder.path(), arguments.once, &interrupt)
}

fn show(programs: &Programs, node: &Node, folder: &Path, once: bool, interrupt: &Interrupt) -> Result<()> {
    let publish = |options: &[&str]| services::publish(programs, node.rabbitmq()?.amqp_port(), QUEUE, options);
    publish(&["--declare", "quorum", "--count", "0"])?;
    say("A sample function listens behind a Lambda-compatible URL. It will fail its first invocation on purpose.");
    let function = Function::start(programs, &["--fail-first", "1"], interrupt)?;

    let mapping = services::mapping(QUEUE, "batch_size = 5\nmaximum_batching_window_in_seconds = 1\n");
    let configuration = services::configuration(node.rabbitmq()?.amqp_port(), &function.url(), &[mapping]);
    say("esm gets this configuration, and begins to read the queue `orders`:");
    println!("{configuration}");
    let mut esm = Esm::start(programs, folder, &configuration)?;
    esm.wait_until_ready(interrupt)?;

    say(&format!(
        "Now {MESSAGES} messages go into the queue, with properties and headers of many types, through a client \
         that shares no code with esm.\nesm makes batches of up to five and invokes the function with each. The \
         first invocation fails, so that batch comes again after a second, marked as such:"
    ));
    publish(&["--count", &MESSAGES.to_string(), "--all-properties"])?;
    wait_for_arrival(&mut esm, &function, interrupt)?;

    say("Every message has arrived, and only then left the broker. esm's metrics say so too:");
    show_metrics(&esm)?;
    if !once {
        wait_for_end(node, &esm, interrupt)?;
    }
    esm.stop()?;
    say("esm has stopped. The broker is asked for whatever is left in the queue, and answers:");
    let rest =
        http::post(node.rabbitmq()?.management_port(), &format!("/api/queues/%2F/{QUEUE}/get"), ASK_FOR_MESSAGES)?;
    println!("{rest}");
    ensure!(rest.trim() == "[]", "the queue is not empty");
    say("Nothing: the queue is empty. That was all.");
    Ok(())
}

/// To RabbitMQ's management: show messages and leave them where they are.
const ASK_FOR_MESSAGES: &str = r#"{"count":10,"ackmode":"ack_requeue_true","encoding":"auto"}"#;

fn wait_for_arrival(esm: &mut Esm, function: &Function, interrupt: &Interrupt) -> Result<()> {
    esm.wait_for("every message to arrive", LIMIT, interrupt, |esm| {
        let deleted = services::metric(&esm.page("/metrics")?, "esm_deleted_events_total");
        Ok(function.messages()? >= MESSAGES && deleted >= MESSAGES as f64)
    })
}

fn show_metrics(esm: &Esm) -> Result<()> {
    let page = esm.page("/metrics")?;
    for line in page.lines().filter(|line| METRICS.iter().any(|name| line.starts_with(name))) {
        println!("  {line}");
    }
    Ok(())
}

fn wait_for_end(node: &Node, esm: &Esm, interrupt: &Interrupt) -> Result<()> {
    say(&format!(
        "All of this keeps running until you press Ctrl-C. Look around, or publish more:\n  \
         metrics: http://127.0.0.1:{}/metrics\n  broker: http://127.0.0.1:{} (guest, guest)\n  \
         cargo run -p esm-rabbitmq --example publish -- --url amqp://127.0.0.1:{} --queue {QUEUE} --count 3",
        esm.port(),
        node.rabbitmq()?.management_port(),
        node.rabbitmq()?.amqp_port(),
    ));
    wait::until("Ctrl-C", Duration::MAX, || Ok(interrupt.asked()))
}

fn say(text: &str) {
    println!("\n== {text}\n");
}
