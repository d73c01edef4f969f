//! Automation of this workspace: everything that a script would do elsewhere.
//!
//! `cargo xtask` lists the tasks. Each one has its own file; what several of them need (packages, processes,
//! waiting, plain HTTP) stands beside them. Nothing here needs more than Rust to build: what a task needs
//! beyond that, `packages` installs.

mod bench;
mod brokers;
mod check;
mod demo;
mod digest;
mod dist;
mod faults;
mod http;
mod interrupt;
mod java;
mod node;
mod packages;
mod ports;
mod process;
mod python;
mod services;
mod test;
mod wait;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Automation of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Start and end private brokers on loopback
    #[command(subcommand)]
    Brokers(brokers::Command),
    /// From nothing: a broker of each kind, a function, and esm between them, explained step by step
    Demo(demo::Arguments),
    /// Run every test, also those that need a broker; installs and starts what they need
    Test(test::Arguments),
    /// Format, lints, feature combinations, crate arrows, documentation
    Check,
    /// Write docs/faults.md from its rows
    Faults,
    /// A release for chosen adapters and invokers, as a reproducible archive
    Dist(dist::Arguments),
    /// Measure; without a name, list what can be measured
    Bench(bench::Arguments),
    /// Become another program, which ends with its parent
    #[command(hide = true)]
    Become(process::Become),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Brokers(command) => brokers::run(command),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Check => check::run(),
        Task::Faults => faults::run(),
        Task::Dist(arguments) => dist::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Become(program) => program.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
