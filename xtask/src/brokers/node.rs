//! One broker in one folder: what is the same for every engine.
//!
//! `node.json` says which engine it is, which ports it has and which processes belong to it; a folder without
//! that file is none of ours and is never removed.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use super::activemq::Activemq;
use super::engine::{Broker, Company, Engine, Settings};
use super::rabbitmq::Rabbitmq;
use crate::process::{self, Process};
use crate::wait;

/// RabbitMQ needs eight seconds on a quiet machine with two cores, ActiveMQ two, nearly all of it CPU time.
const START_LIMIT: Duration = Duration::from_mins(3);

/// How often `up` tries, should somebody take a port in between.
const ATTEMPTS: usize = 3;

/// Where a node keeps the one that takes over when it is gone.
const STANDBY: &str = "standby";

/// All that a node's folder may hold beside the node itself.
const FURTHER: [&str; 3] = [STANDBY, "second", "third"];

#[derive(Serialize, Deserialize)]
struct State {
    #[serde(flatten)]
    engine: Engine,
    /// The broker itself.
    broker: Option<Process>,
    /// Ends the node when the process it was started for is gone.
    watcher: Option<Process>,
}

/// A broker, as somebody sees it who wants to read from it.
pub(crate) struct Source {
    pub(crate) engine: &'static str,
    pub(crate) endpoint: String,
    pub(crate) username: &'static str,
    pub(crate) password: &'static str,
}

pub(crate) struct Node {
    folder: PathBuf,
    state: State,
}

impl Node {
    /// A new node, ready for use.
    pub(crate) fn up(folder: &Path, settings: &Settings) -> Result<Self> {
        if settings.company == Company::Cluster {
            return Self::up_together(folder, settings);
        }
        let node = Self::up_alone(folder, settings)?;
        if settings.company == Company::Standby {
            let standby =
                Settings { company: Company::Alone, parent_pid: None, shares_store: true, ..settings.clone() };
            // The node's own watcher and its own end take care of this one too.
            if let Err(error) = Self::up_alone(&folder.join(STANDBY), &standby) {
                node.down()?;
                return Err(error);
            }
        }
        Ok(node)
    }

    /// The nodes of a cluster find each other while they start: so they start at the same time.
    fn up_together(folder: &Path, settings: &Settings) -> Result<Self> {
        let mut nodes = vec![Self::create(folder, settings)?];
        // The first node's own watcher and its own end take care of the others too.
        let further = Settings { parent_pid: None, ..settings.clone() };
        for (name, member) in nodes[0].rabbitmq()?.others()? {
            nodes.push(Self::create_as(&folder.join(name), Engine::Rabbitmq(member), &further)?);
        }
        let first = nodes[0].start_name_service();
        let started = first.and_then(|()| {
            thread::scope(|scope| {
                let starting: Vec<_> = nodes.iter_mut().map(|node| scope.spawn(|| node.start())).collect();
                let started = starting
                    .into_iter()
                    .map(|node| node.join().map_err(|_| anyhow!("a thread that starts a node panicked"))?);
                started.collect::<Vec<Result<()>>>().into_iter().collect::<Result<()>>()
            })
        });
        let first = nodes.swap_remove(0);
        if let Err(error) = started {
            first.down()?;
            return Err(error);
        }
        Ok(first)
    }

