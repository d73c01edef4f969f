//! A Python of our own with AWS's runtime client, command line and SDK, a stand-in for AWS, and a tester of HTTP services,
//! for the tests that need them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace;

/// The versions are fixed, so that a newer one breaks nobody's build by surprise.
const PACKAGES: [&str; 5] =
    ["awslambdaric==4.2.2", "awscli==1.46.3", "boto3==1.44.8", "moto[server]==5.2.5", "schemathesis==4.32.5"];

/// The interpreter of a virtual environment in cargo's target folder, which is made when it is not there.
pub(crate) fn with_packages() -> Result<PathBuf> {
    let folder = workspace::target_dir()?.join("python");
    let python = folder.join("bin/python");
    if !has_packages(&python) {
        eprintln!("python: making {} with {}", folder.display(), PACKAGES.join(", "));
        process::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
        process::output(&mut install).context("cannot install packages from PyPI")?;
    }
    Ok(python)
}

fn has_packages(python: &Path) -> bool {
    let checks = PACKAGES.iter().filter_map(|package| package.split_once("=="));
    let checks = checks.map(|(name, version)| (name.split('[').next().unwrap_or(name), version));
    let checks: Vec<_> = checks.map(|(name, version)| format!("assert m.version('{name}') == '{version}'")).collect();
    let script = format!("import importlib.metadata as m\n{}", checks.join("\n"));
    python.exists() && process::succeeds(Command::new(python).args(["-c", &script]))
}
