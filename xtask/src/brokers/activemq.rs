//! ActiveMQ, from the jars of Debian's package, run by Java directly: Debian's own start script insists on the
//! user `activemq`.

mod configuration;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use self::configuration::Choices;
use super::certificates::Certificates;
use super::engine::{self, Broker, Settings};
use super::node::log_file;
use crate::java;
use crate::ports;
use crate::process::{self, Process};

/// What protects the stores of keys inside a node's own folder.
const STORE_PASSWORD: &str = "changeit";

#[derive(Serialize, Deserialize)]
pub(crate) struct Activemq {
    ports: Ports,
    /// The store stands in the folder above: it is that of the node whose standby this is.
    shares_store: bool,
    /// Made to run long rather than to start soon.
    measured: bool,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Ports {
    openwire: u16,
    tls: u16,
    stomp: u16,
}

impl Activemq {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        // A mistake is told before anything is created.
        Choices::parse(&settings.conf)?;
        let [openwire, tls, stomp] = ports::free()?;
        let Settings { shares_store, measured, .. } = *settings;
        Ok(Self { ports: Ports { openwire, tls, stomp }, shares_store, measured })
    }

    /// Where it speaks STOMP, which needs no login.
    pub(crate) fn stomp_port(&self) -> u16 {
        self.ports.stomp
    }

    /// The first two compilers only, and one thread that collects garbage, halve the time of the start.
    fn machine_options(&self) -> &'static [&'static str] {
        if self.measured { &["-Xms1g", "-Xmx1g"] } else { &["-Xmx512m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"] }
    }
}

impl Broker for Activemq {
    fn configure(&self, folder: &Path, conf: &[String]) -> Result<()> {
        let tls = folder.join("tls");
        Certificates::create(&tls)?;
        keep(&tls, "server")?;
        // Java trusts what has a key just as well, and openssl can write that.
        keep(&tls, "ca")?;
        let temporary = folder.join("tmp");
        fs::create_dir_all(&temporary).with_context(|| format!("cannot create {}", temporary.display()))?;
        let store = if self.shares_store { "../kahadb" } else { "kahadb" };
        let text = configuration::text(self.ports, store, &Choices::parse(conf)?);
        Ok(fs::write(folder.join("activemq.xml"), text)?)
    }

    fn spawn(&mut self, folder: &Path) -> Result<Process> {
        let log = log_file(folder, self.log_name())?;
        let mut command = Command::new("java");
        // Names of files are short and relative: a folder's name may hold what means something in XML or a URL.
        command.current_dir(folder).env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
        command.env("LANG", "C.UTF-8").args(self.machine_options()).args(["-XX:-UsePerfData", "-cp", &java::jars()]);
        for property in [
            "java.io.tmpdir=tmp",
            "user.home=.",
            "activemq.home=.",
            "activemq.base=.",
            "activemq.conf=.",
            "activemq.data=data",
            "org.slf4j.simpleLogger.showDateTime=true",
            "org.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        ] {
            command.arg(format!("-D{property}"));
        }
        command.args(["org.apache.activemq.console.Main", "start", "xbean:activemq.xml"]);
        process::spawn_detached(command.stdout(log.try_clone()?).stderr(log))
    }

    fn helper(&self) -> Option<Process> {
        None
    }

    /// A node that finds its store locked opens no port before the lock is free.
    fn is_ready(&self, log: &str) -> bool {
        speaks_openwire(self.ports.openwire) || log.contains("waiting a lock to be acquired")
    }

    fn endpoint(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.ports.openwire)
    }

    fn administrator(&self) -> (&'static str, &'static str) {
        ("admin", "admin")
    }

    fn environment(&self, folder: &Path) -> Result<Vec<(&'static str, String)>> {
        let certificates = Certificates::at(&folder.join("tls"));
        let path = |path: &Path| path.display().to_string();
        Ok(vec![
            ("ESM_TEST_ACTIVEMQ_URL", self.endpoint()),
            ("ESM_TEST_ACTIVEMQ_TLS_URL", format!("ssl://localhost:{}", self.ports.tls)),
            ("ESM_TEST_ACTIVEMQ_STOMP_URL", format!("stomp://127.0.0.1:{}", self.ports.stomp)),
            ("ESM_TEST_ACTIVEMQ_CA_FILE", path(&certificates.ca)),
            ("ESM_TEST_ACTIVEMQ_CLIENT_CERT_FILE", path(&certificates.client)),
            ("ESM_TEST_ACTIVEMQ_CLIENT_KEY_FILE", path(&certificates.client_key)),
            ("ESM_TEST_ACTIVEMQ_CLASSPATH", java::classpath()?),
            ("ESM_TEST_ACTIVEMQ_DIR", path(folder)),
        ])
    }

    fn log_name(&self) -> &'static str {
        "activemq.log"
    }

    fn mark_of_errors(&self) -> &'static str {
        "ERROR"
    }

    fn complaint_about_a_port(&self) -> &'static str {
        "Address already in use"
    }
}

/// Puts a certificate and its key into a store that Java reads.
fn keep(folder: &Path, name: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(["pkcs12", "-export", "-name", name]);
    command.args(["-in", &format!("{name}.pem"), "-inkey", &format!("{name}.key")]);
    command.args(["-out", &format!("{name}.p12"), "-passout", &format!("pass:{STORE_PASSWORD}")]);
    process::output(&mut command).map(drop)
}

/// A broker greets whoever connects with its `WireFormatInfo`: after four bytes of length and one of type comes
/// the name of the protocol's home. An open port alone says little, since it opens before the broker is ready.
fn speaks_openwire(port: u16) -> bool {
    engine::first_answer::<13>(port, b"").is_ok_and(|greeting| greeting.ends_with(b"ActiveMQ"))
}
