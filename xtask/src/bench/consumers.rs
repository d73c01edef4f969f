//! The consumers that `esm` is compared with. Each reads a number of messages, says "done", and then waits, so
//! that it can be looked at.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::lab::Lab;
use crate::packages;
use crate::process::{self, Running};
use crate::wait;
use crate::workspace;

/// Reads `count` messages with this prefetch, and acknowledges every hundred of them at once.
pub(super) struct Job<'a> {
    pub(super) queue: &'a str,
    pub(super) count: u64,
    pub(super) prefetch: u64,
}

/// No measurement takes longer.
pub(super) const LIMIT: Duration = Duration::from_mins(10);

pub(super) fn lapin_arguments(lab: &Lab, job: &Job) -> Result<Vec<String>> {
    let url = format!("--url=amqp://guest:guest@127.0.0.1:{}/%2f", lab.node.rabbitmq()?.amqp_port());
    Ok([vec![url], options(job)].concat())
}

pub(super) fn amqprs_arguments(lab: &Lab, job: &Job) -> Result<Vec<String>> {
    Ok([vec![format!("--port={}", lab.node.rabbitmq()?.amqp_port())], options(job)].concat())
}

pub(super) fn librabbitmq_arguments(lab: &Lab, job: &Job) -> Result<Vec<String>> {
    let Job { queue, count, prefetch } = job;
    let port = lab.node.rabbitmq()?.amqp_port();
    Ok(vec![port.to_string(), (*queue).to_owned(), count.to_string(), prefetch.to_string()])
}

fn options(job: &Job) -> Vec<String> {
    let Job { queue, count, prefetch } = job;
    vec![format!("--queue={queue}"), format!("--count={count}"), format!("--prefetch={prefetch}")]
}

/// Compiles the consumer in C.
pub(super) fn compile_librabbitmq() -> Result<PathBuf> {
    packages::ensure(&packages::BENCH)?;
    let folder = workspace::target_dir()?.join("bench");
    fs::create_dir_all(&folder)?;
    let program = folder.join("consume_librabbitmq");
    let source = workspace::root().join("xtask/assets/consume_librabbitmq.c");
    let mut command = Command::new("gcc");
    process::output(command.args(["-O2", "-Wall", "-o"]).arg(&program).arg(source).arg("-lrabbitmq"))?;
    Ok(program)
}

/// A consumer that has been started.
pub(super) struct Consumer {
    pub(super) running: Running,
    output: PathBuf,
}

impl Consumer {
    pub(super) fn start(lab: &Lab, mut command: Command) -> Result<Self> {
        let output = lab.file("consumer.out")?;
        command.stdin(Stdio::piped()).stdout(File::create(&output)?);
        Ok(Self { running: Running::start("the consumer", &mut command)?, output })
    }

    /// Waits until it has its messages, and hands back what it said.
    pub(super) fn wait_until_done(&mut self, lab: &Lab) -> Result<String> {
        let mut said = String::new();
        wait::until("the consumer to have its messages", LIMIT, || {
            lab.interrupt.check()?;
            said = fs::read_to_string(&self.output)?;
            let done = said.ends_with("done\n");
            if !done {
                self.running.ensure_alive()?;
            }
            Ok(done)
        })?;
        Ok(said)
    }
}

/// A program of ours under callgrind, whose report goes to a file.
pub(super) fn under_callgrind(program: &Path, report: &Path) -> Result<Command> {
    let mut command = process::attached(Path::new("valgrind"))?;
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    command.arg(format!("--log-file={}", report.display())).arg(program);
    Ok(command)
}

/// How many instructions a report of callgrind counts.
pub(super) fn instructions(report: &Path) -> Result<f64> {
    let text = fs::read_to_string(report)?;
    let count = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    let count: f64 = count.with_context(|| format!("callgrind counted nothing:\n{text}"))?;
    ensure!(count > 0.0, "callgrind counted nothing");
    Ok(count)
}