    fn up_alone(folder: &Path, settings: &Settings) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let mut node = Self::create(folder, settings)?;
            let Err(error) = node.start() else {
                return Ok(node);
            };
            let again = attempt < ATTEMPTS && node.log().contains(node.broker().complaint_about_a_port());
            node.down()?;
            if !again {
                return Err(error);
            }
            eprintln!("somebody took a port of the node; trying others");
            attempt += 1;
        }
    }

    /// The node in this folder, running or not.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        match Self::find(folder)? {
            Some(node) => Ok(node),
            None => bail!("there is no node in {}; `brokers up` makes one", folder.display()),
        }
    }

    fn find(folder: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(folder.join("node.json")) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", folder.display()));
            }
        };
        let state =
            serde_json::from_str(&text).with_context(|| format!("node.json in {} is damaged", folder.display()))?;
        Ok(Some(Self { folder: folder.to_owned(), state }))
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state.broker.is_some_and(Process::is_alive)
    }

    /// Starts the node on whatever data it has, and waits until it answers, or waits to take over.
    pub(crate) fn start(&mut self) -> Result<()> {
        ensure!(!self.is_running(), "the node in {} is running already", self.folder.display());
        let said_before = self.log().len();
        let broker = self.state.engine.broker_mut().spawn(&self.folder);
        // Also after a failure: what was started beside the broker must be known to be ended.
        self.state.broker = broker.as_ref().ok().copied();
        self.save()?;
        broker?;
        wait::until("the node to answer", START_LIMIT, || self.is_ready(said_before))
    }

    /// Starts what other nodes of a cluster need of this one first.
    fn start_name_service(&mut self) -> Result<()> {
        if let Engine::Rabbitmq(rabbitmq) = &mut self.state.engine {
            rabbitmq.start_name_service(&self.folder)?;
        }
        self.save()
    }

    /// Stops the broker in good order; its data stays.
    pub(crate) fn stop(&self) -> Result<()> {
        self.state.broker.map_or(Ok(()), Process::terminate)
    }

    /// Kills the broker as a power cut would; its data stays.
    pub(crate) fn kill(&self) -> Result<()> {
        self.state.broker.map_or(Ok(()), Process::kill)
    }

    /// Lets the broker do nothing at all, as a machine that hangs does: its connections stay open.
    pub(crate) fn pause(&self) -> Result<()> {
        self.process()?.pause();
        Ok(())
    }

    /// Lets a paused broker go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.process()?.resume();
        Ok(())
    }

    /// Ends everything that belongs to the node and removes its folder.
    pub(crate) fn down(&self) -> Result<()> {
        for further in FURTHER {
            if let Some(further) = Self::find(&self.folder.join(further))? {
                further.down()?;
            }
        }
        let State { broker, watcher, .. } = self.state;
        for process in [broker, self.broker().helper(), watcher].into_iter().flatten() {
            // The watcher itself may be the one who does this.
            if process != Process::current()? {
                process.kill()?;
            }
        }
        fs::remove_dir_all(&self.folder).with_context(|| format!("cannot remove {}", self.folder.display()))
    }

    /// What tests read to find the node.
    pub(crate) fn environment(&self) -> Result<Vec<(&'static str, String)>> {
        let mut environment = self.broker().environment(&self.folder)?;
        let members = ["second", "third"].iter().filter_map(|name| Self::find(&self.folder.join(name)).transpose());
        let others = members.map(|member| Ok(member?.broker().endpoint())).collect::<Result<Vec<_>>>()?;
        if !others.is_empty() {
            environment.push(("ESM_TEST_RABBITMQ_OTHER_URLS", others.join(",")));
        }
        Ok(environment)
    }

    /// What `esm`'s configuration says of it.
    pub(crate) fn source(&self) -> Source {
        let broker = self.broker();
        let (username, password) = broker.administrator();
        Source { engine: self.state.engine.kind().name(), endpoint: broker.endpoint(), username, password }
    }

    /// The environment as lines for a shell.
    pub(crate) fn exports(&self) -> Result<String> {
        let quoted = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
        let line = |(name, value): (&str, String)| format!("export {name}={}\n", quoted(&value));
        Ok(self.environment()?.into_iter().map(line).collect())
    }

    /// The broker itself.
    pub(crate) fn process(&self) -> Result<Process> {
        self.state.broker.context("the node was never started")
    }

    /// The node's RabbitMQ, for whoever knows that it is one.
    pub(crate) fn rabbitmq(&self) -> Result<&Rabbitmq> {
        match &self.state.engine {
            Engine::Rabbitmq(rabbitmq) => Ok(rabbitmq),
            Engine::Activemq(_) => bail!("the node in {} is no RabbitMQ", self.folder.display()),
        }
    }

    /// The node's ActiveMQ, for whoever knows that it is one.
    pub(crate) fn activemq(&self) -> Result<&Activemq> {
        match &self.state.engine {
            Engine::Activemq(activemq) => Ok(activemq),
            Engine::Rabbitmq(_) => bail!("the node in {} is no ActiveMQ", self.folder.display()),
        }
    }

    fn broker(&self) -> &dyn Broker {
        self.state.engine.broker()
    }

    fn create(folder: &Path, settings: &Settings) -> Result<Self> {
        Self::create_as(folder, Engine::new(settings)?, settings)
    }

    fn create_as(folder: &Path, engine: Engine, settings: &Settings) -> Result<Self> {
        ensure_unused(folder)?;
        let logs = folder.join("log");
        fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
        let mut node = Self { folder: folder.to_owned(), state: State { engine, broker: None, watcher: None } };
        // From here on the folder is known as ours, and the watcher can end what comes next.
        node.save()?;
        if let Some(pid) = settings.parent_pid {
            node.state.watcher = Some(node.spawn_watcher(pid)?);
            node.save()?;
        }
        node.broker().configure(folder, &settings.conf)?;
        fs::write(folder.join("env"), node.exports()?)?;
        Ok(node)
    }

    fn spawn_watcher(&self, pid: u32) -> Result<Process> {
        let mut command = Command::new(env::current_exe()?);
        command.args(["brokers", "watch", "--parent-pid", &pid.to_string(), "--dir"]).arg(&self.folder);
        let log = log_file(&self.folder, "watcher.log")?;
        process::spawn_detached(command.current_dir("/").stdout(log.try_clone()?).stderr(log))
    }

    fn is_ready(&self, said_before: usize) -> Result<bool> {
        if !self.is_running() {
            bail!("the node in {} ended while it started:\n{}", self.folder.display(), self.complaint());
        }
        let log = self.log();
        Ok(self.broker().is_ready(log.get(said_before..).unwrap_or_default()))
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("log").join(self.broker().log_name())).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What went wrong first, or the end of the log when it names no error.
    fn complaint(&self) -> String {
        const LINES: usize = 15;
        let log = self.log();
        let mark = self.broker().mark_of_errors();
        let errors: Vec<&str> = log.lines().filter(|line| line.contains(mark)).take(LINES).collect();
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

/// A file in the node's folder to which a process may add what it has to say.
pub(super) fn log_file(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join("log").join(name);
    let file = File::options().create(true).append(true).open(&path);
    file.with_context(|| format!("cannot write {}", path.display()))
}

/// A node that ends with this value, and in any case with this process.
pub(crate) struct PrivateNode(Node);

impl PrivateNode {
    pub(crate) fn up(folder: &Path, settings: Settings) -> Result<Self> {
        let parent_pid = Some(std::process::id());
        Ok(Self(Node::up(folder, &Settings { parent_pid, ..settings })?))
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
