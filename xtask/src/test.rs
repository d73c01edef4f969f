//! Every test of the workspace, with the real broker that many of them need.
//!
//! One node serves all of them, and each test has a virtual host of its own; a test that kills nodes starts its
//! own with the program named by `ESM_XTASK`.

use std::env;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, PipeReader};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::brokers::{Node, PrivateNode};
use crate::interrupt::Interrupt;
use crate::packages;
use crate::process;
use crate::python;
use crate::workspace;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Also the long counts
    #[arg(long)]
    all: bool,
    /// For `cargo test`, and after a further `--` for the test programs
    #[arg(last = true)]
    further: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(&packages::BUILD)?;
    packages::ensure(&packages::RABBITMQ)?;
    packages::ensure(&packages::PYTHON)?;
    let interrupt = Interrupt::hold()?;
    let python = python::with_runtime_client()?;
    interrupt.check()?;
    let folder = tempfile::Builder::new().prefix("esm-test-").tempdir()?;
    eprintln!("test: starting RabbitMQ");
    let node = PrivateNode::up(&folder.path().join("rabbitmq"))?;
    cargo_test(arguments, &node, &python, folder.path(), &interrupt)
}

fn cargo_test(arguments: &Arguments, node: &Node, python: &Path, folder: &Path, interrupt: &Interrupt) -> Result<()> {
    let mut command = command(&arguments.further);
    command.envs(node.environment()).env("ESM_XTASK", env::current_exe()?).env("ESM_TEST_DIR", folder);
    command.env("ESM_TEST_PYTHON", python);
    if arguments.all {
        command.env("ESM_TEST_ALL", "1");
    }
    let line = process::describe(&command);
    eprintln!("test: {line}");
    // One pipe for both streams keeps the order between a program's name and its results.
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let summary = forward(reader);
    let status = process::run_in_group(&mut command, interrupt)?;
    // The command holds our end of the pipe.
    drop(command);
    let summary =
        summary.recv_timeout(Duration::from_secs(10)).context("a test left a process behind that still runs")?;
    eprintln!("test: {summary}");
    ensure!(status.success(), "`{line}` failed");
    ensure!(summary.passed > 0, "`{line}` ran no test at all");
    Ok(())
}

fn command(further: &[String]) -> Command {
    let end = further.iter().position(|argument| argument == "--").unwrap_or(further.len());
    let (for_cargo, for_tests) = further.split_at(end);
    let mut command = workspace::cargo();
    command.arg("test");
    let chooses_packages = for_cargo.iter().any(|argument| argument == "-p" || argument.starts_with("--package"));
    if !chooses_packages {
        command.arg("--workspace");
    }
    command.args(for_cargo).args(["--", "--include-ignored"]).args(for_tests.iter().skip(1));
    command
}

/// Prints what comes in, and in the end tells what it counted.
fn forward(reader: PipeReader) -> mpsc::Receiver<Summary> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut summary = Summary::default();
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            summary.take(&line);
            println!("{line}");
        }
        let _ = sender.send(summary);
    });
    receiver
}

/// What the test programs said at their end, added up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    programs: u32,
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Summary {
    fn take(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ") else { return };
        let count = |what: &str| {
            let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|word| !word.is_empty()).collect();
            let place = words.iter().position(|word| *word == what)?;
            words.get(place.checked_sub(1)?)?.parse().ok()
        };
        self.programs += 1;
        self.passed += count("passed").unwrap_or(0);
        self.failed += count("failed").unwrap_or(0);
        self.ignored += count("ignored").unwrap_or(0);
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { programs, passed, failed, ignored } = self;
        write!(f, "{passed} passed, {failed} failed, {ignored} ignored, in {programs} test programs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_add_up() {
        let mut summary = Summary::default();
        summary.take("running 4 tests");
        summary.take("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s");
        summary
            .take("test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.02s");

        assert_eq!(summary, Summary { programs: 2, passed: 6, failed: 1, ignored: 1 });
    }

    #[test]
    fn arguments_reach_cargo_and_the_test_programs() {
        let check = |further: &[&str], expected: &str| {
            let further: Vec<String> = further.iter().copied().map(str::to_owned).collect();
            let all = process::describe(&command(&further));
            let (_, arguments) = all.split_once(" test").unwrap();
            assert_eq!(arguments.trim(), expected);
        };
        check(&[], "--workspace -- --include-ignored");
        check(&["-p", "esm-core"], "-p esm-core -- --include-ignored");
        check(&["--doc", "--", "name"], "--workspace --doc -- --include-ignored name");
    }
}
