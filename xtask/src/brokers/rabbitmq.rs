//! RabbitMQ: needs no service manager and nothing under `/etc` or `/var`.

use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::certificates::Certificates;
use super::node::lines;
use crate::http;
use crate::ports;
use crate::process::{self, Process};
use crate::wait;

/// Not the one in `/usr/sbin`: Debian's wrapper there insists on the user `rabbitmq`.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) amqp: u16,
    pub(crate) amqps: u16,
    pub(crate) management: u16,
    distribution: u16,
    epmd: u16,
}

impl Ports {
    pub(super) fn free() -> Result<Self> {
        let [amqp, amqps, management, distribution, epmd] = ports::free()?;
        Ok(Self { amqp, amqps, management, distribution, epmd })
    }
}

/// What tests read to find the node.
pub(super) fn environment(folder: &Path, ports: Ports) -> Vec<(&'static str, String)> {
        let Ports { amqp, amqps, management, .. } = ports;
        let certificates = Certificates::at(&folder.join("tls"));
        let path = |path: &Path| path.display().to_string();
        vec![
            ("ESM_TEST_RABBITMQ_URL", format!("amqp://127.0.0.1:{amqp}")),
            ("ESM_TEST_RABBITMQ_TLS_URL", format!("amqps://localhost:{amqps}")),
            ("ESM_TEST_RABBITMQ_MANAGEMENT_URL", format!("http://127.0.0.1:{management}")),
            ("ESM_TEST_RABBITMQ_CA_FILE", path(&certificates.ca)),
            ("ESM_TEST_RABBITMQ_CLIENT_CERT_FILE", path(&certificates.client)),
            ("ESM_TEST_RABBITMQ_CLIENT_KEY_FILE", path(&certificates.client_key)),
            ("ESM_TEST_RABBITMQ_DIR", path(folder)),
        ]
}

pub(super) fn configure(folder: &Path, ports: Ports, further: &[String]) -> Result<()> {
    for name in ["home", "mnesia"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let cookie = folder.join("home/.erlang.cookie");
    fs::write(&cookie, "private-test-node")?;
    fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
    Certificates::create(&folder.join("tls"))?;
    fs::write(folder.join("rabbitmq.conf"), configuration(folder, ports, further))?;
    fs::write(folder.join("enabled_plugins"), "[rabbitmq_management].\n")?;
    // The consumer time-out is looked at in every tick, by default once a minute. This one has no name in
    // rabbitmq.conf.
    fs::write(folder.join("advanced.config"), "[{rabbit, [{channel_tick_interval, 1000}]}].\n")?;
    Ok(())
}

fn configuration(folder: &Path, ports: Ports, further: &[String]) -> String {
    let Ports { amqp, amqps, management, .. } = ports;
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
    lines(own.into_iter().chain(further.iter().cloned()))
}

pub(super) fn spawn_epmd(ports: Ports, log: File, limit: Duration) -> Result<Process> {
    let port = ports.epmd;
    let mut command = Command::new("epmd");
    command.args(["-port", &port.to_string(), "-address", "127.0.0.1", "-relaxed_command_check"]);
    let epmd = process::spawn_detached(command.stdout(log.try_clone()?).stderr(log))?;
    wait::until("epmd to answer", limit, || {
        ensure!(epmd.is_alive(), "epmd ended; somebody may have taken port {port}");
        Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok())
    })?;
    Ok(epmd)
}

pub(super) fn spawn_broker(folder: &Path, ports: Ports, log: File) -> Result<Process> {
    let Ports { distribution, epmd, .. } = ports;
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
        command.env(name, folder.join(path));
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

/// It speaks AMQP, and its management answers.
pub(super) fn answers(ports: Ports) -> bool {
    speaks_amqp(ports.amqp) && http::get(ports.management, "/api/overview").is_ok()
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
