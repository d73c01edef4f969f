//! One RabbitMQ node in one folder.
//!
//! `node.json` says which ports it has and which processes belong to it; a folder without that file is none of
//! ours and is never removed.

use std::env;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::certificates::Certificates;
use crate::http;
use crate::ports;
use crate::process::{self, Process};
use crate::wait;

/// Not the one in `/usr/sbin`: Debian's wrapper there insists on the user `rabbitmq`.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// A node needs eight seconds on a quiet machine with two cores, nearly all of it CPU time.
const START_LIMIT: Duration = Duration::from_mins(3);

/// How often `up` tries, should somebody take a port in between.
const ATTEMPTS: usize = 3;

/// What the person who starts a node may choose.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    /// Further lines of `rabbitmq.conf`.
    pub(crate) conf: Vec<String>,
    /// The node ends when this process does.
    pub(crate) parent_pid: Option<u32>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Ports {
    amqp: u16,
    amqps: u16,
    management: u16,
    distribution: u16,
    epmd: u16,
}

#[derive(Serialize, Deserialize)]
struct State {
    ports: Ports,
    /// `beam.smp`.
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
    pub(crate) fn up(folder: &Path, settings: &Settings) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let mut node = Self::create(folder, settings)?;
            let Err(error) = node.start() else {
                return Ok(node);
            };
            let again = attempt < ATTEMPTS && node.log().contains("eaddrinuse");
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

    /// Starts the node on whatever data it has, and waits until it speaks AMQP and its management answers.
    pub(crate) fn start(&mut self) -> Result<()> {
        ensure!(!self.is_running(), "the node in {} is running already", self.folder.display());
        if !self.state.epmd.is_some_and(Process::is_alive) {
            self.state.epmd = Some(self.spawn_epmd()?);
        }
        self.state.broker = Some(self.spawn_broker()?);
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

    /// What tests read to find the node.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let Ports { amqp, amqps, management, .. } = self.state.ports;
        let certificates = Certificates::at(&self.folder.join("tls"));
        let path = |path: &Path| path.display().to_string();
        vec![
            ("ESM_TEST_RABBITMQ_URL", format!("amqp://127.0.0.1:{amqp}")),
            ("ESM_TEST_RABBITMQ_TLS_URL", format!("amqps://localhost:{amqps}")),
            ("ESM_TEST_RABBITMQ_MANAGEMENT_URL", format!("http://127.0.0.1:{management}")),
            ("ESM_TEST_RABBITMQ_CA_FILE", path(&certificates.ca)),
            ("ESM_TEST_RABBITMQ_CLIENT_CERT_FILE", path(&certificates.client)),
            ("ESM_TEST_RABBITMQ_CLIENT_KEY_FILE", path(&certificates.client_key)),
            ("ESM_TEST_RABBITMQ_DIR", path(&self.folder)),
        ]
    }

    /// Erlang itself.
    pub(crate) fn process(&self) -> Result<Process> {
        self.state.broker.context("the node was never started")
    }

    /// Where it speaks AMQP.
    pub(crate) fn amqp_port(&self) -> u16 {
        self.state.ports.amqp
    }

    /// Where its management answers.
    pub(crate) fn management_port(&self) -> u16 {
        self.state.ports.management
    }

    /// The same as lines for a shell.
    pub(crate) fn exports(&self) -> String {
        let quoted = |value: &str| format!("'{}'", value.replace('\'', r"'\''"));
        let line = |(name, value): (&str, String)| format!("export {name}={}", quoted(&value));
        lines(self.environment().into_iter().map(line))
    }

