//! `bench latency`: from the publisher to the function at a steady 1,000 messages per second, beside the same
//! way to a bare consumer. The difference is what `esm` adds.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::consumers::{self, Consumer, Job};
use super::lab::{Lab, median, verdict};
use super::rabbitmq;
use super::throughput::wait_until_deleted;
use crate::brokers::Kind;
use crate::process;
use crate::services::{self, Esm, Function};

const QUEUE: &str = "latency";
const MESSAGES: u64 = 10_000;
const ROUNDS: usize = 3;
const RATE: &str = "1000";

pub(super) fn run() -> Result<()> {
    let lab = Lab::open(Kind::Rabbitmq)?;
    rabbitmq::publish(&lab, QUEUE, &["--declare", "quorum", "--count", "0"])?;
    let mut to_bare = Vec::new();
    let mut to_esm = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        to_bare.push(to_bare_consumer(&lab)?);
        to_esm.push(to_function(&lab)?);
    }
    println!("\n{MESSAGES} messages at {RATE} messages/s, milliseconds from publishing, medians of {ROUNDS} rounds");
    println!("{:30} {:>8} {:>8}", "", "p50", "p99");
    for (name, rounds) in [("to a bare lapin consumer", &to_bare), ("to the function, through esm", &to_esm)] {
        println!(
            "{name:30} {:>8.2} {:>8.2}",
            median_of(rounds, |round| round.p50),
            median_of(rounds, |round| round.p99)
        );
    }
    println!();
    let added = median_of(&to_esm, |round| round.p99) - median_of(&to_bare, |round| round.p99);
    verdict("p99 that esm adds", added, 5.0, " ms");
    Ok(())
}

/// In milliseconds.
struct Latency {
    p50: f64,
    p99: f64,
}

fn median_of(rounds: &[Latency], value: impl Fn(&Latency) -> f64) -> f64 {
    median(rounds.iter().map(value).collect())
}

fn publish(lab: &Lab) -> Result<()> {
    // Whoever reads has begun by then.
    thread::sleep(Duration::from_secs(1));
    rabbitmq::publish(lab, QUEUE, &["--count", &MESSAGES.to_string(), "--rate", RATE, "--body-time"])
}

fn to_bare_consumer(lab: &Lab) -> Result<Latency> {
    let mut command = process::attached(&lab.programs.example("consume_lapin"))?;
    command.args(consumers::lapin_arguments(lab, &Job { queue: QUEUE, count: MESSAGES, prefetch: 1_000 })?);
    command.arg("--latency");
    let mut consumer = Consumer::start(lab, command)?;
    publish(lab)?;
    let said = consumer.wait_until_done(lab)?;
    consumer.running.release()?;
    let summary = said.lines().next().context("the consumer said nothing")?;
    milliseconds(&serde_json::from_str(summary)?)
}

fn to_function(lab: &Lab) -> Result<Latency> {
    let function = Function::start(&lab.programs, &["--latency"], &lab.interrupt)?;
    let mapping = services::mapping(QUEUE, "maximum_batching_window_in_seconds = 0\n");
    let mut esm = Esm::start(&lab.programs, lab.folder(), &lab.configuration(&function.url(), &[mapping]))?;
    esm.wait_until_ready(&lab.interrupt)?;
    publish(lab)?;
    wait_until_deleted(lab, &mut esm, &function, MESSAGES)?;
    esm.stop()?;
    milliseconds(&function.summary()?)
}

fn milliseconds(summary: &Value) -> Result<Latency> {
    let quantile = |name: &str| summary["latency_us"][name].as_f64().map(|microseconds| microseconds / 1_000.0);
    let (p50, p99) = quantile("p50").zip(quantile("p99")).context("nobody measured a latency")?;
    Ok(Latency { p50, p99 })
}
