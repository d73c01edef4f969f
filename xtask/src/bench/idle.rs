//! `bench idle`: what a hundred mappings cost that have nothing to do.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::lab::{Lab, verdict};
use super::rabbitmq;
use crate::brokers::Kind;
use crate::http;
use crate::services::{self, Esm, Function};

const MAPPINGS: usize = 100;
const OBSERVED: Duration = Duration::from_secs(10);

pub(super) fn run() -> Result<()> {
    let lab = Lab::open(Kind::Rabbitmq)?;
    let queues: Vec<String> = (1..=MAPPINGS).map(|number| format!("idle-{number}")).collect();
    for queue in &queues {
        rabbitmq::publish(&lab, queue, &["--declare", "classic", "--count", "0"])?;
    }
    let function = Function::start(&lab.programs, &["--quiet"], &lab.interrupt)?;
    let mappings: Vec<String> = queues.iter().map(|queue| services::mapping(queue, "")).collect();
    let mut esm = Esm::start(&lab.programs, lab.folder(), &lab.configuration(&function.url(), &mappings))?;
    esm.wait_until_ready(&lab.interrupt)?;
    esm.wait_for("every mapping to be connected", Duration::from_mins(1), &lab.interrupt, |esm| {
        Ok(services::metric(&esm.page("/metrics")?, "esm_source_connected") >= MAPPINGS as f64)
    })?;

    let before = esm.process()?.cpu()?;
    thread::sleep(OBSERVED);
    let used = esm.process()?.cpu()?.saturating_sub(before);
    let memory = esm.process()?.memory_kib("VmRSS")? as f64 / 1024.0;
    let connections = connections(&lab)?;
    esm.stop()?;

    println!("\n{MAPPINGS} mappings with nothing to do, over {} s", OBSERVED.as_secs());
    verdict("connections", connections, 1.0, "");
    verdict("memory", memory, 30.0, " MiB");
    verdict("CPU", used.as_secs_f64() * 100.0 / OBSERVED.as_secs_f64(), 1.0, " % of a core");
    Ok(())
}

/// As the broker counts them.
fn connections(lab: &Lab) -> Result<f64> {
    let page: Value = serde_json::from_str(&http::get(lab.node.rabbitmq()?.management_port(), "/api/connections")?)?;
    Ok(page.as_array().context("the broker lists no connections")?.len() as f64)
}