    fn create(folder: &Path, settings: &Settings) -> Result<Self> {
        ensure_unused(folder)?;
        for name in ["home", "mnesia", "log"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let [amqp, amqps, management, distribution, epmd] = ports::free()?;
        let ports = Ports { amqp, amqps, management, distribution, epmd };
        let mut node =
            Self { folder: folder.to_owned(), state: State { ports, broker: None, epmd: None, watcher: None } };
        // From here on the folder is known as ours, and the watcher can end what comes next.
        node.save()?;
        if let Some(pid) = settings.parent_pid {
            node.state.watcher = Some(node.spawn_watcher(pid)?);
            node.save()?;
        }
        node.write_configuration(&settings.conf)?;
        fs::write(folder.join("env"), node.exports())?;
        Ok(node)
    }

    fn write_configuration(&self, further: &[String]) -> Result<()> {
        let cookie = self.folder.join("home/.erlang.cookie");
        fs::write(&cookie, "private-test-node")?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        Certificates::create(&self.folder.join("tls"))?;
        fs::write(self.folder.join("rabbitmq.conf"), self.configuration(further))?;
        fs::write(self.folder.join("enabled_plugins"), "[rabbitmq_management].\n")?;
        // The consumer time-out is looked at in every tick, by default once a minute. This one has no name in
        // rabbitmq.conf.
        fs::write(self.folder.join("advanced.config"), "[{rabbit, [{channel_tick_interval, 1000}]}].\n")?;
        Ok(())
    }

    fn configuration(&self, further: &[String]) -> String {
        let Ports { amqp, amqps, management, .. } = self.state.ports;
        let Certificates { ca, server, server_key, .. } = Certificates::at(&self.folder.join("tls"));
        let own = [
            format!("listeners.tcp.1 = 127.0.0.1:{amqp}"),
            format!("listeners.ssl.1 = 127.0.0.1:{amqps}"),
            format!("ssl_options.cacertfile = {}", ca.display()),
            format!("ssl_options.certfile = {}", server.display()),
            format!("ssl_options.keyfile = {}", server_key.display()),
            // A client certificate is not asked for, and checked when one is shown.
            "ssl_options.verify = verify_peer".to_owned(),
            "ssl_options.fail_if_no_peer_cert = false".to_owned(),
            "management.tcp.ip = 127.0.0.1".to_owned(),
            format!("management.tcp.port = {management}"),
            "loopback_users = none".to_owned(),
            "disk_free_limit.absolute = 50MB".to_owned(),
        ];
        lines(own.into_iter().chain(further.iter().cloned()))
    }

    fn spawn_epmd(&self) -> Result<Process> {
        let port = self.state.ports.epmd;
        let mut command = Command::new("epmd");
        command.args(["-port", &port.to_string(), "-address", "127.0.0.1", "-relaxed_command_check"]);
        let log = self.log_file("epmd.log")?;
        let epmd = process::spawn_detached(command.stdout(log.try_clone()?).stderr(log))?;
        wait::until("epmd to answer", START_LIMIT, || {
            ensure!(epmd.is_alive(), "epmd ended; somebody may have taken port {port}");
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        })?;
        Ok(epmd)
    }

    fn spawn_broker(&self) -> Result<Process> {
        let Ports { distribution, epmd, .. } = self.state.ports;
        let log = self.log_file("rabbitmq.log")?;
        let mut command = Command::new(SERVER);
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("LANG", "C.UTF-8");
        for (name, path) in [
            ("HOME", "home"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_LOG_BASE", "log"),
        ] {
            command.env(name, self.folder.join(path));
        }
        command
            .envs([("RABBITMQ_CONF_ENV_FILE", "/dev/null"), ("RABBITMQ_NODENAME", "rabbit@localhost")])
            .envs([("RABBITMQ_LOGS", "-"), ("ERL_EPMD_ADDRESS", "127.0.0.1")])
            .envs([("ERL_EPMD_PORT", epmd.to_string()), ("RABBITMQ_DIST_PORT", distribution.to_string())])
            // The script then becomes Erlang instead of keeping it as a child, so that this is Erlang's pid.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            // Schedulers that do not spin while they wait leave the CPU to others and make its time mean work.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-noinput -kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
            );
        process::spawn_detached(command.stdout(log.try_clone()?).stderr(log))
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
        let Ports { amqp, management, .. } = self.state.ports;
        Ok(speaks_amqp(amqp) && http::get(management, "/api/overview").is_ok())
    }

    fn log_file(&self, name: &str) -> Result<File> {
        let path = self.folder.join("log").join(name);
        let file = File::options().create(true).append(true).open(&path);
        file.with_context(|| format!("cannot write {}", path.display()))
    }

    fn log(&self) -> String {
        let bytes = fs::read(self.folder.join("log/rabbitmq.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What went wrong first, or the end of the log when it names no error.
    fn complaint(&self) -> String {
        const LINES: usize = 15;
        let log = self.log();
        let errors: Vec<&str> = log.lines().filter(|line| line.contains("[error]")).take(LINES).collect();
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
    pub(crate) fn up(folder: &Path) -> Result<Self> {
        let parent_pid = Some(std::process::id());
        Ok(Self(Node::up(folder, &Settings { parent_pid, ..Settings::default() })?))
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

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

/// A broker answers the protocol header with `Connection.Start`, a method frame: its first byte is 1. An open
/// port alone says little, since it opens before the node is ready.
fn speaks_amqp(port: u16) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut first = [0];
        stream.read_exact(&mut first)?;
        Ok(first == [1])
    };
    ask().unwrap_or(false)
}
