//! What measurements of a full queue have in common: contenders that take turns, and what each of them costs.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::Args;

use super::consumers::{Consumer, Job, LIMIT};
use super::lab::{Lab, median};
use crate::process::{self, Process};
use crate::services::{self, Esm, Function};
use crate::wait;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Messages in the queue before each run
    #[arg(long, default_value_t = 100_000)]
    pub(super) messages: u64,
    #[arg(long, default_value_t = 5)]
    pub(super) rounds: usize,
}

/// After a queue was filled the broker still writes for a moment, which should not count.
const SETTLE: Duration = Duration::from_secs(2);

/// One of those that are compared.
pub(super) trait Contender: Copy + Ord + 'static {
    const ALL: &'static [Self];

    fn name(self) -> &'static str;
}

/// What one run has cost.
pub(super) struct Sample {
    pub(super) seconds: f64,
    pub(super) client: Duration,
    pub(super) broker: Duration,
    pub(super) peak_mib: f64,
}

/// Lets every contender run once a round, on a queue of its own that `measure` fills.
pub(super) fn rounds<C: Contender>(
    arguments: &Arguments,
    mut measure: impl FnMut(C, &str) -> Result<Sample>,
) -> Result<Samples<C>> {
    let Arguments { messages, rounds } = *arguments;
    ensure!(messages > 0 && rounds > 0, "there is nothing to measure");
    let mut samples = Samples { messages: messages as f64, of: BTreeMap::new() };
    for round in 1..=rounds {
        for (place, contender) in C::ALL.iter().enumerate() {
            eprintln!("round {round} of {rounds}: {}", contender.name());
            let sample = measure(*contender, &format!("bench-{round}-{place}"))?;
            samples.of.entry(*contender).or_default().push(sample);
        }
    }
    Ok(samples)
}

/// A program that reads its messages, says so, and waits.
pub(super) fn bare(lab: &Lab, program: &Path, arguments: &[String]) -> Result<Sample> {
    let mut command = process::attached(program)?;
    command.args(arguments);
    let stopwatch = Stopwatch::start(lab)?;
    let mut consumer = Consumer::start(lab, command)?;
    consumer.wait_until_done(lab)?;
    let sample = stopwatch.stop(consumer.running.process()?)?;
    consumer.running.release()?;
    Ok(sample)
}

/// The whole line: `esm` with these settings of its mapping, and a function that counts.
pub(super) fn esm(lab: &Lab, job: &Job, settings: &str) -> Result<Sample> {
    let function = Function::start(&lab.programs, &["--quiet"], &lab.interrupt)?;
    let configuration = lab.configuration(&function.url(), &[services::mapping(job.queue, settings)]);
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

pub(super) struct Stopwatch {
    start: Instant,
    broker: Process,
    broker_before: Duration,
}

impl Stopwatch {
    /// When the broker has come to rest.
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        thread::sleep(SETTLE);
        let broker = lab.node.process()?;
        Ok(Self { start: wait::now(), broker, broker_before: broker.cpu()? })
    }

    /// What has happened since then in the broker, and ever in a client.
    pub(super) fn stop(self, client: Process) -> Result<Sample> {
        Ok(Sample {
            seconds: self.start.elapsed().as_secs_f64(),
            client: client.cpu()?,
            broker: self.broker.cpu()?.saturating_sub(self.broker_before),
            peak_mib: client.memory_kib("VmHWM")? as f64 / 1024.0,
        })
    }
}

/// What all of them have cost, for medians.
pub(super) struct Samples<C> {
    messages: f64,
    of: BTreeMap<C, Vec<Sample>>,
}

impl<C: Contender> Samples<C> {
    /// In microseconds for each message.
    pub(super) fn client_cpu(&self, contender: C) -> f64 {
        self.median(contender, |sample| sample.client.as_secs_f64() * 1e6 / self.messages)
    }

    fn broker_cpu(&self, contender: C) -> f64 {
        self.median(contender, |sample| sample.broker.as_secs_f64() * 1e6 / self.messages)
    }

    /// In messages a second.
    pub(super) fn rate(&self, contender: C) -> f64 {
        self.median(contender, |sample| self.messages / sample.seconds)
    }

    pub(super) fn peak_mib(&self, contender: C) -> f64 {
        self.median(contender, |sample| sample.peak_mib)
    }

    fn median(&self, contender: C, value: impl Fn(&Sample) -> f64) -> f64 {
        median(self.of.get(&contender).into_iter().flatten().map(value).collect())
    }

    /// A table; `what` completes "100000 messages of …".
    pub(super) fn print(&self, what: &str, arguments: &Arguments) {
        let Arguments { messages, rounds } = arguments;
        println!("\n{messages} messages of {what}, medians of {rounds} rounds\n");
        println!(
            "{:38} {:>11} {:>17} {:>17} {:>12}",
            "", "messages/s", "client CPU µs/msg", "broker CPU µs/msg", "peak MiB"
        );
        for &contender in C::ALL {
            let (client, broker) = (self.client_cpu(contender), self.broker_cpu(contender));
            let (rate, peak) = (self.rate(contender), self.peak_mib(contender));
            println!("{:38} {rate:>11.0} {client:>17.2} {broker:>17.2} {peak:>12.1}", contender.name());
        }
        println!();
    }
}
