//! RabbitMQ, from Debian's package, the system's own or one of another release.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::certificates::Certificates;
use super::engine::{self, Broker, Company, Settings};
use super::node::log_file;
use super::release::Release;
use crate::http;
use crate::ports;
use crate::process::{self, Process};
use crate::wait;

/// Not the one in `/usr/sbin`: Debian's wrapper there insists on the user `rabbitmq`.
pub(super) const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// Erlang's name service starts at once.
const EPMD_LIMIT: Duration = Duration::from_mins(1);

#[derive(Serialize, Deserialize)]
pub(crate) struct Rabbitmq {
    ports: Ports,
    member: Member,
    /// `None`: the system's own.
    release: Option<Release>,
    /// Erlang's name service. It outlives the broker, so we start it ourselves and know its id.
    epmd: Option<Process>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Ports {
    amqp: u16,
    amqps: u16,
    management: u16,
    distribution: u16,
    epmd: u16,
}

/// Which node it is, and whether it is alone.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Member {
    Alone,
    /// The place in its cluster.
    Of(usize),
}

/// The nodes of a cluster, by the names that Erlang knows them by.
const CLUSTER: [&str; 3] = ["first", "second", "third"];

impl Member {
    fn name(self) -> &'static str {
        match self {
            Self::Alone => "rabbit",
            Self::Of(place) => CLUSTER[place],
        }
    }
}

