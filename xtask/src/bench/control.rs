//! `bench control`: what ten thousand mappings cost, of which a hundred run, and what a change costs then.
//!
//! No broker is needed: a mapping whose broker is away keeps trying. The store is in the system's temporary
//! folder; whether a sync is dear there decides what Create costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::lab::{median, verdict};
use crate::brokers::Source;
use crate::http;
use crate::interrupt::Interrupt;
use crate::packages;
use crate::process;
use crate::services::{Configuration, Esm};
use crate::wait;
use crate::workspace;

const ALL: usize = 10_000;
const ENABLED: usize = 100;
const CREATED: usize = 200;
const TRACED: usize = 100;
const MAPPINGS: &str = "/2015-03-31/event-source-mappings";
const BROKER_ARN: &str = "arn:aws:mq:us-east-1:000000000000:broker:sample:b-1";

pub(super) fn run() -> Result<()> {
    packages::ensure(&packages::TRACE)?;
    process::run(workspace::cargo().args(["build", "--release", "--package", "esm-bin", "--bin", "esm"]))?;
    let program = workspace::target_dir()?.join("release/esm");
    let interrupt = Interrupt::hold()?;
    let folder = tempfile::Builder::new().prefix("esm-bench-").tempdir()?;

    eprintln!("bench: making {ALL} mappings");
    let esm = start(process::attached(&program)?, folder.path(), &interrupt)?.0;
    for number in 0..ALL {
        create(&esm, &format!("queue-{number}"), number < ENABLED)?;
        interrupt.check()?;
    }
    esm.stop()?;

    let (esm, ready) = start(process::attached(&program)?, folder.path(), &interrupt)?;
    let pages = pages(&esm)?;
    let slowest = pages.iter().copied().fold(0.0, f64::max);
    let creates = (0..CREATED).map(|number| create(&esm, &format!("created-{number}"), false));
    let creates: Vec<f64> = creates.collect::<Result<_>>()?;
    let memory = esm.process()?.memory_kib("VmRSS")? as f64 / 1024.0;
    esm.stop()?;

    let trace = folder.path().join("trace");
    let esm = start(traced(&program, &trace)?, folder.path(), &interrupt)?.0;
    let before = syncs(&trace)?;
    for number in 0..TRACED {
        create(&esm, &format!("traced-{number}"), false)?;
    }
    let synced = syncs(&trace)? - before;
    esm.stop()?;

    let load = fs::read_to_string("/proc/loadavg")?;
    println!("\n{ALL} mappings, of which {ENABLED} run; the load of the machine was {}", load.trim());
    verdict("start to ready", ready.as_secs_f64(), 5.0, " s");
    verdict("a page of 100, the median", median(pages), 50.0, " ms");
    verdict("a page of 100, the slowest", slowest, 50.0, " ms");
    verdict("Create, the median", median(creates), 20.0, " ms");
    // One each; what is above that are checkpoints of the store's log, now and then.
    verdict("syncs of the disk for each Create", synced as f64 / TRACED as f64, 1.1, "");
    println!("memory: {memory:.1} MiB");
    Ok(())
}

/// How long it takes until it is ready, too.
fn start(command: Command, folder: &Path, interrupt: &Interrupt) -> Result<(Esm, Duration)> {
    // Nothing listens at port 1.
    let endpoint = "amqp://127.0.0.1:1".to_owned();
    let source = Source { engine: "rabbitmq", endpoint, username: "guest", password: "guest" };
    let mut configuration = Configuration::new(&source, "process = { command = [\"absent\"] }", &[]);
    let broker = format!("[brokers.sample]\narn = {BROKER_ARN:?}");
    configuration.text = configuration.text.replace("[brokers.sample]", &broker);
    let begun = wait::now();
    let mut esm = Esm::start_with(command, folder, &configuration)?;
    esm.wait_until_ready(interrupt)?;
    Ok((esm, begun.elapsed()))
}

/// Makes a mapping, and tells how many milliseconds the answer took.
fn create(esm: &Esm, queue: &str, enabled: bool) -> Result<f64> {
    let request = json!({
        "FunctionName": "sample", "EventSourceArn": BROKER_ARN, "Queues": [queue], "Enabled": enabled,
        "SourceAccessConfigurations": [{ "Type": "BASIC_AUTH", "URI": "sample-login" }],
    });
    let begun = wait::now();
    http::post(esm.port(), MAPPINGS, &request.to_string())?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Reads the whole list, and tells how many milliseconds each page took.
fn pages(esm: &Esm) -> Result<Vec<f64>> {
    let (mut pages, mut listed, mut marker) = (Vec::new(), 0, String::new());
    loop {
        let begun = wait::now();
        let page = esm.page(&format!("{MAPPINGS}{marker}"))?;
        pages.push(begun.elapsed().as_secs_f64() * 1e3);
        let page: Value = serde_json::from_str(&page)?;
        listed += page["EventSourceMappings"].as_array().context("a page has mappings")?.len();
        match page["NextMarker"].as_str() {
            Some(next) => marker = format!("?Marker={next}"),
            None => break,
        }
    }
    ensure!(listed == ALL, "{listed} mappings were listed");
    Ok(pages)
}

/// The program under a tracer that is no parent of it, so that signals reach the program itself.
fn traced(program: &Path, trace: &PathBuf) -> Result<Command> {
    let mut command = process::attached(Path::new("strace"))?;
    command.args(["-D", "-f", "-q", "-e", "trace=fsync,fdatasync", "-o"]).arg(trace).arg(program);
    Ok(command)
}

fn syncs(trace: &Path) -> Result<usize> {
    let trace = fs::read_to_string(trace)?;
    // A call that is interrupted by another thread's has a second line.
    Ok(trace.lines().filter(|line| line.contains("sync(")).count())
}
