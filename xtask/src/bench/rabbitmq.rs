//! `bench rabbitmq`: the whole line from a full quorum queue, beside consumers that only read and acknowledge.

use std::path::Path;

use anyhow::Result;

use super::consumers::{self, Job};
use super::lab::{Lab, verdict};
use super::throughput::{self, Arguments, Contender, Sample, Samples};
use crate::brokers::Kind;
use crate::http;
use crate::services;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Consumer {
    Esm,
    EsmInOrder,
    Lapin,
    Amqprs,
    Librabbitmq,
}

impl Contender for Consumer {
    const ALL: &'static [Self] = &[Self::Esm, Self::EsmInOrder, Self::Lapin, Self::Amqprs, Self::Librabbitmq];

    fn name(self) -> &'static str {
        match self {
            Self::Esm => "esm, 9 batches at once, prefetch 1000",
            Self::EsmInOrder => "esm, 1 batch at once, prefetch 200",
            Self::Lapin => "bare lapin, prefetch 1000",
            Self::Amqprs => "bare amqprs, prefetch 1000",
            Self::Librabbitmq => "bare librabbitmq (C), prefetch 1000",
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let librabbitmq = consumers::compile_librabbitmq()?;
    let lab = Lab::open(Kind::Rabbitmq)?;
    let samples = throughput::rounds(arguments, |consumer, queue| {
        fill(&lab, queue, arguments.messages)?;
        let sample = measure(&lab, consumer, &librabbitmq, &Job { queue, count: arguments.messages, prefetch: 1_000 })?;
        remove(&lab, queue)?;
        Ok(sample)
    })?;
    report(&samples, arguments);
    Ok(())
}

fn measure(lab: &Lab, consumer: Consumer, librabbitmq: &Path, job: &Job) -> Result<Sample> {
    let bare = |program: &Path, arguments: Result<Vec<String>>| throughput::bare(lab, program, &arguments?);
    let example = |name| lab.programs.example(name);
    match consumer {
        Consumer::Esm => throughput::esm(lab, job, "batch_size = 100\nscaling_config = { maximum_concurrency = 9 }\n"),
        Consumer::EsmInOrder => throughput::esm(lab, job, "batch_size = 100\n"),
        Consumer::Lapin => bare(&example("consume_lapin"), consumers::lapin_arguments(lab, job)),
        Consumer::Amqprs => bare(&example("consume_amqprs"), consumers::amqprs_arguments(lab, job)),
        Consumer::Librabbitmq => bare(librabbitmq, consumers::librabbitmq_arguments(lab, job)),
    }
}

/// A quorum queue full of messages of 1 KiB with four headers.
pub(super) fn fill(lab: &Lab, queue: &str, count: u64) -> Result<()> {
    let count = count.to_string();
    publish(lab, queue, &["--declare", "quorum", "--count", &count, "--body-bytes", "1024", "--headers", "4"])
}

pub(super) fn publish(lab: &Lab, queue: &str, options: &[&str]) -> Result<()> {
    services::publish(&lab.programs, &lab.node.source().endpoint, queue, options)
}

pub(super) fn remove(lab: &Lab, queue: &str) -> Result<()> {
    http::delete(lab.node.rabbitmq()?.management_port(), &format!("/api/queues/%2F/{queue}"))
}

fn report(samples: &Samples<Consumer>, arguments: &Arguments) {
    samples.print("1 KiB with four headers from a quorum queue", arguments);
    let ratio = samples.client_cpu(Consumer::Esm) / samples.client_cpu(Consumer::Lapin);
    verdict("CPU of the whole line, in that of the bare lapin consumer", ratio, 1.35, "");
    verdict("peak memory of esm", samples.peak_mib(Consumer::Esm), 40.0, " MiB");
}