impl Rabbitmq {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let [amqp, amqps, management, distribution, epmd] = ports::free()?;
        let ports = Ports { amqp, amqps, management, distribution, epmd };
        let member = if settings.company == Company::Cluster { Member::Of(0) } else { Member::Alone };
        Ok(Self { ports, member, release: settings.release, epmd: None })
    }

    /// The other members of the cluster that this node is the first of, and their names. They use its name service.
    pub(super) fn others(&self) -> Result<Vec<(&'static str, Self)>> {
        if self.member == Member::Alone {
            return Ok(Vec::new());
        }
        let other = |place| {
            let [amqp, amqps, management, distribution] = ports::free()?;
            let ports = Ports { amqp, amqps, management, distribution, epmd: self.ports.epmd };
            Ok((CLUSTER[place], Self { ports, member: Member::Of(place), release: self.release, epmd: None }))
        };
        (1..CLUSTER.len()).map(other).collect()
    }

    /// Where it speaks AMQP.
    pub(crate) fn amqp_port(&self) -> u16 {
        self.ports.amqp
    }

    /// Where its management answers.
    pub(crate) fn management_port(&self) -> u16 {
        self.ports.management
    }

    fn configuration(&self, folder: &Path, further: &[String]) -> String {
        let Ports { amqp, amqps, management, .. } = self.ports;
        let Certificates { ca, server, server_key, .. } = Certificates::at(&folder.join("tls"));
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
        let cluster = match self.member {
            Member::Alone => Vec::new(),
            Member::Of(_) => {
                let node = |(place, name)| format!("cluster_formation.classic_config.nodes.{place} = {name}@localhost");
                let discovery = "cluster_formation.peer_discovery_backend = rabbit_peer_discovery_classic_config";
                [discovery.to_owned()].into_iter().chain((1..).zip(CLUSTER).map(node)).collect()
            }
        };
        lines(own.into_iter().chain(cluster).chain(further.iter().cloned()))
    }

    fn program(&self, program: &str, folder: &Path) -> Result<Command> {
        match self.release {
            Some(release) => release.command(program, folder),
            None => Ok(Command::new(program)),
        }
    }

    /// Unless another node of the cluster has it.
    pub(super) fn start_name_service(&mut self, folder: &Path) -> Result<()> {
        let has_one = !matches!(self.member, Member::Of(1..));
        if has_one && !self.epmd.is_some_and(Process::is_alive) {
            self.epmd = Some(self.spawn_epmd(folder)?);
        }
        Ok(())
    }

    fn spawn_epmd(&self, folder: &Path) -> Result<Process> {
        let port = self.ports.epmd;
        let mut command = self.program("epmd", folder)?;
        command.args(["-port", &port.to_string(), "-address", "127.0.0.1", "-relaxed_command_check"]);
        let log = log_file(folder, "epmd.log")?;
        let epmd = process::spawn_detached(command.stdout(log.try_clone()?).stderr(log))?;
        wait::until("epmd to answer", EPMD_LIMIT, || {
            ensure!(epmd.is_alive(), "epmd ended; somebody may have taken port {port}");
            Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
        })?;
        Ok(epmd)
    }

    fn spawn_broker(&self, folder: &Path) -> Result<Process> {
        let Ports { distribution, epmd, .. } = self.ports;
        let log = log_file(folder, self.log_name())?;
        let mut command = self.program(SERVER, folder)?;
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("LANG", "C.UTF-8");
        for (name, path) in [
            ("HOME", "home"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("RABBITMQ_MNESIA_BASE", "mnesia"),
            ("RABBITMQ_LOG_BASE", "log"),
        ] {
            command.env(name, folder.join(path));
        }
        command
            .envs([("RABBITMQ_CONF_ENV_FILE", "/dev/null"), ("RABBITMQ_LOGS", "-")])
            .env("RABBITMQ_NODENAME", format!("{}@localhost", self.member.name()))
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
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
}

impl Broker for Rabbitmq {
    fn configure(&self, folder: &Path, conf: &[String]) -> Result<()> {
        for name in ["home", "mnesia"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let cookie = folder.join("home/.erlang.cookie");
        fs::write(&cookie, "private-test-node")?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        Certificates::create(&folder.join("tls"))?;
        fs::write(folder.join("rabbitmq.conf"), self.configuration(folder, conf))?;
        fs::write(folder.join("enabled_plugins"), "[rabbitmq_management].\n")?;
        // The consumer time-out is looked at in every tick, by default once a minute. This one has no name in
        // rabbitmq.conf.
        fs::write(folder.join("advanced.config"), "[{rabbit, [{channel_tick_interval, 1000}]}].\n")?;
        Ok(())
    }

    fn spawn(&mut self, folder: &Path) -> Result<Process> {
        self.start_name_service(folder)?;
        self.spawn_broker(folder)
    }

    fn helper(&self) -> Option<Process> {
        self.epmd
    }

    fn is_ready(&self, _log: &str) -> bool {
        let Ports { amqp, management, .. } = self.ports;
        speaks_amqp(amqp) && http::get(management, "/api/overview").is_ok()
    }

    fn endpoint(&self) -> String {
        format!("amqp://127.0.0.1:{}", self.ports.amqp)
    }

    fn administrator(&self) -> (&'static str, &'static str) {
        ("guest", "guest")
    }

    fn environment(&self, folder: &Path) -> Result<Vec<(&'static str, String)>> {
        let Ports { amqps, management, .. } = self.ports;
        let certificates = Certificates::at(&folder.join("tls"));
        let path = |path: &Path| path.display().to_string();
        let mut environment = vec![
            ("ESM_TEST_RABBITMQ_URL", self.endpoint()),
            ("ESM_TEST_RABBITMQ_TLS_URL", format!("amqps://localhost:{amqps}")),
            ("ESM_TEST_RABBITMQ_MANAGEMENT_URL", format!("http://127.0.0.1:{management}")),
            ("ESM_TEST_RABBITMQ_CA_FILE", path(&certificates.ca)),
            ("ESM_TEST_RABBITMQ_CLIENT_CERT_FILE", path(&certificates.client)),
            ("ESM_TEST_RABBITMQ_CLIENT_KEY_FILE", path(&certificates.client_key)),
            ("ESM_TEST_RABBITMQ_DIR", path(folder)),
        ];
        // For tests that start nodes of their own.
        environment.extend(self.release.map(|release| ("ESM_TEST_RABBITMQ_RELEASE", release.name().to_owned())));
        Ok(environment)
    }

    fn log_name(&self) -> &'static str {
        "rabbitmq.log"
    }

    fn mark_of_errors(&self) -> &'static str {
        "[error]"
    }

    fn complaint_about_a_port(&self) -> &'static str {
        "eaddrinuse"
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

/// A broker answers the protocol header with `Connection.Start`, a method frame: its first byte is 1. An open
/// port alone says little, since it opens before the node is ready.
fn speaks_amqp(port: u16) -> bool {
    engine::first_answer(port, b"AMQP\x00\x00\x09\x01").is_ok_and(|[first]| first == 1)
}
