//! One broker in one folder, of whatever kind.
//!
//! `node.json` says which ports it has and which processes belong to it; a folder without that file is none of
//! ours and is never removed.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{activemq, rabbitmq};
use crate::packages;
use crate::process::{self, Process};
use crate::wait;

/// A node needs eight seconds on a quiet machine with two cores, nearly all of it CPU time.
const START_LIMIT: Duration = Duration::from_mins(3);

/// How often `up` tries, should somebody take a port in between.
const ATTEMPTS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    Rabbitmq,
    Activemq,
}

impl Engine {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rabbitmq => "rabbitmq",
            Self::Activemq => "activemq",
        }
    }

    /// Makes sure that its program is there.
    pub(crate) fn install(self) -> Result<()> {
        match self {
            Self::Rabbitmq => packages::ensure(&packages::RABBITMQ),
            Self::Activemq => packages::ensure(&packages::ACTIVEMQ),
        }
    }
}

/// What the person who starts a node may choose.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    /// Further lines of its configuration: of `rabbitmq.conf`, or what `activemq::Choices` understands.
    pub(crate) conf: Vec<String>,
    /// The node ends when this process does.
    pub(crate) parent_pid: Option<u32>,
}

/// What is special to each kind.
#[derive(Clone, Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "lowercase")]
enum Kind {
    Rabbitmq(rabbitmq::Ports),
    Activemq(activemq::Ports),
}

#[derive(Serialize, Deserialize)]
struct State {
    kind: Kind,
    broker: Option<Process>,
    /// Erlang's name service. It outlives the broker, so we start it ourselves and know its id.
    epmd: Option<Process>,
    /// Ends the node when the process it was started for is gone.
    watcher: Option<Process>,
}

pub(crate) struct Node {
    folder: PathBuf,
    state: State,
}

