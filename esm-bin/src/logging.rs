//! Logs on standard error: for people on a terminal, one JSON object a line otherwise.

use std::{
    env,
    io::{self, IsTerminal},
};

use anyhow::Context as _;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// Libraries that tell every step of theirs, when all we want to hear is trouble. lapin's trouble
/// reaches us as errors, which we log with the broker, the queue and the mapping.
const LIBRARIES: &str = "lapin=off,amq_protocol=warn,amq_protocol_tcp=warn,async_rs=warn,tcp_stream=warn,\
                         hyper=warn,hyper_util=warn,reqwest=warn";

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Starts logging for the whole process. What is logged, `ESM_LOG` says, or else `RUST_LOG`.
pub fn start(format: Option<LogFormat>) -> anyhow::Result<()> {
    let asked = env::var("ESM_LOG").or_else(|_| env::var("RUST_LOG")).unwrap_or_else(|_| "info".into());
    let filter = filter(&asked).context("ESM_LOG or RUST_LOG is no filter such as `info` or `esm_core=debug`")?;
    let is_terminal = io::stderr().is_terminal();
    let by_default = if is_terminal { LogFormat::Human } else { LogFormat::Json };
    // What cannot be written cannot be told either: to try would panic in whoever has logged.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).log_internal_errors(false);
    match format.unwrap_or(by_default) {
        LogFormat::Human => lines.with_ansi(is_terminal).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).init(),
    }
    Ok(())
}

/// What is asked for counts more than what we keep quiet.
fn filter(asked: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().parse(format!("info,{LIBRARIES},{asked}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_they_are_asked_for() {
        let check = |asked, expected: &str| {
            let filter = filter(asked).unwrap().to_string();
            assert!(filter.split(',').any(|directive| directive == expected), "{asked}: {filter}");
        };
        check("debug", "lapin=off");
        check("debug", "debug");
        check("info,lapin=trace", "lapin=trace");
        assert!(filter("esm=loud").is_err());
    }
}
