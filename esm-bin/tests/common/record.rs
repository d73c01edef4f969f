//! What a function in processes writes down about itself, and what becomes of its processes.

use std::{env, fs, path::PathBuf, process::Command};

use tempfile::TempDir;

use super::service::{Broker, Config, wait_for};

/// What `examples/recording_function.rs` writes down.
pub(crate) struct Record {
    folder: TempDir,
}

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) is_start: bool,
    pub(crate) process: u32,
    pub(crate) queue: String,
    pub(crate) bodies: String,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// A configuration whose function writes this record.
    pub(crate) fn config<B: Broker>(&self, broker: &B, instances: u32) -> Config {
        let program = env::current_exe().expect("has a path");
        let program = program.parent().and_then(|folder| folder.parent()).expect("is in a folder");
        let program = program.join("examples/recording_function");
        assert!(program.exists(), "{} was not built", program.display());
        let (program, folder) = (program.display(), self.folder.path().display());
        Config::with_backend(
            broker,
            format!(
                "process = {{ command = [\"{program}\"], instances = {instances}, environment = {{ RECORD_IN = \"{folder}\" }} }}"
            ),
        )
    }

    /// From now on invocations do not end.
    pub(crate) fn hold(&self) {
        fs::write(self.hold_file(), "").expect("writes");
    }

    /// Invocations may end again.
    pub(crate) fn release(&self) {
        fs::remove_file(self.hold_file()).expect("removes");
    }

    fn hold_file(&self) -> PathBuf {
        self.folder.path().join("hold")
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        let text = fs::read_to_string(self.folder.path().join("record")).unwrap_or_default();
        // The last line may be written just now.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(Line::parse).collect()
    }

    pub(crate) fn starts(&self) -> Vec<Line> {
        self.lines().into_iter().filter(|line| line.is_start).collect()
    }

    /// What ended, in order.
    pub(crate) fn ended(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| !line.is_start).map(|line| line.bodies).collect()
    }

    /// Waits until so many invocations have begun.
    pub(crate) async fn started(&self, count: usize) -> Vec<Line> {
        wait_for("invocations to begin", || {
            let starts = self.starts();
            (starts.len() >= count).then_some(starts)
        })
        .await
    }
}

impl Line {
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        let [what, process, queue, bodies] = words[..] else { panic!("no line of a record: {line}") };
        let process = process.parse().expect("the id of a process");
        Self { is_start: what == "start", process, queue: queue.into(), bodies: bodies.into() }
    }
}

/// Whether a process still runs; one that has ended may still be listed until somebody takes note of it.
pub(crate) fn runs(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, state)| !state.trim_start().starts_with(['Z', 'X']))
}

pub(crate) fn kill(process: u32) {
    let killed = Command::new("kill").args(["-9", &process.to_string()]).status();
    assert!(killed.expect("runs").success());
}
