//! The fault matrix: what befalls brokers, functions and `esm`, what happens then, and which test shows it.
//!
//! `docs/faults.toml` holds the rows. The page is made of it, and a run of every test fails when a test that a row
//! names did not pass in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::workspace;

/// Writes the page.
pub(crate) fn run() -> Result<()> {
    let page = page();
    fs::write(&page, Matrix::read()?.render()).with_context(|| format!("cannot write {}", page.display()))?;
    eprintln!("faults: wrote {}", page.display());
    Ok(())
}

/// Whether the page says what the rows say.
pub(crate) fn check() -> Result<()> {
    let page = page();
    let written = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    ensure!(
        written == Matrix::read()?.render(),
        "docs/faults.md is not what docs/faults.toml says: run `cargo xtask faults`"
    );
    Ok(())
}

/// Fails when a row names a test that is not among those that passed. `all`: whether the long tests ran.
pub(crate) fn all_shown(passed: &BTreeSet<String>, all: bool) -> Result<()> {
    let unshown = Matrix::read()?.unshown(passed, all);
    ensure!(
        unshown.is_empty(),
        "docs/faults.toml names tests that did not pass in this run, so its rows are not shown:\n  {}",
        unshown.join("\n  ")
    );
    Ok(())
}

fn page() -> PathBuf {
    workspace::root().join("docs/faults.md")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    introduction: String,
    /// Column titles by the keys of the cells.
    columns: BTreeMap<String, String>,
    fault: Vec<Fault>,
}

/// A row.
#[derive(Deserialize)]
struct Fault {
    name: String,
    #[serde(flatten)]
    cells: BTreeMap<String, Cell>,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Cell {
    Shown {
        happens: String,
        guaranteed: String,
        /// As `program::test`.
        tests: Vec<String>,
        /// Whether the tests run in `test --all` only.
        #[serde(default)]
        long: bool,
    },
    Cannot {
        cannot: String,
    },
}

impl Matrix {
    fn read() -> Result<Self> {
        let path = workspace::root().join("docs/faults.toml");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let matrix: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        for fault in &matrix.fault {
            let is_whole = fault.cells.keys().eq(matrix.columns.keys());
            ensure!(is_whole, "{}: `{}` needs exactly one cell for each column", path.display(), fault.name);
            for cell in fault.cells.values() {
                let names_tests = !matches!(cell, Cell::Shown { tests, .. } if tests.is_empty());
                ensure!(names_tests, "{}: a cell of `{}` names no test", path.display(), fault.name);
            }
        }
        Ok(matrix)
    }

    fn unshown(&self, passed: &BTreeSet<String>, all: bool) -> Vec<String> {
        let cells = self.fault.iter().flat_map(|fault| fault.cells.values());
        let expected = cells.filter_map(|cell| match cell {
            Cell::Shown { tests, long, .. } if all || !long => Some(tests),
            _ => None,
        });
        expected.flatten().filter(|test| !passed.contains(*test)).cloned().collect()
    }

    fn render(&self) -> String {
        let mut page = format!("# What happens when something fails\n\n{}\n", self.introduction.trim());
        for Fault { name, cells } in &self.fault {
            let _ = write!(page, "\n## {name}\n\n");
            for (column, cell) in cells {
                let title = self.columns.get(column).map_or(column.as_str(), String::as_str);
                let _ = match cell {
                    Cell::Shown { happens, guaranteed, tests, long } => {
                        let tests: Vec<_> = tests.iter().map(|test| format!("`{test}`")).collect();
                        let when = if *long { " (in `cargo xtask test --all`)" } else { "" };
                        let tests = tests.join(", ");
                        writeln!(page, "- **{title}.** {happens} *Guaranteed:* {guaranteed} *Shown by* {tests}{when}.")
                    }
                    Cell::Cannot { cannot } => writeln!(page, "- **{title}.** Cannot happen: {cannot}"),
                };
            }
        }
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = r#"
        introduction = "Words."
        columns = { activemq = "ActiveMQ", rabbitmq = "RabbitMQ" }

        [[fault]]
        name = "Fire"
        activemq = { cannot = "it is made of water." }
        rabbitmq = { happens = "It burns.", guaranteed = "nothing.", tests = ["house::burns", "house::smokes"] }

        [[fault]]
        name = "Flood"
        activemq = { happens = "It rises.", guaranteed = "all.", tests = ["house::swims"], long = true }
        rabbitmq = { cannot = "it swims." }
    "#;

    #[test]
    fn a_row_tells_every_broker() {
        let page = toml::from_str::<Matrix>(ROWS).unwrap().render();
        assert!(page.contains(
            "\n## Fire\n\n- **ActiveMQ.** Cannot happen: it is made of water.\n- **RabbitMQ.** It burns. *Guaranteed:* \
             nothing. *Shown by* `house::burns`, `house::smokes`.\n"
        ));
        assert!(page.contains("`house::swims` (in `cargo xtask test --all`).\n"));
    }

    #[test]
    fn a_row_is_shown_when_each_of_its_tests_passed() {
        let matrix = toml::from_str::<Matrix>(ROWS).unwrap();
        let passed = BTreeSet::from(["house::burns".to_owned()]);
        assert_eq!(matrix.unshown(&passed, false), ["house::smokes"]);
        assert_eq!(matrix.unshown(&passed, true), ["house::smokes", "house::swims"]);
    }
}