impl Node {
    /// A new node, ready for use.
    pub(crate) fn up(engine: Engine, folder: &Path, settings: &Settings) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let mut node = Self::create(engine, folder, settings)?;
            let Err(error) = node.start() else {
                return Ok(node);
            };
            let log = node.log();
            let is_taken = log.contains("eaddrinuse") || log.contains("Address already in use");
            node.down()?;
            if !is_taken || attempt == ATTEMPTS {
                return Err(error);
            }
            eprintln!("somebody took a port of the node; trying others");
            attempt += 1;
        }
    }

    /// The node in this folder, running or not.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let text = match fs::read_to_string(folder.join("node.json")) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("there is no node in {}; `brokers up` makes one", folder.display())
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", folder.display()));
            }
        };
        let state =
            serde_json::from_str(&text).with_context(|| format!("node.json in {} is damaged", folder.display()))?;
        Ok(Self { folder: folder.to_owned(), state })
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state.broker.is_some_and(Process::is_alive)
    }

    /// Starts the node on whatever data it has, and waits until it can be used, or stands by for another.
    pub(crate) fn start(&mut self) -> Result<()> {
        ensure!(!self.is_running(), "the node in {} is running already", self.folder.display());
        let log = self.log_file("broker.log")?;
        self.state.broker = Some(match &self.state.kind {
            Kind::Rabbitmq(ports) => {
                if !self.state.epmd.is_some_and(Process::is_alive) {
                    self.state.epmd = Some(rabbitmq::spawn_epmd(*ports, self.log_file("epmd.log")?, START_LIMIT)?);
                }
                rabbitmq::spawn_broker(&self.folder, *ports, log)?
            }
            Kind::Activemq(_) => activemq::spawn_broker(&self.folder, log)?,
        });
        self.save()?;
        wait::until("the node to answer", START_LIMIT, || self.is_ready())
    }

    /// Stops the broker in good order; its data stays.
    pub(crate) fn stop(&self) -> Result<()> {
        self.state.broker.map_or(Ok(()), Process::terminate)
    }

    /// Kills the broker as a power cut would; its data stays.
    pub(crate) fn kill(&self) -> Result<()> {
        self.state.broker.map_or(Ok(()), Process::kill)
    }

    /// Ends everything that belongs to the node and removes its folder.
    pub(crate) fn down(&self) -> Result<()> {
        let State { broker, epmd, watcher, .. } = self.state;
        for process in [broker, epmd, watcher].into_iter().flatten() {
            // The watcher itself may be the one who does this.
            if process != Process::current()? {
                process.kill()?;
            }
        }
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))
    }

    /// Halts it, so that it neither speaks nor listens.
    pub(crate) fn pause(&self) -> Result<()> {
        self.state.broker.map_or(Ok(()), Process::pause)
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.state.broker.map_or(Ok(()), Process::resume)
    }

    /// What tests read to find the node.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        match &self.state.kind {
            Kind::Rabbitmq(ports) => rabbitmq::environment(&self.folder, *ports),
            Kind::Activemq(ports) => activemq::environment(&self.folder, *ports),
        }
    }

    /// Erlang or Java itself.
    pub(crate) fn process(&self) -> Result<Process> {
        self.state.broker.context("the node was never started")
    }

    /// Where it speaks AMQP, and where its management answers.
    pub(crate) fn rabbitmq_ports(&self) -> Result<rabbitmq::Ports> {
        match self.state.kind {
            Kind::Rabbitmq(ports) => Ok(ports),
            Kind::Activemq(_) => bail!("{} is no RabbitMQ", self.folder.display()),
        }
    }

    /// Where it speaks OpenWire and STOMP.
    pub(crate) fn activemq_ports(&self) -> Result<activemq::Ports> {
        match self.state.kind {
            Kind::Activemq(ports) => Ok(ports),
            Kind::Rabbitmq(_) => bail!("{} is no ActiveMQ", self.folder.display()),
        }
    }

    /// The same as lines for a shell.
    pub(crate) fn exports(&self) -> String {
        let quoted = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
        let line = |(name, value): (&str, String)| format!("export {name}={}", quoted(&value));
        lines(self.environment().into_iter().map(line))
    }

    fn create(engine: Engine, folder: &Path, settings: &Settings) -> Result<Self> {
        ensure_unused(folder)?;
        let log = folder.join("log");
        fs::create_dir_all(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let kind = match engine {
            Engine::Rabbitmq => Kind::Rabbitmq(rabbitmq::Ports::free()?),
            Engine::Activemq => Kind::Activemq(activemq::Ports::free()?),
        };
        let mut node = Self {
            folder: folder.to_owned(),
            state: State { kind: kind.clone(), broker: None, epmd: None, watcher: None },
        };
        // From here on the folder is known as ours, and the watcher can end what comes next.
        node.save()?;
        if let Some(pid) = settings.parent_pid {
            node.state.watcher = Some(node.spawn_watcher(pid)?);
            node.save()?;
        }
        match kind {
            Kind::Rabbitmq(ports) => rabbitmq::configure(folder, ports, &settings.conf)?,
            Kind::Activemq(ports) => activemq::configure(folder, ports, &settings.conf)?,
        }
        fs::write(folder.join("env"), node.exports())?;
        Ok(node)
    }

    fn spawn_watcher(&self, pid: u32) -> Result<Process> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["brokers", "watch", "--parent-pid", &pid.to_string(), "--dir"]).arg(&self.folder);
        let log = self.log_file("watcher.log")?;
        process::spawn_detached(command.current_dir("/").stdout(log.try_clone()?).stderr(log))
    }

    fn is_ready(&self) -> Result<bool> {
        if !self.is_running() {
            bail!("the node in {} ended while it started:\n{}", self.folder.display(), self.complaint());
        }
        Ok(match &self.state.kind {
            Kind::Rabbitmq(ports) => rabbitmq::answers(*ports),
            Kind::Activemq(ports) => activemq::answers(*ports) || activemq::stands_by(&self.log()),
        })
    }

    fn log_file(&self, name: &str) -> Result<File> {
        let path = self.folder.join("log").join(name);
        let file = File::options().create(true).append(true).open(&path);
        file.with_context(|| format!("cannot write {}", path.display()))
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("log/broker.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What went wrong first, or the end of the log when it names no error.
    fn complaint(&self) -> String {
        const LINES: usize = 15;
        let log = self.log();
        let errors: Vec<&str> = log.lines().filter(|line| line.contains("[error]") || line.contains("ERROR")).take(LINES).collect();
        if !errors.is_empty() {
            return errors.join("\n");
        }
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }

    /// Written beside and renamed, so that nobody ever reads half of it.
    fn save(&self) -> Result<()> {
        let draft = self.folder.join("node.json.new");
        fs::write(&draft, serde_json::to_vec_pretty(&self.state)?)?;
        fs::rename(draft, self.folder.join("node.json"))?;
        Ok(())
    }
}

/// A node that ends with this value, and in any case with this process.
pub(crate) struct PrivateNode(Node);

impl PrivateNode {
    pub(crate) fn up(engine: Engine, folder: &Path, conf: &[&str]) -> Result<Self> {
        let conf = conf.iter().map(|line| (*line).to_owned()).collect();
        Ok(Self(Node::up(engine, folder, &Settings { conf, parent_pid: Some(std::process::id()) })?))
    }
}

impl Deref for PrivateNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.0
    }
}

impl Drop for PrivateNode {
    fn drop(&mut self) {
        if let Err(error) = self.0.down() {
            eprintln!("cannot end the private broker: {error:#}");
        }
    }
}

fn ensure_unused(folder: &Path) -> Result<()> {
    ensure!(
        !folder.join("node.json").exists(),
        "{} holds a node that is not running: `brokers start` starts it again, `brokers down` removes it",
        folder.display()
    );
    let is_empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    ensure!(is_empty, "{} is not empty: a node needs a folder of its own", folder.display());
    Ok(())
}

pub(super) fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}
