//! `bench rabbitmq`: the whole line from a full quorum queue, beside consumers that only read and acknowledge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use super::consumers::{self, Consumer, Job, LIMIT};
use super::lab::{Lab, median, verdict};
use crate::process::{self, Process};
use crate::services::{self, Esm, Function};
use crate::wait;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Messages in the queue before each run
    #[arg(long, default_value_t = 100_000)]
    messages: u64,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// After a queue was filled the broker still writes for a moment, which should not count.
const SETTLE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Contender {
    Esm,
    EsmInOrder,
    Lapin,
    Amqprs,
    Librabbitmq,
}

impl Contender {
    const ALL: [Self; 5] = [Self::Esm, Self::EsmInOrder, Self::Lapin, Self::Amqprs, Self::Librabbitmq];

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

/// What one run has cost.
struct Sample {
    seconds: f64,
    client: Duration,
    broker: Duration,
    peak_mib: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    ensure!(arguments.messages > 0 && arguments.rounds > 0, "there is nothing to measure");
    let librabbitmq = consumers::compile_librabbitmq()?;
    let lab = Lab::open()?;
    let mut samples: BTreeMap<Contender, Vec<Sample>> = BTreeMap::new();
    for round in 1..=arguments.rounds {
        for contender in Contender::ALL {
            eprintln!("round {round} of {}: {}", arguments.rounds, contender.name());
            let sample = measure(&lab, contender, &librabbitmq, round, arguments.messages)?;
            samples.entry(contender).or_default().push(sample);
        }
    }
    report(&samples, arguments);
    Ok(())
}

fn measure(lab: &Lab, contender: Contender, librabbitmq: &Path, round: usize, count: u64) -> Result<Sample> {
    let queue = format!("bench-{round}-{}", contender as usize);
    lab.fill(&queue, count)?;
    thread::sleep(SETTLE);
    let job = |prefetch| Job { queue: &queue, count, prefetch };
    let bare = |program: PathBuf, arguments: Vec<String>| {
        let mut command = process::attached(&program)?;
        command.args(arguments);
        let stopwatch = Stopwatch::start(lab)?;
        let mut consumer = Consumer::start(lab, command)?;
        consumer.wait_until_done(lab)?;
        let sample = stopwatch.stop(consumer.running.process()?)?;
        consumer.running.release()?;
        Ok(sample)
    };
    let example = |name| lab.programs.example(name);
    let sample = match contender {
        Contender::Esm => esm(lab, &job(1_000), 9),
        Contender::EsmInOrder => esm(lab, &job(200), 1),
        Contender::Lapin => bare(example("consume_lapin"), consumers::lapin_arguments(lab, &job(1_000))),
        Contender::Amqprs => bare(example("consume_amqprs"), consumers::amqprs_arguments(lab, &job(1_000))),
        Contender::Librabbitmq => bare(librabbitmq.to_owned(), consumers::librabbitmq_arguments(lab, &job(1_000))),
    }?;
    lab.remove(&queue)?;
    Ok(sample)
}

/// The prefetch follows from batch size and concurrency: 100 × (concurrency + 1).
fn esm(lab: &Lab, job: &Job, concurrency: u64) -> Result<Sample> {
    let function = Function::start(&lab.programs, &["--quiet"], &lab.interrupt)?;
    let settings = match concurrency {
        1 => "batch_size = 100\n".to_owned(),
        _ => format!("batch_size = 100\nscaling_config = {{ maximum_concurrency = {concurrency} }}\n"),
    };
    ensure!(job.prefetch == 100 * (concurrency + 1), "esm would choose another prefetch");
    let configuration = lab.configuration(&function.url(), &[services::mapping(job.queue, &settings)]);
    let stopwatch = Stopwatch::start(lab)?;
    let mut esm = Esm::start(&lab.programs, lab.folder(), &configuration)?;
    wait_until_deleted(lab, &mut esm, &function, job.count)?;
    let sample = stopwatch.stop(esm.process()?)?;
    esm.stop()?;
    ensure!(function.messages()? == job.count, "the function got {} messages of {}", function.messages()?, job.count);
    Ok(sample)
}

/// Asks the function, and `esm` only when the function has everything: its answers would be part of the bill.
pub(super) fn wait_until_deleted(lab: &Lab, esm: &mut Esm, function: &Function, count: u64) -> Result<()> {
    esm.wait_for("the function to have every message", LIMIT, &lab.interrupt, |_| Ok(function.messages()? >= count))?;
    esm.wait_for("every message to leave the broker", LIMIT, &lab.interrupt, |esm| {
        Ok(services::metric(&esm.page("/metrics")?, "esm_deleted_events_total") >= count as f64)
    })
}

struct Stopwatch {
    start: std::time::Instant,
    broker: Process,
    broker_before: Duration,
}

impl Stopwatch {
    fn start(lab: &Lab) -> Result<Self> {
        let broker = lab.node.process()?;
        Ok(Self { start: wait::now(), broker, broker_before: broker.cpu()? })
    }

    /// What has happened since then, in the broker and in a client that was started after it.
    fn stop(self, client: Process) -> Result<Sample> {
        Ok(Sample {
            seconds: self.start.elapsed().as_secs_f64(),
            client: client.cpu()?,
            broker: self.broker.cpu()?.saturating_sub(self.broker_before),
            peak_mib: client.memory_kib("VmHWM")? as f64 / 1024.0,
        })
    }
}

fn report(samples: &BTreeMap<Contender, Vec<Sample>>, arguments: &Arguments) {
    let Arguments { messages, rounds } = arguments;
    println!("\n{messages} messages of 1 KiB with four headers from a quorum queue, medians of {rounds} rounds\n");
    println!(
        "{:38} {:>11} {:>17} {:>17} {:>12}",
        "", "messages/s", "client CPU µs/msg", "broker CPU µs/msg", "peak MiB"
    );
    let of = |contender: Contender, value: &dyn Fn(&Sample) -> f64| {
        median(samples.get(&contender).into_iter().flatten().map(value).collect())
    };
    let messages = *messages as f64;
    let client = |sample: &Sample| sample.client.as_secs_f64() * 1e6 / messages;
    let broker = |sample: &Sample| sample.broker.as_secs_f64() * 1e6 / messages;
    for contender in Contender::ALL {
        let rate = of(contender, &|sample| messages / sample.seconds);
        let (client, broker) = (of(contender, &client), of(contender, &broker));
        let peak = of(contender, &|sample| sample.peak_mib);
        println!("{:38} {rate:>11.0} {client:>17.2} {broker:>17.2} {peak:>12.1}", contender.name());
    }
    println!();
    let ratio = of(Contender::Esm, &client) / of(Contender::Lapin, &client);
    verdict("CPU of the whole line, in that of the bare lapin consumer", ratio, 1.35, "");
    verdict("peak memory of esm", of(Contender::Esm, &|sample| sample.peak_mib), 40.0, " MiB");
}
