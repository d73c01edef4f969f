//! The line that `demo` and `bench` build: a publisher, `esm`, and a function at its end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::brokers::Source;
use crate::http;
use crate::interrupt::Interrupt;
use crate::ports;
use crate::process::{self, Process, Running};
use crate::wait;
use crate::workspace;

/// Nothing here takes longer to start on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The programs, in the folder that cargo builds into.
pub(crate) struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// Builds all of them. `--release` goes into `options`.
    pub(crate) fn build(profile: &str, options: &[&str]) -> Result<Self> {
        let build = |what: &[&str]| process::run(workspace::cargo().arg("build").args(options).args(what));
        // Apart, since examples may bring features that the program itself does not have.
        build(&["--package", "esm-bin", "--bin", "esm"])?;
        build(&["--package", "esm-bin", "--example", "function"])?;
        build(&["--package", "esm-rabbitmq", "--examples"])?;
        build(&["--package", "esm-activemq", "--examples"])?;
        Ok(Self { folder: workspace::target_dir()?.join(profile) })
    }

    pub(crate) fn esm(&self) -> PathBuf {
        self.folder.join("esm")
    }

    pub(crate) fn example(&self, name: &str) -> PathBuf {
        self.folder.join("examples").join(name)
    }
}

/// The sample function.
pub(crate) struct Function {
    running: Running,
    port: u16,
}

impl Function {
    pub(crate) fn start(programs: &Programs, options: &[&str], interrupt: &Interrupt) -> Result<Self> {
        let [port] = ports::free()?;
        let mut command = process::attached(&programs.example("function"))?;
        command.args(["--listen", &format!("127.0.0.1:{port}")]).args(options);
        let mut function = Self { running: Running::start("the function", &mut command)?, port };
        wait::until("the function to answer", START_LIMIT, || {
            interrupt.check()?;
            function.running.ensure_alive()?;
            Ok(function.summary().is_ok())
        })?;
        Ok(function)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/2015-03-31/functions/function/invocations", self.port)
    }

    /// How many messages it was handed with success.
    pub(crate) fn messages(&self) -> Result<u64> {
        self.summary()?["messages"].as_u64().context("the function counts no messages")
    }

    pub(crate) fn summary(&self) -> Result<Value> {
        Ok(serde_json::from_str(&http::get(self.port, "/summary")?)?)
    }
}

/// `esm serve`, with its configuration and its log in a folder.
pub(crate) struct Esm {
    running: Running,
    port: u16,
    log: PathBuf,
    /// How much of the log was looked at for what functions print.
    seen: usize,
}

impl Esm {
    /// Writes the configuration, adds where to listen, and starts.
    pub(crate) fn start(programs: &Programs, folder: &Path, configuration: &Configuration) -> Result<Self> {
        Self::start_with(process::attached(&programs.esm())?, folder, configuration)
    }

    /// The same with a command that is `esm` or runs it.
    pub(crate) fn start_with(mut command: Command, folder: &Path, configuration: &Configuration) -> Result<Self> {
        let [port] = ports::free()?;
        let file = folder.join("esm.toml");
        fs::write(&file, format!("[server]\nlisten = \"127.0.0.1:{port}\"\n\n{}", configuration.text))?;
        let log = folder.join("esm.log");
        let output = File::create(&log)?;
        command
            .args(["serve", "--config"])
            .arg(&file)
            .env(PASSWORD, configuration.password)
            .stdout(output.try_clone()?)
            .stderr(output);
        Ok(Self { running: Running::start("esm", &mut command)?, port, log, seen: 0 })
    }

    /// Waits until it reads its queues.
    pub(crate) fn wait_until_ready(&mut self, interrupt: &Interrupt) -> Result<()> {
        self.wait_for("esm to be ready", START_LIMIT, interrupt, |esm| Ok(http::get(esm.port, "/readyz").is_ok()))
    }

    /// Waits for something that it does; if it does not, the end of its log may tell why.
    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        interrupt: &Interrupt,
        mut ready: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let waited = wait::until(what, limit, || {
            interrupt.check()?;
            self.running.ensure_alive()?;
            ready(self)
        });
        waited.map_err(|error| anyhow!("{error:#}; the end of esm's log:\n{}", self.log_end()))
    }

    /// What functions in processes printed since this was asked last: `esm` logs it with their names.
    pub(crate) fn printed(&mut self) -> Result<Vec<String>> {
        let log = fs::read_to_string(&self.log)?;
        let new = &log[self.seen..];
        let new = &new[..new.rfind('\n').map_or(0, |end| end + 1)];
        self.seen += new.len();
        let events = new.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(events.filter_map(|event| printed_line(&event)).collect())
    }

    pub(crate) fn page(&self, path: &str) -> Result<String> {
        http::get(self.port, path)
    }

    pub(crate) fn process(&self) -> Result<Process> {
        self.running.process()
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops it in good order: it finishes what it has begun.
    pub(crate) fn stop(self) -> Result<()> {
        let log_end = self.log_end();
        self.running.stop().map_err(|error| anyhow!("{error:#}; the end of esm's log:\n{log_end}"))
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn printed_line(event: &Value) -> Option<String> {
    // Lines that are not about an invocation are esm's own.
    let is_printed = event["function"].is_string() && event["request_id"].is_string();
    event["message"].as_str().filter(|_| is_printed).map(str::to_owned)
}

/// A configuration for `esm`: one broker, one function, and mappings between them.
pub(crate) struct Configuration {
    pub(crate) text: String,
    /// Passwords never stand in a configuration: this one comes by the environment.
    password: &'static str,
}

impl Configuration {
    /// `backend` is the line that says how the function is reached.
    pub(crate) fn new(source: &Source, backend: &str, mappings: &[String]) -> Self {
        let Source { engine, endpoint, username, password } = source;
        let mappings = mappings.join("\n");
        let text = format!(
            r#"[brokers.sample]
engine = "{engine}"
endpoints = ["{endpoint}"]

[secrets.sample-login]
username = "{username}"
password = {{ env = "{PASSWORD}" }}

[functions.sample]
{backend}

{mappings}"#
        );
        Self { text, password }
    }
}

/// The variable with the broker's password.
const PASSWORD: &str = "BROKER_PASSWORD";

/// One mapping of that configuration.
pub(crate) fn mapping(queue: &str, settings: &str) -> String {
    format!(
        r#"[[event_source_mappings]]
function_name = "sample"
event_source = "sample"
queues = ["{queue}"]
secret = "sample-login"
{settings}"#
    )
}

/// Publishes to a queue of a private RabbitMQ.
pub(crate) fn publish(programs: &Programs, url: &str, queue: &str, options: &[&str]) -> Result<()> {
    let mut command = Command::new(programs.example("publish"));
    command.args(["--url", url, "--queue", queue, "--confirm"]).args(options);
    process::output(command.stdout(Stdio::null())).map(drop)
}

/// A series' value on a page of metrics, added up over its labels.
pub(crate) fn metric(page: &str, name: &str) -> f64 {
    let lines = page.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with(['{', ' '])).filter_map(|rest| rest.rsplit(' ').next());
    values.filter_map(|value| value.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_added_up_over_its_labels() {
        let page = "# TYPE esm_a counter\nesm_a{x=\"1\"} 2\nesm_a{x=\"2\"} 3\nesm_a_b 7\nesm_c 4\n";

        assert!((metric(page, "esm_a") - 5.0).abs() < f64::EPSILON);
        assert!((metric(page, "esm_c") - 4.0).abs() < f64::EPSILON);
    }
}
