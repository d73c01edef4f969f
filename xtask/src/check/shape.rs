//! The shape of the workspace: which crates there are, which may know of which, and which file may ask for
//! features.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use cargo_metadata::{Dependency, DependencyKind, Metadata};

use crate::workspace;

/// Every crate, and those it may depend on. Tests may also use a crate's own `testing` feature, and that of
/// those it depends on.
const ARROWS: [(&str, &[&str]); 6] = [
    ("esm-core", &[]),
    ("esm-activemq", &["esm-core"]),
    ("esm-rabbitmq", &["esm-core"]),
    ("esm-invoke", &["esm-core"]),
    ("esm-bin", &["esm-core", "esm-activemq", "esm-rabbitmq", "esm-invoke"]),
    ("xtask", &[]),
];

/// The only file of the binary that may ask which features it was built with.
const FEATURE_SWITCH: &str = "adapters.rs";

pub(super) fn arrows(metadata: &Metadata) -> Result<()> {
    let allowed: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let present: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    ensure!(present == allowed, "the workspace should have the crates {allowed:?} and has {present:?}");
    let mut wrong = Vec::new();
    for (name, targets) in ARROWS {
        let package = workspace::package(metadata, name)?;
        let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
        wrong.extend(ours.filter_map(|dependency| complaint(name, dependency, targets)));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// What is wrong with an arrow to one of our own crates.
fn complaint(from: &str, dependency: &Dependency, targets: &[&str]) -> Option<String> {
    let to = dependency.name.as_str();
    let for_tests = dependency.kind == DependencyKind::Development;
    let allowed = targets.contains(&to) || (for_tests && to == from);
    if !allowed {
        return Some(format!("{from} must not depend on {to}"));
    }
    let borrows_tests = !for_tests && dependency.features.iter().any(|feature| feature == "testing");
    borrows_tests.then(|| format!("{from} uses {to}'s feature `testing` outside its tests"))
}

pub(super) fn feature_switches() -> Result<()> {
    let mut wrong = Vec::new();
    visit(&workspace::root().join("esm-bin/src"), &mut |path, text| {
        let asks = |line: &&str| line.contains("cfg") && line.contains("feature =");
        if path.file_name().is_some_and(|name| name != FEATURE_SWITCH) && text.lines().any(|line| asks(&line)) {
            wrong.push(path.display().to_string());
        }
    })?;
    ensure!(wrong.is_empty(), "only {FEATURE_SWITCH} may ask for features, and these do: {}", wrong.join(", "));
    Ok(())
}

/// Every Rust file below a folder.
fn visit(folder: &Path, look: &mut impl FnMut(&Path, &str)) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            visit(&path, look)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
