//! `bench instructions`: user instructions per message, from two runs that differ in nothing but the number of
//! messages, so that start and end cancel out.

use anyhow::Result;

use super::consumers::{self, Consumer, Job};
use super::lab::{Lab, median, verdict};
use super::rabbitmq;
use super::throughput::wait_until_deleted;
use crate::brokers::Kind;
use crate::services::{self, Esm, Function};

const FEW: u64 = 5_000;
const MANY: u64 = 15_000;
const ROUNDS: usize = 3;

pub(super) fn run() -> Result<()> {
    crate::packages::ensure(&crate::packages::BENCH)?;
    let lab = Lab::open(Kind::Rabbitmq)?;
    let mut of_esm = Vec::new();
    let mut of_lapin = Vec::new();
    for round in 1..=ROUNDS {
        eprintln!("round {round} of {ROUNDS}");
        of_esm.push(per_message(|count| esm(&lab, count))?);
        of_lapin.push(per_message(|count| lapin(&lab, count))?);
    }
    let (esm, lapin) = (median(of_esm), median(of_lapin));
    println!("\nuser instructions per message, medians of {ROUNDS} rounds");
    println!("esm: {esm:.0}\nbare lapin: {lapin:.0}\n");
    verdict("instructions beyond the bare lapin consumer's", esm - lapin, 2_500.0, "");
    Ok(())
}

fn per_message(measure: impl Fn(u64) -> Result<f64>) -> Result<f64> {
    Ok((measure(MANY)? - measure(FEW)?) / (MANY - FEW) as f64)
}

fn lapin(lab: &Lab, count: u64) -> Result<f64> {
    let queue = "instructions-lapin";
    rabbitmq::fill(lab, queue, count)?;
    let report = lab.file("callgrind.log")?;
    let mut command = consumers::under_callgrind(&lab.programs.example("consume_lapin"), &report)?;
    command.args(consumers::lapin_arguments(lab, &Job { queue, count, prefetch: 1_000 })?);
    let mut consumer = Consumer::start(lab, command)?;
    consumer.wait_until_done(lab)?;
    consumer.running.release()?;
    rabbitmq::remove(lab, queue)?;
    consumers::instructions(&report)
}

fn esm(lab: &Lab, count: u64) -> Result<f64> {
    let queue = "instructions-esm";
    rabbitmq::fill(lab, queue, count)?;
    let report = lab.file("callgrind.log")?;
    let function = Function::start(&lab.programs, &["--quiet"], &lab.interrupt)?;
    let mapping = services::mapping(queue, "batch_size = 100\nscaling_config = { maximum_concurrency = 9 }\n");
    let command = consumers::under_callgrind(&lab.programs.esm(), &report)?;
    let mut esm = Esm::start_with(command, lab.folder(), &lab.configuration(&function.url(), &[mapping]))?;
    wait_until_deleted(lab, &mut esm, &function, count)?;
    esm.stop()?;
    rabbitmq::remove(lab, queue)?;
    consumers::instructions(&report)
}
