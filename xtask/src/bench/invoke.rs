//! `bench invoke`: what an invocation costs, beside the same runtime client served by a program that does nothing but
//! hand out one event.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::lab::{median, verdict, verdict_at_least};
use crate::process;
use crate::workspace;

pub(super) fn run() -> Result<()> {
    let build = ["build", "--release", "--package", "esm-invoke", "--features", "http,process", "--examples"];
    process::run(workspace::cargo().args(build))?;
    let mut measure = Command::new(workspace::target_dir()?.join("release/examples/measure_invoke"));
    let rounds: Value = serde_json::from_str(&process::output(measure.stderr(Stdio::inherit()))?)?;
    let rounds = rounds.as_array().context("nothing was measured")?;

    println!("\nOne process or connection, medians of {} rounds", rounds.len());
    println!("{:38} {:>12} {:>14} {:>9} {:>9}", "", "invocations/s", "esm's CPU (us)", "p50 (ms)", "p99 (ms)");
    for (kind, name) in [("small", "small events"), ("large", "events of 140 KB"), ("paced", "small, 1 ms apart")] {
        for (way, what) in [("bare", "bare server"), ("process", "process"), ("http", "http")] {
            let value = |member: &str| median_of(rounds, |round| round[kind][way][member].as_f64());
            println!(
                "{:38} {:>12.0} {:>14.1} {:>9.3} {:>9.3}",
                format!("{name}, {what}"),
                value("per_second"),
                value("cpu_us"),
                value("p50_ms"),
                value("p99_ms")
            );
        }
    }
    println!();
    for (kind, what, least) in [("small", "small events", 95.0), ("large", "events of 140 KB", 90.0)] {
        let share = median_of(rounds, |round| {
            let of = |way: &str| round[kind][way]["per_second"].as_f64();
            Some(100.0 * of("process")? / of("bare")?)
        });
        verdict_at_least(&format!("share of the bare server's invocations, {what}"), share, least, " %");
    }
    for way in ["process", "http"] {
        let cpu = median_of(rounds, |round| round["large"][way]["cpu_us"].as_f64());
        verdict(&format!("CPU of an invocation with 140 KB, {way}"), cpu, 40.0, " us");
    }
    let p99 = |way: &str| median_of(rounds, |round| round["paced"][way]["p99_ms"].as_f64());
    verdict("p99 that a process's invocation takes longer", p99("process") - p99("bare"), 1.0, " ms");
    verdict("p99 of the whole invocation over HTTP", p99("http"), 1.0, " ms");
    Ok(())
}

fn median_of(rounds: &[Value], value: impl Fn(&Value) -> Option<f64>) -> f64 {
    median(rounds.iter().filter_map(value).collect())
}
