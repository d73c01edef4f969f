//! What `esm` costs, measured beside the least that a program can do with the same broker.
//!
//! Medians of interleaved rounds, CPU time per message rather than messages per second: the first is ours, the
//! second mostly the broker's.

mod activemq;
mod consumers;
mod control;
mod failures;
mod idle;
mod instructions;
mod invoke;
mod lab;
mod latency;
mod rabbitmq;
mod throughput;

use anyhow::Result;
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::packages;
use crate::process;
use crate::workspace;

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    name: Option<Name>,
}

#[derive(Subcommand)]
enum Name {
    /// The whole line from a quorum queue, beside consumers that only read and acknowledge
    Rabbitmq(throughput::Arguments),
    /// The whole line from a persistent queue, beside our bare client and Java's
    Activemq(throughput::Arguments),
    /// User instructions per message, by callgrind
    Instructions,
    /// A hundred mappings with nothing to do
    Idle,
    /// The way from the broker to the function at 1,000 messages per second
    Latency,
    /// Ten thousand mappings in the store, and the disk's part in a change
    Control,
    /// Invocations of processes and over HTTP, beside the least that a server can do
    Invoke,
    /// What messages that fail for ever cost the others
    Failures(failures::Arguments),
    /// Turning one message into its part of the event
    Encode,
    /// Reading one OpenWire frame
    Decode,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(&packages::BUILD)?;
    match &arguments.name {
        Some(Name::Rabbitmq(arguments)) => rabbitmq::run(arguments),
        Some(Name::Activemq(arguments)) => activemq::run(arguments),
        Some(Name::Instructions) => instructions::run(),
        Some(Name::Idle) => idle::run(),
        Some(Name::Latency) => latency::run(),
        Some(Name::Control) => control::run(),
        Some(Name::Invoke) => invoke::run(),
        Some(Name::Failures(arguments)) => failures::run(arguments),
        Some(Name::Encode) => criterion("encode"),
        Some(Name::Decode) => criterion("decode"),
        None => Ok(Menu::command().print_help()?),
    }
}

/// Runs a benchmark of every crate that has one of this name.
fn criterion(name: &str) -> Result<()> {
    process::run(workspace::cargo().args(["bench", "--workspace", "--bench", name]))
}

/// Measure something.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Menu {
    #[command(subcommand)]
    _name: Name,
}
