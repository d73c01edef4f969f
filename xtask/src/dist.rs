//! A release for exactly the adapters and invokers that somebody wants, byte for byte the same wherever and
//! whenever it is built from the same commit with the same compiler.

mod archive;
mod build;
mod notices;
mod selection;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::Metadata;
use clap::Args;

use archive::{Archive, Entry};
use build::Toolchain;
use selection::Selection;

use crate::packages;
use crate::workspace;

/// Runs the program as a service.
const UNIT: &str = include_str!("../assets/esm.service");

#[derive(Args)]
pub(crate) struct Arguments {
    /// The brokers to support [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    adapters: Option<Vec<String>>,
    /// The ways to reach a function [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    invokers: Option<Vec<String>>,
    /// Where the archive goes
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
    /// Build a second time, in another folder, and compare
    #[arg(long)]
    verify: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let metadata = workspace::metadata()?;
    let selection = Selection::choose(&metadata, arguments.adapters.as_deref(), arguments.invokers.as_deref())?;
    packages::ensure(&packages::BUILD)?;
    let toolchain = Toolchain::find()?;
    let archive = make(&metadata, &toolchain, &selection, "dist")?;
    if arguments.verify {
        let second = make(&metadata, &toolchain, &selection, "dist-verify")?;
        archive.compare(&second)?;
        eprintln!("dist: a second build gave the same bytes");
    }
    fs::create_dir_all(&arguments.out).with_context(|| format!("cannot create {}", arguments.out.display()))?;
    let path = arguments.out.join(archive.file_name());
    fs::write(&path, archive.bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    archive::write_sums(&arguments.out)?;
    println!("{}", path.display());
    Ok(())
}

fn make(metadata: &Metadata, toolchain: &Toolchain, selection: &Selection, folder: &str) -> Result<Archive> {
    let target_dir = metadata.target_directory.as_std_path().join(folder);
    eprintln!("dist: building esm with {selection} in {}", target_dir.display());
    let program = build::program(toolchain, selection, &target_dir)?;
    selection.ensure_nothing_else(&program)?;
    let entries = vec![
        Entry::program("esm", program),
        Entry::text("esm.toml", read("esm.sample.toml")?),
        Entry::text("esm.service", UNIT.into()),
        Entry::text("README.md", read("README.md")?),
        Entry::text("LICENSE-MIT", read("LICENSE-MIT")?),
        Entry::text("LICENSE-APACHE", read("LICENSE-APACHE")?),
        Entry::text("THIRD-PARTY.md", notices::write(toolchain, selection)?.into()),
    ];
    let version = &workspace::package(metadata, "esm-bin")?.version;
    let name = format!("esm-{version}-{}{}", toolchain.target, selection.suffix());
    Archive::pack(&name, entries, build::commit_time()?)
}

fn read(name: &str) -> Result<Vec<u8>> {
    let path: &Path = &workspace::root().join(name);
    let text =
        fs::read(path).with_context(|| format!("cannot read {}, which belongs into a release", path.display()))?;
    ensure!(!text.is_empty(), "{} is empty, and it belongs into a release", path.display());
    Ok(text)
}
