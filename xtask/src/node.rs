//! AWS's runtime client for Node.js, for tests of functions in processes. It is compiled where it is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::process;
use crate::workspace;

/// The version is fixed, so that a newer one breaks nobody's build by surprise. This one is for Node.js 18 to 22.
const RUNTIME_CLIENT: &str = "aws-lambda-ric";
const VERSION: &str = "3.3.0";

/// The `node_modules` in cargo's target folder, which is made when it is not there.
pub(crate) fn modules_with_runtime_client() -> Result<PathBuf> {
    let folder = workspace::target_dir()?.join("node");
    let modules = folder.join("node_modules");
    if !has_runtime_client(&modules) {
        eprintln!("node: making {} with {RUNTIME_CLIENT} {VERSION}; this takes some minutes", modules.display());
        fs::create_dir_all(&folder)?;
        let mut install = Command::new("npm");
        install.args(["install", "--no-audit", "--no-fund", "--no-save", "--prefix"]).arg(&folder);
        install.arg(format!("{RUNTIME_CLIENT}@{VERSION}"));
        process::output(&mut install).context("cannot install AWS's runtime client from npm")?;
        ensure!(has_runtime_client(&modules), "npm installed {RUNTIME_CLIENT} and did not compile it");
    }
    Ok(modules)
}

fn has_runtime_client(modules: &Path) -> bool {
    let client = modules.join(RUNTIME_CLIENT);
    let about = fs::read_to_string(client.join("package.json")).unwrap_or_default();
    about.contains(&format!("\"version\": \"{VERSION}\"")) && client.join("dist/rapid-client.node").exists()
}
