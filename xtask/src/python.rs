//! A Python of our own with AWS's runtime client, for tests of functions in processes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace;

/// AWS's runtime client. The version is fixed, so that a newer one breaks nobody's build by surprise.
const RUNTIME_CLIENT: &str = "awslambdaric==4.2.2";

/// The interpreter of a virtual environment in cargo's target folder, which is made when it is not there.
pub(crate) fn with_runtime_client() -> Result<PathBuf> {
    let folder = workspace::target_dir()?.join("python");
    let python = folder.join("bin/python");
    if !has_runtime_client(&python) {
        eprintln!("python: making {} with {RUNTIME_CLIENT}", folder.display());
        process::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut install = Command::new(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", RUNTIME_CLIENT]);
        process::output(&mut install).context("cannot install AWS's runtime client from PyPI")?;
    }
    Ok(python)
}

fn has_runtime_client(python: &Path) -> bool {
    let (name, version) = RUNTIME_CLIENT.split_once("==").unwrap_or((RUNTIME_CLIENT, ""));
    let check = format!("import {name}, importlib.metadata as m; assert m.version('{name}') == '{version}'");
    python.exists() && process::succeeds(Command::new(python).args(["-c", &check]))
}
