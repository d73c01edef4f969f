//! `bench activemq`: the whole line from a full persistent queue, beside consumers that only read and acknowledge:
//! our own client, and ActiveMQ's in Java.
//!
//! Broker and Java run with their best compilers, and do as much as one run beforehand, so that nobody pays for the
//! warming up.

use anyhow::{Result, ensure};

use super::consumers::Job;
use super::lab::{Lab, verdict, verdict_at_least};
use super::throughput::{self, Arguments, Contender, Sample, Samples, Stopwatch};
use crate::brokers::Kind;
use crate::java::Tool;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Consumer {
    Esm,
    EsmInOrder,
    EsmInLargeBatches,
    Bare,
    BareInLargeBatches,
    Java,
}

impl Contender for Consumer {
    const ALL: &'static [Self] =
        &[Self::Esm, Self::EsmInOrder, Self::EsmInLargeBatches, Self::Bare, Self::BareInLargeBatches, Self::Java];

    fn name(self) -> &'static str {
        match self {
            Self::Esm => "esm, batches of 100, 5 at once",
            Self::EsmInOrder => "esm, batches of 100, 1 at once",
            Self::EsmInLargeBatches => "esm, batches of 10000, 5 at once",
            Self::Bare => "bare client, batches of 100",
            Self::BareInLargeBatches => "bare client, batches of 10000",
            Self::Java => "Java, acknowledges every 100",
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let lab = Lab::open(Kind::Activemq)?;
    let mut tool = Tool::start(&lab.node.source(), lab.folder())?;
    eprintln!("warming up the broker and Java");
    let warm = Job { queue: "warm", count: arguments.messages, prefetch: 1_000 };
    fill(&lab, &mut tool, &warm)?;
    java(&lab, &mut tool, &warm)?;
    let samples = throughput::rounds(arguments, |consumer, queue| {
        let job = Job { queue, count: arguments.messages, prefetch: 1_000 };
        fill(&lab, &mut tool, &job)?;
        measure(&lab, &mut tool, consumer, &job)
    })?;
    report(&samples, arguments);
    Ok(())
}

fn measure(lab: &Lab, tool: &mut Tool, consumer: Consumer, job: &Job) -> Result<Sample> {
    match consumer {
        Consumer::Esm => throughput::esm(lab, job, "batch_size = 100\n"),
        Consumer::EsmInOrder => {
            throughput::esm(lab, job, "batch_size = 100\nscaling_config = { maximum_concurrency = 1 }\n")
        }
        Consumer::EsmInLargeBatches => throughput::esm(lab, job, "batch_size = 10000\n"),
        Consumer::Bare => bare(lab, job, 100),
        // As many as a batch and the next one.
        Consumer::BareInLargeBatches => bare(lab, &Job { prefetch: 20_000, ..*job }, 10_000),
        Consumer::Java => java(lab, tool, job),
    }
}

/// Messages of 1 KiB, on the disk.
fn fill(lab: &Lab, tool: &mut Tool, job: &Job) -> Result<()> {
    let words = [
        ("queue", job.queue.to_owned()),
        ("count", job.count.to_string()),
        ("type", "bytes".to_owned()),
        ("body", "message {n} ".to_owned()),
        ("size", "1024".to_owned()),
        ("brief", "true".to_owned()),
    ];
    tool.ask(&lab.interrupt, "produce", &words).map(drop)
}

fn bare(lab: &Lab, job: &Job, batch: u64) -> Result<Sample> {
    let source = lab.node.source();
    let Job { queue, count, prefetch } = job;
    let arguments = [
        format!("--url={}", source.endpoint),
        format!("--username={}", source.username),
        format!("--password={}", source.password),
        format!("--queue={queue}"),
        format!("--count={count}"),
        format!("--prefetch={prefetch}"),
        format!("--batch={batch}"),
    ];
    throughput::bare(lab, &lab.programs.example("consume_openwire"), &arguments)
}

/// The process is the same for every run, so what it has used before does not count.
fn java(lab: &Lab, tool: &mut Tool, job: &Job) -> Result<Sample> {
    let Job { queue, count, prefetch } = job;
    let words = [
        ("queue", (*queue).to_owned()),
        ("count", count.to_string()),
        ("prefetch", prefetch.to_string()),
        ("every", "100".to_owned()),
    ];
    let process = tool.process()?;
    let before = process.cpu()?;
    let stopwatch = Stopwatch::start(lab)?;
    let taken = tool.ask(&lab.interrupt, "consume", &words)?;
    let sample = stopwatch.stop(process)?;
    ensure!(taken == *count, "Java got {taken} messages of {count}");
    Ok(Sample { client: sample.client.saturating_sub(before), ..sample })
}

fn report(samples: &Samples<Consumer>, arguments: &Arguments) {
    samples.print("1 KiB from a persistent queue", arguments);
    let cpu = |consumer| samples.client_cpu(consumer);
    let ratio = cpu(Consumer::Bare) / cpu(Consumer::Java);
    verdict("CPU of the bare client, in that of Java's", ratio, 0.25, "");
    verdict("CPU of the bare client", cpu(Consumer::Bare), 3.0, " µs/msg");
    verdict("CPU of the whole line", cpu(Consumer::Esm), 4.5, " µs/msg");
    verdict("peak memory of esm", samples.peak_mib(Consumer::Esm), 40.0, " MiB");
    let java = samples.rate(Consumer::Java);
    for consumer in [Consumer::Esm, Consumer::EsmInLargeBatches] {
        verdict_at_least(consumer.name(), samples.rate(consumer), java, " messages/s");
    }
}
