//! `bench failures`: what messages that fail for ever cost the others. One in ten does; batches are halved until it
//! stands alone, it is retried three times, and then published to a queue for such.
//!
//! The good messages come at a steady rate, with the others among them or alone. A full queue is measured besides:
//! there the function is asked far more often than without failures, since a batch in which something fails says no
//! more than that; what a message waits for its retries keeps its place in the prefetch.

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use super::consumers::LIMIT;
use super::lab::{Lab, verdict_at_least};
use super::rabbitmq;
use crate::brokers::Kind;
use crate::java::Tool;
use crate::services::{self, Esm, Function};
use crate::wait;

#[derive(Args)]
pub(super) struct Arguments {
    /// Messages in each run
    #[arg(long, default_value_t = 5_000)]
    messages: u64,
    /// How many of them come in a second
    #[arg(long, default_value_t = 500)]
    rate: u64,
}

/// One message in so many fails.
const ONE_IN: u64 = 10;
/// How often messages are published to ActiveMQ, whose tool publishes as many as it is told at once.
const PIECES_PER_SECOND: u64 = 5;

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    for kind in [Kind::Rabbitmq, Kind::Activemq] {
        let mut bench = Bench::open(kind, arguments)?;
        let (alone, among) = (bench.steady(false)?, bench.steady(true)?);
        let (full_alone, full_among) = (bench.full(false)?, bench.full(true)?);
        println!("\n{}: good messages a second, one message in {ONE_IN} failing for ever", kind.title());
        println!("{:38} {:>10} {:>15}", "", "alone", "with failures");
        println!("{:38} {alone:>10.0} {among:>15.0}", format!("{} messages/s come in", arguments.rate));
        println!("{:38} {full_alone:>10.0} {full_among:>15.0}\n", "a full queue");
        verdict_at_least("of what the good ones do alone", among / alone * 100.0, 80.0, " %");
    }
    Ok(())
}

struct Bench<'a> {
    lab: Lab,
    tool: Option<Tool>,
    arguments: &'a Arguments,
    kind: Kind,
    runs: usize,
}

impl<'a> Bench<'a> {
    fn open(kind: Kind, arguments: &'a Arguments) -> Result<Self> {
        let lab = Lab::open(kind)?;
        let tool = match kind {
            Kind::Activemq => Some(Tool::start(&lab.node.source(), lab.folder())?),
            Kind::Rabbitmq => None,
        };
        Ok(Self { lab, tool, arguments, kind, runs: 0 })
    }

    /// Good messages a second, while all come at their rate.
    fn steady(&mut self, with_failures: bool) -> Result<f64> {
        let queue = self.queue()?;
        let mut line = self.line(&queue, with_failures)?;
        line.esm.wait_until_ready(&self.lab.interrupt)?;
        let start = wait::now();
        self.publish(&queue, self.messages(with_failures), Some(self.rate(with_failures)))?;
        self.wait_for_the_good(&mut line)?;
        let seconds = start.elapsed().as_secs_f64();
        line.esm.stop()?;
        Ok(self.good() as f64 / seconds)
    }

    /// Good messages a second, all of which are there at the start.
    fn full(&mut self, with_failures: bool) -> Result<f64> {
        let queue = self.queue()?;
        self.publish(&queue, self.messages(with_failures), None)?;
        let start = wait::now();
        let mut line = self.line(&queue, with_failures)?;
        self.wait_for_the_good(&mut line)?;
        let seconds = start.elapsed().as_secs_f64();
        line.esm.stop()?;
        Ok(self.good() as f64 / seconds)
    }

    /// A queue that nobody else uses, and one for what is given up.
    fn queue(&mut self) -> Result<String> {
        self.runs += 1;
        let queue = format!("failures-{}", self.runs);
        if self.kind == Kind::Rabbitmq {
            for queue in [queue.as_str(), "letters"] {
                rabbitmq::publish(&self.lab, queue, &["--declare", "quorum", "--count", "0"])?;
            }
        }
        Ok(queue)
    }

    fn line(&self, queue: &str, with_failures: bool) -> Result<Line> {
        let one_in = ONE_IN.to_string();
        let options: &[&str] = if with_failures { &["--quiet", "--fail-one-in", &one_in] } else { &["--quiet"] };
        let function = Function::start(&self.lab.programs, options, &self.lab.interrupt)?;
        let virtual_host = match self.kind {
            Kind::Rabbitmq => "%2F",
            Kind::Activemq => "",
        };
        let mapping = services::mapping(
            queue,
            &format!(
                "batch_size = 100\nscaling_config = {{ maximum_concurrency = 5 }}\nmaximum_retry_attempts = 3\n\
                 bisect_batch_on_function_error = true\ndestination_config = {{ on_failure = {{ destination = \
                 \"arn:aws:mq:us-east-1:000000000000:queue:sample:{virtual_host}:letters\" }} }}\n"
            ),
        );
        let configuration = self.lab.configuration(&function.url(), &[mapping]);
        let esm = Esm::start(&self.lab.programs, self.lab.folder(), &configuration)?;
        Ok(Line { esm, _function: function })
    }

    fn good(&self) -> u64 {
        self.arguments.messages - self.arguments.messages / ONE_IN
    }

    fn messages(&self, with_failures: bool) -> u64 {
        if with_failures { self.arguments.messages } else { self.good() }
    }

    fn rate(&self, with_failures: bool) -> u64 {
        let rate = self.arguments.rate;
        if with_failures { rate } else { rate - rate / ONE_IN }
    }

    fn publish(&mut self, queue: &str, count: u64, rate: Option<u64>) -> Result<()> {
        let Some(tool) = &mut self.tool else {
            let (count, rate) = (count.to_string(), rate.map(|rate| rate.to_string()));
            let mut options = vec!["--count", &count, "--body-bytes", "1024", "--headers", "4"];
            if let Some(rate) = &rate {
                options.extend(["--rate", rate]);
            }
            return rabbitmq::publish(&self.lab, queue, &options);
        };
        let piece = rate.map_or(count, |rate| rate / PIECES_PER_SECOND);
        let start = wait::now();
        for place in 0..count.div_ceil(piece.max(1)) {
            let due = Duration::from_secs(1) * u32::try_from(place)? / u32::try_from(PIECES_PER_SECOND)?;
            thread::sleep(due.saturating_sub(start.elapsed()));
            let words = [
                ("queue", queue.to_owned()),
                ("count", piece.min(count - place * piece).to_string()),
                ("type", "bytes".to_owned()),
                ("body", "message {n} ".to_owned()),
                ("size", "1024".to_owned()),
                ("brief", "true".to_owned()),
            ];
            tool.ask(&self.lab.interrupt, "produce", &words)?;
        }
        Ok(())
    }

    fn wait_for_the_good(&self, line: &mut Line) -> Result<()> {
        let good = self.good() as f64;
        line.esm.wait_for("the good messages to be done", LIMIT, &self.lab.interrupt, |esm| {
            let done = services::metric(&esm.page("/metrics").unwrap_or_default(), "esm_deleted_events_total");
            if done > good {
                bail!("{done} messages were done, of which only {good} are good");
            }
            Ok(done >= good)
        })
    }
}

/// What reads a queue.
struct Line {
    esm: Esm,
    _function: Function,
}
