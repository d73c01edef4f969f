//! Names and licences of the packages that are part of a release.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::camino::Utf8Path;
use cargo_metadata::{MetadataCommand, Package};

use super::build::Toolchain;
use super::selection::Selection;
use crate::process;
use crate::workspace;

const INTRODUCTION: &str = "\
# Third-party software in this build of esm

The program contains the packages below and the Rust standard library (MIT OR Apache-2.0,
https://github.com/rust-lang/rust). The texts of their licences follow the list.
";

/// File names that carry a licence or belong to one, in lower case.
const LICENCE_FILES: [&str; 6] = ["license", "licence", "copying", "copyright", "notice", "unlicense"];

/// The whole notice, in Markdown.
pub(super) fn write(toolchain: &Toolchain, selection: &Selection) -> Result<String> {
    let linked = linked(toolchain, selection)?;
    let unwanted = selection.unwanted_crates();
    let found: Vec<_> = linked.iter().filter(|id| unwanted.contains(&id.0)).collect();
    ensure!(found.is_empty(), "the program should lack {unwanted:?} and is linked with {found:?}");
    let packages = third_party(toolchain, &linked)?;
    Ok(notice(&packages))
}

/// Name and version of every package that ends up in the program: with just these features, and without
/// those that only build it.
fn linked(toolchain: &Toolchain, selection: &Selection) -> Result<Vec<(String, String)>> {
    let mut command = workspace::cargo();
    command.args(["tree", "--locked", "--package", "esm-bin", "--no-default-features"]);
    command.args(["--features", &selection.features(), "--target", &toolchain.target]);
    command.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--no-dedupe", "--format", "{p}"]);
    let mut packages: Vec<(String, String)> = process::output(&mut command)?
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next().unwrap_or_default();
            let version = words.next().and_then(|version| version.strip_prefix('v'));
            version.map(|version| (name.to_owned(), version.to_owned())).with_context(|| format!("what is `{line}`?"))
        })
        .collect::<Result<_>>()?;
    packages.sort();
    packages.dedup();
    Ok(packages)
}

/// What the registry knows about them; our own crates have no source and are left out.
fn third_party(toolchain: &Toolchain, linked: &[(String, String)]) -> Result<Vec<Package>> {
    let mut command = MetadataCommand::new();
    command.current_dir(workspace::root());
    command.other_options(["--locked", "--filter-platform", &toolchain.target].map(str::to_owned).to_vec());
    let metadata = command.exec().context("cannot read what the packages say about themselves")?;
    let is_linked = |package: &Package| linked.contains(&(package.name.to_string(), package.version.to_string()));
    let mut packages: Vec<Package> =
        metadata.packages.into_iter().filter(|package| package.source.is_some() && is_linked(package)).collect();
    packages.sort_by(|a, b| (a.name.as_str(), &a.version).cmp(&(b.name.as_str(), &b.version)));
    Ok(packages)
}

fn notice(packages: &[Package]) -> String {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut notice = format!("{INTRODUCTION}\n");
    for package in packages {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or("see its licence file");
        let repository = package.repository.as_deref().unwrap_or("no repository named");
        let _ = writeln!(notice, "- {name}: {licence}, {repository}");
        for text in licence_texts(package) {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    for (text, names) in &texts {
        let _ = write!(notice, "\n## {}\n\n```text\n{}\n```\n", names.join(", "), text.trim_end());
    }
    notice
}

/// The licence files in the package's folder, each once.
fn licence_texts(package: &Package) -> Vec<String> {
    let folder = package.manifest_path.parent().map_or(Path::new(""), Utf8Path::as_std_path);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut texts: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| is_licence(&name.to_string_lossy())))
        .filter_map(|path| fs::read(path).ok())
        .map(|text| String::from_utf8_lossy(&text).replace("\r\n", "\n"))
        .collect();
    texts.sort();
    texts.dedup();
    texts
}

fn is_licence(name: &str) -> bool {
    let name = name.to_lowercase();
    LICENCE_FILES.iter().any(|prefix| name.starts_with(prefix))
}
