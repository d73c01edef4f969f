//! A Python of our own with AWS's clients and a stand-in for AWS, for tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace;

/// AWS's runtime client, and the stand-in, which brings `boto3` along. The versions are fixed, so that a newer one
/// breaks nobody's build by surprise.
const PACKAGES: [(&str, &str); 2] = [("awslambdaric", "==4.2.2"), ("moto", "[server]==5.2.5")];

/// The interpreter of a virtual environment in cargo's target folder, which is made when it is not there.
pub(crate) fn with_packages() -> Result<PathBuf> {
    let folder = workspace::target_dir()?.join("python");
    let python = folder.join("bin/python");
    if !has_packages(&python) {
        let packages = PACKAGES.map(|(name, version)| format!("{name}{version}"));
        eprintln!("python: making {} with {}", folder.display(), packages.join(" and "));
        process::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(packages);
        process::output(&mut install).context("cannot install AWS's clients from PyPI")?;
    }
    Ok(python)
}

fn has_packages(python: &Path) -> bool {
    let check = |(name, version): (&str, &str)| {
        let (_, version) = version.split_once("==").unwrap_or_default();
        format!("import {name}, importlib.metadata as m; assert m.version('{name}') == '{version}'")
    };
    python.exists() && process::succeeds(Command::new(python).args(["-c", &PACKAGES.map(check).join("\n")]))
}
