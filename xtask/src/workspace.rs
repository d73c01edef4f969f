//! What cargo knows about this workspace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use cargo_metadata::{Metadata, MetadataCommand, Package};

/// The workspace's own crates, without resolving what they depend on: needs no network and little time.
pub(crate) fn metadata() -> Result<Metadata> {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .exec()
        .context("cannot read the workspace")
}

/// One crate of the workspace.
pub(crate) fn package<'m>(metadata: &'m Metadata, name: &str) -> Result<&'m Package> {
    let found = metadata.packages.iter().find(|package| package.name.as_str() == name);
    found.with_context(|| format!("the workspace has no crate `{name}`"))
}

/// Where cargo builds, as configured: `target` unless somebody chose another place.
pub(crate) fn target_dir() -> Result<PathBuf> {
    Ok(metadata()?.target_directory.into_std_path_buf())
}

/// The cargo that runs us, at the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}
