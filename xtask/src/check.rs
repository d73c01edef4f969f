//! What must hold before anything is run: format, lints, every combination of features, documentation, and
//! the shape of the workspace.

mod shape;

use std::process::Command;

use anyhow::{Result, bail};
use cargo_metadata::Metadata;

use crate::faults;
use crate::packages;
use crate::process;
use crate::workspace;

/// Runs everything, also after a failure, so that one run tells it all.
pub(crate) fn run() -> Result<()> {
    packages::ensure(&packages::BUILD)?;
    let metadata = workspace::metadata()?;
    let mut report = Report::default();
    report.step("format", cargo(&["fmt", "--all", "--check"]));
    report.step("the workspace's crates and the arrows between them", shape::arrows(&metadata));
    report.step("places that may know of features", shape::feature_switches());
    report.step("lints", clippy(&["--workspace", "--all-targets"]));
    for features in combinations(&metadata)? {
        report.step(&format!("lints of esm with {}", features.name), clippy(&features.arguments()));
    }
    report.step("documentation", documentation());
    report.step("the page of faults", faults::check());
    report.finish()
}

/// Steps that failed, each with the reason in words.
#[derive(Default)]
struct Report {
    failures: Vec<String>,
}

impl Report {
    fn step(&mut self, name: &str, result: Result<()>) {
        match result {
            Ok(()) => eprintln!("check: {name}: good"),
            Err(error) => {
                eprintln!("check: {name}: FAILED: {error:#}");
                self.failures.push(format!("{name}: {error:#}"));
            }
        }
    }

    fn finish(self) -> Result<()> {
        if self.failures.is_empty() {
            eprintln!("check: everything is good");
            return Ok(());
        }
        bail!("these checks failed:\n  {}", self.failures.join("\n  "))
    }
}

fn cargo(arguments: &[&str]) -> Result<()> {
    process::run(workspace::cargo().args(arguments))
}

fn clippy(arguments: &[&str]) -> Result<()> {
    process::run(workspace::cargo().arg("clippy").args(arguments).args(["--", "--deny", "warnings"]))
}

fn documentation() -> Result<()> {
    let mut command: Command = workspace::cargo();
    process::run(command.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings"))
}

/// One way of building the binary.
struct Combination {
    name: String,
    features: String,
}

impl Combination {
    fn new(name: &str, features: &[&str]) -> Self {
        Self { name: name.to_owned(), features: features.join(",") }
    }

    /// Without tests: those may want more features than the binary under test has.
    fn arguments(&self) -> [&str; 7] {
        ["--package", "esm-bin", "--lib", "--bins", "--no-default-features", "--features", &self.features]
    }
}

/// None, each alone, all.
fn combinations(metadata: &Metadata) -> Result<Vec<Combination>> {
    let features = &workspace::package(metadata, "esm-bin")?.features;
    let names: Vec<&str> = features.keys().map(String::as_str).filter(|name| *name != "default").collect();
    let alone = names.iter().map(|name| Combination::new(&format!("{name} alone"), &[name]));
    let mut all = vec![Combination::new("no features", &[])];
    all.extend(alone);
    all.push(Combination::new("all features", &names));
    Ok(all)
}
