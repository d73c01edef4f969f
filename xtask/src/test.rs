//! Every test of the workspace, with the real brokers that many of them need.
//!
//! One node of each kind serves all of them, and each test has a virtual host or queues of its own; a test that
//! kills nodes starts its own with the program named by `ESM_XTASK`.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;

use crate::brokers::{Kind, PrivateNode, Settings};
use crate::faults;
use crate::interrupt::Interrupt;
use crate::node;
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
    packages::ensure(&packages::PYTHON)?;
    packages::ensure(&packages::NODE)?;
    for kind in KINDS {
        packages::ensure(kind.packages())?;
    }
    let interrupt = Interrupt::hold()?;
    let clients = Clients { python: python::for_tests()?, node_modules: node::modules_with_runtime_client()? };
    interrupt.check()?;
    let folder = tempfile::Builder::new().prefix("esm-test-").tempdir()?;
    let nodes = start(folder.path())?;
    cargo_test(arguments, &nodes, &clients, folder.path(), &interrupt)
}

/// Where AWS's runtime clients are that are not Rust's.
struct Clients {
    python: PathBuf,
    node_modules: PathBuf,
}

const KINDS: [Kind; 2] = [Kind::Rabbitmq, Kind::Activemq];

/// One node of each kind, all at once.
fn start(folder: &Path) -> Result<Vec<PrivateNode>> {
    thread::scope(|scope| {
        let starting = KINDS.map(|kind| {
            eprintln!("test: starting {}", kind.title());
            scope.spawn(move || PrivateNode::up(&folder.join(kind.name()), Settings::of(kind)))
        });
        // Every one is waited for, so that those that came up are also ended when another did not.
        let started =
            starting.map(|node| node.join().map_err(|_| anyhow!("a thread that starts a broker panicked"))?);
        started.into_iter().collect()
    })
}

fn cargo_test(
    arguments: &Arguments,
    nodes: &[PrivateNode],
    clients: &Clients,
    folder: &Path,
    interrupt: &Interrupt,
) -> Result<()> {
    let mut command = command(&arguments.further);
    for node in nodes {
        command.envs(node.environment()?);
    }
    command.env("ESM_XTASK", env::current_exe()?).env("ESM_TEST_DIR", folder);
    command.env("ESM_TEST_PYTHON", &clients.python).env("ESM_TEST_NODE_MODULES", &clients.node_modules);
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
    if arguments.further.is_empty() {
        faults::all_shown(&summary.names, arguments.all)?;
    }
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
    /// The tests that passed, as `program::test`.
    names: BTreeSet<String>,
    /// The program that runs.
    program: String,
}

impl Summary {
    fn take(&mut self, line: &str) {
        if let Some(program) = program(line) {
            program.clone_into(&mut self.program);
        }
        if let Some(test) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... ok")) {
            self.names.insert(format!("{}::{test}", self.program));
        }
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

/// The name of the program that cargo says it runs, without the hash that cargo adds.
fn program(line: &str) -> Option<&str> {
    let path = line.trim_start().strip_prefix("Running ")?.split_once('(')?.1.strip_suffix(')')?;
    let (name, _hash) = Path::new(path).file_name()?.to_str()?.rsplit_once('-')?;
    Some(name)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { programs, passed, failed, ignored, .. } = self;
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

        assert_eq!(summary, Summary { programs: 2, passed: 6, failed: 1, ignored: 1, ..Summary::default() });
    }

    #[test]
    fn what_passed_is_known_by_program_and_name() {
        let mut summary = Summary::default();
        for line in [
            "     Running tests/rabbitmq/main.rs (/target/debug/deps/rabbitmq-0a1b2c)",
            "test faults::wrong_login ... ok",
            "test faults::no_permission ... FAILED",
            "     Running unittests src/lib.rs (target/debug/deps/esm_core-17)",
            "test batch::closes ... ok",
        ] {
            summary.take(line);
        }
        let expected = ["esm_core::batch::closes", "rabbitmq::faults::wrong_login"];
        assert_eq!(summary.names, expected.map(str::to_owned).into());
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
