//! Every test of the workspace, with the real brokers that many of them need.
//!
//! One node of each kind serves all of them, and each test has a virtual host or queues of its own; a test that
//! kills nodes starts its own with the program named by `ESM_XTASK`.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::io::{self, BufRead as _, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Args;

use crate::brokers::{Kind, PrivateNode, Release, Settings};
use crate::faults;
use crate::interrupt::Interrupt;
use crate::node;
use crate::packages;
use crate::process;
use crate::python;
use crate::workspace;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Also the long counts and clusters, and RabbitMQ's tests once more with RabbitMQ 4, which takes root
    #[arg(long)]
    all: bool,
    /// RabbitMQ's tests only, with this release instead of the system's own; installs it when it is not there
    #[arg(long, value_name = "RELEASE", conflicts_with = "all")]
    rabbitmq: Option<Release>,
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
    let is_whole = arguments.all && arguments.further.is_empty();
    let release = arguments.rabbitmq.or(is_whole.then_some(Release::Four));
    release.map_or(Ok(()), Release::ensure_installed)?;
    let interrupt = Interrupt::hold()?;
    let clients = Clients { python: python::for_tests()?, node_modules: node::modules_with_runtime_client()? };
    interrupt.check()?;
    let folder = tempfile::Builder::new().prefix("esm-test-").tempdir()?;
    let mut further = arguments.further.clone();
    if further.is_empty() && !arguments.all {
        // They take their time.
        further = ["--", "--skip", "cluster::"].map(str::to_owned).to_vec();
    }
    let run = Run { all: arguments.all, clients, interrupt: &interrupt };
    let mut passed = BTreeSet::new();
    if arguments.rabbitmq.is_none() {
        let folder = folder.path().join("system");
        passed = run.cargo_test(&command(&further), &start(&folder)?, &folder)?;
    }
    if let Some(release) = release {
        let folder = folder.path().join(release.name());
        eprintln!("test: starting RabbitMQ, release {}", release.name());
        // Cargo builds those only when it is not told which tests to run.
        process::run(workspace::cargo().args(["build", "-p", "esm-rabbitmq", "-p", "esm-bin", "--examples"]))?;
        let nodes = [PrivateNode::up(&folder.join(Kind::Rabbitmq.name()), Settings::of_release(release))?];
        passed.extend(run.cargo_test(&command_for_rabbitmq(&further), &nodes, &folder)?);
    }
    if arguments.further.is_empty() && arguments.rabbitmq.is_none() {
        faults::all_shown(&passed, arguments.all)?;
    }
    Ok(())
}

/// What every run of tests has in common.
struct Run<'a> {
    all: bool,
    clients: Clients,
    interrupt: &'a Interrupt,
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

impl Run<'_> {
    /// Returns the tests that passed.
    fn cargo_test(&self, arguments: &[String], nodes: &[PrivateNode], folder: &Path) -> Result<BTreeSet<String>> {
        let Self { all, clients, interrupt } = self;
        let mut command = workspace::cargo();
        command.args(arguments);
        for node in nodes {
            command.envs(node.environment()?);
        }
        command.env("ESM_XTASK", env::current_exe()?).env("ESM_TEST_DIR", folder);
        command.env("ESM_TEST_PYTHON", &clients.python).env("ESM_TEST_NODE_MODULES", &clients.node_modules);
        if *all {
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
        Ok(summary.names)
    }
}

/// What cargo is told.
fn command(further: &[String]) -> Vec<String> {
    cargo_arguments(further, &["--workspace"])
}

/// Likewise, of the tests that concern RabbitMQ.
fn command_for_rabbitmq(further: &[String]) -> Vec<String> {
    const RABBITMQ: [&str; 11] = [
        "-p",
        "esm-rabbitmq",
        "-p",
        "esm-bin",
        "--lib",
        "--test",
        "source_suite",
        "--test",
        "returns",
        "--test",
        "rabbitmq",
    ];
    cargo_arguments(further, &RABBITMQ)
}

fn cargo_arguments(further: &[String], by_default: &[&str]) -> Vec<String> {
    let end = further.iter().position(|argument| argument == "--").unwrap_or(further.len());
    let (for_cargo, for_tests) = further.split_at(end);
    let chooses_packages = for_cargo.iter().any(|argument| argument == "-p" || argument.starts_with("--package"));
    let by_default = if chooses_packages { &[] } else { by_default };
    let own = ["test"].iter().chain(by_default).copied().map(str::to_owned);
    let for_tests = for_tests.iter().skip(1).cloned();
    own.chain(for_cargo.iter().cloned())
        .chain(["--", "--include-ignored"].map(str::to_owned))
        .chain(for_tests)
        .collect()
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
            assert_eq!(command(&further).join(" "), expected);
        };
        check(&[], "test --workspace -- --include-ignored");
        check(&["-p", "esm-core"], "test -p esm-core -- --include-ignored");
        check(&["--doc", "--", "name"], "test --workspace --doc -- --include-ignored name");
    }
}
