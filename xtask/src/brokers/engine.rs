//! Which broker a node is, and what each of them does in its own way.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::activemq::Activemq;
use super::rabbitmq::Rabbitmq;
use super::release::Release;
use crate::packages::{self, Need};
use crate::process::Process;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    #[default]
    Rabbitmq,
    Activemq,
}

impl Kind {
    /// As `esm`'s configuration names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rabbitmq => "rabbitmq",
            Self::Activemq => "activemq",
        }
    }

    /// As people write it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Rabbitmq => "RabbitMQ",
            Self::Activemq => "ActiveMQ",
        }
    }

    /// What a node of this kind runs on.
    pub(crate) fn packages(self) -> &'static [Need] {
        match self {
            Self::Rabbitmq => &packages::RABBITMQ,
            Self::Activemq => &packages::ACTIVEMQ,
        }
    }
}

/// Which further nodes a node has beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Company {
    #[default]
    Alone,
    /// A second node on the same store takes over when this one is gone. ActiveMQ only.
    Standby,
    /// Two further nodes form a cluster with this one. RabbitMQ only.
    Cluster,
}

/// What the person who starts a node may choose.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) kind: Kind,
    /// RabbitMQ: further lines of `rabbitmq.conf`. ActiveMQ: `KEY=VALUE`, as [`Activemq`] knows them.
    pub(crate) conf: Vec<String>,
    /// The node ends when this process does.
    pub(crate) parent_pid: Option<u32>,
    pub(crate) company: Company,
    /// Instead of the system's own package. RabbitMQ only.
    pub(crate) release: Option<Release>,
    /// This node is that second one.
    pub(super) shares_store: bool,
    /// Made to run long rather than to start soon.
    pub(super) measured: bool,
}

impl Settings {
    pub(crate) fn of(kind: Kind) -> Self {
        Self { kind, ..Self::default() }
    }

    /// For a RabbitMQ that is not the system's own.
    pub(crate) fn of_release(release: Release) -> Self {
        Self { release: Some(release), ..Self::of(Kind::Rabbitmq) }
    }

    /// For a node whose work is measured.
    pub(crate) fn to_measure(kind: Kind) -> Self {
        Self { kind, measured: true, ..Self::default() }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "engine", rename_all = "lowercase")]
pub(super) enum Engine {
    Rabbitmq(Rabbitmq),
    Activemq(Activemq),
}

impl Engine {
    /// With ports that are free at this moment.
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        match settings.kind {
            Kind::Rabbitmq => {
                ensure!(settings.company != Company::Standby, "only an ActiveMQ can have a standby here");
                Ok(Self::Rabbitmq(Rabbitmq::new(settings)?))
            }
            Kind::Activemq => {
                ensure!(settings.company != Company::Cluster, "only a RabbitMQ can have a cluster here");
                ensure!(settings.release.is_none(), "an ActiveMQ is of no release of RabbitMQ");
                Ok(Self::Activemq(Activemq::new(settings)?))
            }
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Rabbitmq(_) => Kind::Rabbitmq,
            Self::Activemq(_) => Kind::Activemq,
        }
    }

    pub(super) fn broker(&self) -> &dyn Broker {
        match self {
            Self::Rabbitmq(rabbitmq) => rabbitmq,
            Self::Activemq(activemq) => activemq,
        }
    }

    pub(super) fn broker_mut(&mut self) -> &mut dyn Broker {
        match self {
            Self::Rabbitmq(rabbitmq) => rabbitmq,
            Self::Activemq(activemq) => activemq,
        }
    }
}

/// What a node asks of its broker. The folder is always the node's.
pub(super) trait Broker {
    /// Writes what the broker reads when it starts.
    fn configure(&self, folder: &Path, conf: &[String]) -> Result<()>;

    /// Starts the broker on whatever data it has, with what it needs beside it.
    fn spawn(&mut self, folder: &Path) -> Result<Process>;

    /// A process that outlives the broker and must be ended with the node.
    fn helper(&self) -> Option<Process>;

    /// Whether it can be used, or waits to take over; `log` is what it has said since it was started.
    fn is_ready(&self, log: &str) -> bool;

    /// Where `esm` reads it, as its configuration wants it.
    fn endpoint(&self) -> String;

    /// Who may do everything: a name and a password.
    fn administrator(&self) -> (&'static str, &'static str);

    /// What tests read to find it.
    fn environment(&self, folder: &Path) -> Result<Vec<(&'static str, String)>>;

    /// Its log's name in the folder `log`.
    fn log_name(&self) -> &'static str;

    /// What the lines of its log have that tell of errors.
    fn mark_of_errors(&self) -> &'static str;

    /// What its log holds when a port was taken.
    fn complaint_about_a_port(&self) -> &'static str;
}

/// The first bytes that a server on loopback sends to somebody who says this.
pub(super) fn first_answer<const N: usize>(port: u16, words: &[u8]) -> io::Result<[u8; N]> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(words)?;
    let mut first = [0; N];
    stream.read_exact(&mut first)?;
    Ok(first)
}
