//! Private brokers on loopback, for tests, demonstrations and benchmarks.
//!
//! A node lives in one folder, needs no service manager and nothing under `/etc` or `/var`, and any user can
//! run several at once. Standard output carries the environment only, so a shell can read it:
//! `eval "$(cargo xtask brokers up)"`.

mod activemq;
mod certificates;
mod engine;
mod node;
mod rabbitmq;
mod release;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use engine::Company;
pub(crate) use engine::{Kind, Settings};
pub(crate) use node::{Node, PrivateNode, Source};
pub(crate) use release::Release;

use crate::packages;
use crate::process::Process;
use crate::workspace;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start a node and print the environment that tests read
    Up {
        #[command(flatten)]
        place: Place,
        /// RabbitMQ: a further line of rabbitmq.conf. ActiveMQ: KEY=VALUE with one of the keys broker (an attribute
        /// of the broker), policy (a policyEntry instead of ours), plugin (its element), connector (an option of
        /// the OpenWire connectors), tls (an option of the one over TLS). May be given several times
        #[arg(long = "conf", value_name = "LINE")]
        conf: Vec<String>,
        /// ActiveMQ: also start a standby on the same store, as the node `standby` inside this one's folder
        #[arg(long)]
        standby: bool,
        /// RabbitMQ: a cluster of three, the others as the nodes `second` and `third` inside this one's folder
        #[arg(long, conflicts_with = "standby")]
        cluster: bool,
        /// RabbitMQ of this release instead of the system's own; installs it when it is not there, which takes root
        #[arg(long, value_name = "RELEASE")]
        rabbitmq: Option<Release>,
        /// End the node when this process is gone
        #[arg(long, value_name = "PID")]
        parent_pid: Option<u32>,
    },
    /// Print the environment of a node that is up
    Env(Place),
    /// Start a stopped or killed node again, on its data and its ports
    Start(Place),
    /// Stop a node in good order; its data stays
    Stop(Place),
    /// Kill a node as a power cut would; its data stays
    Kill(Place),
    /// Let a node hang: it does nothing, and its connections stay open
    #[command(hide = true)]
    Pause(Place),
    /// Let it go on
    #[command(hide = true)]
    Resume(Place),
    /// End a node and remove its folder
    Down(Place),
    /// Wait for a process to end, then end a node
    #[command(hide = true)]
    Watch {
        #[command(flatten)]
        place: Place,
        /// The process to wait for
        #[arg(long, value_name = "PID")]
        parent_pid: u32,
    },
}

#[derive(Args)]
pub(crate) struct Place {
    /// Which one; a folder that holds a node says so itself
    #[arg(default_value = "rabbitmq")]
    kind: Kind,
    /// The node's folder [default: brokers/KIND in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Place {
    fn folder(&self) -> Result<PathBuf> {
        let folder = match &self.dir {
            Some(dir) => dir.clone(),
            None => workspace::target_dir()?.join("brokers").join(self.kind.name()),
        };
        std::path::absolute(&folder).with_context(|| format!("cannot use the folder {}", folder.display()))
    }

    fn node(&self) -> Result<Node> {
        Node::open(&self.folder()?)
    }
}

pub(crate) fn run(command: Command) -> Result<()> {
    match command {
        Command::Up { place, conf, standby, cluster, rabbitmq, parent_pid } => {
            let company = match (standby, cluster) {
                (true, _) => Company::Standby,
                (_, true) => Company::Cluster,
                _ => Company::Alone,
            };
            let settings = Settings { conf, parent_pid, company, release: rabbitmq, ..Settings::of(place.kind) };
            up(&place.folder()?, &settings)
        }
        Command::Env(place) => print_environment(&place.node()?),
        Command::Start(place) => start(place.node()?),
        Command::Stop(place) => place.node()?.stop(),
        Command::Kill(place) => place.node()?.kill(),
        Command::Pause(place) => place.node()?.pause(),
        Command::Resume(place) => place.node()?.resume(),
        Command::Down(place) => place.node()?.down(),
        Command::Watch { place, parent_pid } => watch(&place.folder()?, parent_pid),
    }
}

fn up(folder: &Path, settings: &Settings) -> Result<()> {
    packages::ensure(settings.kind.packages())?;
    settings.release.map_or(Ok(()), Release::ensure_installed)?;
    let node = match Node::open(folder) {
        Ok(node) if node.is_running() => {
            eprintln!("this node is up already");
            node
        }
        _ => Node::up(folder, settings)?,
    };
    print_environment(&node)
}

fn start(mut node: Node) -> Result<()> {
    node.start()?;
    print_environment(&node)
}

fn print_environment(node: &Node) -> Result<()> {
    print!("{}", node.exports()?);
    Ok(())
}

fn watch(folder: &Path, parent_pid: u32) -> Result<()> {
    if let Some(parent) = Process::find(parent_pid) {
        parent.wait_for_end()?;
    }
    // Whoever waited for may have ended the node in good order.
    match Node::open(folder) {
        Ok(node) => node.down(),
        Err(_) => Ok(()),
    }
}
