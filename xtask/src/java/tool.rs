//! The tool, as a process that is told what to do.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::classpath;
use crate::brokers::Source;
use crate::interrupt::Interrupt;
use crate::process::{self, Process, Running};
use crate::wait;

/// Nothing that it is told to do takes longer.
const LIMIT: Duration = Duration::from_mins(10);

pub(crate) struct Tool {
    running: Running,
    /// Goes with every command.
    broker: Vec<(&'static str, String)>,
    /// A file instead of a pipe: whoever waits for an answer can be interrupted.
    output: PathBuf,
    /// How much of it has been read.
    read: usize,
}

impl Tool {
    /// Starts it for one broker. Its answers go into the folder.
    pub(crate) fn start(source: &Source, folder: &Path) -> Result<Self> {
        let output = folder.join("java.out");
        let mut command = process::attached(Path::new("java"))?;
        command.args(["-XX:-UsePerfData", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"]);
        command.args(["-cp", &classpath()?, "Tool"]).stdin(Stdio::piped()).stdout(File::create(&output)?);
        let broker = vec![
            ("url", source.endpoint.clone()),
            ("username", source.username.to_owned()),
            ("password", source.password.to_owned()),
        ];
        Ok(Self { running: Running::start("the tool in Java", &mut command)?, broker, output, read: 0 })
    }

    pub(crate) fn process(&self) -> Result<Process> {
        self.running.process()
    }

    /// Tells it to do something, and waits for its answer.
    pub(crate) fn ask(&mut self, interrupt: &Interrupt, command: &str, words: &[(&str, String)]) -> Result<Value> {
        let mut line = format!("command={command}");
        for (key, value) in self.broker.iter().chain(words) {
            line.extend([" ", key, "="]);
            line.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        let input = self.running.input().context("the tool has no input")?;
        writeln!(input, "{line}")?;
        let line = self.next_line(interrupt)?;
        let mut answer: Value = serde_json::from_str(&line).context("the tool does not speak JSON")?;
        match answer["error"].as_str() {
            Some(problem) => bail!("cannot {command}: {problem}"),
            None => Ok(answer["answer"].take()),
        }
    }

    fn next_line(&mut self, interrupt: &Interrupt) -> Result<String> {
        let mut line = String::new();
        wait::until("the tool to answer", LIMIT, || {
            interrupt.check()?;
            let text = fs::read_to_string(&self.output)?;
            let Some((first, _)) = text.get(self.read..).and_then(|unread| unread.split_once('\n')) else {
                self.running.ensure_alive()?;
                return Ok(false);
            };
            first.clone_into(&mut line);
            self.read += first.len() + 1;
            Ok(true)
        })?;
        Ok(line)
    }
}
