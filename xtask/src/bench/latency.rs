//! `bench latency`: from the publisher to the function at a steady 1,000 messages per second, beside the same
//! way to a bare consumer. The difference is what `esm` adds.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::consumers::{self, Consumer, Job};
use super::lab::{Lab, verdict};
use super::throughput::wait_until_deleted;
use crate::process;
use crate::services::{self, Esm, Function};

const QUEUE: &str = "latency";
const MESSAGES: u64 = 20_000;
const RATE: &str = "1000";

pub(super) fn run() -> Result<()> {
    let lab = Lab::open()?;
    lab.publish(QUEUE, &["--declare", "quorum", "--count", "0"])?;
    eprintln!("the bare consumer");
    let bare = to_bare_consumer(&lab)?;
    eprintln!("esm and the function");
    let whole = to_function(&lab)?;
    println!("\n{MESSAGES} messages at {RATE} messages/s, from publishing, in milliseconds");
    println!("{:30} {:>8} {:>8}", "", "p50", "p99");
    for (name, (p50, p99)) in [("to a bare lapin consumer", bare), ("to the function, through esm", whole)] {
        println!("{name:30} {p50:>8.2} {p99:>8.2}");
    }
    println!();
    verdict("p99 that esm adds", whole.1 - bare.1, 5.0, " ms");
    Ok(())
}

fn publish(lab: &Lab) -> Result<()> {
    // Whoever reads has begun by then.
    thread::sleep(Duration::from_secs(1));
    lab.publish(QUEUE, &["--count", &MESSAGES.to_string(), "--rate", RATE, "--body-time"])
}

fn to_bare_consumer(lab: &Lab) -> Result<(f64, f64)> {
    let mut command = process::attached(&lab.programs.example("consume_lapin"))?;
    command.args(consumers::lapin_arguments(lab, &Job { queue: QUEUE, count: MESSAGES, prefetch: 1_000 }));
    command.arg("--latency");
    let mut consumer = Consumer::start(lab, command)?;
    publish(lab)?;
    let said = consumer.wait_until_done(lab)?;
    consumer.running.release()?;
    let summary = said.lines().next().context("the consumer said nothing")?;
    milliseconds(&serde_json::from_str(summary)?)
}

fn to_function(lab: &Lab) -> Result<(f64, f64)> {
    let function = Function::start(&lab.programs, &["--latency"], &lab.interrupt)?;
    let mapping = services::mapping(QUEUE, "maximum_batching_window_in_seconds = 0\n");
    let mut esm = Esm::start(&lab.programs, lab.folder(), &lab.configuration(&function.url(), &[mapping]))?;
    esm.wait_until_ready(&lab.interrupt)?;
    publish(lab)?;
    wait_until_deleted(lab, &mut esm, &function, MESSAGES)?;
    esm.stop()?;
    milliseconds(&function.summary()?)
}

/// p50 and p99.
fn milliseconds(summary: &Value) -> Result<(f64, f64)> {
    let quantile = |name: &str| summary["latency_us"][name].as_f64().map(|microseconds| microseconds / 1_000.0);
    quantile("p50").zip(quantile("p99")).context("nobody measured a latency")
}
