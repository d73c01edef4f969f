//! What every measurement needs: release builds, a private broker, and somewhere to put files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use crate::brokers::{Kind, PrivateNode, Settings};
use crate::interrupt::Interrupt;
use crate::packages;
use crate::services::{Configuration, Programs};

pub(super) struct Lab {
    // Fields are dropped in this order: the node before its folder, the signals last.
    pub(super) node: PrivateNode,
    folder: TempDir,
    pub(super) programs: Programs,
    pub(super) interrupt: Interrupt,
}

impl Lab {
    pub(super) fn open(kind: Kind) -> Result<Self> {
        packages::ensure(kind.packages())?;
        let programs = Programs::build("release", &["--release"])?;
        let interrupt = Interrupt::hold()?;
        let folder = tempfile::Builder::new().prefix("esm-bench-").tempdir()?;
        let node = PrivateNode::up(&folder.path().join(kind.name()), Settings::to_measure(kind))?;
        Ok(Self { node, folder, programs, interrupt })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// An empty file that nobody else uses.
    pub(super) fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder().join(name);
        fs::write(&path, "")?;
        Ok(path)
    }

    pub(super) fn configuration(&self, function_url: &str, mappings: &[String]) -> Configuration {
        Configuration::new(&self.node.source(), &format!("http = {{ url = \"{function_url}\" }}"), mappings)
    }
}

/// The value in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        _ if values.is_empty() => f64::NAN,
        1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// A line that says whether an aim was met.
pub(super) fn verdict(what: &str, value: f64, most: f64, unit: &str) {
    let word = met(value <= most);
    println!("{word}: {what}: {value:.2}{unit}, at most {most}{unit}");
}

/// The same for a value that should be large.
pub(super) fn verdict_at_least(what: &str, value: f64, least: f64, unit: &str) {
    let word = met(value >= least);
    println!("{word}: {what}: {value:.2}{unit}, at least {least:.2}{unit}");
}

fn met(is_met: bool) -> &'static str {
    if is_met { "met" } else { "MISSED" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_needs_no_order() {
        let check = |values: &[f64], expected: f64| assert!((median(values.to_vec()) - expected).abs() < f64::EPSILON);
        check(&[3.0, 1.0, 2.0], 2.0);
        check(&[4.0, 1.0, 2.0, 3.0], 2.5);
    }
}
