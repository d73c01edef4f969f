//! Pythons of our own, with AWS's packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace;

/// AWS's runtime client, and what functions read events with. All versions are fixed, so that a newer one breaks
/// nobody's build by surprise.
const FUNCTIONS: [&str; 2] = ["awslambdaric==4.2.2", "aws-lambda-powertools==3.37.0"];
/// AWS's command line and SDK, a stand-in for AWS, and a tester of HTTP services.
const CLIENTS: [&str; 4] = ["awscli==1.46.3", "boto3==1.44.8", "moto[server]==5.2.5", "schemathesis==4.32.5"];

/// An interpreter for functions in processes.
pub(crate) fn for_functions() -> Result<PathBuf> {
    with(&FUNCTIONS, "python")
}

/// An interpreter with everything that a test may need.
pub(crate) fn for_tests() -> Result<PathBuf> {
    with(&[FUNCTIONS.as_slice(), &CLIENTS].concat(), "python-for-tests")
}

/// The interpreter of a virtual environment in cargo's target folder, which is made when it is not there.
fn with(packages: &[&str], folder: &str) -> Result<PathBuf> {
    let folder = workspace::target_dir()?.join(folder);
    let python = folder.join("bin/python");
    if !has(&python, packages) {
        eprintln!("python: making {} with {}", folder.display(), packages.join(", "));
        process::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
        process::output(&mut install).context("cannot install packages from PyPI")?;
    }
    Ok(python)
}

fn has(python: &Path, packages: &[&str]) -> bool {
    let check = |package: &&str| {
        let (name, version) = package.split_once("==").unwrap_or((package, ""));
        let name = name.split('[').next().unwrap_or(name);
        format!("assert m.version('{name}') == '{version}'")
    };
    let checks: Vec<_> = packages.iter().map(check).collect();
    let script = format!("import importlib.metadata as m\n{}", checks.join("\n"));
    python.exists() && process::succeeds(Command::new(python).args(["-c", &script]))
}
