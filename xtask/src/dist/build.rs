//! The release build, freed of everything that depends on the machine it runs on.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::selection::Selection;
use crate::process;
use crate::workspace;

/// Where compiler and packages live on this machine.
pub(super) struct Toolchain {
    pub(super) target: String,
    sysroot: PathBuf,
    cargo_home: PathBuf,
}

impl Toolchain {
    pub(super) fn find() -> Result<Self> {
        let version = process::output(rustc().arg("-vV"))?;
        let target = version.lines().find_map(|line| line.strip_prefix("host: "));
        let target = target.context("`rustc -vV` names no host")?.to_owned();
        let sysroot = process::output(rustc().args(["--print", "sysroot"]))?.trim().into();
        let home = env::home_dir().map(|home| home.join(".cargo"));
        let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or(home).context("no home folder")?;
        Ok(Self { target, sysroot, cargo_home })
    }

    /// Names for the machine's folders that are the same everywhere. Later ones win in rustc, so the more
    /// special ones come last.
    fn renamed_folders(&self, target_dir: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
        let mut folders = vec![
            (self.sysroot.clone(), "/rust"),
            (self.cargo_home.clone(), "/cargo"),
            (workspace::root(), "/esm"),
            (target_dir.to_owned(), "/esm/target"),
        ];
        // Packages lie in a folder that is named after the registry or its mirror.
        if let Ok(registries) = fs::read_dir(self.cargo_home.join("registry/src")) {
            for registry in registries {
                folders.push((registry?.path(), "/crates"));
            }
        }
        Ok(folders)
    }
}

fn rustc() -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.current_dir(workspace::root());
    command
}

/// Builds `esm` and hands back its bytes.
pub(super) fn program(toolchain: &Toolchain, selection: &Selection, target_dir: &Path) -> Result<Vec<u8>> {
    let mut command = workspace::cargo();
    command.args(["build", "--release", "--locked", "--package", "esm-bin", "--bin", "esm"]);
    command.args(["--no-default-features", "--features", &selection.features(), "--target-dir"]).arg(target_dir);
    // Also overrides whatever flags this machine is configured with.
    command.env("CARGO_ENCODED_RUSTFLAGS", flags(&toolchain.renamed_folders(target_dir)?));
    command.envs([("CARGO_PROFILE_RELEASE_STRIP", "symbols"), ("CARGO_PROFILE_RELEASE_DEBUG", "0")]);
    process::run(&mut command)?;
    let path = target_dir.join("release/esm");
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn flags(folders: &[(PathBuf, &str)]) -> OsString {
    let mut flags = OsString::new();
    for (folder, name) in folders {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(folder);
        flags.push("=");
        flags.push(name);
    }
    flags
}

/// The time of the last commit, or `SOURCE_DATE_EPOCH`: no file of a release is newer.
pub(super) fn commit_time() -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            process::output(Command::new("git").current_dir(workspace::root()).args(["log", "-1", "--format=%ct"]))
                .context("a release is dated by its commit; without git please set SOURCE_DATE_EPOCH")?
        }
    };
    text.trim().parse().with_context(|| format!("`{}` is no time in seconds", text.trim()))
}
