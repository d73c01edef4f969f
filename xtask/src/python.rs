//! A Python of our own with AWS's packages, for functions in processes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace;

/// AWS's runtime client, and what functions read events with. The versions are fixed, so that a newer one breaks
/// nobody's build by surprise.
const PACKAGES: [&str; 2] = ["awslambdaric==4.2.2", "aws-lambda-powertools==3.37.0"];

/// The interpreter of a virtual environment in cargo's target folder, which is made when it is not there.
pub(crate) fn for_functions() -> Result<PathBuf> {
    let folder = workspace::target_dir()?.join("python");
    let python = folder.join("bin/python");
    if !has_packages(&python) {
        eprintln!("python: making {} with {}", folder.display(), PACKAGES.join(" and "));
        process::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
        process::output(&mut install).context("cannot install packages from PyPI")?;
    }
    Ok(python)
}

fn has_packages(python: &Path) -> bool {
    let has = |package: &str| {
        let (name, version) = package.split_once("==").unwrap_or((package, ""));
        let check = format!("import importlib.metadata as m; assert m.version('{name}') == '{version}'");
        process::succeeds(Command::new(python).args(["-c", &check]))
    };
    python.exists() && PACKAGES.into_iter().all(has)
}
